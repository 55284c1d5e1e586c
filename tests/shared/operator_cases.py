"""Calls of ATen operators on two values `(1, 6, 4, 5)`, by operator: every operator that a writer takes, and others that networks use."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.targets import TARGETS

aten = torch.ops.aten
Function = Callable[[Tensor, Tensor], Any]


def weight(*shape: int) -> Tensor:
    return (torch.arange(1, 1 + math.prod(shape)) * 1.7).sin().reshape(shape)


def places(*values: int) -> Tensor:
    return torch.tensor(values)


def mask(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape)).reshape(shape) % 3 != 0


def varied(function: Callable[[Tensor, float], Tensor], number: float) -> Function:
    return lambda a, b: function(a, number)


A, B = (torch.randn(1, 6, 4, 5, generator=torch.Generator().manual_seed(i)) for i in range(2))
ROWS = (torch.arange(120) * 7 % 120).reshape(1, 6, 4, 5)  # Numbers in a mixed order, no two of them equal.
START = weight(2, 4, 3)  # Hidden states of recurrent layers, which take `(6, 4, 5)`: 6 frames of 4 batches.
GRU, RNN = ([weight(gates, 5), weight(gates, 3), weight(gates), -weight(gates)] for gates in (9, 3))
LSTM, LSTM_ABOVE = ([weight(12, size), weight(12, 3)] for size in (5, 3))
CASES: dict[Any, Function | list[Function]] = {
    # Elementwise
    aten.__and__.Scalar: lambda a, b: ((a * 99).int() & 13).float(),
    aten.__lshift__.Scalar: lambda a, b: ((a * 9).int() << 3).float(),
    aten.__or__.Scalar: lambda a, b: ((a * 99).int() | 13).float(),
    aten.__rshift__.Scalar: lambda a, b: ((a * 99).int() >> 3).float(),
    aten.__xor__.Scalar: lambda a, b: ((a * 99).int() ^ 13).float(),
    aten.abs.default: lambda a, b: a.abs(),
    aten.acos.default: lambda a, b: a.tanh().acos(),
    aten.acosh.default: lambda a, b: torch.cat([(a.abs() + 1).acosh(), (a.abs() * 200 + 1).acosh()], 1),
    aten.add.Scalar: [lambda a, b: aten.add.Scalar(a, 2), lambda a, b: aten.add.Scalar((a * 9).int(), 2).float()],
    aten.add.Tensor: [lambda a, b: torch.add(a, b, alpha=2), lambda a, b: a + (a > 0), lambda a, b: ((a > 0) + (b > 0).int()).float()],
    aten.addcdiv.default: lambda a, b: torch.addcdiv(a, b, a.abs() + 1, value=0.5),
    aten.addcmul.default: lambda a, b: torch.addcmul(a, b, a, value=0.5),
    aten.asin.default: lambda a, b: a.tanh().asin(),
    aten.asinh.default: [lambda a, b: a.asinh(), lambda a, b: (a * 0.01).asinh() * 100, lambda a, b: (a * 300).asinh()],
    aten.atan.default: lambda a, b: a.atan(),
    aten.atan2.default: [lambda a, b: torch.atan2(a, b), lambda a, b: torch.atan2(a.relu(), b.relu()), lambda a, b: torch.atan2(a, b[:, :1].relu())],
    aten.atanh.default: lambda a, b: (a / 9).atanh(),
    aten.bitwise_and.Scalar: [
        lambda a, b: aten.bitwise_and.Scalar((a * 99).int(), 13).float(),
        lambda a, b: aten.bitwise_and.Scalar((a * 99).int(), -6).float(),
    ],
    aten.bitwise_and.Tensor: [
        lambda a, b: aten.bitwise_and.Tensor(a > 0, b > 0).float(),
        lambda a, b: aten.bitwise_and.Tensor((a * 99).int(), torch.tensor(6, dtype=torch.int32)).float(),
    ],
    aten.bitwise_left_shift.Tensor_Scalar: lambda a, b: aten.bitwise_left_shift.Tensor_Scalar((a * 9).int(), 3).float(),
    aten.bitwise_not.default: [lambda a, b: (~(a > 0)).float(), lambda a, b: (~(a * 9).int()).float()],
    aten.bitwise_or.Scalar: lambda a, b: aten.bitwise_or.Scalar((a * 99).int(), 13).float(),
    aten.bitwise_or.Tensor: [
        lambda a, b: aten.bitwise_or.Tensor(a > 0, b > 0).float(),
        lambda a, b: aten.bitwise_or.Tensor((a * 99).int(), torch.tensor(6, dtype=torch.int32)).float(),
    ],
    aten.bitwise_right_shift.Tensor_Scalar: lambda a, b: aten.bitwise_right_shift.Tensor_Scalar((a * 99).int(), 3).float(),
    aten.bitwise_xor.Scalar: lambda a, b: aten.bitwise_xor.Scalar((a * 99).int(), 13).float(),
    aten.bitwise_xor.Tensor: [
        lambda a, b: aten.bitwise_xor.Tensor(a > 0, b > 0).float(),
        lambda a, b: aten.bitwise_xor.Tensor((a * 99).int(), torch.tensor(6, dtype=torch.int32)).float(),
    ],
    aten.ceil.default: [lambda a, b: a.ceil(), lambda a, b: (a * 9).int().ceil().float()],
    aten.celu.default: lambda a, b: aten.celu.default(a, 0.7),
    aten.clamp.Tensor: lambda a, b: a.clamp(b - 1, b.abs()),
    aten.clamp.default: [
        lambda a, b: a.clamp(-0.5, 0.5),
        lambda a, b: a.clamp(min=0),
        lambda a, b: a.clamp(max=0.3),
        lambda a, b: a.clamp(0.3, 0.3),
        lambda a, b: (a * 9).int().clamp(-2, 3).float(),
    ],
    aten.clamp_max.Tensor: lambda a, b: a.clamp_max(b),
    aten.clamp_max.default: lambda a, b: a.clamp_max(0.2),
    aten.clamp_min.Tensor: lambda a, b: a.clamp_min(b),
    aten.clamp_min.default: lambda a, b: a.clamp_min(0.2),
    aten.copysign.Scalar: lambda a, b: torch.copysign(a, -1.0),
    aten.copysign.Tensor: lambda a, b: torch.copysign(a, b),
    aten.cos.default: lambda a, b: a.cos(),
    aten.cosh.default: lambda a, b: a.cosh(),
    aten.div.Scalar: lambda a, b: aten.div.Scalar((a * 9).int(), 2),
    aten.div.Scalar_mode: lambda a, b: aten.div.Scalar_mode(a, 0.3, rounding_mode="floor"),
    aten.div.Tensor: [lambda a, b: a / (b.abs() + 1), lambda a, b: (a * 9).int() / 2],
    aten.div.Tensor_mode: [
        lambda a, b: torch.div(a, b.abs() + 0.3, rounding_mode="floor"),
        lambda a, b: torch.div(a, b.abs() + 0.3, rounding_mode="trunc"),
        lambda a, b: torch.div((a * 9).int(), (b * 9).int().abs() + 1, rounding_mode="trunc").float(),
        lambda a, b: torch.div((a * 9).int(), -4, rounding_mode="trunc").float(),
        lambda a, b: torch.div((a * 9).int(), -4, rounding_mode="floor").float(),
    ],
    aten.elu.default: [lambda a, b: F.elu(a, 0.5), lambda a, b: aten.elu.default(a, 0.5, 1.2, 0.7)],
    aten.eq.Scalar: [lambda a, b: (a.round() == 1).float(), lambda a, b: ((a > 0) == True).float()],  # noqa: E712
    aten.eq.Tensor: lambda a, b: (a.round() == b.round()).float(),
    aten.erf.default: lambda a, b: a.erf(),
    aten.erfc.default: lambda a, b: a.erfc(),
    aten.exp.default: lambda a, b: a.exp(),
    aten.exp2.default: lambda a, b: a.exp2(),
    aten.expm1.default: [lambda a, b: a.expm1(), lambda a, b: (a * 1e-3).expm1() * 1e3],
    aten.floor.default: lambda a, b: a.floor(),
    aten.floor_divide.default: lambda a, b: torch.floor_divide(a, b.abs() + 0.3),
    aten.fmax.default: [
        lambda a, b: torch.fmax(a, b),
        lambda a, b: torch.fmax(a / 0 * 0, b),
        lambda a, b: torch.fmax((a * 9).int(), (b * 9).int()).float(),
    ],
    aten.fmin.default: lambda a, b: torch.fmin(a, b / 0 * 0),
    aten.fmod.Scalar: [lambda a, b: torch.fmod(a * 8, 3), lambda a, b: torch.fmod((a * 99).int(), 7).float()],
    aten.fmod.Tensor: lambda a, b: torch.fmod(a * 8, b.sign() * 3),
    aten.frac.default: lambda a, b: a.frac(),
    aten.ge.Scalar: lambda a, b: (a >= 0.3).float(),
    aten.ge.Tensor: lambda a, b: (a >= b).float(),
    aten.gelu.default: [lambda a, b: F.gelu(a), lambda a, b: F.gelu(a, approximate="tanh")],
    aten.gt.Scalar: lambda a, b: (a > 0.3).float(),
    aten.gt.Tensor: lambda a, b: (a > b).float(),
    aten.hardsigmoid.default: lambda a, b: F.hardsigmoid(a * 4),
    aten.hardswish.default: lambda a, b: F.hardswish(a * 4),
    aten.hardtanh.default: lambda a, b: F.hardtanh(a),
    aten.gru.input: [
        lambda a, b: torch.gru(a[0], START[:1], GRU, True, 1, 0.0, False, False, False)[0],
        lambda a, b: torch.gru(a[0], b.flatten()[:24].view(2, 4, 3), GRU * 2, True, 1, 0.0, False, True, False)[1],
    ],
    aten.lstm.input: [
        lambda a, b: torch.lstm(a[0].transpose(0, 1), (START[:1], START[1:]), LSTM, False, 1, 0.0, False, False, True)[0],
        lambda a, b: torch.lstm(a[0], (b[0, :2, :, :3], START), LSTM + LSTM_ABOVE, False, 2, 0.0, False, False, False)[2],
    ],
    aten.rnn_tanh.input: lambda a, b: torch.rnn_tanh(a[0], START * 0, RNN * 2, True, 1, 0.0, False, True, False)[0],
    aten.rnn_relu.input: lambda a, b: torch.rnn_relu(a[0], START[:1], RNN, True, 1, 0.0, False, False, False)[1],
    aten.hypot.default: [lambda a, b: torch.hypot(a, b), lambda a, b: torch.hypot(a * 300, b), lambda a, b: torch.hypot(a.relu(), b.relu())],
    aten.isfinite.default: lambda a, b: torch.isfinite(a / b.relu()).float(),
    aten.isinf.default: lambda a, b: torch.isinf(a / b.relu()).float(),
    aten.isnan.default: lambda a, b: torch.isnan(a.relu() / b.relu()).float(),
    aten.le.Scalar: lambda a, b: (a <= 0.3).float(),
    aten.le.Tensor: lambda a, b: (a <= b).float(),
    aten.leaky_relu.default: lambda a, b: F.leaky_relu(a, 0.2),
    aten.log.default: lambda a, b: (a.abs() + 0.1).log(),
    aten.log10.default: lambda a, b: (a.abs() + 0.1).log10(),
    aten.log1p.default: [lambda a, b: a.abs().log1p(), lambda a, b: (a * 1e-3).log1p() * 1e3, lambda a, b: (a.tanh() * 0.9).log1p()],
    aten.log2.default: lambda a, b: (a.abs() + 0.1).log2(),
    aten.log_sigmoid.default: lambda a, b: aten.log_sigmoid.default(a * 9),
    aten.logical_and.default: lambda a, b: torch.logical_and(a.relu(), b > 0).float(),
    aten.logical_not.default: lambda a, b: torch.logical_not(a.relu()).float(),
    aten.logical_or.default: lambda a, b: torch.logical_or(a.relu(), b > 0).float(),
    aten.logical_xor.default: lambda a, b: torch.logical_xor(a.relu(), b > 0).float(),
    aten.logit.default: [lambda a, b: aten.logit.default(a.sigmoid()), lambda a, b: aten.logit.default(a.sigmoid(), 0.2)],
    aten.lt.Scalar: lambda a, b: (a < 0.3).float(),
    aten.lt.Tensor: lambda a, b: (a < b).float(),
    aten.masked_fill.Scalar: lambda a, b: a.masked_fill(b > 0, 0.5),
    aten.masked_fill.Tensor: lambda a, b: a.masked_fill(b > 0, b.mean()),
    aten.maximum.default: [lambda a, b: torch.maximum(a, b), lambda a, b: torch.maximum(a, torch.tensor(0.1))],
    aten.minimum.default: lambda a, b: torch.minimum(a, b),
    aten.mish.default: lambda a, b: F.mish(a),
    aten.mul.Scalar: lambda a, b: aten.mul.Scalar(a, 3),
    aten.mul.Tensor: [lambda a, b: a * b, lambda a, b: a * (b > 0), lambda a, b: ((a > 0) * (b > 0)).float(), lambda a, b: a.double().mul(2).float()],
    aten.ne.Scalar: lambda a, b: (a.round() != 0).float(),
    aten.ne.Tensor: lambda a, b: ((a > 0) != (b > 0)).float(),
    aten.neg.default: [lambda a, b: -a, lambda a, b: (-(a * 9).int()).float()],
    aten.positive.default: lambda a, b: aten.positive.default(a) * 1,
    aten.pow.Scalar: [lambda a, b: torch.pow(2, a), lambda a, b: torch.pow(3.0, a)],
    aten.pow.Tensor_Scalar: [
        *(varied(lambda a, n: a**n, n) for n in (1, 2, 3, 4, 5)),
        *(varied(lambda a, n: (a.abs() + 0.5) ** n, n) for n in (0.5, -1, -2.0, 1.7)),
        lambda a, b: ((a * 9).int() ** 2).float(),
    ],
    aten.pow.Tensor_Tensor: lambda a, b: a.abs() ** b.abs(),
    aten.prelu.default: [lambda a, b: aten.prelu.default(a, weight(6)), lambda a, b: aten.prelu.default(a, weight(1))],
    aten._prelu_kernel.default: lambda a, b: aten._prelu_kernel.default(a, weight(1, 6, 1, 1)),
    aten.reciprocal.default: lambda a, b: (a.abs() + 0.5).reciprocal(),
    aten.relu.default: [lambda a, b: a.relu(), lambda a, b: (a * 9).int().relu().float()],
    aten.relu6.default: lambda a, b: F.relu6(a * 9),
    aten.remainder.Scalar: lambda a, b: torch.remainder(a * 8, 3),
    aten.remainder.Scalar_Tensor: lambda a, b: torch.remainder(3, (a * 9).int().abs() + 1).float(),
    aten.remainder.Tensor: lambda a, b: torch.remainder(a * 8, b.sign() * 3),
    aten.round.decimals: lambda a, b: torch.round(a, decimals=1),
    aten.round.default: lambda a, b: (a * 4).round(),
    aten.rsqrt.default: lambda a, b: (a.abs() + 0.5).rsqrt(),
    aten.rsub.Scalar: [lambda a, b: torch.rsub(a, 2, alpha=3), lambda a, b: 1 - a],
    aten.rsub.Tensor: lambda a, b: torch.rsub(a, b, alpha=3),
    aten.selu.default: lambda a, b: F.selu(a),
    aten.sgn.default: lambda a, b: a.round().sgn(),
    aten.sigmoid.default: [lambda a, b: a.sigmoid(), lambda a, b: (a > 0).sigmoid()],
    aten.sign.default: lambda a, b: a.round().sign(),
    aten.signbit.default: lambda a, b: a.signbit().float(),
    aten.silu.default: lambda a, b: F.silu(a),
    aten.sin.default: lambda a, b: a.sin(),
    aten.sinh.default: lambda a, b: a.sinh(),
    aten.softplus.default: [lambda a, b: F.softplus(a), lambda a, b: F.softplus(a, 3.0, 2.0e1)],
    aten.sqrt.default: lambda a, b: a.abs().sqrt(),
    aten.square.default: lambda a, b: aten.square.default(a),
    aten.sub.Scalar: lambda a, b: aten.sub.Scalar(a, 2),
    aten.sub.Tensor: [lambda a, b: torch.sub(a, b, alpha=2), lambda a, b: torch.sub(a[:, :1], b, alpha=0.5)],
    aten.tan.default: lambda a, b: a.tanh().tan(),
    aten.tanh.default: lambda a, b: a.tanh(),
    aten.threshold.default: lambda a, b: F.threshold(a, 0.1, 0.5),
    aten.to.dtype: [
        lambda a, b: a.half().float(),
        lambda a, b: (a * 9).to(torch.int64).float(),
        lambda a, b: a.round().bool().float(),
        lambda a, b: (a > 0).int().float(),
        lambda a, b: a.double().float(),
    ],
    aten._to_copy.default: lambda a, b: aten._to_copy.default(a > 0, dtype=torch.float32),
    aten.trunc.default: lambda a, b: a.trunc(),
    aten.where.ScalarOther: lambda a, b: torch.where(a > 0, a, 0.5),
    aten.where.ScalarSelf: lambda a, b: torch.where(a > 0, 0.5, a),
    aten.where.self: [
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: torch.where(a > 0, torch.tensor(0.5), torch.tensor(0.1)),
        lambda a, b: torch.where(a > 0, b[:, :1], b.mean()),
        lambda a, b: torch.where(a > 0, (b * 9).int(), torch.tensor(2)).float(),
        lambda a, b: torch.where(a > 0, a > 1, b > 0).float(),
    ],
    # Images
    aten._adaptive_avg_pool2d.default: lambda a, b: aten._adaptive_avg_pool2d.default(a, [3, 2]),
    aten._upsample_nearest_exact1d.vec: lambda a, b: F.interpolate(a[0], size=8, mode="nearest-exact"),
    aten._upsample_nearest_exact2d.vec: lambda a, b: F.interpolate(a, size=(7, 9), mode="nearest-exact"),
    aten.adaptive_avg_pool1d.default: lambda a, b: aten.adaptive_avg_pool1d.default(a[0], [3]),
    aten.adaptive_avg_pool2d.default: [lambda a, b: F.adaptive_avg_pool2d(a, (3, 2)), lambda a, b: F.adaptive_avg_pool2d(a[0], (2, 3))],
    aten.adaptive_max_pool2d.default: lambda a, b: F.adaptive_max_pool2d(a, (3, 2)),
    aten.grid_sampler_2d.default: [
        lambda a, b: aten.grid_sampler_2d.default(a, b[0, :2].permute(1, 2, 0)[None], 0, 0, False),
        lambda a, b: aten.grid_sampler_2d.default(a, b[0, :2].permute(1, 2, 0)[None], 0, 1, True),
    ],
    aten.upsample_bicubic2d.vec: [
        lambda a, b: F.interpolate(a, scale_factor=2, mode="bicubic"),
        lambda a, b: F.interpolate(a, size=(7, 9), mode="bicubic", align_corners=True),
    ],
    aten.upsample_bilinear2d.vec: [
        lambda a, b: F.interpolate(a, scale_factor=2, mode="bilinear"),
        lambda a, b: F.interpolate(a, scale_factor=1.3, mode="bilinear"),
        lambda a, b: F.interpolate(a, size=(7, 9), mode="bilinear", align_corners=True),
    ],
    aten.upsample_linear1d.vec: lambda a, b: F.interpolate(a[0], scale_factor=1.5, mode="linear"),
    aten.upsample_nearest1d.vec: lambda a, b: F.interpolate(a[0], size=8),
    aten.upsample_nearest2d.vec: [lambda a, b: F.interpolate(a, scale_factor=2), lambda a, b: F.interpolate(a, size=(7, 9))],
    # Indices
    aten.embedding.default: lambda a, b: F.embedding((a > 0).long(), weight(2, 3)[:, :]).sum(-1),
    aten.gather.default: [
        lambda a, b: a.gather(2, places(3, 0, 1).reshape(1, 1, 3, 1).expand(1, 6, 3, 5)),
        lambda a, b: a.gather(1, a.argmax(1, keepdim=True)),
        lambda a, b: a.gather(3, places(3, 0).reshape(1, 1, 1, 2).expand(1, 2, 4, 2)),
        lambda a, b: (a > 0).gather(1, (b > 0)[:, :2].long()).float(),
    ],
    aten.index.Tensor: [
        lambda a, b: a[:, places(3, -1, 0)],
        lambda a, b: a[:, :, places(3, 0, 1, 2).reshape(2, 2), 0],
        lambda a, b: a[:, places(3, 0), places(1, 2)],
        lambda a, b: a[0, places(3, 0)[:, None], :, places(1, 2)],
        lambda a, b: (a > 0)[:, :, places(1, 1)].float(),
        lambda a, b: a[0, :, (b[0, 0, :, 0] > 0).long(), places(0, 1, 2, 3)],
    ],
    aten._unsafe_index.Tensor: lambda a, b: aten._unsafe_index.Tensor(a, [None, None, places(3, 0)[:, None], places(1, 2, 4)]),
    aten.index_put.default: [
        lambda a, b: a.index_put((torch.tensor([0]), places(3, 1)), b[0, :2]),
        lambda a, b: a[0].index_put((places(1, 1),), b[0, :2], accumulate=True),
        lambda a, b: aten.index_put.default(a, [None, None, places(1, 3)], b[:, :, :2]),
        lambda a, b: (a > 0).index_put((torch.tensor([0]), places(3, 1)), torch.tensor(True)).float(),
    ],
    aten._unsafe_index_put.default: lambda a, b: aten._unsafe_index_put.default(a, [None, None, places(1, 1)], b[:, :, :2], True),
    aten.index_select.default: [lambda a, b: a.index_select(2, places(3, 0)), lambda a, b: (a > 0).index_select(1, places(1, 1)).float()],
    aten.scatter.reduce: lambda a, b: aten.scatter.reduce(a, 1, places(1, 1).reshape(1, 2, 1, 1).expand(1, 2, 4, 5), b, reduce="multiply"),
    aten.scatter.src: lambda a, b: a.scatter(1, places(4, 1).reshape(1, 2, 1, 1).expand(1, 2, 4, 5), b),
    aten.scatter.value: lambda a, b: a.scatter(1, a.argmax(1, keepdim=True), 0.5),
    aten.scatter.value_reduce: lambda a, b: aten.scatter.value_reduce(a, 1, a.argmax(1, keepdim=True), 0.5, reduce="add"),
    aten.scatter_add.default: lambda a, b: a.scatter_add(1, places(1, 1).reshape(1, 2, 1, 1).expand(1, 2, 4, 5), b),
    # Layers
    aten._cdist_forward.default: [
        varied(lambda a, p: aten._cdist_forward.default(a[0], a[0].flip(1), p, None), p) for p in (1.0, 2.0, 3.0, math.inf)
    ],
    aten._native_batch_norm_legit_no_training.default: lambda a, b: aten._native_batch_norm_legit_no_training.default(
        a, weight(6), None, weight(6), weight(6).abs(), 0.1, 1e-3
    )[0],
    aten._native_batch_norm_legit.no_stats: lambda a, b: aten._native_batch_norm_legit.no_stats(a, weight(6), weight(6), True, 0.1, 1e-3)[0],
    aten._trilinear.default: lambda a, b: aten._trilinear.default(a[0, 0], weight(3, 5, 5), b[0, 0], [1, 3], [0], [1, 2], [2, 3]),
    aten.addmm.default: [
        lambda a, b: torch.addmm(weight(4), a[0, 0], weight(5, 4), beta=0.5, alpha=2),
        lambda a, b: torch.addmm(a[0, 1, :, :4], a[0, 0], b[0, 0].t()),
    ],
    aten.avg_pool1d.default: lambda a, b: F.avg_pool1d(a[0], 3, 2, 1),
    aten.avg_pool2d.default: [
        lambda a, b: F.avg_pool2d(a, 2),
        lambda a, b: F.avg_pool2d(a, 3, 2, 1, count_include_pad=False),
        lambda a, b: F.avg_pool2d(a, 3, 2, 1, ceil_mode=True),
        lambda a, b: F.avg_pool2d(a, 3, 3, 1, ceil_mode=True, count_include_pad=False),
        lambda a, b: F.avg_pool2d(a, 2, divisor_override=3),
    ],
    aten.baddbmm.default: lambda a, b: torch.baddbmm(a[0, :, :, :4], a[0], b[0].transpose(1, 2), beta=0.5),
    aten.batch_norm.default: [
        lambda a, b: F.batch_norm(a, weight(6), weight(6).abs(), weight(6), weight(6)),
        lambda a, b: F.batch_norm(a, None, None, weight(6), training=True),
        lambda a, b: F.batch_norm(a[0, :, :, 0], weight(4), weight(4).abs(), None, weight(4)),
    ],
    aten.bmm.default: lambda a, b: torch.bmm(a[0], b[0].transpose(1, 2)),
    aten.conv1d.default: [lambda a, b: F.conv1d(a[0], weight(4, 2, 3), weight(4), 2, 1, 1, 2), lambda a, b: F.conv1d(a[0], b[0, :, :, :3])],
    aten.conv1d.padding: lambda a, b: F.conv1d(a[0], weight(3, 4, 2), padding="same"),
    aten.conv2d.default: [
        lambda a, b: F.conv2d(a, weight(4, 3, 3, 2), weight(4), (2, 1), (1, 0), (1, 2), 2),
        lambda a, b: F.conv2d(a[0], weight(4, 6, 1, 1)),
        lambda a, b: F.conv2d(a, b[:, :, :2, :2], b[0, :1, 0, 0]),
    ],
    aten.conv2d.padding: lambda a, b: F.conv2d(a, weight(4, 6, 2, 3), weight(4), padding="same", dilation=(1, 2)),
    aten.conv_transpose1d.default: lambda a, b: F.conv_transpose1d(a[0], weight(4, 3, 3), weight(3), 2, 1),
    aten.conv_transpose2d.input: [
        lambda a, b: F.conv_transpose2d(a, weight(6, 2, 3, 2), weight(4), (2, 1), (1, 0), (1, 0), 2),
        lambda a, b: F.conv_transpose2d(a, weight(6, 2, 2, 2), weight(2), 3, 0, 2),
        lambda a, b: F.conv_transpose2d(a, weight(6, 2, 3, 3), None, 2, 1, 1, dilation=2),
        lambda a, b: F.conv_transpose2d(a, weight(6, 2, 2, 2), b[0, 0, 0, :2], 3, 0, 2),
    ],
    aten.conv3d.default: lambda a, b: F.conv3d(a.reshape(1, 3, 2, 4, 5), weight(12, 3, 2, 3, 3), None, (1, 2, 2), 1)[0],
    aten.convolution.default: [
        lambda a, b: aten.convolution.default(a, weight(4, 6, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        lambda a, b: aten.convolution.default(a, weight(6, 4, 3, 3), weight(4), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    ],
    aten.group_norm.default: lambda a, b: F.group_norm(a, 3, weight(6), weight(6)),
    aten.instance_norm.default: [
        lambda a, b: F.instance_norm(a, weight=weight(6), bias=weight(6)),
        lambda a, b: F.instance_norm(a, weight(6), weight(6).abs(), use_input_stats=False),
    ],
    aten.layer_norm.default: [
        lambda a, b: F.layer_norm(a, (4, 5), weight(4, 5), weight(4, 5)),
        lambda a, b: F.layer_norm(a, (5,), None, weight(5)),
        lambda a, b: F.layer_norm(a, (5,), b[0, 0, 0]),
        lambda a, b: F.layer_norm(a * 0.0, (5,), eps=1e-12),
    ],
    aten.linear.default: [lambda a, b: F.linear(a, weight(3, 5), weight(3)), lambda a, b: F.linear(a, b[0, 0], b[0, 1, :, 0])],
    aten.matmul.default: [
        lambda a, b: a @ weight(5, 3),
        lambda a, b: a[0, 0, 0] @ b.transpose(2, 3),
        lambda a, b: a @ b[0, 0, 0],
        lambda a, b: a[0, 0, 0] @ b[0, 0, 0],
        lambda a, b: weight(7, 4) @ a,
    ],
    aten.max_pool1d.default: lambda a, b: F.max_pool1d(a[0], 3, 2, 1),
    aten.max_pool2d.default: [
        lambda a, b: F.max_pool2d(a, 2),
        lambda a, b: F.max_pool2d(a, (2, 3), 2, (0, 1), ceil_mode=True),
        lambda a, b: F.max_pool2d(a - 9, 2, (2, 1), 1, (2, 3)),
    ],
    aten.max_pool2d_with_indices.default: lambda a, b: aten.max_pool2d_with_indices.default(a, [2, 2])[0],
    aten.mm.default: lambda a, b: torch.mm(a[0, 0], b[0, 0].t()),
    aten.mv.default: lambda a, b: torch.mv(a[0, 0], b[0, 0, 0]),
    aten.native_group_norm.default: lambda a, b: aten.native_group_norm.default(a, weight(6), None, 1, 6, 20, 2, 1e-5)[0],
    aten.native_layer_norm.default: lambda a, b: aten.native_layer_norm.default(a, [5], weight(5), weight(5), 1e-5)[0],
    aten.scaled_dot_product_attention.default: [
        lambda a, b: F.scaled_dot_product_attention(a, b, b),
        lambda a, b: F.scaled_dot_product_attention(a, b, b, is_causal=True, scale=0.7),
        lambda a, b: F.scaled_dot_product_attention(a, b, b, weight(4, 4)),
        lambda a, b: F.scaled_dot_product_attention(a, b, b, mask(4, 4)),
        lambda a, b: F.scaled_dot_product_attention(a, b[:, ::3], b[:, 1::3], enable_gqa=True),
    ],
    # Movement
    aten.alias.default: lambda a, b: aten.alias.default(a) + 0,
    aten.cat.default: [lambda a, b: torch.cat([a, b], 2), lambda a, b: torch.cat([a > 0, b > 0], -1).float()],
    aten.channel_shuffle.default: lambda a, b: F.channel_shuffle(a, 3),
    aten.chunk.default: lambda a, b: torch.cat(aten.chunk.default(a, 4, 1)[::-1], 1),
    aten.clone.default: lambda a, b: a.clone() + 0,
    aten.constant_pad_nd.default: [
        lambda a, b: aten.constant_pad_nd.default(a, [1, -1, 0, 2, -1, 0], 0.5),
        lambda a, b: aten.constant_pad_nd.default(a > 0, [1, 0, 0, 2], True).float(),
    ],
    aten.contiguous.default: lambda a, b: aten.contiguous.default(a.transpose(2, 3)) + 0,
    aten.copy.default: lambda a, b: aten.copy.default(a, b[:, :1] > 0),
    aten.detach.default: lambda a, b: a.detach() + 0,
    aten.diagonal.default: [lambda a, b: a.diagonal(1, 2, 3), lambda a, b: (a > 0).diagonal(-1, 1, 3).float()],
    aten.dropout.default: lambda a, b: F.dropout(a, training=False) + 0,
    aten.expand.default: [lambda a, b: a[:, :1].expand(1, 6, -1, -1) + 0, lambda a, b: (a > 0)[0, :1, 0].expand(2, 3, 5).float()],
    aten.expand_as.default: lambda a, b: aten.expand_as.default(a[:, :1], b) + 0,
    aten.flatten.using_ints: lambda a, b: a.flatten(1, 2),
    aten.flip.default: [
        lambda a, b: a.flip((1, -1)),
        lambda a, b: (a > 0).flip(2).float(),
        lambda a, b: a.flatten(1).flip(1),
        lambda a, b: (a > 0).flatten().flip(0).float(),
    ],
    aten.full.default: None,
    aten.full_like.default: lambda a, b: torch.full_like(a, 0.5) + a,
    aten.new_full.default: lambda a, b: a.new_full((4, 5), 0.5) + a,
    aten.new_ones.default: lambda a, b: a.new_ones((4, 5)) + a,
    aten.new_zeros.default: lambda a, b: a.new_zeros((4, 5)) + a,
    aten.ones_like.default: lambda a, b: torch.ones_like(a) + a,
    aten.pad.default: [
        lambda a, b: F.pad(a, (1, -2, 0, 3), value=0.5),
        lambda a, b: F.pad(a, (1, 2, 3, 0), mode="reflect"),
        lambda a, b: F.pad(a, (1, 2, 3, 0), mode="replicate"),
        lambda a, b: F.pad(a, (1, 2, 3, 0), mode="circular"),
        lambda a, b: F.pad((a * 9).int(), (1, 0), value=3).float(),
    ],
    aten.permute.default: lambda a, b: a.permute(0, 3, 1, 2),
    aten.pixel_shuffle.default: [lambda a, b: F.pixel_shuffle(a[:, :4], 2), lambda a, b: F.pixel_shuffle(a[0, :4], 2)],
    aten.pixel_unshuffle.default: [lambda a, b: F.pixel_unshuffle(a[..., :4], 2), lambda a, b: F.pixel_unshuffle(a[0, ..., :4], 4)],
    aten.reflection_pad1d.default: lambda a, b: aten.reflection_pad1d.default(a[0], [2, 1]),
    aten.reflection_pad2d.default: lambda a, b: aten.reflection_pad2d.default(a, [2, 1, 0, 3]),
    aten.repeat.default: [lambda a, b: a.repeat(2, 1, 3, 1), lambda a, b: (a > 0)[0].repeat(2, 1, 3, 1).float()],
    aten.replication_pad1d.default: lambda a, b: aten.replication_pad1d.default(a[0], [2, 1]),
    aten.replication_pad2d.default: lambda a, b: aten.replication_pad2d.default(a, [2, 1, 0, 3]),
    aten.reshape.default: lambda a, b: a.reshape(2, 60),
    aten.roll.default: [lambda a, b: a.roll((2, -1), (1, 3)), lambda a, b: a.roll(7)],
    aten.select.int: [lambda a, b: a.select(2, -1), lambda a, b: a[0, 0, 0, 0] + b],
    aten.select_scatter.default: lambda a, b: a.select_scatter(b[:, 0], 1, -2),
    aten.slice.Tensor: [lambda a, b: a[:, 1:-1, ::2, -2:], lambda a, b: (a > 0)[:, 1:4].float()],
    aten.slice_scatter.default: [lambda a, b: a.slice_scatter(b[:, :2], 1, 3, 5), lambda a, b: a.slice_scatter(b[:, :3], 1, 0, 6, 2)],
    aten.split.Tensor: lambda a, b: torch.cat(a.split(4, 1)[::-1], 1),
    aten.split_with_sizes.default: lambda a, b: torch.cat(a.split_with_sizes((1, 3, 2), 1)[::-1], 1),
    aten.squeeze.dim: lambda a, b: aten.squeeze.dim(a, 0),
    aten.squeeze.dims: lambda a, b: aten.squeeze.dims(a, [0]),
    aten.stack.default: lambda a, b: torch.stack([a[0], b[0]], 1),
    aten.t.default: lambda a, b: a[0, 0].t(),
    aten.transpose.int: lambda a, b: a.transpose(1, -1),
    aten.tril.default: [lambda a, b: a.tril(1), lambda a, b: (a > 0).tril().float()],
    aten.triu.default: lambda a, b: a.triu(-1),
    aten.unbind.int: lambda a, b: a.unbind(2)[1] + a.unbind(2)[3],
    aten.unfold.default: lambda a, b: a[0].unfold(1, 2, 2),
    aten.unsqueeze.default: lambda a, b: a[0].unsqueeze(2),
    aten._unsafe_view.default: lambda a, b: aten._unsafe_view.default(a, [12, 10]),
    aten.view.default: lambda a, b: a.view(12, 10),
    aten.zeros_like.default: lambda a, b: torch.zeros_like(a) + a,
    # Reductions
    aten._log_softmax.default: lambda a, b: aten._log_softmax.default(a * 9, 1, False),
    aten._softmax.default: lambda a, b: aten._softmax.default(a, 2, False),
    aten.all.default: lambda a, b: (a > -9).all().float() + a,
    aten.all.dim: lambda a, b: (a > -0.5).all(1).float(),
    aten.all.dims: lambda a, b: (a > -1.5).all((1, 2)).float(),
    aten.amax.default: lambda a, b: a.amax((1, 3)),
    aten.amin.default: lambda a, b: a.amin(1, keepdim=True),
    aten.any.default: lambda a, b: (a > 9).any().float() + a,
    aten.any.dim: lambda a, b: (a > 1).any(1, keepdim=True).float(),
    aten.any.dims: lambda a, b: (a > 1.5).any((1, 2)).float(),
    aten.argmax.default: [lambda a, b: a.argmax(1).float(), lambda a, b: a.argmax().float() + a],
    aten.argmin.default: lambda a, b: a.argmin(-1, keepdim=True).float(),
    aten.argsort.default: lambda a, b: aten.argsort.default(a[:, :, 0] * 0 + ROWS[:, :, 0], 1, True).float(),
    aten.count_nonzero.dim_IntList: lambda a, b: aten.count_nonzero.dim_IntList(a.relu(), [1, 2]).float(),
    aten.cummax.default: [lambda a, b: a.cummax(1)[0], lambda a, b: a.cummax(-1)[1].float()],
    aten.cummin.default: [lambda a, b: a.cummin(1)[0], lambda a, b: a.relu().cummin(1)[1].float()],
    aten.cumprod.default: lambda a, b: a.cumprod(1),
    aten.cumsum.default: [lambda a, b: a.cumsum(-1), lambda a, b: (a > 0).cumsum(1).float()],
    aten.kthvalue.default: [lambda a, b: a.kthvalue(2, 1)[0], lambda a, b: (a * 0 + ROWS).kthvalue(2, 1, True)[1].float()],
    aten.linalg_vector_norm.default: [
        *(varied(lambda a, p: torch.linalg.vector_norm(a, p, (1, 2)), p) for p in (0, 1, 2, 3, math.inf, -math.inf)),
        lambda a, b: torch.linalg.vector_norm(a) + a,
    ],
    aten.log_softmax.int: lambda a, b: (a * 9).log_softmax(1),
    aten.logcumsumexp.default: lambda a, b: (a * 9).logcumsumexp(1),
    aten.logsumexp.default: lambda a, b: aten.logsumexp.default(a, [1, 2]),
    aten.max.default: lambda a, b: a.max() + a,
    aten.max.dim: lambda a, b: (m := a.max(1, keepdim=True))[0] + m[1],
    aten.mean.default: lambda a, b: a.mean() + a,
    aten.mean.dim: [lambda a, b: a.mean((2, 3)), lambda a, b: a.mean(1, keepdim=True, dtype=torch.float64).float()],
    aten.median.dim: lambda a, b: a.median(1)[0] + (a * 0 + ROWS).median(1)[1],
    aten.min.default: lambda a, b: a.min() + a,
    aten.min.dim: lambda a, b: (m := a.min(-1))[0] + m[1],
    aten.norm.ScalarOpt_dim: lambda a, b: aten.norm.ScalarOpt_dim(a, 2, [1], True),
    aten.prod.default: lambda a, b: aten.prod.default(a[0, 0]) + a,
    aten.prod.dim_int: lambda a, b: a.prod(1),
    aten.softmax.int: lambda a, b: a.softmax(-1),
    aten.sort.default: [lambda a, b: a.sort(1)[0], lambda a, b: (a * 0 + ROWS).sort(1, descending=True)[1].float()],
    aten.sort.stable: lambda a, b: a.sort(dim=1, stable=True)[0],
    aten.std.correction: lambda a, b: a.std((1, 2), correction=0),
    aten.std_mean.correction: lambda a, b: sum(aten.std_mean.correction(a, [1])),
    aten.sum.default: [lambda a, b: a.sum() + a, lambda a, b: (a > 0).sum().float() + a],
    aten.sum.dim_IntList: [lambda a, b: a.sum((0, 2)), lambda a, b: (a > 0).sum(1).float()],
    aten.topk.default: [lambda a, b: a.topk(2, 1)[0], lambda a, b: (a * 0 + ROWS).topk(3, 2, largest=False)[1].float()],
    aten.var.correction: lambda a, b: aten.var.correction(a, [2, 3]),
    aten.var.dim: lambda a, b: aten.var.dim(a, [1], False),
    aten.var_mean.correction: lambda a, b: sum(aten.var_mean.correction(a, [1, 2], keepdim=True)),
}
NAMED = {
    f"{operator}{f', {i}' * bool(i)}": (operator, f)
    for operator, fs in CASES.items()
    if fs
    for i, f in enumerate(fs if isinstance(fs, list) else [fs])
}


class Several(nn.Module):
    """A network that calls several functions of the same values."""

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(*values) for function in self.functions)


@functools.cache
def _all_cases() -> fx.GraphModule:
    return simplified(Several([function for _, function in NAMED.values()]), (A, B))


def lowered_cases(target: str) -> fx.GraphModule:
    """Every function in `NAMED` in one graph, which is lowered as for the writer of a target by default."""
    return lower_graph(_all_cases(), (A, B), next(iter(TARGETS[target].variants.values())))
