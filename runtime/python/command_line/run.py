"""`clipstep run`: run a bundle on a video, print the likeliest classes after each subclip, and write files of them."""

from collections.abc import Sequence
from pathlib import Path

import click

from clipstep.runtime.bundle import open_for_command
from clipstep.runtime.bundle.artifacts import PRECISIONS
from clipstep.runtime.command_line.options import OutputFile, command, signer_option
from clipstep.runtime.command_line.run_lines import line_of, note, say
from clipstep.runtime.command_line.run_progress import duration_of, progress_bar
from clipstep.runtime.command_line.terminal import print_json
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.json_lines import values_of
from clipstep.runtime.outputs.output import Source
from clipstep.runtime.outputs.saving import FORMATS, check_files, format_of, saving
from clipstep.runtime.video_predictions import predictions, source_of
from clipstep.runtime.wording import either


@command(
    "run",
    groups={
        "Files to write": ("csv", "jsonl", "plot", "save", "force"),
        "The video": ("every_frame", "partial", "workers"),
        "The model": ("engine", "threads", "precision", "signer"),
    },
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--engine", default="onnxruntime", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--threads", default=1, show_default=True)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help=f"Which artifact of the bundle, {either(PRECISIONS)}; on a processor that does not compute in float16 it is that of float32.",
)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes to print.")
@click.option(
    "--every-frame",
    is_flag=True,
    help="Take every frame once, whatever the video's rate is. Otherwise frames are left out or repeated to keep the bundle's rate, as in training.",
)
@click.option("--partial", is_flag=True, help="Take what a damaged video gives before the damage, and say on standard error where it ends.")
@signer_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each prediction, and nothing else on standard output.")
@click.option("--csv", type=OutputFile(), help="Write a table: a row for each prediction, a column for each class.")
@click.option("--jsonl", type=OutputFile(), help="Write what --json prints.")
@click.option("--plot", type=OutputFile(), help="Write a PNG: the probabilities over time.")
@click.option(
    "--save",
    type=OutputFile(),
    multiple=True,
    help=f"Write a file by its suffix, {either(list(FORMATS))}: subtitles, the video with its predictions drawn over it, or one of the above.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--workers", type=click.IntRange(1), help="How many videos of a folder to run at a time; by default as many as there are cores.")
def run_command(
    bundle: Path,
    video: Path,
    engine: str,
    threads: int,
    precision: str,
    top: int,
    every_frame: bool,
    partial: bool,
    signer: Path | None,
    as_json: bool,
    csv: Path | None,
    jsonl: Path | None,
    plot: Path | None,
    save: tuple[Path, ...],
    force: bool,
    workers: int | None,
) -> None:
    """Run BUNDLE on VIDEO and print the likeliest classes after each subclip, and at the end of the video if they come late.

    VIDEO may be a folder: all videos in it are run, and the last prediction for each of them is printed.
    """
    given = ((csv, ".csv"), (jsonl, ".jsonl"), (plot, ".png"), *((path, format_of(path)) for path in save))
    files = [(path, kind) for path, kind in given if path is not None]
    is_folder = video.is_dir()
    _check(files, video, force=force)
    if workers is not None and not is_folder:
        raise ClipstepError("--workers does nothing for one video", fix="leave it out, or name a folder of videos")
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer, lazily=True))
    with StepModel.load(opened, engine, threads, isolated=True, precision=precision) as model:
        source = source_of(model, video, top, str(bundle))
        if not as_json:
            say(model.description)
        if not is_folder:
            _run_video(model, source, files, every_frame=every_frame, partial=partial, force=force, as_json=as_json)
            return
    from clipstep.runtime.command_line.run_folder import Job, run_folder

    run_folder(Job(bundle, engine, threads, precision, signer, every_frame, partial), source, files, workers, as_json=as_json)


def _check(files: Sequence[tuple[Path, str]], video: Path, *, force: bool) -> None:
    """Check what files are to be written, before any work."""
    if force and not files:
        raise ClipstepError("--force does nothing without a file to write", fix="add --csv, --jsonl, --plot or --save, or leave --force out")
    for path, kind in files:
        if kind == ".png" and path.suffix.lower() != kind:
            raise ClipstepError(f"{path}: unknown format of a plot", expected=f"a name that ends in {kind}")
        if video.is_dir() and kind not in (".csv", ".jsonl"):
            raise ClipstepError(f"{path}: is written for one video only", got=f"the folder {video}", expected="--csv or --jsonl")
    check_files(files, video, force=force)


def _run_video(
    model: StepModel, source: Source, files: Sequence[tuple[Path, str]], *, every_frame: bool, partial: bool, force: bool, as_json: bool
) -> None:
    total = duration_of(source.video)
    with saving(files, source, force=force) as outputs, progress_bar(total, "s", shown=not as_json) as advance:
        read = predictions(
            model, source.video, outputs, every_frame=every_frame, partial=partial, note=note, watch=lambda seconds: advance(seconds, seconds)
        )
        for said in read:
            if as_json:
                print_json(values_of(said, source.top), indent=None)
            else:
                say(line_of(said, source.top))
