"""A clip network as a step of `k` new frames: what each temporal layer needs of earlier frames becomes state.

An output of a temporal layer that needs later frames is computed once these have arrived. Its delay says by how many
frames it is behind the input:

    kernel 3, padding 1          frame   0  1  2  3  4  5      the output 1 needs the frames 0, 1, 2
    steps of 2 frames            input   0  1 |2  3 |4  5      remembers 2 frames: zeros, as the padding, before the first
                                 output  .  0 |1  2 |3  4      delay 1; "." is before the video, and is not used

Delays add up from layer to layer. Where branches join, the earlier one is delayed to the later one. A layer that pads a delayed input
with zeros sets the frames before the video to zero first. Somewhere before its logits the network
must take a mean over time; in a step, that is the mean over all outputs so far, or over those of the newest steps (a window).

When the video has ended, the outputs that still wait for later frames are computed with the padding that the clip network has there.
No input frames could stand for that padding, because each layer has its own. So the caller says by the state `ended` that the
following steps are after the video, and each layer takes the frames after its own end for padding:

    video of 4 frames            input   0  1 |2  3 |-  -      "-" is after the video, and padding for every layer
                                 output  .  0 |1  2 |3  -      the last output, of the frames 2 and 3 and padding
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.lowering.lower import export_whole
from clipstep.export.lowering.passes.channel_shuffles import find_channel_shuffles
from clipstep.export.stream.interpreter import TIME, StreamError, StreamInterpreter
from clipstep.export.stream.rules import RULES
from clipstep.network.packed_state import PackedState


class StreamedNetwork(nn.Module):
    """A clip network as a pure step: `(frames (1, C, k, H, W), past (1, total), position (1, 1)[, ended (1, 1)]) -> (logits, *next states)`.

    `position` is the number of steps so far. A network with outputs that are pending at the end of a video has the state `ended`: 0 while the
    video goes on, set to 1 by the caller when it has ended. From then on it counts the steps, whose frames are ignored.
    """

    def __init__(self, network: nn.Module, example: Tensor, frames: int, window: int | None = None) -> None:
        """Capture the graph, and find out the delay and the states.

        Args:
            network: the clip network.
            example: a clip `(1, C, T, H, W)` as the network takes it.
            frames: k.
            window: the number of newest steps whose outputs the mean over time takes in; None for all.

        Raises:
            StreamError: an operation mixes frames in a way that no rule covers, or k frames do not fill a temporal stride.
        """
        super().__init__()
        with torch.no_grad():
            exported = export_whole(network, (example,))
        self.graph = fx.GraphModule(exported, exported.graph)  # torch.export's own module refuses eval().
        find_channel_shuffles(self.graph)
        self.frames, self.window = frames, window
        recorded = _RecordedState()
        run = StreamInterpreter(self.graph, RULES, recorded, torch.zeros(1, 1), torch.zeros(1, 1), window)
        with torch.no_grad():
            run.run(example[:, :, :1].expand(-1, -1, frames, -1, -1))
        if len(run.means) != 1:
            raise StreamError("the network has no mean over time, or several", got=len(run.means), expected="one, before its logits")
        if not recorded.shapes:
            raise StreamError(
                "a window of one step leaves nothing to remember",
                got=f"{frames} frames",
                expected="a longer window",
                fix=f"export it without --stream, with subclips of {frames} frames",
            )
        self._shapes = recorded.shapes
        ((self._mean, self._mean_input),) = run.means.items()
        self.flush_steps = max(0, -(-self._mean_input.pending // self._mean_input.frames))
        """The number of steps after the video's last one in which the pending outputs are computed."""
        self.min_frames = run.min_steps * frames
        """The number of frames, in whole steps, of the shortest video that the clip network takes."""
        self._last_position = run.max_delay_steps + (window or 0) + 1
        """With a window, `position` stops here: larger values would change no output."""

    @property
    def delay(self) -> int:
        """The number of newest frames that a prediction does not take in yet."""
        return self._mean_input.delay * self.frames // self._mean_input.frames

    def initial_states(self) -> dict[str, Tensor]:
        ended = {"ended": torch.zeros(1, 1)} if self.flush_steps else {}
        return {"past": PackedState.initial(self._shapes), "position": torch.zeros(1, 1), **ended}

    def forward(self, frames: Tensor, past: Tensor, position: Tensor, ended: Tensor | None = None) -> tuple[Tensor, ...]:
        memory = PackedState(past)
        logits: Tensor = StreamInterpreter(self.graph, RULES, memory, position, ended, self.window).run(frames)
        following = position + 1
        if self.window:  # A camera may run so long that float32 would no longer count exactly.
            following = following.clamp(max=self._last_position)
        return logits, memory.next(), following, *(() if ended is None else (ended + ended.clamp(0, 1),))

    def clip(self, frames: Tensor, ended: bool = False) -> Tensor | None:
        """Return the clip network's logits on all frames so far `(1, C, n, H, W)`: the reference for the steps.

        While the video goes on, the mean leaves out the last outputs, which depend on the padding at the end of the clip; None if there are
        no others yet. With a window the mean is over the outputs in it, which still depend on earlier frames through the layers' kernels.
        """
        steps, mean_input = frames.shape[TIME] // self.frames, self._mean_input
        due = steps + (self.flush_steps if ended else 0)
        stop = steps * mean_input.frames + (mean_input.extra if ended else -mean_input.delay)
        start = 0 if self.window is None else max(0, (due - self.window) * mean_input.frames - mean_input.delay)
        if stop <= start or steps * self.frames < self.min_frames:
            return None
        logits: Tensor = _ClipInterpreter(self.graph, self._mean, slice(start, stop)).run(frames)
        return logits

    def __repr__(self) -> str:
        window = "" if self.window is None else f", the mean of the newest {self.window * self.frames}"
        end = f", {self.flush_steps} steps after the end" if self.flush_steps else ""
        return f"StreamedNetwork({self.frames} frames a step, {self.delay} late{end}{window})"


class _RecordedState(PackedState):
    """Records the shapes of what layers remember."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 0))
        self.shapes: list[Sequence[int]] = []

    def read(self, shape: Sequence[int]) -> Tensor:
        self.shapes.append(shape)
        return torch.zeros(1, *shape)


class _ClipInterpreter(fx.Interpreter):
    """Runs the clip network, with its mean over time taken over the frames `kept` alone."""

    def __init__(self, graph: fx.GraphModule, mean: fx.Node, kept: slice) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.mean, self.kept = mean, kept

    def run_node(self, n: fx.Node) -> Any:
        if n is self.mean:
            source = n.all_input_nodes[0]
            self.env[source] = self.env[source][:, :, self.kept]
        return super().run_node(n)
