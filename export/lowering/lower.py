"""Lowers a step to a graph that computes the same without values of rank 5 or more, as XNNPACK and Core ML need it.

`simplified` exports the step and runs the passes that do not depend on the engine; `lower_graph` then interprets that graph, each
operation on values of rank 5 or more by its rule, while torch traces what the rules do, and runs the passes over the result.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.torch_internals import (
    OpOverload,
    arguments_of,
    draws_random_numbers,
    keeping_metadata,
    masks_as_given,
    metadata_of,
    name_lines_of_blocks,
    quick_decompositions,
    trace,
    tree_leaves,
    vmap_as_loop,
    whole_stack_traces,
)
from clipstep.export.lowering import passes
from clipstep.export.lowering.decompositions import decompositions
from clipstep.export.lowering.known_numbers import KnownNumbers
from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.operators import CONVOLUTIONS
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules import BY_RULE_ALWAYS, rule_of
from clipstep.export.lowering.rules.convolution import convolution_of
from clipstep.export.lowering.rules.formulas import formula_of
from clipstep.export.lowering.rules.kinds import DEPENDS_ON_NUMBERS, is_pointwise, reason_against
from clipstep.export.lowering.rules.strategies import strategy_for
from clipstep.export.lowering.values import Frames
from clipstep.export.source_lines import describe_error, is_user_file, line_of_error, line_of_node
from clipstep.export.unsupported import Unsupported
from clipstep.runtime.errors import ClipstepError

Report = Callable[[str, fx.GraphModule], None]
"""Called with the name of a stage or pass, and the graph after it."""


class LoweringError(ClipstepError):
    """A step cannot be lowered. The message names the operation, its shapes and its line in the network."""


def lower(step: nn.Module, inputs: tuple[Tensor, ...], profile: EngineProfile) -> fx.GraphModule:
    """Return the step as a graph without values of rank 5 or more, for inputs of the shapes of `inputs`.

    Raises:
        LoweringError: torch.export cannot capture the step, or an operation on a value of rank 5 or more has no rule.
    """
    return lower_graph(simplified(step, inputs), inputs, profile)


@torch.no_grad()
def simplified(step: nn.Module, inputs: tuple[Tensor, ...], report: Report = lambda *_: None) -> fx.GraphModule:
    """Return the rank-5 graph of a step after the passes that do not depend on the engine. `lower_graph` takes it, with any profile.

    Raises:
        LoweringError: as `export_whole`.
    """
    graph = export_whole(step, inputs)
    report("export", graph)
    return passes.run(passes.BEFORE_LOWERING, graph, report)


@torch.no_grad()
def lower_graph(
    graph: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    profile: EngineProfile,
    report: Report = lambda *_: None,
    strategies: dict[str, str] | None = None,
) -> fx.GraphModule:
    """Return a simplified graph as a graph without values of rank 5 or more.

    If `strategies` is given, the name of each convolution's strategy is added to it, by the name of the node.

    Raises:
        LoweringError: an operation on a value of rank 5 or more has no rule.
    """
    interpreter = _Lowering(graph, profile, strategies)
    with keeping_metadata():  # So that a lowered node knows the line of the network that it comes from.
        lowered = trace(lambda *values: interpreter.run(*values), inputs)
    report("lower", lowered)
    return passes.run(passes.after_lowering(profile), lowered, report)


def export_whole(module: nn.Module, inputs: tuple[Tensor, ...], whole: Collection[Any] = ()) -> fx.GraphModule:
    """Capture the graph of a module by torch.export: writes in place become new values, and operators without a rule are decomposed, except `whole`.

    Raises:
        LoweringError: torch.export cannot capture it, for instance because the numbers in a tensor decide what is done.
    """
    try:
        # Recurrent layers keep their weights in a list of their own as well, which torch.export takes for a change of the network.
        with masks_as_given(), vmap_as_loop(), whole_stack_traces(is_user_file), KnownNumbers(module), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*_flat_weights")
            exported = torch.export.export(module, inputs)
        name_lines_of_blocks(exported.graph_module)
        _check_autocast(exported.graph_module)
        table = {operator: function for operator, function in decompositions().items() if operator not in whole}
        with quick_decompositions():
            graph = exported.run_decompositions(table).module(check_guards=False)
    except LoweringError:
        raise
    except Unsupported as reason:
        raise LoweringError(f"no lowering for {reason}", fix=f"it comes from {line_of_error(reason)}") from reason
    except Exception as error:  # torch raises a dozen types here.
        raise LoweringError(
            "torch.export cannot capture the network",
            got=describe_error(error),
            expected="operations that do not depend on the numbers in a tensor",
            fix=f"it comes from {line_of_error(error)}",
        ) from error
    assert isinstance(graph, fx.GraphModule)
    for node in graph.graph.nodes:
        _check_computable(node)
    return graph


def _with_numbers_of_its_type(node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with floats in place of integers that count among floats: ExecuTorch would convert them in every step."""
    value = node.meta["val"]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return args
    takes = [str(argument.type) for argument in arguments_of(cast(OpOverload, node.target))]
    return tuple(float(one) if type(one) is int and kind == "number" else one for one, kind in zip(args, takes, strict=False))


def _check_autocast(graph: fx.GraphModule) -> None:
    """Refuse blocks whose operations convert their inputs to a smaller type: an artifact's precision is chosen at the export."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.higher_order.wrap_with_autocast):
        _, dtype, enabled, *_ = node.args
        if enabled:
            raise LoweringError(
                f"no lowering for torch.autocast: it computes numbers of {str(dtype).removeprefix('torch.')}; compute in float32",
                fix=f"it comes from {line_of_node(node)}",
            )


def _check_computable(node: fx.Node) -> None:
    """Refuse random numbers, which an artifact would repeat, and complex or bfloat16 numbers, which no engine has."""
    reason = None
    kinds = {value.dtype for value in tree_leaves(node.meta.get("val")) if isinstance(value, Tensor)}
    if draws_random_numbers(node.target, node.args, node.kwargs):
        reason = "it draws random numbers"
    elif any(kind.is_complex for kind in kinds):
        reason = "it computes complex numbers"
    elif torch.bfloat16 in kinds:
        reason = "it computes numbers of bfloat16; compute in float32"
    if reason is not None:
        raise LoweringError(f"no lowering for {node.target}: {reason}", fix=f"it comes from {line_of_node(node)}")


def _is_fixed(node: fx.Node) -> bool:
    """Whether torch.export knew the shapes that a node returns, and the numbers beside tensors."""
    values = tree_leaves(node.meta.get("val"))
    numbers = [number for value in values for number in (value.shape if isinstance(value, Tensor) else [value])]
    return not any(isinstance(number, torch.SymInt | torch.SymFloat | torch.SymBool) for number in numbers)


class _Lowering(fx.Interpreter):
    """Runs the rank-5 graph: operations on values of rank 5 or more by their rules, and all others as they are."""

    def __init__(self, graph: fx.GraphModule, profile: EngineProfile, strategies: dict[str, str] | None) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.profile = profile
        self.strategies = strategies
        self.constants: set[fx.Node] = set()
        for node in graph.graph.nodes:
            if node.op == "get_attr" or (node.op == "call_function" and all(source in self.constants for source in node.all_input_nodes)):
                self.constants.add(node)

    def _as_it_is(self, n: fx.Node, args: Any, kwargs: Any) -> Any:
        """Run an operation on values of rank 4 or less. A view of a value that lies otherwise in memory than it did in the network is a reshape."""
        if n.target == torch.ops.aten.view.default and not args[0].is_contiguous():
            return args[0].reshape(args[1])
        function: Any = formula_of(n.target) if is_pointwise(n.target) else n.target
        return self.call_function(function, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        if n.target == torch.ops.aten._assert_tensor_metadata.default:
            return None
        if n.op != "call_function" or n in self.constants:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if is_pointwise(n.target):
            args = _with_numbers_of_its_type(n, args)
        high = any(isinstance(value, Tensor) and value.ndim > 4 for value in tree_leaves(n.meta.get("val")))
        by_rule = high or n.target in BY_RULE_ALWAYS or any(isinstance(value, LazyPermutation | Frames) for value in tree_leaves((args, kwargs)))
        try:
            if not by_rule:
                if DEPENDS_ON_NUMBERS & {*getattr(n.target, "tags", ())} and not _is_fixed(n):
                    raise Unsupported(reason_against(n.target))
                with metadata_of(n):
                    return self._as_it_is(n, args, kwargs)
            if (rule := rule_of(n.target)) is None:
                raise Unsupported(reason_against(n.target))
            if n.target in CONVOLUTIONS and self.strategies is not None:
                self.strategies[n.name] = strategy_for(self.profile, convolution_of(*args, **kwargs)).name
            with metadata_of(n):  # `explain` reads from it which node a lowered one comes from.
                return rule(self.profile, *args, **kwargs)
        except (ClipstepError, MemoryError):
            raise
        except Exception as error:  # Unsupported, or whatever torch raises when it traces the operation.
            shapes = [tuple(value.shape) for value in tree_leaves((args, kwargs)) if isinstance(value, LazyPermutation | Frames | Tensor)]
            refused = isinstance(error, Unsupported)
            reason = str(error) if refused else describe_error(error)
            raise LoweringError(f"no lowering for {n.target}: {reason}", got=f"shapes {shapes}", fix=f"it comes from {line_of_node(n)}") from (
                None if refused else error
            )
