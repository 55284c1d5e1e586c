"""The steps of one video: the states between them, when there is something to say, and what is said at its end."""

from collections.abc import Sequence

import numpy as np

from clipstep.runtime.engine import Array
from clipstep.runtime.errors import in_step
from clipstep.runtime.fits import check_finite
from clipstep.runtime.model import StepModel


class Session:
    """One video, subclip after subclip; ``clipstep.runtime.stream.Stream`` makes those of frames."""

    def __init__(self, model: StepModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """The next subclip is the first of a new video."""
        self._states = self._model.initial_states()
        self.steps = 0
        """Those of the video so far."""

    def step(self, subclip: Array) -> Array | None:
        """The logits ``(classes,)`` after the next subclip, exactly as the manifest says; None before the delay has passed.

        Raises:
            ClipstepError: as ``StepModel.step``, or the logits are not finite; the session is then as it was before.
        """
        with in_step(self.steps):
            logits, states = self._model.step(subclip, self._states)
            check_finite(logits, self._model.description)
        self._states = states
        self.steps += 1
        interface = self._model.interface
        return logits if self.steps * interface.input.shape[0] > interface.delay_frames else None

    def flush(self) -> Array | None:
        """Ends the video: the logits on all of it, its end as the network saw it in training.

        None if the last step has given them already, if the bundle has no way to say more, or if the video is shorter than
        ``interface.frames_needed``. The next subclip is the first of a new video.

        Raises:
            ClipstepError: a step fails, or the logits are not finite; the session is then as it was before.
        """
        flush, frames = self._model.interface.flush, self._model.interface.input.shape[0]
        logits = None
        if flush is not None and self.steps * frames >= flush.min_frames:
            logits = end_video(self._model, self._states, self.steps)
            with in_step(self.steps):
                check_finite(logits, self._model.description)
        self.reset()
        return logits


def end_video(model: StepModel, states: Sequence[Array], steps: int) -> Array:
    """The logits ``(classes,)`` of a video of so many steps, from the states after its last one, as the manifest's ``flush`` says.

    Raises:
        ClipstepError: a step fails.
    """
    interface, flush = model.interface, model.interface.flush
    assert flush is not None
    blank = np.zeros(interface.input.shape, interface.input.dtype)
    states = [np.ones_like(value) if state.name == flush.state else value for state, value in zip(interface.states, states, strict=True)]
    for step in range(flush.steps):
        with in_step(steps + step):
            logits, states = model.step(blank, states)
    return logits
