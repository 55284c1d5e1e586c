"""Run the steps of one video on subclips: keep the states, and return logits once the delay has passed and at the end of the video."""

from collections.abc import Mapping, Sequence

import numpy as np

from clipstep.runtime.engine import Array
from clipstep.runtime.errors import step_error_context
from clipstep.runtime.io_check import check_finite
from clipstep.runtime.model import StepModel, StepOutputs


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
        self.kept: Mapping[str, Array] = {}
        """The kept outputs of the last step, by name; they belong to the logits that it returned."""

    def step(self, subclip: Array) -> Array | None:
        """Run the next subclip, whose shape and type are those in the manifest.

        Returns:
            The logits `(classes,)`; None before the network's delay has passed.

        Raises:
            ClipstepError: see `StepModel.step`; or the logits are not finite. The states and the position are then unchanged.
        """
        with step_error_context(self.steps):
            outputs = self._model.step_outputs(subclip, self._states)
            logits = outputs.logits
            check_finite(logits, self._model.description)
        self._states, self.kept = outputs.states, outputs.kept
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
        outputs = None
        if flush is not None and self.steps * frames >= flush.min_frames:
            outputs = run_flush_steps(self._model, self._states, self.steps)
            with step_error_context(self.steps):
                check_finite(outputs.logits, self._model.description)
        self.reset()
        if outputs is None:
            return None
        self.kept = outputs.kept
        return outputs.logits


def run_flush_steps(model: StepModel, states: Sequence[Array], steps: int) -> StepOutputs:
    """Return the outputs of the last of the steps that the manifest's `flush` describes: its logits are those of a whole video.

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
            outputs = model.step_outputs(blank, states)
            states = outputs.states
    return outputs
