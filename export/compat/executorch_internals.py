"""What exports use of ExecuTorch that is not public: the format of XNNPACK's graphs, and how a program with such a graph is made."""

from typing import Any

from clipstep.export.compat.torch_internals import TORCH
from clipstep.runtime.executorch_internals import EXECUTORCH

TORCH.check()  # With another PyTorch, ExecuTorch may fail while it is imported.
with EXECUTORCH.internals():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import CONSTANT_TENSOR_ALIGNMENT, serialize_xnnpack_binary
    from executorch.backends.xnnpack.utils import xnnpack_constants
    from executorch.exir import EdgeCompileConfig, EdgeProgramManager, to_edge, to_edge_transform_and_lower
    from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    # Without dim-order operators the conversion from uint8 costs 7 instructions an element on ARM64 instead of 48.
    # ExecuTorch's own checks of the graph between passes are off: they take a tenth of the time, and the result is verified by running it.
    EDGE_CONFIG = EdgeCompileConfig(_skip_dim_order=True, _check_ir_validity=False)

__all__ = [
    "CONSTANT_TENSOR_ALIGNMENT",
    "EDGE_CONFIG",
    "EdgeProgramManager",
    "LoweredBackendModule",
    "NamedDataStore",
    "NamedDataStoreOutput",
    "XnnpackPartitioner",
    "flags",
    "schema",
    "serialize_xnnpack_binary",
    "to_edge",
    "to_edge_transform_and_lower",
]

schema: Any = EXECUTORCH.guarded(xnnpack_graph_schema)
"""The operations and values of an XNNPACK graph."""
flags: Any = EXECUTORCH.guarded(xnnpack_constants)
"""XNNPACK's constants."""
