"""An ONNX graph while it is written: its nodes, its constants and the types of its values."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from clipstep.export.targets.quantization import LOWEST, Quantization
from clipstep.export.unsupported import Unsupported

TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.uint8: TensorProto.UINT8,
    torch.int8: TensorProto.INT8,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


def unsigned(integers: Tensor) -> Tensor:
    """Return integers of int8 as those of uint8 that stand for the same numbers."""
    return (integers.to(torch.int16) - LOWEST).to(torch.uint8)


class OnnxGraph:
    """The nodes of a model in their order, and their constants. No value inside gets one of the names in `taken`, those of inputs and outputs."""

    def __init__(self, opset: int, taken: Collection[str] = ()) -> None:
        self.opset = opset
        self.taken = frozenset(taken)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[bytes, TensorProto] = {}
        self.cuts: dict[str, tuple[str, dict[int, tuple[int, int]]]] = {}
        """For each slice with a step of 1: the value that is sliced, and the start and end along each axis."""
        self.reshaped: dict[str, str] = {}
        """For each reshape: the value that is reshaped."""
        self.transposed: dict[str, tuple[str, list[int]]] = {}
        """For each transposition: the value that is transposed, and which of its axes each axis is."""
        self.integers: dict[str, Quantization] = {}
        """For each value that is held as uint8: what its integers stand for."""
        self.joined: dict[str, tuple[list[str], Tensor]] = {}
        """For each concatenation along the first axis of values and a constant after them: the values, and the constant."""
        self._converted: dict[tuple[str, Quantization | None], str] = {}

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its result. The node has that name too: onnxruntime 1.21 and older fuse nodes without names wrongly."""
        name = self._free(f"{operation.lower()}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(operation, list(inputs), [name], name=name, **attributes))
        return name

    def add_outputs(self, operation: str, *inputs: str, count: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several results and return their names."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        names = [self._free(f"{name}_{place}") for place in range(count)]
        self.nodes.append(helper.make_node(operation, list(inputs), names, name=name, **attributes))
        return tuple(names)

    def constant(self, value: Tensor | Sequence[int] | float) -> str:
        """Add a constant, a tensor, integers or one float32, and return its name. Equal constants are stored once."""
        if isinstance(value, Tensor):
            array = value.detach().contiguous().numpy()
        else:
            array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        key = array.tobytes() + repr((array.shape, array.dtype)).encode()
        if key not in self.initializers:
            self.initializers[key] = numpy_helper.from_array(array, self._free(f"constant_{len(self.initializers)}"))
        return str(self.initializers[key].name)

    def _free(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        return name

    def name(self, value: Any, kind: torch.dtype | None = None) -> str:
        """Return the name of a value. A tensor or a number is added as a constant, a number as one of type `kind`; a name is returned as it is."""
        if isinstance(value, str):
            return value
        return self.constant(value if isinstance(value, Tensor) else torch.tensor(value, dtype=kind or torch.float32))

    def quantized(self, value: str, quantization: Quantization) -> str:
        """Return a value as uint8, converted if it is not held so."""
        if self.integers.get(value) == quantization:
            return value
        if (value, quantization) not in self._converted:
            made = self.held(self.add("QuantizeLinear", self.dequantized(value), *self._parameters(quantization)), quantization)
            self._converted[value, quantization] = made
        return self._converted[value, quantization]

    def dequantized(self, value: str) -> str:
        """Return a value as float32, converted if it is held as uint8."""
        if value not in self.integers:
            return value
        if (value, None) not in self._converted:
            self._converted[value, None] = self.add("DequantizeLinear", value, *self._parameters(self.integers[value]))
        return self._converted[value, None]

    def held(self, value: str, quantization: Quantization) -> str:
        """Note what the integers of a value of uint8 stand for, and return its name."""
        self.integers[value] = quantization
        return value

    def _parameters(self, quantization: Quantization) -> tuple[str, str]:
        return self.constant(quantization.scale), self.constant(unsigned(torch.tensor(quantization.zero_point)))

    def cast(self, value: str, kind: torch.dtype) -> str:
        """Convert a value to another type.

        Raises:
            Unsupported: ONNX files are not written with values of that type.
        """
        if kind not in TYPES:
            raise Unsupported("values of a type that is not written")
        return self.add("Cast", value, to=TYPES[kind])
