"""Builds an XNNPACK graph in the format that ExecuTorch's XNNPACK delegate reads.

ExecuTorch's own conversion from PyTorch to this format transposes every value back to PyTorch's layout at each reshape, and takes a minute for
a thousand operations. Here a value keeps the layout in which it was computed, a permutation only changes the description of its axes, and
elements move only where an operation needs another layout.
"""

import hashlib
import math
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipstep.export.compat.executorch_internals import (
    CONSTANT_TENSOR_ALIGNMENT,
    NamedDataStore,
    NamedDataStoreOutput,
    flags,
    schema,
    serialize_xnnpack_binary,
)
from clipstep.export.targets.quantization import Quantization, quantized_weight

NHWC = (0, 2, 3, 1)
NO_HANDLE = 65535
NAME_BYTES = 12
"""How much of the hash of a constant is its name. A file has hundreds of names, each in two places; ExecuTorch refuses two constants of one name."""
SHORT = 8
"""XNNPACK's transposition kernels move blocks of this many rows and columns."""
NONE = flags.XNN_INVALID_VALUE_ID
Type = torch.dtype | Quantization
"""What a value is held in: `torch.float32`, `torch.float16`, int8 with that quantization or, as an input, `torch.uint8`."""
DATATYPES = {
    torch.float32: schema.XNNDatatype.xnn_datatype_fp32,
    torch.float16: schema.XNNDatatype.xnn_datatype_fp16,
    torch.uint8: schema.XNNDatatype.xnn_datatype_quint8,
}
Clamp = tuple[float, float] | None
"""The bounds that an operation clamps its result to, (lowest, highest), or None."""


@dataclass(frozen=True)
class XnnValue:
    """A value of the graph and its layout in memory."""

    number: int
    """Its identifier in the graph."""
    memory: tuple[int, ...]
    """Its shape in memory, outermost axis first."""
    axes: tuple[int, ...]
    """For each axis in memory, which axis of the value it is: `NHWC` for a value `(N, C, H, W)` that is channels last."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.memory[self.axes.index(axis)] for axis in range(len(self.axes)))


class Graph:
    """XNNPACK's operations in the order in which they run. Inputs are float32 or uint8, and outputs float32."""

    def __init__(self) -> None:
        self.type: Type = torch.float32
        """The type of the results of the operations, and of the constants, that are added now."""
        self.dynamic = False
        """Whether the product that is added now is of integers, and its operand rounded in each step."""
        self.nodes: list[Any] = []
        self._values: list[Any] = []
        self._types: list[Type] = []
        self._scales: dict[int, Any] = {}
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._places = [schema.ConstantDataOffset(0, 0)]
        self._stored_places: dict[str, int] = {}
        self._data = NamedDataStore()
        self._constants: dict[tuple[tuple[int, ...], bytes, Type, bool], int] = {}
        self._weights: dict[tuple[tuple[int, ...], bytes, bytes, int], int] = {}
        self._layouts: dict[tuple[int, tuple[int, ...]], int] = {}
        self._reshapes: dict[int, int] = {}
        self._cuts: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._converted: dict[tuple[int, Type], int] = {}
        self._rounded: dict[int, int] = {}

    def prune(self) -> None:
        """Remove the operations whose results are not used."""
        used, kept = set(self._outputs), []
        for node in reversed(self.nodes):
            if node.xnode_union.output_id in used:
                kept.append(node)
                used |= _value_numbers(node)
        self.nodes = kept[::-1]

    def serialized(self) -> tuple[bytes, NamedDataStoreOutput]:
        """Return the delegate's bytes, and the constants that they refer to by name."""
        used = {*self._inputs, *self._outputs}.union(*(_value_numbers(node) for node in self.nodes))
        graph = schema.XNNGraph(
            version="0",
            xnodes=self.nodes,
            xvalues=[schema.XValue(self._quantized(value)) for value in self._values if value.id_out in used],
            num_externs=len(self._inputs) + len(self._outputs),
            input_ids=self._inputs,
            output_ids=self._outputs,
            constant_data=self._places,
        )
        return serialize_xnnpack_binary(graph, bytearray()), self._data.get_named_data_store_output()

    def input(self, shape: Sequence[int], kind: torch.dtype) -> XnnValue:
        """Add the next input, whose axes are in order in memory."""
        value = self._value(shape, kind=kind)
        self._expose(value.number, flags.XNN_VALUE_FLAG_EXTERNAL_INPUT, self._inputs)
        return value

    def scale_bytes(self, value: XnnValue, scale: float) -> None:
        """Let an input of uint8 stand for its numbers times a scale."""
        self._scales[value.number] = schema.PerTensorQuant(scale, 0)

    def output(self, value: XnnValue | Tensor) -> None:
        """Make a value the next output, with its axes in order in memory. Elements of another type are converted after they have moved."""
        self.type = torch.float32
        if isinstance(value, Tensor):
            value = XnnValue(self.constant(value), tuple(value.shape), tuple(range(value.ndim)))
        value = self.converted(self.to_layout(value, range(len(value.axes))), self.type)
        entry = self._values[value.number]
        if entry.flags or entry.constant_buffer_idx:
            value = self.add(schema.XNNCopy, value.memory, value.axes, input_id=value.number)
        self._expose(value.number, flags.XNN_VALUE_FLAG_EXTERNAL_OUTPUT, self._outputs)

    def converted(self, value: XnnValue, wanted: Type) -> XnnValue:
        """Return the value in a type, converted if it has another one."""
        if self._types[value.number] == wanted:
            return value
        key = (value.number, wanted)
        if key not in self._converted:
            self.type, before = wanted, self.type
            self._converted[key] = self.add(schema.XNNConvert, value.memory, value.axes, input_id=value.number).number
            self.type = before
        return XnnValue(self._converted[key], value.memory, value.axes)

    def constant(self, tensor: Tensor, packed: bool = False, kind: Type | None = None) -> int:
        """Add a constant that lies in memory in the order of the axes of `tensor`, of the current type or of `kind`, and return its number.

        Weights that XNNPACK packs are another value than an operand of the same numbers: an operation that reads packed weights crashes.
        """
        kind = self.type if kind is None else kind
        numbers = kind.integers(tensor.detach()) if isinstance(kind, Quantization) else tensor.detach().to(kind)
        data = numbers.contiguous().numpy().tobytes()
        key = (tuple(tensor.shape), data, kind, packed)
        if key not in self._constants:
            self._constants[key] = self._value(tensor.shape, place=self._stored(data), kind=kind).number
        return self._constants[key]

    def _stored(self, data: bytes) -> int:
        """Store the bytes of a constant once, and return their place."""
        name = urlsafe_b64encode(hashlib.sha256(data).digest()[:NAME_BYTES]).decode()
        if name not in self._stored_places:
            self._data.add_named_data(name, data, alignment=CONSTANT_TENSOR_ALIGNMENT)
            self._places.append(schema.ConstantDataOffset(flags.UINT64_MAX, len(data), name))
            self._stored_places[name] = len(self._places) - 1
        return self._stored_places[name]

    def product(
        self,
        operation: Any,
        x: XnnValue,
        weight: Tensor,
        bias: Tensor | None,
        memory: Sequence[int],
        axes: Sequence[int],
        clamp: Clamp = None,
        channels: int = 0,
        **fields: Any,
    ) -> XnnValue:
        """Add a convolution or a linear layer of constant weights, which lie in memory as in `weight`, whose axis `channels` is that of the output
        channels. Weights for a value of int8 are int8, each output channel with its own scale; biases are then int32 or, of a product that is
        `dynamic`, float32."""
        of_input = self._types[x.number]
        if self.dynamic or isinstance(of_input, Quantization):
            if isinstance(of_input, Quantization):
                integers, scales = quantized_weight(weight, channels, bias=bias, of_input=of_input.scale)
            else:
                integers, scales = quantized_weight(weight, channels)
            filter_id = self._per_channel(integers, scales, schema.XNNDatatype.xnn_datatype_qcint8, channels)
        else:
            filter_id = self.constant(weight, packed=True)
        if bias is None:
            bias_id = NONE
        elif isinstance(of_input, Quantization):
            bias_id = self._bias(bias, scales * of_input.scale)
        else:
            bias_id = self.constant(bias, kind=torch.float32 if self.dynamic else None)
        if self.dynamic:
            x = self._rounded_in_each_step(x)
        return self.add(operation, memory, axes, clamp, input1_id=x.number, filter_id=filter_id, bias_id=bias_id, **fields)

    def _rounded_in_each_step(self, x: XnnValue) -> XnnValue:
        """Return images as integers of 8 bits, of which the engine finds the scale and the zero point of each image in each step."""
        if x.number not in self._rounded:
            rounded = self.add(schema.XNNConvert, x.memory, x.axes, input_id=x.number)
            self._values[rounded.number].datatype = schema.XNNDatatype.xnn_datatype_qdint8
            self._scales[rounded.number] = schema.PerTokenDynamicQuant(num_nonbatch_dims=len(x.memory) - 1)
            self._rounded[x.number] = rounded.number
        return XnnValue(self._rounded[x.number], x.memory, x.axes)

    def _bias(self, bias: Tensor, scales: Tensor) -> int:
        integers = torch.round(bias.detach().double() / scales.double()).to(torch.int32)
        return self._per_channel(integers, scales, schema.XNNDatatype.xnn_datatype_qcint32, 0)

    def _per_channel(self, integers: Tensor, scales: Tensor, datatype: Any, axis: int) -> int:
        """Add weights or biases whose entries along an axis have scales of their own."""
        data, divisors = (tensor.contiguous().numpy().tobytes() for tensor in (integers, scales.to(torch.float32)))
        key = (tuple(integers.shape), data, divisors, axis)
        if key not in self._weights:
            number = self._value(integers.shape, place=self._stored(data)).number
            self._values[number].datatype = datatype
            self._scales[number] = schema.PerChannelQuant([], axis, scale_buffer_idx=self._stored(divisors), num_scales=scales.numel())
            self._weights[key] = number
        return self._weights[key]

    def add(
        self, operation: Any, memory: Sequence[int], axes: Sequence[int], clamp: Clamp = None, like: int | None = None, **fields: Any
    ) -> XnnValue:
        """Add an operation, with `clamp` fused into it, and return its result, of the current type or of that of the value `like`."""
        result = self._value(memory, axes, kind=None if like is None else self._types[like])
        bounds = None if clamp is None else schema.OutputMinMax(*(_json(bound) for bound in clamp))
        self.nodes.append(schema.XNode(operation(output_id=result.number, **{"flags": 0, **fields}), NO_HANDLE, bounds))
        return result

    def moved(self, operation: Any, memory: Sequence[int], axes: Sequence[int], source: int, **fields: Any) -> XnnValue:
        """Add an operation that only moves the elements of the value `source`, and return its result, of the same type."""
        return self.add(operation, memory, axes, like=source, input_id=source, **fields)

    def elementwise(self, operation: Any, value: XnnValue, clamp: Clamp = None, **fields: Any) -> XnnValue:
        """Add an elementwise operation. If `value` is a reshape, the operation is put before it, because the next reshape may undo that reshape."""
        source = self._reshapes.get(value.number, value.number)
        dims = self._values[source].dims
        done = self.add(operation, dims, range(len(dims)), clamp, input_id=source, **fields)
        return self._reshaped(done, value.memory, value.axes)

    def to_layout(self, value: XnnValue, axes: Sequence[int]) -> XnnValue:
        """Return the value with its axes in the given order in memory, transposed if it has another."""
        axes = tuple(axes)
        if value.axes == axes:
            return value
        order = tuple(value.axes.index(axis) for axis in axes)
        memory = [value.memory[place] for place in order]
        if (value.number, order) not in self._layouts:
            long = [place for place in order if value.memory[place] > 1]
            if long == sorted(long):
                moved = self._reshaped(value, memory, axes)
            elif _swaps_short_axes(value.memory, order):
                moved = self._swapped(value, order)
            else:
                moved = self.moved(schema.XNNStaticTranspose, memory, axes, value.number, num_dims=len(order), perm=list(order))
            self._layouts[value.number, order] = moved.number
        return XnnValue(self._layouts[value.number, order], tuple(memory), axes)

    def _swapped(self, value: XnnValue, order: tuple[int, ...]) -> XnnValue:
        """Exchange the last two axes, one of which is short.

        A single transposition would move short rows. Two transpositions move long ones: the first puts the two axes, already exchanged, before all
        others, and the second puts them back to the end.
        """
        axes = [value.axes[place] for place in order]
        first = self.to_layout(value, [*axes[-2:], *axes[:-2]])
        rows = math.prod(first.memory[2:])
        flat = self._reshaped(first, (first.memory[0] * first.memory[1], rows), (0, 1))
        return self._reshaped(self.to_layout(flat, (1, 0)), [value.memory[place] for place in order], axes)

    def reshape(self, value: XnnValue, shape: Sequence[int], channels_last: bool = False) -> XnnValue:
        """Reshape the value. Elements move only if the reshape joins axes that are not adjacent in memory. They are then put in row-major order or,
        with `channels_last`, in NHWC."""
        shape = tuple(shape) or (1,)
        if shape == value.shape:
            return value
        groups = _groups(value.shape, shape)
        order = _order_of_groups(value, [before for before, _ in groups])
        wanted = NHWC if channels_last and len(shape) == len(NHWC) else tuple(range(len(shape)))
        long = [axis for axis in wanted if shape[axis] > 1]
        if order is None:
            order = sorted(range(len(groups)), key=lambda group: next((long.index(axis) for axis in groups[group][1] if axis in long), -1))
            value = self.to_layout(value, [axis for group in order for axis in groups[group][0]])
        axes = [axis for group in order for axis in groups[group][1]]
        if [axis for axis in axes if shape[axis] > 1] == long:
            axes = list(wanted)
        memory = [shape[axis] for axis in axes]
        if memory == list(value.memory):
            return XnnValue(value.number, value.memory, tuple(axes))
        return self._reshaped(value, memory, axes)

    def operand(self, value: Any, like: XnnValue) -> tuple[int, tuple[int, ...]]:
        """Bring an operand to the layout of `like`, the other operand, and return its number and its shape in memory."""
        rank = len(like.axes)
        if not isinstance(value, XnnValue):
            tensor = value if isinstance(value, Tensor) else Tensor([value])
            tensor = tensor.reshape((1,) * (rank - tensor.ndim) + tuple(tensor.shape)).permute(like.axes)
            own = Quantization.of(tensor) if isinstance(self.type, Quantization) else self.type
            return self.constant(tensor, kind=own), tuple(tensor.shape)
        if len(value.axes) < rank:
            value = self.reshape(value, (1,) * (rank - len(value.axes)) + value.shape)
        value = self.to_layout(value, like.axes)
        return value.number, value.memory

    def cut(self, value: XnnValue, starts: Sequence[int], sizes: Sequence[int]) -> XnnValue:
        """Slice the value along its axes in memory. A slice of a slice is taken from the original value."""
        if tuple(sizes) == value.memory:
            return value
        if (unshaped := self._cut_before_reshape(value, starts, sizes)) is not None:
            return self._reshaped(unshaped, sizes, value.axes)
        source, before = self._cuts.get(value.number, (value.number, (0,) * len(starts)))
        starts = tuple(start + first for start, first in zip(starts, before, strict=True))
        result = self.moved(schema.XNNStaticSlice, sizes, value.axes, source, num_dims=len(sizes), offsets=list(starts), sizes=list(sizes))
        self._cuts[result.number] = (source, starts)
        return result

    def _cut_before_reshape(self, value: XnnValue, starts: Sequence[int], sizes: Sequence[int]) -> XnnValue | None:
        """Take the slice from the value before its reshape, if it is a slice there too; otherwise return None."""
        if value.number not in self._reshapes:
            return None
        source = self._reshapes[value.number]
        dims = self._values[source].dims
        starts_there, sizes_there = [0] * len(dims), list(dims)
        for before, after in _groups(dims, value.memory):
            if all(sizes[place] == value.memory[place] for place in after):
                continue
            (place, *others) = [place for place in after if value.memory[place] > 1]
            *outer, inner = [place for place in before if dims[place] > 1]
            index, start = divmod(starts[place], dims[inner])
            if others or start + sizes[place] > dims[inner]:
                return None
            starts_there[inner], sizes_there[inner] = start, sizes[place]
            for axis in reversed(outer):
                index, starts_there[axis] = divmod(index, dims[axis])
                sizes_there[axis] = 1
        return self.cut(XnnValue(source, tuple(dims), tuple(range(len(dims)))), starts_there, sizes_there)

    def _reshaped(self, value: XnnValue, memory: Sequence[int], axes: Sequence[int]) -> XnnValue:
        source = self._reshapes.get(value.number, value.number)
        if self._values[source].dims == list(memory):
            return XnnValue(source, tuple(memory), tuple(axes))
        result = self.moved(schema.XNNStaticReshape, memory, axes, source, num_dims=len(memory), new_shape=list(memory))
        self._reshapes[result.number] = source
        return result

    def _value(self, memory: Sequence[int], axes: Sequence[int] | None = None, place: int = 0, kind: Type | None = None) -> XnnValue:
        number, dims = len(self._values), [int(size) for size in memory] or [1]
        kind = self.type if kind is None else kind
        self._types.append(kind)
        self._values.append(
            schema.XNNTensorValue(
                datatype=schema.XNNDatatype.xnn_datatype_qint8 if isinstance(kind, Quantization) else DATATYPES[kind],
                num_dims=len(dims),
                dims=dims,
                constant_buffer_idx=place,
                external_id=NONE,
                flags=0,
                id_out=number,
            )
        )
        return XnnValue(number, tuple(dims), tuple(range(len(dims))) if axes is None else tuple(axes))

    def _quantized(self, value: Any) -> Any:
        """Return a value with its scales, if it is one of integers. Those of uint8 stand for themselves if their input was given no scale."""
        kind = self._types[value.id_out]
        scales = self._scales.get(self._cuts.get(value.id_out, (value.id_out,))[0])
        if scales is None and isinstance(kind, Quantization):
            scales = schema.PerTensorQuant(kind.scale, kind.zero_point)
        elif scales is None and kind == torch.uint8:
            scales = schema.PerTensorQuant(1.0, 0)
        return value if scales is None else schema.XNNQuantizedTensorValue(value, scales)

    def _expose(self, number: int, kind: int, numbers: list[int]) -> None:
        self._values[number].flags |= kind
        self._values[number].external_id = len(self._inputs) + len(self._outputs)
        numbers.append(number)


class Sketch(Graph):
    """A graph that is made only to see what can be written: it keeps no constants."""

    def constant(self, tensor: Tensor, packed: bool = False, kind: Type | None = None) -> int:
        return self._value(tensor.shape).number


def _value_numbers(node: Any) -> set[int]:
    """Return the numbers of the values that an operation takes and gives."""
    return {number for name, number in vars(node.xnode_union).items() if name.endswith("_id")}


def _swaps_short_axes(memory: Sequence[int], order: tuple[int, ...]) -> bool:
    """Whether a permutation exchanges the last two axes in memory, of which one is too short for a transposition kernel."""
    *rows, first, second = (1, *memory)
    return order[-2:] == (len(order) - 1, len(order) - 2) and min(first, second) < SHORT and math.prod(rows) >= 2 * SHORT


def _json(bound: float) -> float | str:
    """Return a bound as it is written in the schema's JSON, where infinity is a string."""
    return {float("inf"): "+inf", float("-inf"): "-inf"}.get(bound, float(bound))


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest runs of axes that hold the same elements: pairs of the value's axes and the result's axes."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new, size, wanted = [], [], 1, 1
        if i < len(before):
            old.append(i)
            size, i = before[i], i + 1
        if j < len(after):
            new.append(j)
            wanted, j = after[j], j + 1
        while size != wanted:
            if size < wanted:
                old.append(i)
                size, i = size * before[i], i + 1
            else:
                new.append(j)
                wanted, j = wanted * after[j], j + 1
        groups.append((old, new))
    return groups


def _order_of_groups(value: XnnValue, groups: Sequence[Sequence[int]]) -> list[int] | None:
    """Return the order in which the groups of axes lie in memory, if the axes of each group are adjacent and in order there, else None."""
    size = dict(zip(value.axes, value.memory, strict=True))
    place = {axis: index for index, axis in enumerate(axis for axis in value.axes if size[axis] > 1)}
    order = []
    for index, group in enumerate(groups):
        places = [place[axis] for axis in group if axis in place]
        if places and places != list(range(places[0], places[0] + len(places))):
            return None
        order.append((places[0] if places else -1, index))
    return [index for _, index in sorted(order)]
