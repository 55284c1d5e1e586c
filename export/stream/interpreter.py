"""One step of a clip network: its graph run on chunks of frames, with what layers need of the past taken from a state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.compat.torch_internals import tree_leaves
from clipstep.export.source_lines import line_of_node
from clipstep.export.unsupported import Unsupported
from clipstep.network.past import Past
from clipstep.runtime.errors import ClipstepError

TIME = 2


class StreamError(ClipstepError):
    """A clip network that cannot become steps: names the operation and the line of the network that made it."""


@dataclass(frozen=True)
class Chunk:
    """The frames of a value that one step gives, ``(1, C, c, H, W)``: at step i those from ``i * c - delay`` on.

    Below 0 the delay says how many frames of zeros, a padding, stand before the first. On a video of S steps the clip network
    has ``S * c + extra`` frames of the value: those that are not given by the last step come when the stream is flushed.
    """

    data: Tensor
    delay: int
    extra: int

    @property
    def frames(self) -> int:
        return self.data.shape[TIME]

    @property
    def missing(self) -> int:
        """How many frames are still to come after the video's last step."""
        return self.delay + self.extra


class Steps(fx.Interpreter):
    """Runs the clip network's graph on one step's frames, each operation on chunks by its rule."""

    def __init__(
        self,
        graph: fx.GraphModule,
        rules: Mapping[Any, Callable[..., Any]],
        past: Past,
        position: Tensor,
        ended: Tensor | None = None,
        window: int | None = None,
    ) -> None:
        """``position`` counts the steps so far, ``ended`` those since the video's last one, this one too; of both ``(1, 1)``.

        ``window`` is how many steps the mean over time goes back; None is all.
        """
        super().__init__(graph)
        self.extra_traceback = False
        self.rules, self.past, self.position, self.ended, self.window_steps = rules, past, position, ended, window
        self.means: dict[fx.Node, Chunk] = {}
        """Where time ends, and what goes in."""
        self.shortest = 1
        """How many steps the shortest video has on which no kernel of the clip network is larger than its input."""
        self.latest = 0
        """How many steps the latest value is behind, rounded up."""
        self.timeless: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return Chunk(super().run_node(n), 0, 0)
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        timed = any(isinstance(value, Chunk) for value in tree_leaves((args, kwargs)))
        if self.timeless.intersection(n.all_input_nodes):
            self.timeless.add(n)
            if timed:
                raise self._refusal(n, "joins a mean over all of time with single frames")
        if not timed:
            return super().run_node(n)
        if n.target not in self.rules:
            raise self._refusal(n, "has no rule")
        try:
            result = self.rules[n.target](self, n, *args, **kwargs)
        except Unsupported as reason:
            raise self._refusal(n, str(reason)) from None
        for chunk in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Chunk)):
            self.latest = max(self.latest, -(-chunk.delay // chunk.frames))
        return result

    def _refusal(self, node: fx.Node, reason: str) -> StreamError:
        return StreamError(f"the network cannot become steps: {node.target} {reason}", fix=f"it comes from {line_of_node(node)}")

    def window(self, x: Chunk, span: int, stride: int, left: int, right: int, fill: float = 0.0) -> Chunk:
        """The frames under this step's outputs of a temporal kernel of ``span`` frames, with ``left`` frames of padding before
        the first and ``right`` after the last."""
        if x.frames % stride:
            raise Unsupported(f"has a temporal stride of {stride}, which does not divide the {x.frames} frames that a step gives there")
        outputs = x.frames // stride
        delay = max(-(-(span + x.delay - left) // stride) - 1, 0)
        extra = (x.extra + left + right - span) // stride + 1
        before = delay * stride + left - x.delay
        over_the_end = (extra - 1) * stride - left + span > x.extra
        data = x.data
        if not (fill and before > 0):
            data = self.inside(x, 0, fill, left > 0 and x.delay > 0, over_the_end)
        if before > 0:
            data = self.past.extend(data, before)
            if fill:
                data = self.inside(Chunk(data, x.delay + before, x.extra), before, fill, True, over_the_end)
        elif before < 0:
            data = data[:, :, -before:]
        return Chunk(data[:, :, : (outputs - 1) * stride + span], delay, extra)

    def must_be(self, x: Chunk) -> None:
        """The clip network fails on videos for which it has no frame of this value."""
        self.shortest = max(self.shortest, -((x.extra - 1) // x.frames))

    def inside(self, x: Chunk, more: int, fill: float, before: bool, after: bool) -> Tensor:
        """The frames, those ``before`` the video's first one and ``after`` its last one as ``fill``; the first ``more`` of them
        are remembered ones."""
        a_step = x.frames - more
        inside = torch.ones(())
        if before:
            inside = (self.position * a_step - x.delay + torch.arange(1.0, x.frames + 1)).clamp(0, 1)
        if after and self.ended is not None:
            left = torch.arange(a_step + x.missing, a_step + x.missing - x.frames, -1.0) - self.ended * a_step
            inside = inside * left.clamp(0, 1)
        if not inside.ndim:
            return x.data
        inside = inside.reshape(1, 1, -1, 1, 1)
        data = x.data * inside
        return data + (1 - inside) * fill if fill else data

    def align(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """All as late as the latest."""
        latest = max(0, *(x.delay for x in chunks))
        if len({x.extra for x in chunks}) > 1:
            raise Unsupported("joins values of different lengths")
        return [x if x.delay == latest else Chunk(self.past.extend(x.data, latest - x.delay)[:, :, : x.frames], latest, x.extra) for x in chunks]
