"""``clipstep run``: a video through a bundle, its top-k as the video goes on."""

from pathlib import Path

import click

from clipstep.runtime.bundle import opened_for
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.model import StepModel
from clipstep.runtime.options import command
from clipstep.runtime.terminal import quiet_stderr
from clipstep.runtime.video import VideoError, frame_rate, read_frames


@command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--engine", default="onnxruntime", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--threads", default=1, show_default=True)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes to print.")
def run_command(bundle: Path, video: Path, engine: str, threads: int, top: int) -> None:
    """Stream VIDEO through BUNDLE and print the likeliest classes after each subclip."""
    opened = click.get_current_context().with_resource(opened_for(bundle, lazily=True))
    with quiet_stderr():
        loaded = StepModel.load(opened, engine, threads)
    with loaded as model:
        click.echo(model.description)
        stream = model.stream()
        frames = 0
        for frames, frame in enumerate(read_frames(video), 1):
            if frames == 1:
                rate = frame_rate(video)
            prediction = stream.push(frame)
            if prediction is not None:
                ranked = "  ".join(f"{label} {probability:.3f}" for label, probability in prediction.top(top))
                click.echo(f"{prediction.frames_seen / rate:7.2f} s  {ranked}")
        needed = (model.interface.input.shape[0] - 1) * model.interface.input.frame_stride + 1
        if frames < needed:
            raise VideoError(f"{video}: too short", got=f"{frames} frames", expected=f"at least {needed}", fix="use a longer video")
