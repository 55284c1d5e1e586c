"""Run the steps of one video on subclips: keep the states, and return logits once the delay has passed and at the end of the video."""

from collections.abc import Sequence

import numpy as np

from clipstep.runtime.engine import Array
from clipstep.runtime.errors import step_error_context
from clipstep.runtime.io_check import check_finite
from clipstep.runtime.model import StepModel


class SubclipStream:
    """Runs one video, subclip by subclip. `Stream` runs it frame by frame, and uses this class."""

    def __init__(self, model: StepModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Start a new video with the next subclip."""
        self._states = self._model.initial_states()
        self.steps = 0
        """How many steps of the video were run."""

    def step(self, subclip: Array) -> Array | None:
        """Run the next subclip, whose shape and type are those in the manifest.

        Returns:
            The logits `(classes,)`; None before the network's delay has passed.

        Raises:
            ClipstepError: see `StepModel.step`; or the logits are not finite. The states and the position are then unchanged.
        """
        with step_error_context(self.steps):
            logits, states = self._model.step(subclip, self._states)
            check_finite(logits, self._model.description)
        self._states = states
        self.steps += 1
        interface = self._model.interface
        return logits if self.steps * interface.input.shape[0] > interface.delay_frames else None

    def flush(self) -> Array | None:
        """End the video. The next subclip starts a new one.

        Returns:
            The logits of the whole video, with its end padded as in training. None if the last step has returned them already, if the bundle
            has no flush, or if the video is shorter than `interface.frames_needed`.

        Raises:
            ClipstepError: a step fails, or the logits are not finite. The states and the position are then unchanged.
        """
        flush, frames = self._model.interface.flush, self._model.interface.input.shape[0]
        logits = None
        if flush is not None and self.steps * frames >= flush.min_frames:
            logits = run_flush_steps(self._model, self._states, self.steps)
            with step_error_context(self.steps):
                check_finite(logits, self._model.description)
        self.reset()
        return logits


def run_flush_steps(model: StepModel, states: Sequence[Array], steps: int) -> Array:
    """Return the logits `(classes,)` of a whole video, by running the steps that the manifest's `flush` describes.

    `states` are those after the video's last step, and `steps` counts its steps, for messages.

    Raises:
        ClipstepError: a step fails.
    """
    interface, flush = model.interface, model.interface.flush
    assert flush is not None
    blank = np.zeros(interface.input.shape, interface.input.dtype)
    states = [np.ones_like(value) if state.name == flush.state else value for state, value in zip(interface.states, states, strict=True)]
    for step in range(flush.steps):
        with step_error_context(steps + step):
            logits, states = model.step(blank, states)
    return logits
