"""A clip network as a step of ``k`` new frames: what each temporal layer needs of the past becomes state.

A temporal layer's output that needs frames to come is given when they have come, later than its input by a delay:

    kernel 3, padding 1          frame   0  1  2  3  4  5      the output 1 needs the frames 0, 1, 2
    steps of 2 frames            input   0  1 |2  3 |4  5      remembers 2 frames: zeros, as the padding, before the first
                                 output  .  0 |1  2 |3  4      delay 1; "." is before the video, and nobody's business

Delays add up from layer to layer. Branches that meet wait for the later one. Where a layer pads with zeros what comes late,
what is before the video has to be zero again. At the end stands the mean over time: the mean over all outputs so far, or over
those of a window of the newest steps.

When the video is over, the outputs that were still waiting for frames to come are due, with the padding that the clip network
has there. No frames that one could feed are that padding, because each layer has its own. So the steps that follow are told that
the video has ended, by the state ``ended``, and each layer takes what is after its own end for padding:

    video of 4 frames            input   0  1 |2  3 |-  -      "-" is after the video, and zero for every layer that pads
                                 output  .  0 |1  2 |3  -      the last output, of the frames 2 and 3 and padding
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.lowering.lower import export_whole
from clipstep.export.lowering.passes.channel_shuffles import find_channel_shuffles
from clipstep.export.stream.interpreter import TIME, Steps, StreamError
from clipstep.export.stream.rules import RULES
from clipstep.network.past import Past


class StreamedNetwork(nn.Module):
    """``(frames (1, C, k, H, W), past (1, total), position (1, 1)[, ended (1, 1)]) -> (logits, *next states)``. Pure.

    ``position`` counts the steps so far. ``ended`` is there if the last outputs come after the video: 0 while the video goes on,
    set to 1 by the caller when it is over; it then counts the steps, whose frames are not looked at.
    """

    def __init__(self, network: nn.Module, example: Tensor, frames: int, window: int | None = None) -> None:
        """``example`` is a clip ``(1, C, T, H, W)`` as the network takes it; ``frames`` is k. With ``window`` the mean over time
        takes in the outputs of so many newest steps, in place of all.

        Raises:
            StreamError: an operation mixes frames in a way that no rule covers, or k frames do not fill a temporal stride.
        """
        super().__init__()
        with torch.no_grad():
            exported = export_whole(network, (example,))
        self.graph = fx.GraphModule(exported, exported.graph)  # A plain one, which has eval().
        find_channel_shuffles(self.graph)
        self.frames, self.window = frames, window
        planning = _Planning()
        run = Steps(self.graph, RULES, planning, torch.zeros(1, 1), torch.zeros(1, 1), window)
        with torch.no_grad():
            run.run(example[:, :, :1].expand(-1, -1, frames, -1, -1))
        if len(run.means) != 1:
            raise StreamError("the network has no mean over time, or several", got=len(run.means), expected="one, before its logits")
        if not planning.shapes:
            raise StreamError(
                "a window of one step leaves nothing to remember",
                got=f"{frames} frames",
                expected="a longer window",
                fix=f"export it without --stream, with subclips of {frames} frames",
            )
        self._shapes = planning.shapes
        ((self._mean, self._meant),) = run.means.items()
        self.flush_steps = max(0, -(-self._meant.missing // self._meant.frames))
        """How many steps give the outputs that are still to come after the video's last step."""
        self.shortest = run.shortest * frames
        """How many frames the shortest video has of which the clip network says something, in whole steps."""
        self._enough = run.latest + (window or 0) + 1

    @property
    def delay(self) -> int:
        """How many frames the newest output that a prediction takes in is behind the newest frame."""
        return self._meant.delay * self.frames // self._meant.frames

    def initial_states(self) -> dict[str, Tensor]:
        ended = {"ended": torch.zeros(1, 1)} if self.flush_steps else {}
        return {"past": Past.initial(self._shapes), "position": torch.zeros(1, 1), **ended}

    def forward(self, frames: Tensor, past: Tensor, position: Tensor, ended: Tensor | None = None) -> tuple[Tensor, ...]:
        memory = Past(past)
        logits: Tensor = Steps(self.graph, RULES, memory, position, ended, self.window).run(frames)
        following = position + 1
        if self.window:  # Beyond it nothing changes: a camera may run until a count would no longer be exact.
            following = following.clamp(max=self._enough)
        return logits, memory.next(), following, *(() if ended is None else (ended + ended.clamp(0, 1),))

    def clip(self, frames: Tensor, ended: bool = False) -> Tensor | None:
        """The clip network's logits on all the frames so far ``(1, C, n, H, W)``: what the steps have to give.

        As long as the video has not ``ended``, its last outputs, which take the end of the clip for that of the video, stay out
        of the mean; None before there are others. Of a window the mean is over its outputs alone, in which the frames before
        still show as far as the layers look back.
        """
        steps, meant = frames.shape[TIME] // self.frames, self._meant
        due = steps + (self.flush_steps if ended else 0)
        stop = steps * meant.frames + (meant.extra if ended else -meant.delay)
        start = 0 if self.window is None else max(0, (due - self.window) * meant.frames - meant.delay)
        return _Clip(self.graph, self._mean, slice(start, stop)).run(frames) if stop > start and steps * self.frames >= self.shortest else None

    def __repr__(self) -> str:
        window = "" if self.window is None else f", the mean of the newest {self.window * self.frames}"
        end = f", {self.flush_steps} steps after the end" if self.flush_steps else ""
        return f"StreamedNetwork({self.frames} frames a step, {self.delay} late{end}{window})"


class _Planning(Past):
    """Finds out what layers remember."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 0))
        self.shapes: list[Sequence[int]] = []

    def take(self, shape: Sequence[int]) -> Tensor:
        self.shapes.append(shape)
        return torch.zeros(1, *shape)


class _Clip(fx.Interpreter):
    """The clip network, of the input of its mean over time the frames ``kept``."""

    def __init__(self, graph: fx.GraphModule, mean: fx.Node, kept: slice) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.mean, self.kept = mean, kept

    def run_node(self, n: fx.Node) -> Any:
        if n is self.mean:
            source = n.all_input_nodes[0]
            self.env[source] = self.env[source][:, :, self.kept]
        return super().run_node(n)
