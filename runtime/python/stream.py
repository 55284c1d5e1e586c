"""One video source: its states, its position, and the frames that wait for their subclip to fill.

push  push  push  push | push  push  push  push | flush
none  none  none  pred | none  none  none  pred | none       (T = 4)
none  none  none  none | none  none  none  pred | pred       (T = 4, and a delay of 4 frames)
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs import Output, probabilities_of
from clipstep.runtime.resize import center_box, check_frame, crop_resize
from clipstep.runtime.session import Session
from clipstep.runtime.video import Frame
from clipstep.runtime.wording import counted


@dataclass(frozen=True)
class Prediction:
    """What the model says of a video after a subclip."""

    step: int
    """Counted from 0 since the start of the stream or its last reset."""
    frames_seen: int
    logits: Array
    """The artifact's first output, ``(classes,)`` float32; ``output`` says what it holds."""
    labels: tuple[str, ...]
    output: Output = "logits"

    @property
    def probabilities(self) -> Array:
        """The probability of each class, ``(classes,)``: softmax or sigmoid of the logits, or what the artifact gives, as
        ``output`` says. A new array."""
        return probabilities_of(self.logits, self.output)

    def top(self, count: int) -> list[tuple[str, float]]:
        """The ``count`` likeliest labels and their probabilities, the likeliest first."""
        probabilities = self.probabilities
        return [(self.labels[i], float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:count]]

    def __repr__(self) -> str:
        likeliest = ", ".join(f"{label} {probability:.3f}" for label, probability in self.top(3))
        return f"<Prediction of step {self.step}, {counted(self.frames_seen, 'frame')} seen: {likeliest}>"


class Stream:
    """Belongs to one thread at a time; the model behind it may be shared. To use it in two at once is an error."""

    def __init__(self, model: StepModel) -> None:
        if model.interface.input.color != "RGB":
            raise ClipstepError("a stream takes RGB frames", got=f"a bundle for {model.interface.input.color}", fix="call step with subclips of that")
        self._model = model
        self._session = Session(model)
        self._pending = np.empty(model.interface.input.shape, np.uint8)
        self._in_use = threading.Lock()
        self._restart()

    def reset(self) -> None:
        """Forgets everything: the next frame is the first of a new video.

        Raises:
            ClipstepError: another thread is using the stream.
        """
        with self._alone():
            self._restart()

    def _restart(self) -> None:
        self._session.reset()
        self._seen = self._waiting = 0

    def push(self, frame: Frame) -> Prediction | None:
        """Takes the next frame, ``(H, W, 3)`` uint8 RGB of any size; gives a prediction once every T frames, as soon as the
        bundle's delay has passed.

        The largest centred square is resized to the model's size, as in evaluation.

        Raises:
            ClipstepError: the frame has another rank, type or number of channels; the model is closed; another thread is
                using the stream. The stream is then as it was before the frame.
        """
        with self._alone():
            return self._push(frame)

    def _push(self, frame: Frame) -> Prediction | None:
        check_frame(frame)
        spec = self._model.interface.input
        if self._seen % spec.frame_stride:
            self._seen += 1
            return None
        self._pending[self._waiting] = crop_resize(frame, center_box(*frame.shape[:2]), spec.shape[1])
        if self._waiting + 1 < spec.shape[0]:
            self._waiting += 1
            self._seen += 1
            return None
        # Should this step fail, the next frame takes the place of the one that led to it.
        logits = self._session.step(self._pending.astype(spec.dtype, copy=False))
        self._waiting = 0
        self._seen += 1
        return self._prediction(logits, self._session.steps, self._seen)

    def flush(self) -> Prediction | None:
        """Ends the video: frames that did not fill a subclip are dropped, as in training, and the next frame is the first of a new
        video.

        With a delay it gives the prediction of the whole video, its last frames too, with the end that the network saw in
        training. None if ``push`` has given that already, if the bundle has none (one of an earlier clipstep), or if the
        video is shorter than ``model.interface.frames_needed``.

        Raises:
            ClipstepError: the model is closed; another thread is using the stream. The stream is then as it was before.
        """
        with self._alone():
            steps, seen = self._session.steps, self._seen
            logits = self._session.flush()
            self._restart()
            return self._prediction(logits, steps, seen)

    def _prediction(self, logits: Array | None, steps: int, seen: int) -> Prediction | None:
        return None if logits is None else Prediction(steps - 1, seen, logits, self._model.labels, self._model.interface.output)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._in_use.acquire(blocking=False):
            raise ClipstepError("the stream is in use by another thread", fix="give each thread a stream of its own: model.stream()")
        try:
            yield
        finally:
            self._in_use.release()

    def __repr__(self) -> str:
        waiting = f"{self._waiting} of {self._model.interface.input.shape[0]} frames waiting"
        return f"<Stream of {self._model.interface.name}: {counted(self._seen, 'frame')} seen, {counted(self._session.steps, 'step')}, {waiting}>"
