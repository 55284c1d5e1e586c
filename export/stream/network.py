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

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export.compat.torch_internals import keeping_metadata
from clipstep.export.lowering.lower import export_whole
from clipstep.export.lowering.passes.channel_shuffles import find_channel_shuffles
from clipstep.export.lowering.passes.constants import fold_constants
from clipstep.export.source_lines import describe_error, line_of_error
from clipstep.export.stream.interpreter import RNN, TIME, Chunk, StreamError, StreamInterpreter
from clipstep.export.stream.loops import roll_loops
from clipstep.export.stream.rules import RULES
from clipstep.export.stream.simplify import find_attention, sink_views
from clipstep.network.packed_state import PackedState
from clipstep.network.states import outputs_of

PADDINGS = {torch.ops.aten.pad.default, torch.ops.aten.constant_pad_nd.default}
"""They have rules, and stay whole unless they cut: what negative amounts remove becomes slices first."""
POOLS = (torch.ops.aten.avg_pool2d.default, torch.ops.aten.avg_pool3d.default)


class StreamedNetwork(nn.Module):
    """A clip network as a pure step: `(frames (1, C, k, H, W), past (1, total), position (1, 1)[, ended (1, 1)]) -> (logits, *next states, *kept)`.

    `position` is the number of steps so far. A network with outputs that are pending at the end of a video has the state `ended`: 0 while the
    video goes on, set to 1 by the caller when it has ended. From then on it counts the steps, whose frames are ignored.
    """

    def __init__(self, network: nn.Module, example: Tensor, frames: int, window: int | None = None, kept: Sequence[str] = ()) -> None:
        """Capture the graph, and find out the delay and the states.

        Args:
            network: the clip network, which returns its logits, or a tuple of them and the outputs `kept`.
            example: a clip `(1, C, T, H, W)` as the network takes it, or `(1, C, T, V)` of joints.
            frames: k.
            window: the number of newest steps whose outputs the mean over time takes in; None for all.
            kept: the names of the outputs beside the logits.

        Raises:
            StreamError: an output is of single frames, an operation mixes frames in a way that no rule covers, or k frames do not fill a temporal
                stride.
        """
        super().__init__()
        self.graph = _graph_of(network, example)
        self.frames, self.window = frames, window
        recorded = _RecordedState()
        self._plans: dict[str, Any] = {}
        run = StreamInterpreter(self.graph, RULES, recorded, torch.zeros(1, 1), torch.zeros(1, 1), window, self._plans)
        with torch.no_grad():
            outputs = outputs_of(run.run(example.narrow(TIME, 0, 1).expand(-1, -1, frames, *example.shape[TIME + 1 :])))
        _check_outputs(outputs, kept)
        self._clip = _Clip(network, self.graph, run)
        self.averages = run.has_mean
        """Whether predictions come from a mean over time; otherwise they come from the last frame, or from the hidden states of a recurrent layer."""
        _check_summaries(list(run.summaries.values()), window is not None, run.has_mean)
        if not recorded.shapes:
            raise StreamError(
                "a window of one step leaves nothing to remember",
                got=f"{frames} frames",
                expected="a longer window",
                fix=f"export it without --stream, with subclips of {frames} frames",
            )
        self._shapes = recorded.shapes
        self._summarised = next(iter(run.summaries.values()))
        self.flush_steps = max(0, -(-self._summarised.pending // self._summarised.frames))
        """The number of steps after the video's last one in which the pending outputs are computed."""
        self.min_frames = run.min_steps * frames
        """The number of frames, in whole steps, of the shortest video that the clip network takes."""
        self._last_position = run.max_delay_steps + (window or 0) + 1
        """With a window, `position` stops here: larger values would change no output."""

    @property
    def delay(self) -> int:
        """The number of newest frames that a prediction does not take in yet."""
        return self._summarised.delay * self.frames // self._summarised.frames

    def initial_states(self) -> dict[str, Tensor]:
        ended = {"ended": torch.zeros(1, 1)} if self.flush_steps else {}
        return {"past": PackedState.initial(self._shapes), "position": torch.zeros(1, 1), **ended}

    def forward(self, frames: Tensor, past: Tensor, position: Tensor, ended: Tensor | None = None) -> tuple[Tensor, ...]:
        memory = PackedState(past)
        run = StreamInterpreter(self.graph, RULES, memory, position, ended, self.window, self._plans)
        with keeping_metadata():  # So that an operation of the step knows the layer and the line of the network that it comes from.
            logits, *kept = outputs_of(run.run(frames))
        following = position + 1
        if self.window:  # A camera may run so long that float32 would no longer count exactly.
            following = following.clamp(max=self._last_position)
        return logits, memory.next(), following, *(() if ended is None else (ended + ended.clamp(0, 1),)), *kept

    def clip(self, frames: Tensor, ended: bool = False) -> Any:
        """Return what the clip network returns on all frames so far `(1, C, n, H, W)`: the reference for the steps.

        While the video goes on, the mean leaves out the last outputs, which depend on the padding at the end of the clip; None if there are
        no others yet. With a window the mean is over the outputs in it, which still depend on earlier frames through the layers' kernels.
        """
        steps, summarised = frames.shape[TIME] // self.frames, self._summarised
        due = steps + (self.flush_steps if ended else 0)
        stop = steps * summarised.frames + (summarised.extra if ended else -summarised.delay)
        start = 0 if self.window is None else max(0, (due - self.window) * summarised.frames - summarised.delay)
        if stop <= start or steps * self.frames < self.min_frames:
            return None
        return self._clip.outputs(frames, slice(start, stop), whole=start == 0 and stop == steps * summarised.frames + summarised.extra)

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


def _graph_of(network: nn.Module, example: Tensor) -> fx.GraphModule:
    with torch.no_grad():
        exported = export_whole(network, (example,), {*RNN, *RULES} - PADDINGS)
    graph = fx.GraphModule(exported, exported.graph)  # torch.export's own module refuses eval().
    roll_loops(graph)
    fold_constants(graph)
    find_channel_shuffles(graph)
    find_attention(graph)
    sink_views(graph)
    return graph


def _check_outputs(outputs: Sequence[Any], kept: Sequence[str]) -> None:
    """Check that the outputs beside the logits are of all frames so far.

    Raises:
        StreamError: one is of single frames.
    """
    for name, value in zip(kept, outputs[1:], strict=True):
        if isinstance(value, Chunk):
            raise StreamError(
                f"--keep-outputs {name}: is of single frames, of which a stream has only those of its step",
                got=f"{tuple(value.data.shape)}, with the {value.frames} frames of a step on axis {value.axis}",
                expected="a value of all frames so far, such as a mean over time",
            )


def _check_summaries(summaries: Sequence[Chunk], window: bool, has_mean: bool) -> None:
    """Check that the logits are of all frames so far, and of the same ones in every branch.

    Raises:
        StreamError: they are not, or a window is asked for where no mean over time could have it.
    """
    if len({(x.frames, x.delay, x.extra) for x in summaries}) != 1:
        raise StreamError(
            "the network has no mean over time, or several of different frames",
            got=len(summaries),
            expected="one before its logits, or the last frame (such as `output[:, -1]` of a recurrent layer)",
        )
    if window and not has_mean:
        raise StreamError(
            "the network's predictions are of its last frame or of hidden states, which have no window",
            expected="a mean over time",
            fix="export it without --window",
        )


class _Clip:
    """The clip network on all frames so far: the reference for the steps."""

    def __init__(self, network: nn.Module, graph: fx.GraphModule, run: StreamInterpreter) -> None:
        self._network, self._graph, self._fixed_length = network, graph, run.fixed_length
        nodes = list(graph.graph.nodes)
        self._targets = [node.target for node in nodes if node.op == "call_function"]
        self._summaries = {nodes.index(node): x.axis for node, x in run.summaries.items()}
        self._windows = {nodes.index(node): window for node, window in run.windows.items()}

    def outputs(self, frames: Tensor, kept: slice, *, whole: bool) -> Any:
        """Return what the network returns on `frames` `(1, C, n, H, W)`, with means over time, and last frames, of the frames `kept` alone.

        With `whole` these are all.

        Raises:
            StreamError: the network fails on a clip of that length.
        """
        if self._fixed_length and whole and not self._windows:
            return self._eager(frames)
        graph = self._of_length(frames) if self._fixed_length else self._graph
        nodes = list(graph.graph.nodes)
        summaries, windows = ({nodes[index]: value for index, value in found.items()} for found in (self._summaries, self._windows))
        return _ClipInterpreter(graph, summaries, windows, kept).run(frames)

    def _eager(self, frames: Tensor) -> Any:
        try:
            return self._network(frames)
        except Exception as error:  # Anything may go wrong in the user's network.
            raise self._failure(frames, describe_error(error), line_of_error(error)) from error

    def _failure(self, frames: Tensor, got: str, line: str) -> StreamError:
        return StreamError(
            f"the network fails on a clip of {frames.shape[TIME]} frames, with which the steps have to be compared",
            got=got,
            expected="a network for clips of any length",
            fix=f"make masks from the number of frames that forward gets; it comes from {line}",
        )

    def _of_length(self, frames: Tensor) -> fx.GraphModule:
        """Capture the network anew, because sizes in its graph depend on the number of frames."""
        self._eager(frames)
        graph = _graph_of(self._network, frames)
        if [node.target for node in graph.graph.nodes if node.op == "call_function"] != self._targets:
            raise StreamError("the network does other operations on a clip of another length", got=f"{frames.shape[TIME]} frames")
        return graph


class _ClipInterpreter(fx.Interpreter):
    """Runs the clip network, with its summaries over time taken of the frames `kept` alone, and attention limited to `windows`, by node."""

    def __init__(self, graph: fx.GraphModule, summaries: Mapping[fx.Node, int], windows: Mapping[fx.Node, int], kept: slice) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.summaries, self.windows, self.kept = summaries, windows, kept

    def run_node(self, n: fx.Node) -> Any:
        if n in self.windows:
            (query, key, value, *_), kwargs = self.fetch_args_kwargs_from_env(n)
            band = torch.ones(query.shape[-2], query.shape[-2]).tril().triu(1 - self.windows[n]).bool()
            return F.scaled_dot_product_attention(query, key, value, band, scale=kwargs.get("scale"))
        if n not in self.summaries:
            return super().run_node(n)
        source, axis = n.all_input_nodes[0], self.summaries[n]
        whole = self.env[source]
        self.env[source] = whole.movedim(axis, 0)[self.kept].movedim(0, axis)
        result = self._pooled(n, axis) if n.target in POOLS else super().run_node(n)
        self.env[source] = whole
        return result

    def _pooled(self, node: fx.Node, axis: int) -> Tensor:
        """Run a pool whose kernel has all frames of the clip on those that are kept."""
        (x, kernel, *rest), _ = self.fetch_args_kwargs_from_env(node)
        target: Any = node.target
        result: Tensor = target(x, [x.shape[axis], *kernel[1:]], *rest)
        return result
