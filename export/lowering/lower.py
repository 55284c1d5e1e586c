"""Rank-5 graph in, rank-4 graph out, exactly: what ExecuTorch's XNNPACK and Core ML need, and what runs fast elsewhere."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from clipstep.export.lowering.fold import (
    find_channel_shuffles,
    fold_batch_norms,
    fold_channel_shuffles,
    fold_constants,
    fold_paddings,
    fold_scales,
    fold_time_steps,
    merge_same,
    move_channel_shuffles,
    move_relus,
)
from clipstep.export.lowering.frames import ONNXRUNTIME, STYLE, Frames, NoRule, Style
from clipstep.export.lowering.order import depth_first, slice_first
from clipstep.export.lowering.rules import RULES
from clipstep.export.lowering.rules.pointwise import PAIRS
from clipstep.export.lowering.view import View
from clipstep.export.source import describe_error, line_of_error, line_of_node
from clipstep.runtime.errors import ClipstepError

FOLDS = (
    fold_constants, find_channel_shuffles, fold_batch_norms, fold_channel_shuffles, move_channel_shuffles, fold_paddings, fold_time_steps, move_relus,
    fold_scales,
)  # fmt: skip


class LoweringError(ClipstepError):
    """An operation that cannot be lowered: names it, its shapes and the line of the network that made it."""


def lower(step: nn.Module, inputs: tuple[Tensor, ...], style: Style = ONNXRUNTIME) -> fx.GraphModule:
    """The same function with no value of rank 5 or more, on tensors of the shapes of ``inputs``.

    Raises:
        LoweringError: an operation on a value of rank 5 or more has no rule.
    """
    return lower_graph(simplified(step, inputs), inputs, style)


@torch.no_grad()
def simplified(step: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The graph of a step, with fewer operations: what :func:`lower_graph` takes, in as many styles as one likes.

    Raises:
        LoweringError: as :func:`export_whole`.
    """
    graph = export_whole(step, inputs)
    for fold in FOLDS:
        fold(graph)
    return graph


@torch.no_grad()
def lower_graph(graph: fx.GraphModule, inputs: tuple[Tensor, ...], style: Style) -> fx.GraphModule:
    """A simplified graph with no value of rank 5 or more.

    Raises:
        LoweringError: an operation on a value of rank 5 or more has no rule.
    """
    interpreter = _Lowering(graph)
    given = STYLE.set(style)
    try:
        # Traced before autograd's and the backends' decompositions, so that pools and convolutions stay whole.
        with tracing(TracingContext(FakeTensorMode())):  # Otherwise each value's shape gets a mode of its own, a third of the time.
            lowered = make_fx(lambda *values: interpreter.run(*values), pre_dispatch=True)(*inputs)
    finally:
        STYLE.reset(given)
    fold_constants(lowered)
    merge_same(lowered)
    if style.parts_first:
        slice_first(lowered)
    return depth_first(lowered)


def export_whole(module: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The graph of a module, its operations whole, and what it writes in place as new values.

    Raises:
        LoweringError: torch.export cannot capture it, as where the numbers decide what is done.
    """
    try:
        graph = torch.export.export(module, inputs).run_decompositions({}).module(check_guards=False)
    except Exception as error:  # torch raises a dozen types here.
        raise LoweringError(
            "torch.export cannot capture the network", got=describe_error(error),
            expected="operations that do not depend on the numbers in a tensor", fix=f"it comes from {line_of_error(error)}",
        ) from error  # fmt: skip
    assert isinstance(graph, fx.GraphModule)
    return graph


class _Lowering(fx.Interpreter):
    """Runs the original graph, each operation on values of rank 5 or more by its rule."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.constants: set[fx.Node] = set()
        for node in graph.graph.nodes:
            if node.op == "get_attr" or (node.op == "call_function" and all(source in self.constants for source in node.all_input_nodes)):
                self.constants.add(node)

    def run_node(self, n: fx.Node) -> Any:
        if n.target == torch.ops.aten._assert_tensor_metadata.default:
            return None
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n in self.constants:
            return super().run_node(n)
        if n.target in PAIRS and n.meta["val"].is_floating_point():  # ExecuTorch would convert whole numbers at each step.
            args = tuple(float(value) if type(value) is int else value for value in args)
        high = any(isinstance(value, Tensor) and value.ndim > 4 for value in pytree.tree_leaves(n.meta.get("val")))
        if not high and not any(isinstance(value, View | Frames) for value in pytree.tree_leaves((args, kwargs))):
            return self.call_function(n.target, args, kwargs)
        try:
            if n.target not in RULES:
                raise NoRule("this operation")
            return RULES[n.target](*args, **kwargs)
        except NoRule as reason:
            shapes = [tuple(value.shape) for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, View | Frames | Tensor)]
            raise LoweringError(f"no lowering for {n.target}: {reason}", got=f"shapes {shapes}", fix=f"it comes from {line_of_node(n)}") from None
