"""Computes operators that XNNPACK does not take from others: runs the graph with the formulas in their place, while torch traces them.

A formula is a function of tensors that gets the operator's arguments; those that are known at export are `torch.nn.Parameter`. It raises
`Unsupported` if the operator should stay as it is. Its result is that of the operator up to rounding.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.torch_internals import keeping_metadata, metadata_of, trace
from clipstep.export.lowering.passes.constants import fold_constants
from clipstep.export.targets import formulas_elementwise, formulas_products, formulas_reductions, formulas_windows
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., Any]] = {
    **formulas_products.FORMULAS,
    **formulas_elementwise.FORMULAS,
    **formulas_reductions.FORMULAS,
    **formulas_windows.FORMULAS,
}


def with_formulas(module: fx.GraphModule, inputs: Sequence[Tensor], nodes: Iterable[fx.Node]) -> fx.GraphModule:
    """Return the graph with formulas in place of those of the given operations that have one; the graph itself if there is none."""
    replaced = {node for node in nodes if node.target in FORMULAS}
    if not replaced:
        return module
    interpreter = _Interpreter(module, replaced)
    with keeping_metadata():
        rewritten = trace(lambda *values: interpreter.run(*values), tuple(inputs))
    fold_constants(rewritten)
    return rewritten if interpreter.applied else module


class _Interpreter(fx.Interpreter):
    """Runs a graph, the operations to be replaced by their formulas."""

    def __init__(self, module: fx.GraphModule, replaced: set[fx.Node]) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.replaced = replaced
        self.applied = False

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "get_attr":
            return nn.Parameter(super().run_node(n), requires_grad=False)
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        with metadata_of(n):
            if n in self.replaced:
                try:
                    result = FORMULAS[n.target](*args, **kwargs)
                except Unsupported:
                    pass
                else:
                    self.applied = True
                    return result
            if n.target is aten.view.default and not args[0].is_contiguous():  # What a formula computed may lie otherwise in memory.
                return args[0].reshape(args[1])
            return self.call_function(n.target, args, kwargs)
