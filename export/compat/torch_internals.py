"""What exports use of PyTorch that is not public: its tracer, pytrees, and modes that see each operation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import dropwhile
from traceback import StackSummary
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.runtime.supported import SupportedRange

TORCH = SupportedRange("torch", "2.13", "2.14", version_in="torch")

with TORCH.internals():
    from torch._C import Argument, DispatchKey, _dispatch_get_all_op_names
    from torch._export import utils as export_utils
    from torch._functorch import apis as functorch
    from torch._functorch.vmap import _process_batched_inputs
    from torch._guards import TracingContext, tracing
    from torch._ops import HigherOrderOperator, OperatorBase, OpOverload
    from torch._subclasses import FakeTensorMode
    from torch.fx._lazy_graph_module import _use_lazy_graph_module
    from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, make_fx
    from torch.fx.proxy import TracerBase
    from torch.fx.traceback import preserve_node_meta, set_current_meta
    from torch.nn.modules import transformer
    from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
    from torch.utils._pytree import _broadcast_to_and_flatten, tree_flatten, tree_leaves, tree_map, tree_map_only, tree_unflatten

__all__ = [
    "TORCH",
    "Argument",
    "OpOverload",
    "TorchDispatchMode",
    "argument_names",
    "arguments_of",
    "draws_random_numbers",
    "is_traced",
    "keeping_metadata",
    "keyword_only_arguments",
    "masks_as_given",
    "metadata_of",
    "name_lines_of_blocks",
    "names_of_buffers",
    "operators_of_core_aten",
    "quick_decompositions",
    "returns_several",
    "returns_tensors",
    "takes_tensors",
    "trace",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_map_only",
    "tree_unflatten",
    "vmap_as_loop",
    "whole_stack_traces",
    "without_modes",
    "writes_into_arguments",
]


def trace(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """Return the graph of what a function does with `inputs`. It is traced before autograd and the backends decompose operators, so that pools and
    convolutions stay whole."""
    # Without a mode to share, make_fx makes a new FakeTensorMode for the metadata of each value, which takes a third of the time.
    with tracing(TracingContext(FakeTensorMode())), _use_lazy_graph_module(True):
        return make_fx(function, pre_dispatch=True)(*inputs)


def without_modes() -> AbstractContextManager[Any]:
    """Return a context in which operations are computed, although the code around them is traced."""
    return _disable_current_modes()


def is_traced(value: Tensor) -> bool:
    """Whether `trace` records a tensor as the result of an operation, so that its numbers are those of the example inputs, and no constant."""
    mode = get_proxy_mode()
    recorded = None if mode is None else get_proxy_slot(value, mode.tracer, None)
    return recorded is not None and recorded.proxy.node.op != "get_attr"  # A constant that an operation has used is recorded as well.


def keeping_metadata() -> AbstractContextManager[Any]:
    """Return a context in which `trace` copies the metadata that `metadata_of` sets to each node that it adds."""
    return preserve_node_meta()


def metadata_of(node: fx.Node) -> AbstractContextManager[Any]:
    """Return a context for operations that are traced on behalf of `node`: their metadata says that they come from it."""
    return set_current_meta(node)


def names_of_buffers(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the buffers that a module itself has registered, those included that are None."""
    return tuple(module._buffers)


def argument_names(operator: Any) -> tuple[str, ...]:
    """Return the names of the arguments, in their order, of an operator that a `TorchDispatchMode` sees."""
    return tuple(argument.name for argument in operator._schema.arguments)


def keyword_only_arguments(operator: Any) -> tuple[str, ...]:
    """Return the names of an operator's keyword-only arguments."""
    return tuple(argument.name for argument in operator._schema.arguments if argument.kwarg_only)


def arguments_of(operator: OpOverload) -> list[Argument]:
    """The arguments of an operator as its schema declares them: their names, types and defaults."""
    return list(operator._schema.arguments)


def writes_into_arguments(operator: OpOverload) -> bool:
    return bool(operator._schema.is_mutable)


def takes_tensors(operator: OpOverload) -> bool:
    return any("Tensor" in str(argument.type) for argument in arguments_of(operator))


def returns_tensors(operator: OpOverload) -> bool:
    return any("Tensor" in str(value.type) for value in operator._schema.returns)


def returns_several(operator: OpOverload) -> bool:
    return len(operator._schema.returns) > 1


def operators_of_core_aten() -> list[OpOverload]:
    """Return the operators that PyTorch calls Core ATen: those that every exported network can be decomposed into."""
    found = []
    for name in sorted(_dispatch_get_all_op_names()):
        namespace, _, operator = name.partition("::")
        base, _, overload = operator.partition(".")
        if namespace == "aten" and hasattr(torch.ops.aten, base):
            found.append(getattr(getattr(torch.ops.aten, base), overload or "default"))
    return [overload for overload in found if torch.Tag.core in overload.tags]


def draws_random_numbers(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator draws random numbers when it is called with these arguments.

    PyTorch's tag alone does not say so: it marks attention and recurrent layers too, because of their dropout, which may be 0.
    """
    if torch.Tag.nondeterministic_seeded not in getattr(operator, "tags", ()):
        return False
    given = {argument.name: argument.default_value for argument in operator._schema.arguments if argument.has_default_value()}
    given |= dict(zip(argument_names(operator), args, strict=False)) | dict(kwargs)
    if any(given.get(name) is False for name in ("train", "training")):
        return False
    return bool(given.get("dropout_p", given.get("dropout", 1.0)))


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Return a context in which an attribute of a module or class has another value."""
    own = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def masks_as_given() -> AbstractContextManager[None]:
    """Return a context in which nn.TransformerEncoder and nn.TransformerDecoder do not look whether the numbers in a mask are causal.

    torch.export cannot capture that look. They use it to choose a faster kernel; what they compute is the same.
    """
    return _replaced(transformer, "_detect_is_causal_mask", lambda mask, is_causal=None, size=None: bool(is_causal))


@contextmanager
def quick_decompositions() -> Iterator[None]:
    """Return a context in which PyTorch decomposes a graph without repeating what does not depend on it.

    Otherwise it registers all operators of its dispatcher once for each of their namespaces, and evaluates the annotations of a function for each of
    thousands of kernels that it replaces: most of the time of a small network's decomposition.
    """

    def register(operator: OperatorBase, key: Any) -> Callable[[Any], Any]:
        return lambda kernel: add(operator, key, kernel)

    def add(operator: OperatorBase, key: Any, kernel: Any) -> Any:
        if not isinstance(key, DispatchKey) or key in operator.py_kernels:
            return own(operator, key)(kernel)
        operator.py_kernels[key] = kernel
        operator._dispatch_cache.clear()
        return kernel

    own, name = OperatorBase.py_impl, "_materialize_cpp_cia_ops"
    with _replaced(OperatorBase, "py_impl", register), _replaced(export_utils, name, cache(getattr(export_utils, name))):
        yield


def vmap_as_loop() -> AbstractContextManager[None]:
    """Return a context in which `torch.vmap` is the loop over all entries that it stands for: torch.export loses what it computes of the frames."""
    return _replaced(functorch, "vmap_impl", _vmap_loop)


def _vmap_loop(
    function: Callable[..., Any], in_dims: Any, out_dims: Any, _randomness: str, _chunk_size: int | None, *args: Any, **kwargs: Any
) -> Any:
    count, dims, values, structure = _process_batched_inputs(in_dims, args, function)
    results: list[list[Any]] = []
    for i in range(count):
        entries = [value if dim is None else value.select(dim, i) for value, dim in zip(values, dims, strict=True)]
        flat, returned = tree_flatten(function(*tree_unflatten(entries, structure), **kwargs))
        results.append(flat)
    places: Any = [out_dims] if len(results[0]) == 1 and isinstance(out_dims, int) else _broadcast_to_and_flatten(out_dims, returned)
    stacked = [each[0] if dim is None else torch.stack(each, dim) for each, dim in zip(zip(*results, strict=True), places, strict=True)]
    return tree_unflatten(stacked, returned)


def whole_stack_traces(is_wanted: Callable[[str], bool]) -> AbstractContextManager[None]:
    """Return a context in which torch.export records, for each node, all lines from the first `forward` on that are in a file for which
    `is_wanted` returns True.

    Otherwise it records those in methods called `forward` alone, so that what a helper does seems to come from the line that calls it.
    """

    def wanted(self: TracerBase, stack: StackSummary) -> StackSummary:
        inside = dropwhile(lambda frame: frame.name != "forward", stack)
        return StackSummary.from_list([frame for frame in inside if is_wanted(frame.filename)])

    return _replaced(TracerBase, "_filter_traceback_frames", wanted)


def name_lines_of_blocks(graph: fx.GraphModule) -> None:
    """Give each block, such as `with torch.autocast(...)`, the stack trace of its first operation: what they are decomposed into has no other."""
    for node in graph.graph.nodes:
        for block in node.all_input_nodes if isinstance(node.target, HigherOrderOperator) else ():
            if block.op != "get_attr" or not isinstance(inside := getattr(graph, str(block.target), None), fx.GraphModule):
                continue
            name_lines_of_blocks(inside)
            traces = [trace for inner in inside.graph.nodes if (trace := inner.meta.get("stack_trace"))]
            if traces and not node.meta.get("stack_trace"):
                node.meta["stack_trace"] = traces[0]
