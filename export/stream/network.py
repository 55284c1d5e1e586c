"""A clip network as a step of ``k`` new frames: what each temporal layer needs of the past becomes state.

A temporal layer's output that needs frames to come is given when they have come, later than its input by a delay::

    kernel 3, padding 1          frame   0  1  2  3  4  5      the output 1 needs the frames 0, 1, 2
    steps of 2 frames            input   0  1 |2  3 |4  5      remembers 2 frames: zeros, as the padding, before the first
                                 output  .  0 |1  2 |3  4      delay 1; "." is before the video, and nobody's business

Delays add up from layer to layer. Branches that meet wait for the later one. Where a layer pads with zeros what comes late,
what is before the video has to be zero again. At the end stands the mean over time: the mean over all outputs so far.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.lowering.fold import find_channel_shuffles
from clipstep.export.lowering.lower import export_whole
from clipstep.export.stream.rules import RULES
from clipstep.export.stream.steps import TIME, Steps, StreamError
from clipstep.training.models.past import Past


class StreamedNetwork(nn.Module):
    """``(frames (1, C, k, H, W), past (1, total), position (1, 1)) -> (logits, next past, next position)``. Pure.

    ``position`` counts the steps so far.
    """

    def __init__(self, network: nn.Module, example: Tensor, frames: int) -> None:
        """``example`` is a clip ``(1, C, T, H, W)`` as the network takes it; ``frames`` is k.

        Raises:
            StreamError: an operation mixes frames in a way that no rule covers, or k frames do not fill a temporal stride.
        """
        super().__init__()
        with torch.no_grad():
            exported = export_whole(network, (example,))
        self.graph = fx.GraphModule(exported, exported.graph)  # A plain one, which has eval().
        find_channel_shuffles(self.graph)
        self.frames = frames
        planning = _Planning()
        run = Steps(self.graph, RULES, planning, torch.zeros(1, 1))
        with torch.no_grad():
            run.run(example[:, :, :1].expand(-1, -1, frames, -1, -1))
        if len(run.means) != 1:
            raise StreamError("the network has no mean over time, or several", got=len(run.means), expected="one, before its logits")
        self._shapes = planning.shapes
        ((self._mean, (self._given, self._behind)),) = run.means.items()

    @property
    def delay(self) -> int:
        """How many frames the newest output that a prediction takes in is behind the newest frame."""
        return self._behind * self.frames // self._given

    def initial_states(self) -> dict[str, Tensor]:
        return {"past": Past.initial(self._shapes), "position": torch.zeros(1, 1)}

    def forward(self, frames: Tensor, past: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory = Past(past)
        logits: Tensor = Steps(self.graph, RULES, memory, position).run(frames)
        return logits, memory.next(), position + 1

    def clip(self, frames: Tensor) -> Tensor | None:
        """The clip network's logits on all the frames so far ``(1, C, n, H, W)``: what the steps have to give.

        With a delay its last outputs, which take the end of the clip for the end of the video, stay out of the mean;
        None before there are others.
        """
        count = frames.shape[TIME] // self.frames * self._given - self._behind
        return _Clip(self.graph, self._mean, count).run(frames) if count > 0 else None


class _Planning(Past):
    """Finds out what layers remember."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 0))
        self.shapes: list[Sequence[int]] = []

    def take(self, shape: Sequence[int]) -> Tensor:
        self.shapes.append(shape)
        return torch.zeros(1, *shape)


class _Clip(fx.Interpreter):
    """The clip network, of the input of its mean over time the first ``count`` frames."""

    def __init__(self, graph: fx.GraphModule, mean: fx.Node, count: int) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.mean, self.count = mean, count

    def run_node(self, n: fx.Node) -> Any:
        if n is self.mean:
            source = n.all_input_nodes[0]
            self.env[source] = self.env[source][:, :, : self.count]
        return super().run_node(n)
