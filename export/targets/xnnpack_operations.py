"""The table of the ATen operators that are written as operators of XNNPACK, each with the function that writes it."""

from collections.abc import Callable
from typing import Any

import torch

from clipstep.export.compat.executorch_internals import schema
from clipstep.export.lowering.operators import RESHAPES
from clipstep.export.targets import xnnpack_arithmetic as arithmetic
from clipstep.export.targets import xnnpack_movement as movement
from clipstep.export.targets.common import IDENTITY

aten = torch.ops.aten
OPERATORS: dict[Any, Callable[..., Any]] = {
    **{target: arithmetic.clamp_writer(target) for target in arithmetic.CLAMPS},
    **dict.fromkeys(IDENTITY, movement.identity),
    **dict.fromkeys(RESHAPES, movement.reshape),
    aten.conv2d.default: arithmetic.conv2d,
    aten.conv_transpose2d.input: arithmetic.conv_transpose2d,
    aten.linear.default: arithmetic.linear,
    aten.matmul.default: arithmetic.matmul,
    aten.mm.default: arithmetic.matmul,
    aten.bmm.default: arithmetic.matmul,
    aten.add.Tensor: arithmetic.scaled(schema.XNNAdd),
    aten.sub.Tensor: arithmetic.scaled(schema.XNNSubtract),
    aten.rsub.Scalar: arithmetic.reversed_subtraction,
    aten.mul.Tensor: arithmetic.binary(schema.XNNMultiply),
    aten.div.Tensor: arithmetic.binary(schema.XNNDiv),
    aten.maximum.default: arithmetic.binary(schema.XNNMaximum),
    aten.minimum.default: arithmetic.binary(schema.XNNMinimum),
    aten.sigmoid.default: arithmetic.unary(schema.XNNSigmoid),
    aten.tanh.default: arithmetic.unary(schema.XNNTanh),
    aten.hardswish.default: arithmetic.unary(schema.XNNHardswish),
    aten.exp.default: arithmetic.unary(schema.XNNExp),
    aten.log.default: arithmetic.unary(schema.XNNLog),
    aten.sqrt.default: arithmetic.unary(schema.XNNSquareRoot),
    aten.rsqrt.default: arithmetic.unary(schema.XNNReciprocalSquareRoot),
    aten.abs.default: arithmetic.unary(schema.XNNAbs),
    aten.neg.default: arithmetic.unary(schema.XNNNegate),
    aten.reciprocal.default: arithmetic.reciprocal,
    aten.floor.default: arithmetic.unary(schema.XNNFloor),
    aten.ceil.default: arithmetic.unary(schema.XNNCeiling),
    aten.sin.default: arithmetic.unary(schema.XNNSin),
    aten.cos.default: arithmetic.unary(schema.XNNCos),
    aten.leaky_relu.default: arithmetic.leaky_relu,
    aten.elu.default: arithmetic.elu,
    aten.gelu.default: arithmetic.gelu,
    aten.silu.default: arithmetic.silu,
    aten.hardsigmoid.default: arithmetic.hard_sigmoid,
    aten.pow.Tensor_Scalar: arithmetic.power,
    aten.softmax.int: arithmetic.softmax,
    aten.layer_norm.default: arithmetic.layer_norm,
    aten.cat.default: movement.cat,
    aten.slice.Tensor: movement.slice_tensor,
    aten.select.int: movement.select,
    aten.split.Tensor: movement.splits,
    aten.split_with_sizes.default: movement.splits,
    aten.unbind.int: movement.unbind,
    aten.expand.default: movement.expand,
    aten.index_select.default: movement.index_select,
    aten.flip.default: movement.flip,
    aten.contiguous.default: movement.contiguous,
    aten.permute.default: movement.permute,
    aten.transpose.int: movement.transpose,
    aten.t.default: movement.matrix_transpose,
    aten.pad.default: movement.pad,
    aten.constant_pad_nd.default: movement.constant_pad,
    aten.pixel_unshuffle.default: movement.pixel_unshuffle,
    aten.pixel_shuffle.default: movement.pixel_shuffle,
    aten.max_pool2d.default: arithmetic.max_pool2d,
    aten.avg_pool2d.default: arithmetic.avg_pool2d,
    aten.mean.dim: arithmetic.mean,
    aten.mean.default: arithmetic.mean,
    aten.sum.dim_IntList: arithmetic.total,
    aten.amax.default: arithmetic.largest_of,
    aten.amin.default: arithmetic.smallest_of,
    aten.upsample_bilinear2d.vec: arithmetic.resize,
}
