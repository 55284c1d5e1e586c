"""What runs outside of XNNPACK: the kernels that ExecuTorch has for it, and the errors for operations that it has none for."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from operator import getitem

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.executorch_internals import EDGE_CONFIG, ExecutorchProgramManager, operators_of, portable_kernels, to_edge
from clipstep.export.source_lines import UNKNOWN, line_of_node
from clipstep.export.targets.executorch_parts import value_of
from clipstep.runtime.errors import ClipstepError, error_summary

aten = torch.ops.aten
PRODUCTS = frozenset(
    getattr(aten, name)
    for name in (
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
        *("linear", "matmul", "mm", "bmm", "mv", "dot", "addmm", "addbmm", "baddbmm", "addmv"),
        *("scaled_dot_product_attention", "_trilinear", "bilinear"),
    )
)
"""Convolutions and matrix products of all overloads. Portable kernels compute them tens of times slower than XNNPACK, so they never do."""
FIX = "export other targets, or avoid the operator in the network (docs/operators.md)"


def check_products_are_inside(reasons: Mapping[fx.Node, str]) -> None:
    """Check that no convolution or matrix product is left to portable kernels.

    Raises:
        ClipstepError: one is.
    """
    for node, reason in reasons.items():
        if getattr(node.target, "overloadpacket", None) in PRODUCTS:
            raise _error(f"XNNPACK does not take {node.target}", node, reason)


def check_kernels(program: ExecutorchProgramManager, outside: Iterable[fx.Node]) -> None:
    """Check that the runtime has kernels for all that a program does outside of delegates.

    Raises:
        ClipstepError: it has none for an operation, which is one of `outside`.
    """
    missing = operators_of(program) - portable_kernels()
    if missing:
        node, reason = next(_without_kernels(outside), (None, f"no kernel for {', '.join(sorted(missing))}"))
        raise _error("ExecuTorch has no kernel for an operator of the network", node, reason)


@contextlib.contextmanager
def explaining(outside: Iterable[fx.Node]) -> Iterator[None]:
    """Return a context in which ExecuTorch's tools work on a graph whose operations `outside` of XNNPACK they may not take.

    Raises:
        ClipstepError: whatever the tools raise.
    """
    try:
        yield
    except ClipstepError:
        raise
    except Exception as error:  # The tools raise many types.
        node, _ = next(_without_kernels(outside), (None, ""))
        raise _error("ExecuTorch cannot write the network", node, f"{type(error).__name__}: {error_summary(error)}") from error


def _without_kernels(nodes: Iterable[fx.Node]) -> Iterator[tuple[fx.Node, str]]:
    """Yield the operations that ExecuTorch cannot write when each is alone, or that it has no kernels for, each with the reason."""
    for node in nodes:
        if node.target is getitem:
            continue
        try:
            missing = operators_of(_alone(node)) - portable_kernels()
        except Exception as error:  # As in `explaining`.
            yield node, f"{type(error).__name__}: {error_summary(error)}"
        else:
            if missing:
                yield node, f"no kernel for {', '.join(sorted(missing))}"


def _alone(node: fx.Node) -> ExecutorchProgramManager:
    """Return a program of one operation."""
    graph = fx.Graph()
    inputs = {source: graph.placeholder(f"input_{index}") for index, source in enumerate(node.all_input_nodes)}
    result = graph.node_copy(node, inputs.__getitem__)
    graph.output((result,) if isinstance(node.meta["val"], Tensor) else result)
    examples = tuple(torch.zeros(value_of(source).shape, dtype=value_of(source).dtype) for source in inputs)
    return to_edge(torch.export.export(fx.GraphModule(nn.Module(), graph), examples), compile_config=EDGE_CONFIG).to_executorch()


def _error(what: str, node: fx.Node | None, reason: str) -> ClipstepError:
    if node is None:
        return ClipstepError(what, got=reason, fix=FIX)
    shapes = [tuple(value_of(source).shape) for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]
    line = line_of_node(node)
    where = "" if line == UNKNOWN else f"it comes from {line}; "
    return ClipstepError(what, got=f"{node.target} of shapes {shapes}: {reason}", fix=where + FIX)
