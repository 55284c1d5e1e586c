"""``clipstep demo``: run the commands from the network that ships with clipstep to verified artifacts and their latency, one after the other."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from clipstep.runtime.command_line.cli import group
from clipstep.runtime.command_line.options import OutputFolder, command
from clipstep.runtime.filesystem.locking import write_lock

HERE = Path(__file__).parent
DATA, NETWORK = HERE / "fight", HERE / "network"
SPLIT = "2"
"""The split whose lists name all 62 test clips; those of split 1 name only 8 of them."""
CLIP = DATA / "videos/Fight/v_Fight_g16_c01.mp4"
"""A test clip whose class the network predicts correctly."""
FINE_TUNE = "--max-steps 8 --batch-size 8 --learning-rate 0.0001 --ema 0.9 --flip --validation 0"


@dataclass(frozen=True)
class Stage:
    """A command of the demo. ``makes`` is a file that it writes; if that exists already, the command is skipped."""

    arguments: tuple[str, ...]
    makes: Path | None = None


def stages(out: Path) -> list[Stage]:
    """Return the demo's commands, which write into the folder ``out``."""
    data, network, clip = map(_relative_here, (DATA, NETWORK, CLIP))
    run, bundle, records = out / "run", out / "fight.clipstep", out / "records.jsonl"
    return [
        Stage(("train", data, "--split", SPLIT, "--init", network, "--out", str(run), *FINE_TUNE.split()), run / "run.json"),
        Stage(("export", str(run), "--out", str(bundle)), bundle / "manifest.json"),
        Stage(("verify", str(bundle))),
        Stage(("run", str(bundle), clip)),
        Stage(("evaluate", str(bundle), data, "--split", SPLIT, "--record")),
        Stage(("bench", str(bundle), "--run", str(run), "--threads", "1", "--out", str(records)), records),
        Stage(("report", str(bundle), str(records))),
    ]


def _relative_here(path: Path) -> str:
    """Return the path relative to the current folder if it lies inside it, as in a checkout, so that the output and the bundle name no folders of
    this machine."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@command("demo", loads=["clipstep.training.train", "clipstep.export.pipeline", "clipstep.benchmarks.latency"])
@click.option("--out", type=OutputFolder(), default=Path("runs/demo"), show_default=True, help="Folder for the run, the bundle and the records.")
def demo_command(out: Path) -> None:
    """Fine-tune the small network that ships with clipstep, export, verify, run, evaluate and measure it: some minutes on two cores.

    Each command is printed before it runs. What an earlier demo finished in --out is kept and not done again.
    """
    click.get_current_context().with_resource(write_lock(out))
    for stage in stages(out):
        click.echo(f"\n$ {shlex.join(('clipstep', *stage.arguments))}")
        if stage.makes is not None and stage.makes.exists():
            click.echo(f"{stage.makes} is there already")
        else:
            group.main(list(stage.arguments), prog_name="clipstep", standalone_mode=False)
