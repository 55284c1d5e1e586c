"""`clipstep run`: run a bundle on a video and print the likeliest classes after each subclip."""

from pathlib import Path

import click

from clipstep.runtime.bundle import open_for_command
from clipstep.runtime.command_line.options import command, signer_option
from clipstep.runtime.command_line.terminal import print_json
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.resampler import SAME_RATE
from clipstep.runtime.stream import Prediction, Stream
from clipstep.runtime.video import LONGEST_PAUSE, DamagedVideoError, VideoError, frame_rate, read_timed_frames
from clipstep.runtime.wording import counted


@command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--engine", default="onnxruntime", show_default=True, help=f"One of {', '.join(ENGINES)}.")
@click.option("--threads", default=1, show_default=True)
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes to print.")
@click.option(
    "--every-frame",
    is_flag=True,
    help="Take every frame once, whatever the video's rate is. Otherwise frames are left out or repeated to keep the bundle's rate, as in training.",
)
@click.option("--partial", is_flag=True, help="Take what a damaged video gives before the damage, and say on standard error where it ends.")
@signer_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each prediction, and nothing else on standard output.")
def run_command(
    bundle: Path, video: Path, engine: str, threads: int, top: int, every_frame: bool, partial: bool, signer: Path | None, as_json: bool
) -> None:
    """Run BUNDLE on VIDEO and print the likeliest classes after each subclip, and at the end of the video if they come late."""
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer, lazily=True))
    with StepModel.load(opened, engine, threads, isolated=True) as model:
        stream = _stream(model, bundle)
        if not as_json:
            click.echo(model.description)
        fps = model.interface.input.fps
        frames = said = pauses = 0
        seconds = end = 0.0
        try:
            for frames, frame in enumerate(read_timed_frames(video, fps=None if every_frame else fps, size=model.interface.input.shape[1]), 1):
                if frames == 1:
                    rate = frame_rate(video)
                    _note_other_rate(video, rate, fps, every_frame=every_frame)
                pauses += frame.seconds - seconds > LONGEST_PAUSE
                seconds = frame.seconds
                end = seconds + 1 / (rate if every_frame else fps)
                said += _say(stream.push(frame.image), end, top, as_json)
        except DamagedVideoError as damage:
            if not partial:
                raise VideoError(f"{damage}, or add --partial to take what was read") from damage
            click.echo(f"note: {damage}", err=True)
        if pauses and not every_frame:
            click.echo(f"note: {video}: {counted(pauses, 'pause')} of more than {LONGEST_PAUSE:g} s, cut out", err=True)
        needed = model.interface.frames_needed
        whole = stream.flush()
        if not said and whole is None:
            raise VideoError(f"{video}: too short", got=f"{frames} frames", expected=f"at least {needed}", fix="use a longer video")
        if whole is not None and as_json:
            print_json(_values(whole, end, top, at_end=True), indent=None)
        elif whole is not None:
            click.echo("     end   " + _ranked(whole, top))


def _stream(model: StepModel, bundle: Path) -> Stream:
    spec = model.interface.input
    if not spec.takes_video:
        flow = "; clipstep evaluate computes the flow of videos" if spec.color == "flow" else ""
        raise ClipstepError(
            f"{bundle}: takes no video frames",
            got=f"a bundle for {spec.content}, {spec.frame_size} a frame",
            expected="one for RGB frames",
            fix=f"push them frame by frame in Python: StepModel.load(...).stream().push(frame){flow}",
        )
    return model.stream()


def _note_other_rate(video: Path, rate: float, wanted: float, *, every_frame: bool) -> None:
    """Say on standard error what becomes of a video whose rate is another than the model's."""
    if max(rate, wanted) > SAME_RATE * min(rate, wanted):
        taken = f"every one goes to a model for {wanted:.4g}" if every_frame else f"taken at {wanted:.4g}"
        click.echo(f"note: {video}: {rate:.4g} frames a second, {taken}", err=True)


def _values(prediction: Prediction, end: float, top: int, *, at_end: bool) -> dict[str, object]:
    """Return a prediction as `--json` prints it; `end` is where its last frame ends, in seconds."""
    ranked = [{"label": label, "probability": float(probability)} for label, probability in prediction.top(top)]
    return {"seconds": round(end, 6), "frames_seen": prediction.frames_seen, "at_end": at_end, "top": ranked}


def _say(prediction: Prediction | None, end: float, top: int, as_json: bool) -> bool:
    """Print a prediction, if there is one, and return whether there was."""
    if prediction is not None and as_json:
        print_json(_values(prediction, end, top, at_end=False), indent=None)
    elif prediction is not None:
        click.echo(f"{end:7.2f} s  {_ranked(prediction, top)}")
    return prediction is not None


def _ranked(prediction: Prediction, top: int) -> str:
    """Return the likeliest classes and their probabilities as one line."""
    return "  ".join(f"{label} {probability:.3f}" for label, probability in prediction.top(top))
