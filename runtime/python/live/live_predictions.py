"""Run a model on live video, at the model's rate, and write its predictions to files."""

from collections.abc import Callable, Generator, Sequence

from clipstep.runtime.live.live_video import LiveVideo
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.output import Output, VideoPrediction, WindowClosed
from clipstep.runtime.video import DamagedVideoError, VideoError
from clipstep.runtime.video_predictions import Note, given_to, note_other_rate
from clipstep.runtime.wording import counted


def live_predictions(
    model: StepModel, video: LiveVideo, outputs: Sequence[Output], *, note: Note, watch: Callable[[float], object] = lambda _: None
) -> Generator[VideoPrediction, None, DamagedVideoError | None]:
    """Yield the predictions for a live video until it ends, and give the outputs its frames and predictions.

    A gap of more than a subclip starts the model again, as in `Stream.push`. `watch` is called with the time of each frame, in seconds.

    Returns:
        The error if the video was lost; the outputs have what it gave before.

    Raises:
        VideoError: it cannot be opened, or ended before the first prediction.
    """
    spec, stream = model.interface.input, model.stream()
    frames = said = restarts = 0
    before = seconds = end = 0.0
    rate: float | None = None
    lost: DamagedVideoError | None = None
    video.note = note
    with video:
        try:
            for picture in video.pictures():
                frames += 1
                before, seconds = seconds, picture.seconds
                watch(seconds)
                if rate is None and video.rate is not None:
                    rate = video.rate
                    note_other_rate(video.name, rate, spec.fps, note)
                for output in outputs:
                    output.show(picture)
                prediction = stream.push(picture.center_square(spec.shape[1]), seconds)
                if stream.restarts > restarts:
                    restarts = stream.restarts
                    note(f"{video.name}: no frame between {before:.2f} and {seconds:.2f} s; the model started again")
                if prediction is not None:
                    said += 1
                    end = prediction.span[1]
                    yield given_to(outputs, VideoPrediction(*prediction.span, False, prediction))
        except DamagedVideoError as error:
            lost = error
        except WindowClosed:
            note(f"{video.name}: the window was closed")
    dropped = f", {video.dropped} of them left out for newer ones" if video.dropped else ""
    note(f"{video.name}: {counted(frames + video.dropped, 'frame')} in {seconds:.1f} s{dropped}")
    whole = stream.flush()
    if whole is not None:
        yield given_to(outputs, VideoPrediction(whole.span[0], end, True, whole))
    elif not said:
        needed = model.interface.frames_needed
        raise lost or VideoError(f"{video.name}: too short", got=counted(frames, "frame"), expected=f"at least {needed}", fix="let it run for longer")
    for output in outputs:
        for remark in output.finish(seconds + 1 / (rate or spec.fps)):
            note(remark)
    return lost
