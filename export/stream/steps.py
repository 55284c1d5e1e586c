"""One step of a clip network: its graph run on chunks of frames, with what layers need of the past taken from a state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from clipstep.export.source import line_of_node
from clipstep.runtime.errors import ClipstepError
from clipstep.training.models.past import Past

TIME = 2


class StreamError(ClipstepError):
    """A clip network that cannot become steps: names the operation and the line of the network that made it."""


class NoStep(Exception):
    """Why an operation cannot be done step by step."""


@dataclass(frozen=True)
class Chunk:
    """The frames of a value that one step gives, ``(1, C, c, H, W)``: at step i those from ``i * c - delay`` on.

    Below 0 the delay says how many frames of zeros, a padding, stand before the first.
    """

    data: Tensor
    delay: int

    @property
    def frames(self) -> int:
        return self.data.shape[TIME]


class Steps(fx.Interpreter):
    """Runs the clip network's graph on one step's frames, each operation on chunks by its rule."""

    def __init__(self, graph: fx.GraphModule, rules: Mapping[Any, Callable[..., Any]], past: Past, position: Tensor) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.rules, self.past, self.position = rules, past, position
        self.means: dict[fx.Node, tuple[int, int]] = {}
        """Where time ends: frames a step and delay of what goes in."""
        self.timeless: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return Chunk(super().run_node(n), 0)
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        timed = any(isinstance(value, Chunk) for value in pytree.tree_leaves((args, kwargs)))
        if self.timeless.intersection(n.all_input_nodes):
            self.timeless.add(n)
            if timed:
                raise self._refusal(n, "joins a mean over all of time with single frames")
        if not timed:
            return super().run_node(n)
        if n.target not in self.rules:
            raise self._refusal(n, "has no rule")
        try:
            return self.rules[n.target](self, n, *args, **kwargs)
        except NoStep as reason:
            raise self._refusal(n, str(reason)) from None

    def _refusal(self, node: fx.Node, reason: str) -> StreamError:
        return StreamError(f"the network cannot become steps: {node.target} {reason}", fix=f"it comes from {line_of_node(node)}")

    def window(self, x: Chunk, span: int, stride: int, left: int, fill: float = 0.0) -> Chunk:
        """The frames under this step's outputs of a temporal kernel of ``span`` frames, ``left`` of padding before the first."""
        if x.frames % stride:
            raise NoStep(f"has a temporal stride of {stride}, which does not divide the {x.frames} frames that a step gives there")
        outputs = x.frames // stride
        delay = max(-(-(span + x.delay - left) // stride) - 1, 0)
        before = delay * stride + left - x.delay
        data = x.data if left <= 0 or x.delay <= 0 or fill else self.nothing_before(x, 0, 0.0)
        if before > 0:
            data = self.past.extend(data, before)
            if fill:
                data = self.nothing_before(Chunk(data, x.delay + before), before, fill)
        elif before < 0:
            data = data[:, :, -before:]
        return Chunk(data[:, :, : (outputs - 1) * stride + span], delay)

    def nothing_before(self, x: Chunk, more: int, fill: float) -> Tensor:
        """The frames, those before the video's first one as ``fill``; the first ``more`` of them are remembered ones."""
        start = self.position * (x.frames - more) - x.delay
        inside = (start + torch.arange(1.0, x.frames + 1)).clamp(0, 1).reshape(1, 1, -1, 1, 1)
        data = x.data * inside
        return data + (1 - inside) * fill if fill else data

    def align(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """All as late as the latest."""
        latest = max(0, *(x.delay for x in chunks))
        return [x if x.delay == latest else Chunk(self.past.extend(x.data, latest - x.delay)[:, :, : x.frames], latest) for x in chunks]
