"""Run a model on the frames of one video source. A stream holds the states, the position, and the frames of the next subclip.

What `push` and `flush` return:

    push  push  push  push | push  push  push  push | flush
    none  none  none  pred | none  none  none  pred | none       (T = 4)
    none  none  none  none | none  none  none  pred | pred       (T = 4, and a delay of 4 frames)
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from clipstep.runtime.bundle.manifest import Input
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.frame_check import check_frame
from clipstep.runtime.model import StepModel
from clipstep.runtime.output_kind import OutputKind, probabilities_of
from clipstep.runtime.resampler import Resampler
from clipstep.runtime.resize import center_box, crop_resize
from clipstep.runtime.subclip_stream import SubclipStream
from clipstep.runtime.wording import counted


@dataclass(frozen=True)
class Prediction:
    """The model's prediction after a subclip of a video."""

    step: int
    """The number of the step, counted from 0 since the start of the video."""
    frames_seen: int
    """How many frames of the video were used, or skipped by the model's frame stride."""
    logits: Array
    """The artifact's first output, `(classes,)` float32; `output_kind` says what it holds."""
    labels: tuple[str, ...]
    output_kind: OutputKind = "logits"
    kept: Mapping[str, Array] = field(default_factory=dict)
    """The other outputs that the export kept, by name, such as an embedding; `interface.kept_outputs` of the model has their shapes."""
    span: tuple[float, float] = (0.0, 0.0)
    """The part of the video that the subclip covers, in seconds, or all of it for `flush`: by the timestamps of the frames, if they were pushed with
    them, or else counted from the start at the model's rate."""
    dropped: int = 0
    """How many frames of the video were left out because the source is faster than the model."""
    repeated: int = 0
    """How often frames of the video were repeated because the source is slower."""
    milliseconds: float = 0.0
    """How long `push` took for the frames since the prediction before, in milliseconds: resizing and the step; or how long `flush` took."""
    smoothed: Array | None = None
    """The probabilities averaged with those before, `(classes,)` float32, if the stream smooths."""

    @property
    def probabilities(self) -> Array:
        """The probability of each class, `(classes,)`, as a new array: softmax or sigmoid of the logits, or the logits themselves, depending on
        `output_kind`; `smoothed`, if the stream smooths."""
        return probabilities_of(self.logits, self.output_kind) if self.smoothed is None else self.smoothed.copy()

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the `count` likeliest labels with their probabilities, the likeliest first."""
        probabilities = self.probabilities
        return [(self.labels[i], float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:count]]

    def __repr__(self) -> str:
        likeliest = ", ".join(f"{label} {probability:.3f}" for label, probability in self.top(3))
        return f"<Prediction of step {self.step}, {counted(self.frames_seen, 'frame')} seen: {likeliest}>"


@dataclass
class _Position:
    """Where a stream is in its video."""

    resampler: Resampler
    period: float
    """Seconds from one frame of the model to the next."""
    seen: int = 0
    waiting: int = 0
    """How many frames of the next subclip are there."""
    dropped: int = 0
    repeated: int = 0
    start: float = 0.0
    subclip_start: float = 0.0
    end: float = 0.0
    milliseconds: float = 0.0
    smoothed: Array | None = None

    def see(self, timestamp: float | None) -> int:
        """Go on by a frame, and return its number in the video, counted from 0."""
        number, time = self.seen, self.seen * self.period if timestamp is None else timestamp
        self.start = time if number == 0 else self.start
        self.subclip_start = time if self.waiting == 0 else self.subclip_start
        self.end = time + self.period
        self.seen += 1
        return number

    def copied(self) -> "_Position":
        return replace(self, resampler=copy(self.resampler))


class Stream:
    """The stream of one video source: push frames, get predictions. Only one thread may use it at a time; its model may be shared.

    Example:
        ```python
        stream = model.stream()
        for frame in read_frames("video.mp4", fps=model.interface.input.fps):
            if prediction := stream.push(frame):  # once every T frames
                print(prediction.top(1))
        last = stream.flush()
        ```
    """

    def __init__(self, model: StepModel, smoothing: float = 0.0) -> None:
        if not 0 <= smoothing < 1:
            raise ClipstepError("smoothing is out of range", got=smoothing, expected="0 to below 1")
        self._model = model
        self._smoothing = smoothing
        self._session = SubclipStream(model)
        spec = model.interface.input
        self._pending = np.empty(spec.shape, np.uint8 if spec.takes_video else spec.dtype)
        self._in_use = threading.Lock()
        self.restarts = 0
        """How often a gap or a jump of the timestamps started another video."""
        self._restart()

    def reset(self) -> None:
        """Start a new video with the next frame.

        Raises:
            ClipstepError: another thread is using the stream.
        """
        with self._alone():
            self._restart()

    def _restart(self) -> None:
        spec = self._model.interface.input
        self._session.reset()
        self._position = _Position(Resampler(spec.fps, spec.shape[0] * spec.frame_stride), 1 / spec.fps)

    def push(self, frame: Array, timestamp: float | None = None) -> Prediction | None:
        """Take the next frame. The largest centred square of a frame of RGB is resized to the model's size, as in evaluation.

        Args:
            frame: `(H, W, 3)` uint8 RGB, of any size. OpenCV's frames are BGR: push `frame[..., ::-1]`. A bundle for something else takes frames of
                exactly its own shape, such as joints `(V, C)` float32: that of `model.interface.input` without T.
            timestamp: when the frame was taken, in seconds from any start. Frames are then left out or repeated so as to keep the rate that the
                model was trained at, `model.interface.input.fps`. After a gap, or a step back, of more than a subclip a new video starts; `restarts`
                counts that. Without timestamps every frame is used, and their rate is taken for the model's.

        Returns:
            A prediction once every T frames, after the network's delay has passed; otherwise None.

        Raises:
            ClipstepError: the frame has another rank, type or number of channels, or a number that is not finite; so has the timestamp; the model is
                closed; or another thread is using the stream. The stream is then as it was before the frame.
        """
        with self._alone():
            spec = self._model.interface.input
            if spec.takes_video:
                check_frame(frame)
            else:
                _check_own_frame(frame, spec)
            before = copy(self._session), self._position.copied(), self.restarts
            started = time.perf_counter()

            @cache  # A frame that is repeated is resized once, and one that is left out never.
            def fitted() -> Array:
                return crop_resize(frame, center_box(*frame.shape[:2]), spec.shape[1]) if spec.takes_video else frame

            try:
                prediction = self._take(fitted, None) if timestamp is None else self._take_at(fitted, timestamp)
                return self._timed(prediction, started)
            except BaseException:  # The next frame replaces the one that was just added.
                self._session, self._position, self.restarts = before
                raise

    def _take_at(self, fitted: Callable[[], Array], timestamp: float) -> Prediction | None:
        """Take a frame as often as the model's rate asks for."""
        copies = self._position.resampler.copies(timestamp)
        if self._position.resampler.restarted:
            self._restart()
            self.restarts += 1
            copies = self._position.resampler.copies(timestamp)
        self._position.dropped += copies == 0
        self._position.repeated += max(copies - 1, 0)
        prediction = None
        for _ in range(copies):
            prediction = self._take(fitted, timestamp) or prediction
        return prediction

    def _take(self, fitted: Callable[[], Array], timestamp: float | None) -> Prediction | None:
        """Go on by a frame; `fitted` returns it at the model's size."""
        spec, position = self._model.interface.input, self._position
        if position.see(timestamp) % spec.frame_stride:
            return None
        self._pending[position.waiting] = fitted()
        position.waiting += 1
        if position.waiting < spec.shape[0]:
            return None
        logits = self._session.step(self._pending.astype(spec.dtype, copy=False))
        position.waiting = 0
        return self._prediction(logits, self._session.steps, position.subclip_start)

    def flush(self) -> Prediction | None:
        """End the video. Frames that do not fill a subclip are dropped, as in training, and the next frame starts a new video.

        Returns:
            The prediction for the whole video, with its end padded as in training, if the network has a delay. None if `push` has returned
            it already, if the bundle has no flush, or if the video is shorter than `model.interface.frames_needed`.

        Raises:
            ClipstepError: the model is closed, or another thread is using the stream. The stream is then as it was before.
        """
        with self._alone():
            steps, started = self._session.steps, time.perf_counter()
            logits = self._session.flush()
            prediction = self._timed(self._prediction(logits, steps, self._position.start), started)
            self._restart()
            return prediction

    def _timed(self, prediction: Prediction | None, started: float) -> Prediction | None:
        """Count the time since `started`, in seconds, for the next prediction; return the one that is there with its time."""
        self._position.milliseconds += 1000 * (time.perf_counter() - started)
        if prediction is None:
            return None
        milliseconds, self._position.milliseconds = self._position.milliseconds, 0.0
        return replace(prediction, milliseconds=milliseconds)

    def _smooth(self, logits: Array) -> Array | None:
        if self._smoothing == 0:
            return None
        position, now = self._position, probabilities_of(logits, self._model.interface.output_kind)
        position.smoothed = now if position.smoothed is None else now + np.float32(self._smoothing) * (position.smoothed - now)
        return position.smoothed

    def _prediction(self, logits: Array | None, steps: int, start: float) -> Prediction | None:
        if logits is None:
            return None
        position, interface = self._position, self._model.interface
        return Prediction(
            step=steps - 1,
            frames_seen=position.seen,
            logits=logits,
            labels=self._model.labels,
            output_kind=interface.output_kind,
            kept=self._session.kept,
            span=(start, position.end),
            dropped=position.dropped,
            repeated=position.repeated,
            smoothed=self._smooth(logits),
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._in_use.acquire(blocking=False):
            raise ClipstepError("the stream is in use by another thread", fix="give each thread a stream of its own: model.stream()")
        try:
            yield
        finally:
            self._in_use.release()

    def __repr__(self) -> str:
        position, name, frames = self._position, self._model.interface.name, self._model.interface.input.shape[0]
        seen, steps = counted(position.seen, "frame"), counted(self._session.steps, "step")
        return f"<Stream of {name}: {seen} seen, {steps}, {position.waiting} of {frames} frames waiting>"


def _check_own_frame(frame: object, spec: Input) -> None:
    """Check a frame of something else than RGB, which has to have the model's own shape and fit its type."""
    expected = f"{spec.content} {spec.shape[1:]} {spec.dtype}"
    if not isinstance(frame, np.ndarray):
        raise ClipstepError("a frame must be a numpy array", got=type(frame).__name__, expected=expected)
    if frame.shape != spec.shape[1:] or not np.can_cast(frame.dtype, spec.dtype, "safe"):
        raise ClipstepError("a frame has the wrong shape or type", got=f"{frame.shape} {frame.dtype}", expected=expected)
    if not np.isfinite(frame).all():
        raise ClipstepError("a frame has a number that is not finite", expected="what stood for missing values in training, such as 0")
