"""Runs a clip network's graph on the frames of one step; what layers need of earlier frames is taken from a state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.compat.torch_internals import metadata_of, tree_leaves
from clipstep.export.source_lines import line_of_node
from clipstep.export.unsupported import Unsupported
from clipstep.network.packed_state import PackedState
from clipstep.runtime.errors import ClipstepError

TIME = 2
"""The axis of time of a value `(1, C, T, H, W)`."""
RNN = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input, torch.ops.aten.rnn_tanh.input, torch.ops.aten.rnn_relu.input)
"""Recurrent layers, which stay whole in a clip network's graph."""


class StreamError(ClipstepError):
    """A clip network cannot become steps. The message names the operation and its line in the network."""


@dataclass(frozen=True)
class Chunk:
    """The frames of a value that one step computes, such as `(1, C, c, H, W)`: step i computes the c frames from `i * c - delay` on."""

    data: Tensor
    delay: int
    """How many of its frames the value is behind the input. If it is negative, the value begins with that many frames of zero padding, which no step
    computes."""
    extra: int
    """In a video of S steps the value has `S * c + extra` frames in the clip network."""
    axis: int = TIME
    """The axis of time: 0 after `x[0].transpose(0, 1)`, where an image network takes the frames as its batch, 1 for a sequence `(1, T, D)`."""

    @property
    def frames(self) -> int:
        return self.data.shape[self.axis]

    @property
    def pending(self) -> int:
        """The number of frames that are not computed yet after the last step of a video. Flushing the stream computes them."""
        return self.delay + self.extra

    @property
    def is_one_volume(self) -> bool:
        """Whether the value is `(1, C, c, H, W)`."""
        return self.axis == TIME and self.data.ndim == 5 and self.data.shape[0] == 1

    @property
    def rank5(self) -> "Chunk":
        """The value as `(1, C, c, H, W)`: itself, or all axes but that of time joined to channels, `(1, C, c, 1, 1)`."""
        if self.is_one_volume:
            return self
        return replace(self, data=self.data.movedim(self.axis, -1).reshape(1, -1, self.frames, 1, 1), axis=TIME)

    def like_rank5(self, other: "Chunk") -> "Chunk":
        """Return `other`, which was computed from `rank5`, with the axes of this value again."""
        if self.is_one_volume:
            return other
        sizes = [size for axis, size in enumerate(self.data.shape) if axis != self.axis]
        return replace(other, data=other.data.reshape(*sizes, other.frames).movedim(-1, self.axis), axis=self.axis)


class StreamInterpreter(fx.Interpreter):
    """Runs the clip network's graph on the frames of one step; an operation on chunks is done by its rule."""

    def __init__(
        self,
        graph: fx.GraphModule,
        rules: Mapping[Any, Callable[..., Any]],
        past: PackedState,
        position: Tensor,
        ended: Tensor | None = None,
        window: int | None = None,
        plans: dict[str, Any] | None = None,
    ) -> None:
        """Prepare one step.

        Args:
            graph: the clip network.
            rules: the rule of each ATen operator.
            past: the state that layers read, and the next one that they write.
            position: `(1, 1)`, the number of steps before this one.
            ended: `(1, 1)`, the number of steps since the video ended, this one included; 0 while the video goes on.
            window: the number of steps that the mean over time takes in; None for all.
            plans: what the first run has found out from the numbers in constants, by the name of the node; later runs, which
                torch.export traces, cannot read them.
        """
        super().__init__(graph)
        self.extra_traceback = False
        self.rules, self.past, self.position, self.ended, self.window_steps = rules, past, position, ended, window
        self.plans = {} if plans is None else plans
        self.summaries: dict[fx.Node, Chunk] = {}
        """The input of each operation whose result is of all frames so far, a mean over time or the last frame, by its node."""
        self.has_mean = False
        """Whether one of them is a mean over time."""
        self.fixed_length = False
        """Whether the graph holds for clips of one length only, because sizes or masks in it depend on it."""
        self.sources: dict[fx.Node, Chunk] = {}
        """The input of each operation that also returns values of all frames so far, a recurrent layer or a loop, by its node."""
        self.windows: dict[fx.Node, int] = {}
        """The number of newest frames to which the stream's window limits an attention, by its node."""
        self.min_steps = 1
        """The number of steps of the shortest video on which no kernel of the clip network is larger than its input."""
        self.max_delay_steps = 0
        """The largest delay of a value, in steps, rounded up."""
        self.after_summary: set[fx.Node] = set()
        """The nodes that depend on a summary."""

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "placeholder":
            return Chunk(super().run_node(n), 0, 0)
        if n.op not in ("call_function", "call_module"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        timed = any(isinstance(value, Chunk) for value in tree_leaves((args, kwargs))) or any(source in self.sources for source in n.all_input_nodes)
        if self.after_summary.intersection(n.all_input_nodes):
            self.after_summary.add(n)
            if timed:
                raise self._refusal(n, "joins a mean over all of time, or the last frame, with single frames")
        if not timed:
            return super().run_node(n)
        try:
            with metadata_of(n):
                result = self._rule(n)(self, n, *args, **kwargs)
        except Unsupported as reason:
            raise self._refusal(n, str(reason)) from None
        for chunk in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Chunk)):
            self.max_delay_steps = max(self.max_delay_steps, -(-chunk.delay // chunk.frames))
        return result

    def _rule(self, node: fx.Node) -> Callable[..., Any]:
        if node.op == "call_module":
            return self.rules[node.op]
        if node.target in self.rules:
            return self.rules[node.target]
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self.rules[torch.Tag.pointwise]
        raise Unsupported("has no rule")

    def _refusal(self, node: fx.Node, reason: str) -> StreamError:
        return StreamError(f"the network cannot become steps: {node.target} {reason}", fix=f"it comes from {line_of_node(node)}")

    def kernel_input(self, x: Chunk, span: int, stride: int, left: int, right: int, fill: float = 0.0) -> Chunk:
        """Return the input frames that a temporal kernel reads for this step's outputs, with the delay and the extra frames of the outputs.

        Args:
            x: the input.
            span: the number of frames from the kernel's first tap to its last.
            stride: in frames.
            left: frames of padding before the first frame of the video.
            right: frames of padding after the last.
            fill: the value of the padding.
        """
        if x.axis != TIME or x.data.ndim not in (4, 5):
            raise Unsupported("takes time for rows or columns")
        if x.frames % stride:
            raise Unsupported(f"has a temporal stride of {stride}, which does not divide the {x.frames} frames that a step gives there")
        outputs = x.frames // stride
        delay = max(-(-(span + x.delay - left) // stride) - 1, 0)
        extra = (x.extra + left + right - span) // stride + 1
        before = delay * stride + left - x.delay
        over_the_end = (extra - 1) * stride - left + span > x.extra
        data = x.data
        if not (fill and before > 0):
            data = self.fill_outside(x, 0, fill, before=left > 0 and x.delay > 0, after=over_the_end)
        if before > 0:
            data = self.extend(replace(x, data=data), before).data
            if fill:
                data = self.fill_outside(Chunk(data, x.delay + before, x.extra), before, fill, before=True, after=over_the_end)
        elif before < 0:
            data = data[:, :, -before:]
        return Chunk(data[:, :, : (outputs - 1) * stride + span], delay, extra)

    def require_frame(self, x: Chunk) -> None:
        """Raise `min_steps` to the shortest video in which this value has a frame; on shorter ones the clip network fails."""
        self.min_steps = max(self.min_steps, -((x.extra - 1) // x.frames))

    def fill_outside(self, x: Chunk, remembered: int, fill: float, *, before: bool, after: bool) -> Tensor:
        """Return the frames of a chunk, with `fill` in those outside of the video.

        Args:
            x: the chunk, whose first `remembered` frames are of earlier steps.
            remembered: see `x`.
            fill: the value.
            before: whether frames before the first one are filled.
            after: whether frames after the last one are filled.
        """
        inside = self.inside(x, remembered, before=before, after=after)
        if inside is None:
            return x.data
        inside = inside.reshape([-1 if axis == x.axis else 1 for axis in range(x.data.ndim)])
        data = x.data * inside
        return data + (1 - inside) * fill if fill else data

    def inside(self, x: Chunk, remembered: int, *, before: bool, after: bool) -> Tensor | None:
        """Return for each frame 1 if it is in the video, else 0, `(frames,)`; None if no frame can be outside.

        The arguments are those of `fill_outside`."""
        frames_per_step = x.frames - remembered
        inside = torch.ones(())
        if before:
            inside = (self.position * frames_per_step - x.delay + torch.arange(1.0, x.frames + 1)).clamp(0, 1)
        if after and self.ended is not None:
            left = torch.arange(frames_per_step + x.pending, frames_per_step + x.pending - x.frames, -1.0) - self.ended * frames_per_step
            inside = inside * left.clamp(0, 1)
        return inside.reshape(-1) if inside.ndim else None

    def extend(self, x: Chunk, frames: int) -> Chunk:
        """Return the value with the `frames` frames before it, and remember its last ones."""
        flat = x.rank5
        return x.like_rank5(replace(flat, data=self.past.extend(flat.data, frames)))

    def summarise(self, node: fx.Node, x: Chunk) -> None:
        """Note that the result of a node is of all frames of `x` so far."""
        self.require_frame(x)
        self.summaries[node] = x
        self.after_summary.add(node)

    def align(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Delay all chunks to the latest one."""
        latest = max(0, *(x.delay for x in chunks))
        if len({x.extra for x in chunks}) > 1:
            raise Unsupported("joins values of different lengths")
        return [x if x.delay == latest else self.delayed(x, latest) for x in chunks]

    def delayed(self, x: Chunk, delay: int) -> Chunk:
        """Return the value with a longer delay: the newest frames are remembered for the next step."""
        longer = self.extend(x, delay - x.delay)
        return replace(x, data=longer.data.narrow(x.axis, 0, x.frames), delay=delay)
