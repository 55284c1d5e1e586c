"""Run a model on a video file, at the model's rate, and write its predictions to files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.output import Output, Source, VideoPrediction, WindowClosed
from clipstep.runtime.outputs.saving import format_of, saving
from clipstep.runtime.resampler import SAME_RATE
from clipstep.runtime.video import LONGEST_PAUSE, DamagedVideoError, VideoError, frame_rate, read_pictures, resampler_of_file
from clipstep.runtime.wording import counted

if TYPE_CHECKING:
    from clipstep.runtime.live import LiveVideo

Note = Callable[[str], object]
"""A function that is told what the user should know and what is no error, such as that a video has another rate than the model."""


def predict_video(
    model: StepModel,
    video: "str | Path | LiveVideo",
    *,
    save: Sequence[str | Path] = (),
    top: int = 3,
    every_frame: bool = False,
    partial: bool = False,
    force: bool = False,
    note: Note | None = None,
) -> Iterator[VideoPrediction]:
    """Yield the predictions of a model for a video as they become known: what `clipstep run` prints.

    Args:
        model: a model that takes RGB frames.
        video: the video file, or a `LiveVideo`: a camera or a network stream, until it ends or you call its `stop`.
        save: files to write, in the format of their suffix (docs/running.md). They are there when the last prediction was taken, all or none.
        top: how many of the likeliest classes are shown in those files.
        every_frame: take every frame once; otherwise frames are left out or repeated so as to keep the model's rate, as in training. Not for live
            video.
        partial: take what a damaged video gives before the damage. The files of a live video that was lost always have what it gave before.
        force: replace files of `save` that exist.
        note: is called with each remark, such as that the video's rate is not the model's.

    Raises:
        VideoError: the video cannot be read or is too short.
        DamagedVideoError: a live video was lost; its files are there.
        ClipstepError: the model takes no RGB frames; `every_frame` or `partial` is given for a live video; or a file of `save` has an unknown suffix,
            exists, or cannot be written.

    Example:
        ```python
        for said in predict_video(model, "video.mp4", save=["predictions.csv", "annotated.mp4"]):
            print(said.end, said.prediction.top(1))
        ```
    """
    note = note or (lambda _: None)
    shown = Path(video) if isinstance(video, str | Path) else video
    if not isinstance(shown, Path) and (every_frame or partial):
        raise ClipstepError(f"{shown.name}: every_frame and partial are for video files", fix="leave them out")
    source = source_of(model, shown, top)
    with saving([(Path(path), format_of(Path(path))) for path in save], source, force=force) as outputs:
        if isinstance(shown, Path):
            yield from predictions(model, shown, outputs, every_frame=every_frame, partial=partial, note=note)
            return
        from clipstep.runtime.live.live_predictions import live_predictions

        lost = yield from live_predictions(model, shown, outputs, note=note)
    if lost is not None:
        raise lost


def source_of(model: StepModel, video: "Path | LiveVideo", top: int, name: str | None = None) -> Source:
    """Return what outputs need to know of a video and its model, which must take RGB frames; `name` is the model's in the error."""
    spec = model.interface.input
    if not spec.takes_video:
        flow = "; clipstep evaluate computes the flow of videos" if spec.color == "flow" else ""
        raise ClipstepError(
            f"{name or model.interface.name}: takes no video frames",
            got=f"a bundle for {spec.content}, {spec.frame_size} a frame",
            expected="one for RGB frames",
            fix=f"push them frame by frame in Python: StepModel.load(...).stream().push(frame){flow}",
        )
    called, file = (str(video), video) if isinstance(video, Path) else (video.name, None)
    return Source(called, file, model.labels, top, spec.shape[0] * spec.frame_stride / spec.fps)


def predictions(
    model: StepModel,
    video: Path,
    outputs: Sequence[Output],
    *,
    every_frame: bool,
    partial: bool,
    note: Note,
    watch: Callable[[float], object] = lambda _: None,
    decoders: int = 0,
) -> Iterator[VideoPrediction]:
    """Yield the predictions for a video, and give the outputs its frames and predictions. The video is decoded once.

    `watch` is called with the time of each frame, in seconds; `decoders` is how many threads decode, 0 for as many as there are cores. The other
    arguments and the errors are those of `predict_video`.
    """
    spec, stream = model.interface.input, model.stream()
    resampler = resampler_of_file(spec.fps)
    subclip = spec.shape[0] * spec.frame_stride
    pushed = said = pauses = 0
    seconds = start = end = 0.0
    rate = spec.fps
    taken_at = None
    closed = False
    try:
        for picture in read_pictures(video, threads=decoders):
            if taken_at is None:
                rate = frame_rate(video)
                note_other_rate(str(video), rate, spec.fps, note, "every one goes to a model for" if every_frame else "taken at")
            taken_at = picture.seconds
            watch(taken_at)
            for output in outputs:
                output.show(picture)
            for _ in range(1 if every_frame else resampler.copies(picture.seconds)):
                pauses += picture.seconds - seconds > LONGEST_PAUSE
                seconds = picture.seconds
                start = seconds if pushed % subclip == 0 else start
                end = seconds + 1 / (rate if every_frame else spec.fps)
                pushed += 1
                if prediction := stream.push(picture.center_square(spec.shape[1])):
                    said += 1
                    yield given_to(outputs, VideoPrediction(start, end, False, prediction))
    except DamagedVideoError as damage:
        if not partial:
            raise VideoError(f"{damage}, or add --partial to take what was read") from damage
        note(str(damage))
    except WindowClosed:
        closed = True
    if pauses and not every_frame:
        note(f"{video}: {counted(pauses, 'pause')} of more than {LONGEST_PAUSE:g} s, cut out")
    whole = stream.flush()
    if whole is not None:
        yield given_to(outputs, VideoPrediction(0.0, end, True, whole))
    elif not said:
        needed = model.interface.frames_needed
        what, fix = ("the window was closed before the first prediction", None) if closed else ("too short", "use a longer video")
        raise VideoError(f"{video}: {what}", got=counted(pushed, "frame"), expected=f"at least {needed}", fix=fix)
    if closed:
        note(f"{video}: the window was closed at {taken_at or 0.0:.2f} s; what follows was left out")
    for output in outputs:
        for remark in output.finish((taken_at or 0.0) + 1 / rate):
            note(remark)


def given_to(outputs: Sequence[Output], said: VideoPrediction) -> VideoPrediction:
    """Give the outputs a prediction, and return it."""
    for output in outputs:
        output.add(said)
    return said


def note_other_rate(name: str, rate: float, wanted: float, note: Note, taken: str = "taken at") -> None:
    """Say what becomes of a video whose rate is another than the one wanted, in frames a second."""
    if max(rate, wanted) > SAME_RATE * min(rate, wanted):
        note(f"{name}: {rate:.4g} frames a second, {taken} {wanted:.4g}")
