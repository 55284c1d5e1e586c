"""`clipstep run`: run a bundle on a video, print the likeliest classes after each subclip, and write files of them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipstep.runtime.command_line.options import OutputFile, command, signer_option
from clipstep.runtime.engines import ENGINES, engine_info
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import CAMERA, URL, check_readable
from clipstep.runtime.outputs.saving import FORMATS, check_files, format_of
from clipstep.runtime.precision import PRECISIONS
from clipstep.runtime.wording import either, without_secrets
from clipstep.runtime.worker_process import WorkerProcess

if TYPE_CHECKING:
    from clipstep.runtime.live import LiveVideo


@command(
    "run",
    groups={
        "Files to write": ("csv", "jsonl", "plot", "save", "force"),
        "The video": ("every_frame", "partial", "workers"),
        "Live video": ("url", "reconnect", "duration"),
        "The model": ("engine", "threads", "precision", "signer"),
    },
    needs=[("reconnect", "url")],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", required=False)
@click.option("--engine", default="onnxruntime", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--threads", default=1, show_default=True)
@click.option(
    "--precision",
    help=f"Which artifact of the bundle, {either(PRECISIONS)}; on a processor that does not compute in float16 it is that of float32. "
    "[default: the one that clipstep export --tune chose for this processor, otherwise float32]",
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
@click.option(
    "--show", is_flag=True, help="Show the video with its predictions in a window meanwhile, at its own speed; q closes it and ends the run."
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option(
    "--url", help="Read a stream, or a file on a server, in place of VIDEO: an address that begins with rtsp://, rtsps://, http:// or https://."
)
@click.option("--reconnect", type=click.FloatRange(0), help="For how many seconds to try again after --url was lost; by default 30.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="End a camera or --url after so many seconds; otherwise Ctrl-C ends it.")
@click.option("--workers", type=click.IntRange(1), help="How many videos of a folder to run at a time; by default as many as there are cores.")
def run_command(
    bundle: Path,
    video: str | None,
    engine: str,
    threads: int,
    precision: str | None,
    top: int,
    every_frame: bool,
    partial: bool,
    signer: Path | None,
    as_json: bool,
    csv: Path | None,
    jsonl: Path | None,
    plot: Path | None,
    save: tuple[Path, ...],
    show: bool,
    force: bool,
    url: str | None,
    reconnect: float | None,
    duration: float | None,
    workers: int | None,
) -> None:
    """Run BUNDLE on VIDEO and print the likeliest classes after each subclip, and at the end of the video if they come late.

    VIDEO may be a folder: all videos in it are run, and the last prediction for each of them is printed. `camera:0` is the first camera of this
    computer, `camera:NAME` one by its name.
    """
    given = ((csv, ".csv"), (jsonl, ".jsonl"), (plot, ".png"), *((path, format_of(path)) for path in save))
    files = [(path, kind) for path, kind in given if path is not None]
    shown = _shown(video, url, reconnect, duration)
    is_folder = isinstance(shown, Path) and shown.is_dir()
    if not isinstance(shown, Path):
        for option, value in (("--every-frame", every_frame), ("--partial", partial), ("--workers", workers)):
            if value:
                raise ClipstepError(f"{option} does nothing for live video", got=shown.name, fix="leave it out")
    elif workers is not None and not is_folder:
        raise ClipstepError("--workers does nothing for one video", fix="leave it out, or name a folder of videos")
    if show and is_folder:
        raise ClipstepError("--show shows one video", got=f"the folder {shown}", fix="leave it out, or name a video")
    _check(files, shown if isinstance(shown, Path) else None, force=force)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # Starting numpy's own threads takes a tenth of a second, and nothing here needs them.
    info, until_end = engine_info(engine), click.get_current_context().with_resource
    # The process imports its engine while this one imports what reads a bundle, and loads the model while this one imports what reads a video.
    with ThreadPoolExecutor(1) as thread, WorkerProcess(["clipstep.runtime.engines", info.module]) as process:
        from clipstep.runtime.bundle import open_for_command
        from clipstep.runtime.isolated_engine import artifact_for, checked_file, load_isolated

        opened = until_end(open_for_command(bundle, signer, lazily=True))
        loading = thread.submit(load_isolated, checked_file(opened, artifact_for(opened, info.target, precision)[0]), engine, threads, worker=process)

        from clipstep.runtime.command_line.run_lines import say
        from clipstep.runtime.command_line.run_live import run_live
        from clipstep.runtime.command_line.run_video import run_video
        from clipstep.runtime.model import StepModel
        from clipstep.runtime.outputs.saving import window
        from clipstep.runtime.video_predictions import source_of

        windows = [until_end(window(f"{shown.name} - clipstep", top, live=not isinstance(shown, Path)))] if show else []
        with StepModel.load(opened, engine, threads, isolated=loading.result(), precision=precision) as model:
            source = source_of(model, shown, top, str(bundle))
            if not as_json:
                say(model.description)
            if not isinstance(shown, Path):
                run_live(model, shown, source, files, windows, force=force, as_json=as_json)
                return
            if not is_folder:
                run_video(model, shown, source, files, windows, every_frame=every_frame, partial=partial, force=force, as_json=as_json)
                return
    from clipstep.runtime.command_line.run_folder import Job, run_folder

    run_folder(Job(bundle, engine, threads, precision, signer, every_frame, partial), shown, source, files, workers, as_json=as_json)


def _shown(video: str | None, url: str | None, reconnect: float | None, duration: float | None) -> "Path | LiveVideo":
    """Return what is to be run: a file or a folder, a camera, or what is at an address."""
    if (url is None) == (video is None):
        raise ClipstepError("name one video", got="VIDEO and --url" if url else "none", expected="VIDEO, camera:0, or --url ADDRESS")
    if video is None or video.startswith(CAMERA):
        from clipstep.runtime.live import LiveVideo

        if video is None:
            return LiveVideo.url(str(url), duration=duration, **({} if reconnect is None else {"reconnect": reconnect}))
        return LiveVideo.camera(video.removeprefix(CAMERA), duration=duration)
    path = Path(video)
    if URL.match(video) and not path.exists():
        raise ClipstepError(
            f"{without_secrets(video)}: is an address", expected="a file, a folder or camera:0", fix="addresses are read only with --url"
        )
    check_readable(path)
    if duration is not None:
        raise ClipstepError("--duration does nothing for a file", fix="leave it out, or name camera:0 or --url")
    return path


def _check(files: Sequence[tuple[Path, str]], video: Path | None, *, force: bool) -> None:
    """Check what files are to be written, before any work."""
    if force and not files:
        raise ClipstepError("--force does nothing without a file to write", fix="add --csv, --jsonl, --plot or --save, or leave --force out")
    for path, kind in files:
        if kind == ".png" and path.suffix.lower() != kind:
            raise ClipstepError(f"{path}: unknown format of a plot", expected=f"a name that ends in {kind}")
        if video is not None and video.is_dir() and kind not in (".csv", ".jsonl"):
            raise ClipstepError(f"{path}: is written for one video only", got=f"the folder {video}", expected="--csv or --jsonl")
    check_files(files, video, force=force)
