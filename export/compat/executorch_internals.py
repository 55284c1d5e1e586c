"""What exports use of ExecuTorch that is not public: the format of XNNPACK's graphs, and how a program with such a graph is made."""

from functools import cache
from typing import Any

from clipstep.export.compat.torch_internals import TORCH, quick_decompositions
from clipstep.runtime.executorch_internals import EXECUTORCH

TORCH.check()  # With another PyTorch, ExecuTorch may fail while it is imported.
with EXECUTORCH.internals():
    from executorch import exir
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import CONSTANT_TENSOR_ALIGNMENT, serialize_xnnpack_binary
    from executorch.backends.xnnpack.utils import xnnpack_constants
    from executorch.exir import EdgeCompileConfig, ExecutorchProgramManager
    from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    # Without dim-order operators the conversion from uint8 costs 7 instructions an element on ARM64 instead of 48.
    # ExecuTorch's own checks of the graph between passes are off: they take a tenth of the time, and the result is verified by running it.
    EDGE_CONFIG = EdgeCompileConfig(_skip_dim_order=True, _check_ir_validity=False)

__all__ = [
    "CONSTANT_TENSOR_ALIGNMENT",
    "EDGE_CONFIG",
    "ExecutorchProgramManager",
    "LoweredBackendModule",
    "NamedDataStore",
    "NamedDataStoreOutput",
    "flags",
    "operators_of",
    "portable_kernels",
    "schema",
    "serialize_xnnpack_binary",
    "to_edge",
]


def to_edge(*programs: Any, **settings: Any) -> Any:
    """Do what `executorch.exir.to_edge` does."""
    with quick_decompositions():
        return exir.to_edge(*programs, **settings)


@cache
def portable_kernels() -> frozenset[str]:
    """Return the names of the operators that ExecuTorch's runtime has kernels for, outside of delegates, such as `aten::sum.IntList_out`."""
    with EXECUTORCH.internals():
        from executorch.extension.pybindings import portable_lib

        return frozenset(portable_lib._get_operator_names())


def operators_of(program: ExecutorchProgramManager) -> frozenset[str]:
    """Return the names of the operators that a program calls outside of delegates, as `portable_kernels` names them."""
    plans = program.executorch_program.execution_plan
    return frozenset(f"{one.name}.{one.overload}" if one.overload else one.name for plan in plans for one in plan.operators)


schema: Any = EXECUTORCH.guarded(xnnpack_graph_schema)
"""The operations and values of an XNNPACK graph."""
flags: Any = EXECUTORCH.guarded(xnnpack_constants)
"""XNNPACK's constants."""
