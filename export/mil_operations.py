"""Computes each operation of an ML Program with torch, as coremltools' reference of MIL operations (iOS 17) defines it.

A function takes an operation's inputs by name, and refuses settings that it does not know. float16 is computed in float32, and the caller
rounds the result, because accumulators on devices are at least as wide.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.runtime.errors import ClipstepError


def _numbers(values: Tensor) -> list[int]:
    return [int(value) for value in values]


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise ClipstepError(f"a setting this evaluator does not know: {what}")


def _wide(value: Tensor) -> Tensor:
    return value.float()


def _conv(
    *, x: Tensor, weight: Tensor, strides: Tensor, pad_type: str, pad: Tensor, dilations: Tensor, groups: int, bias: Tensor | None = None
) -> Tensor:
    _expect(pad_type in ("valid", "custom") and x.ndim == 4, f"conv with pad_type {pad_type} and rank {x.ndim}")
    top, bottom, left, right = _numbers(pad) if pad_type == "custom" else [0] * 4
    padded = F.pad(_wide(x), (left, right, top, bottom))
    return F.conv2d(padded, _wide(weight), _optional(bias), _numbers(strides), 0, _numbers(dilations), groups)


def _max_pool(*, x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: bool) -> Tensor:
    _expect(pad_type in ("valid", "custom") and not ceil_mode and x.ndim == 4, f"max_pool with pad_type {pad_type}, ceil_mode {ceil_mode}")
    top, bottom, left, right = _numbers(pad) if pad_type == "custom" else [0] * 4
    return F.max_pool2d(F.pad(_wide(x), (left, right, top, bottom), value=float("-inf")), _numbers(kernel_sizes), _numbers(strides))


def _pad(*, x: Tensor, pad: Tensor, mode: str, constant_val: float) -> Tensor:
    _expect(mode == "constant", f"pad with mode {mode}")
    pairs = _numbers(pad)
    return F.pad(x, [amount for axis in reversed(range(len(pairs) // 2)) for amount in pairs[2 * axis : 2 * axis + 2]], value=float(constant_val))


def _slice(
    *,
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    end_mask: Tensor | None = None,
    begin_mask: Tensor | None = None,
    stride: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    _expect(squeeze_mask is None or not bool(squeeze_mask.any()), "slice_by_index with squeeze_mask")
    for axis, (first, last) in enumerate(zip(_numbers(begin), _numbers(end), strict=True)):
        start = None if begin_mask is not None and begin_mask[axis] else first
        stop = None if end_mask is not None and end_mask[axis] else last
        step = 1 if stride is None else int(stride[axis])
        _expect(step > 0, f"slice_by_index with stride {step}")
        x = x[(slice(None),) * axis + (slice(start, stop, step),)]
    return x


def _concat(*, values: Sequence[Tensor], axis: int, interleave: bool) -> Tensor:
    _expect(not interleave, "concat with interleave")
    return torch.cat(list(values), axis)


def _cast(*, x: Tensor, dtype: str) -> Tensor:
    _expect(dtype in ("fp16", "fp32"), f"cast to {dtype}")
    return x.to(torch.float16 if dtype == "fp16" else torch.float32)


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *, x, axes, keep_dims: function(_wide(x), _numbers(axes), keepdim=keep_dims)


def _avg_pool(
    *, x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor, ceil_mode: bool, exclude_padding_from_average: bool
) -> Tensor:
    _expect(pad_type in ("valid", "custom") and not ceil_mode and x.ndim == 4, f"avg_pool with pad_type {pad_type}, ceil_mode {ceil_mode}")
    _expect(pad_type == "valid" or not exclude_padding_from_average or not bool(pad.any()), "avg_pool that excludes its padding")
    top, bottom, left, right = _numbers(pad) if pad_type == "custom" else [0] * 4
    return F.avg_pool2d(F.pad(_wide(x), (left, right, top, bottom)), _numbers(kernel_sizes), _numbers(strides))


def _optional(value: Tensor | None) -> Tensor | None:
    return None if value is None else _wide(value)


def _layer_norm(*, x: Tensor, axes: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    last = list(range(x.ndim - len(axes), x.ndim))
    _expect([axis % x.ndim for axis in _numbers(axes)] == last, "layer_norm over other axes than the last")
    shape = [x.shape[axis] for axis in last]
    return F.layer_norm(_wide(x), shape, _optional(gamma), _optional(beta), epsilon)


def _batch_norm(*, x: Tensor, mean: Tensor, variance: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    return F.batch_norm(_wide(x), _wide(mean), _wide(variance), _optional(gamma), _optional(beta), eps=epsilon)


def _matmul(*, x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    a, b = _wide(x), _wide(y)
    return (a.mT if transpose_x else a) @ (b.mT if transpose_y else b)


def _gelu(*, x: Tensor, mode: str) -> Tensor:
    _expect(mode in ("EXACT", "TANH_APPROXIMATION"), f"gelu with mode {mode}")
    return F.gelu(_wide(x), approximate="none" if mode == "EXACT" else "tanh")


def _cumsum(*, x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    _expect(not exclusive and not reverse, "cumsum exclusive or reversed")
    return _wide(x).cumsum(axis)


def _resize_bilinear(*, x: Tensor, target_size_height: int, target_size_width: int, sampling_mode: str) -> Tensor:
    _expect(sampling_mode in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS"), f"resize_bilinear with sampling_mode {sampling_mode}")
    size = (target_size_height, target_size_width)
    return F.interpolate(_wide(x), size=size, mode="bilinear", align_corners=sampling_mode == "STRICT_ALIGN_CORNERS")


def _upsample_bilinear(*, x: Tensor, scale_factor_height: float, scale_factor_width: float, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    _expect(align_corners != half_pixel_centers, f"upsample_bilinear with align_corners and half_pixel_centers both {align_corners}")
    return F.interpolate(_wide(x), scale_factor=(scale_factor_height, scale_factor_width), mode="bilinear", align_corners=align_corners)


def _upsample_nearest(*, x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    return F.interpolate(_wide(x), scale_factor=(scale_factor_height, scale_factor_width), mode="nearest")


def _squeeze(*, x: Tensor, axes: Tensor) -> Tensor:
    return x.squeeze(_numbers(axes))


def _expand_dims(*, x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in _numbers(axes)):
        x = x.unsqueeze(axis)
    return x


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "abs": lambda *, x: x.abs(),
    "add": lambda *, x, y: x + y,
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": lambda *, x, alpha, beta: x.clamp(alpha, beta),
    "concat": _concat,
    "conv": _conv,
    "cumsum": _cumsum,
    "elu": lambda *, x, alpha: F.elu(_wide(x), alpha),
    "exp": lambda *, x: _wide(x).exp(),
    "expand_dims": _expand_dims,
    "gelu": _gelu,
    "identity": lambda *, x: x,
    "inverse": lambda *, x, epsilon: 1 / (_wide(x) + epsilon),
    "layer_norm": _layer_norm,
    "leaky_relu": lambda *, x, alpha: F.leaky_relu(_wide(x), alpha),
    "linear": lambda *, x, weight, bias: F.linear(_wide(x), _wide(weight), _wide(bias)),
    "log": lambda *, x, epsilon: (_wide(x) + epsilon).log(),
    "matmul": _matmul,
    "max_pool": _max_pool,
    "maximum": lambda *, x, y: torch.maximum(torch.as_tensor(x), torch.as_tensor(y)),
    "minimum": lambda *, x, y: torch.minimum(torch.as_tensor(x), torch.as_tensor(y)),
    "mul": lambda *, x, y: x * y,
    "pad": _pad,
    "pow": lambda *, x, y: torch.pow(_wide(x), y),
    "real_div": lambda *, x, y: x / y,
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_sum": _reduction(torch.sum),
    "relu": lambda *, x: F.relu(x),
    "relu6": lambda *, x: F.relu6(x),
    "reshape": lambda *, x, shape: x.reshape(_numbers(shape)),
    "resize_bilinear": _resize_bilinear,
    "reverse": lambda *, x, axes: x.flip(_numbers(axes)),
    "rsqrt": lambda *, x, epsilon: (_wide(x) + epsilon).rsqrt(),
    "sigmoid": lambda *, x: _wide(x).sigmoid(),
    "sigmoid_hard": lambda *, x, alpha, beta: (_wide(x) * alpha + beta).clamp(0, 1),
    "silu": lambda *, x: F.silu(_wide(x)),
    "slice_by_index": _slice,
    "softmax": lambda *, x, axis: _wide(x).softmax(axis),
    "softplus": lambda *, x: F.softplus(_wide(x)),
    "sqrt": lambda *, x: _wide(x).sqrt(),
    "square": lambda *, x: _wide(x).square(),
    "squeeze": _squeeze,
    "sub": lambda *, x, y: x - y,
    "tanh": lambda *, x: _wide(x).tanh(),
    "thresholded_relu": lambda *, x, alpha: torch.where(x >= alpha, x, torch.zeros_like(x)),
    "tile": lambda *, x, reps: x.repeat(_numbers(reps)),
    "transpose": lambda *, x, perm: x.permute(_numbers(perm)),
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
