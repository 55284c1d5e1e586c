"""``clipstep generate``: a data set in which only the order of the motion tells the classes apart."""

from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np
from rich.progress import track

from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_folder
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.training.data.doors import LABELS, background, draw_doors, gaps, random_doors
from clipstep.training.data.encode import write_video
from clipstep.training.data.lists import read_data_set

RATE = 25


def generate_command(backgrounds: Path, layout: str, out: Path, pairs: int, frames: int, size: int, seed: int) -> None:
    """``clipstep generate``, whose options are in cli.py."""
    click.get_current_context().with_resource(write_lock(out))
    if out.exists():
        raise ClipstepError(f"{out}: exists", expected="a new folder", fix="choose another --out")
    if size % 2:
        raise ClipstepError("H.264 needs an even size", got=size, fix=f"take {size + 1}")
    data, console = read_data_set(backgrounds, layout=layout, allow_leakage=True), new_console()
    tested = pairs // 4
    sources = [*islice(cycle(data.train), pairs - tested), *islice(cycle(data.test), tested)]
    with atomic_folder(out) as new:
        lists: dict[str, list[str]] = {"trainlist01.txt": [], "testlist01.txt": []}
        for name in LABELS:
            (new / "videos" / name).mkdir(parents=True)
        for index, source in enumerate(track(sources, "drawing", console=console, disable=not console.is_terminal, transient=True)):
            doors = random_doors(np.random.default_rng((seed, index)))
            behind = background(source.path, size, (doors.moving + 1) * frames, cut=source.cut)
            for label, name in enumerate(LABELS):
                file = f"{name}/v_{name}_g{index + 1:03d}_c01.mp4"
                drawn = [draw_doors(frame, doors, gap) for frame, gap in zip(behind, gaps(label, doors.moving, frames), strict=True)]
                write_video(new / "videos" / file, drawn, RATE)
                if index < pairs - tested:
                    lists["trainlist01.txt"].append(f"{file} {label + 1}")
                else:
                    lists["testlist01.txt"].append(file)
        lists["classInd.txt"] = [f"{number} {name}" for number, name in enumerate(LABELS, 1)]
        for name, lines in lists.items():
            (new / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    console.print(f"wrote {out}: {pairs - tested} pairs of videos to train on, {tested} to test on")
