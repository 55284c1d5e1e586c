"""Operations on one value `(1, 6, 4, 8, 8)`, by kind and name: what networks compute between their convolutions.

A network of each kind computes all its operations at once, so that a test has one graph for each kind.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.targets import TARGETS

Operation = Callable[[Tensor], Tensor]
X = (1, 6, 4, 8, 8)


def _fixed(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


SQUARE, CHANNELS, MASK, ROWS = _fixed(8, 8), _fixed(6, 6), _fixed(8, 8), _fixed(1, 1, 4, 1, 8)
MATRICES, PICTURES, TABLE = _fixed(6, 1, 8, 8), _fixed(1, 6, 1, 8, 8), _fixed(8, 5)
FIRST = torch.zeros(1, 6, 2, 8, 8, dtype=torch.long)
TIMES = _fixed(1, 1, 4, 1, 1)
BOUNDARIES = torch.tensor([-0.2, 0.0, 0.2])
PLACES = torch.tensor([1, 0, 3])

SMOOTH = ["sin", "cos", "atan", "sinh", "cosh", "asinh", "erf", "erfc", "exp", "exp2", "expm1", "square", "sigmoid", "tanh"]
STEPS = ["floor", "ceil", "round", "trunc", "frac", "sign", "abs", "neg", "relu"]
ACTIVATIONS = ["celu", "elu", "selu", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "softplus", "softsign"]
ACTIVATIONS += ["tanhshrink", "hardshrink", "softshrink", "logsigmoid"]


def _other(x: Tensor) -> Tensor:
    """Another value of the same shape that shares no order of elements with `x`."""
    return x.flip(2).transpose(3, 4)


def _positive(x: Tensor) -> Tensor:
    return x.abs() + 0.5


def _assigned(x: Tensor, *where: object, value: float | Tensor = 0.5) -> Tensor:
    changed = x.clone()
    changed[where] = value
    return changed


def _frames(x: Tensor) -> Tensor:
    return x[0].transpose(0, 1)


def _clips(x: Tensor) -> Tensor:
    """Return two clips `(2, 6, 4, 8, 8)`."""
    return torch.cat([x, x.flip(3) * 0.5])


def _clip(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1)[None]


UNARY: dict[str, Operation] = {
    **{name: getattr(torch, name) for name in SMOOTH + STEPS},
    **{name: lambda x, name=name: getattr(torch, name)(x.tanh() * 0.9) for name in ("asin", "acos", "atanh", "tan")},
    **{name: lambda x, name=name: getattr(torch, name)(_positive(x)) for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal")},
    "acosh": lambda x: torch.acosh(_positive(x) + 0.6),
    "logit": lambda x: torch.logit(x.sigmoid()),
    **{f"F.{name}": getattr(F, name) for name in ACTIVATIONS},
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus, sharper": lambda x: F.softplus(x, beta=3.0, threshold=2.0),
    "elu, steeper": lambda x: F.elu(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.1, 0.5),
    "prelu": lambda x: F.prelu(x, torch.arange(6.0) / 10),
    "glu": lambda x: F.glu(x, 1),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.4),
    "clip": lambda x: x.clip(-0.1, 0.1),
    "nan_to_num": lambda x: torch.nan_to_num(x / x.relu(), 0.5, 1.0, -1.0),
    "isnan": lambda x: torch.isnan(x / x.relu().sign()).float(),
    "isfinite": lambda x: torch.isfinite(1 / x.relu()).float(),
    "signbit": lambda x: torch.signbit(x).float(),
    "a cube": lambda x: x**3,
    "a square root of a cube": lambda x: _positive(x) ** 1.5,
    "powers of two": lambda x: torch.pow(2.0, x),
    "powers of a whole number": lambda x: torch.pow(3, (x * 3).int().abs()) // 2,
    "powers of zero": lambda x: torch.pow(0, _positive(x)) + torch.pow(-1.0, (x * 9).round()),
    "a double": lambda x: x.double().sin().float(),
    "a half": lambda x: x.half().float(),
}
BINARY: dict[str, Operation] = {
    "add alpha": lambda x: torch.add(x, _other(x), alpha=2),
    "sub alpha": lambda x: torch.sub(x, _other(x), alpha=2),
    "rsub": lambda x: torch.rsub(x, _other(x), alpha=3),
    "pow": lambda x: _positive(x).pow(_other(x)),
    "atan2": lambda x: torch.atan2(x, _other(x)),
    "fmod": lambda x: torch.fmod(x, 0.3),
    "fmod of values": lambda x: torch.fmod(x, _positive(_other(x))),
    "remainder": lambda x: torch.remainder(x, 0.3),
    "remainder of values": lambda x: torch.remainder(x, _positive(_other(x))),
    "floor_divide": lambda x: torch.floor_divide(x, 0.3),
    "div trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "div by a value": lambda x: x / _positive(_other(x)),
    "ldexp": lambda x: torch.ldexp(x, (_other(x) * 3).int()),
    "hypot": lambda x: torch.hypot(x, _other(x)),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.1)),
    "fmax": lambda x: torch.fmax(x, _other(x)),
    "fmin": lambda x: torch.fmin(x, _other(x)),
    "copysign": lambda x: torch.copysign(x, _other(x)),
    "logaddexp": lambda x: torch.logaddexp(x, _other(x)),
    "xlogy": lambda x: torch.xlogy(x.sigmoid(), _other(x).sigmoid()),
    "lerp": lambda x: torch.lerp(x, _other(x), 0.3),
    "lerp by a value": lambda x: torch.lerp(x, _other(x), x.sigmoid()),
    "addcmul": lambda x: torch.addcmul(x, x, _other(x), value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, _positive(_other(x)), value=0.5),
    "clamp by values": lambda x: torch.clamp(x, min=x.mean(), max=_other(x).abs()),
    "broadcast": lambda x: x * x.mean((3, 4), keepdim=True),
    "broadcast channels": lambda x: x + torch.arange(6.0).view(1, 6, 1, 1, 1),
    "broadcast every second axis": lambda x: x * ROWS,
    "constants by a number of the value": lambda x: PICTURES.expand(1, 6, 4, 8, 8) * x.mean() + TIMES,
    "outer": lambda x: x.mean((3, 4))[:, :, :, None, None] * PICTURES,
}
LOGIC: dict[str, Operation] = {
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "where of numbers": lambda x: torch.where(x > 0.1, 1.0, -1.0),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.5),
    "masked_fill by a row": lambda x: x.masked_fill(MASK > 0.5, 0.5),
    "gt": lambda x: (x > 0.1).float(),
    "ge of values": lambda x: (x >= _other(x)).float(),
    "le": lambda x: (x <= 0.1).float() + (x < _other(x)),
    "eq": lambda x: (x.round() == 0).float(),
    "ne": lambda x: (x.round() != 0).float(),
    "and": lambda x: ((x > 0) & (x < 0.3)).float(),
    "or": lambda x: ((x > 0.3) | (x < 0)).float(),
    "not": lambda x: (~(x > 0)).float(),
    "xor": lambda x: torch.logical_xor(x > 0, _other(x) > 0).float(),
    "logical_and of numbers": lambda x: torch.logical_and(x.round(), _other(x)).float(),
    "integers": lambda x: ((x * 10).long() // 3).float() + (x * 10).int() % 4,
    "bits": lambda x: (((x * 10).int() & 6) | 1).float(),
    "xor of bits": lambda x: ((x * 10).int() ^ 3).float(),
    "bucketize": lambda x: torch.bucketize(x, BOUNDARIES).float(),
    "bucketize, right": lambda x: torch.bucketize(x.round(), torch.tensor([-1.0, 0.0, 1.0]), right=True).float(),
    "searchsorted": lambda x: torch.searchsorted(BOUNDARIES, x.contiguous()).float(),
    "one_hot": lambda x: F.one_hot((x[0, 0] > 0).long(), 6).movedim(-1, 0).float()[None],
    "embedding": lambda x: F.embedding((x[0, 0] > 0).long(), CHANNELS).movedim(-1, 0)[None],
    "assignment by a mask": lambda x: _assigned(x, x < 0),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, _other(x)),
    "a count": lambda x: x.count_nonzero(2).float() + (x > 0).sum(2),
}
REDUCTIONS: dict[str, Operation] = {
    "sum": lambda x: x.sum((1, 3), keepdim=True),
    "sum of all": lambda x: x.sum()[None],
    "amax": lambda x: x.amax((2,), keepdim=True),
    "amin": lambda x: x.amin((1, 2, 4)),
    "max": lambda x: x.max(2, keepdim=True)[0],
    "max of all": lambda x: x.max()[None],
    "the place of the maximum": lambda x: x.max(2)[1].float(),
    "min": lambda x: x.min(1)[0],
    "argmax": lambda x: x.argmax(1, keepdim=True).float(),
    "argmin": lambda x: x.argmin(2).float(),
    "argmax of all": lambda x: x.argmax().float()[None],
    "prod": lambda x: x.prod(2, keepdim=True),
    "any": lambda x: (x > 0.5).any(2, keepdim=True).float(),
    "any of numbers": lambda x: x.relu().any(1).float(),
    "all": lambda x: (x > -0.5).all(2).float(),
    "std": lambda x: x.std(2, keepdim=True),
    "std of all": lambda x: x.std()[None],
    "var": lambda x: x.var((2, 3), keepdim=True),
    "var_mean": lambda x: sum(torch.var_mean(x, 2)),
    "std_mean": lambda x: sum(torch.std_mean(x, (1, 2), correction=0)),
    "norm": lambda x: x.norm(dim=1, keepdim=True),
    "norm 1": lambda x: x.norm(1, dim=2),
    "norm 3": lambda x: torch.linalg.vector_norm(x, 3, dim=(2, 3)),
    "norm inf": lambda x: torch.linalg.vector_norm(x, torch.inf, dim=2),
    "distance": lambda x: x * torch.dist(x, _other(x), 3),
    "normalize": lambda x: F.normalize(x, dim=1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(2),
    "softmin": lambda x: F.softmin(x, 2),
    "cumsum": lambda x: x.cumsum(2),
    "cumprod": lambda x: x.sigmoid().cumprod(2),
    "cummax": lambda x: x.cummax(2)[0],
    "cummin": lambda x: x.cummin(2)[0],
    "logcumsumexp": lambda x: x.logcumsumexp(2),
    "sort": lambda x: x.sort(2)[0],
    "sort, descending": lambda x: x.sort(1, descending=True)[0],
    "argsort": lambda x: x.argsort(2).float(),
    "sort, stable": lambda x: x.round(decimals=1).sort(dim=3, stable=True)[0],
    "argsort, stable": lambda x: x.round().argsort(dim=4, descending=True, stable=True).float(),
    "topk": lambda x: x.topk(2, 2)[0],
    "topk, smallest": lambda x: x.topk(3, 1, largest=False)[0],
    "median": lambda x: x.median(2, keepdim=True)[0],
    "median of all": lambda x: x.median()[None],
    "kthvalue": lambda x: x.kthvalue(2, 2)[0],
    "aminmax": lambda x: sum(torch.aminmax(x, dim=2)),
    "mean as double": lambda x: x.mean(2, keepdim=True, dtype=torch.float64).float(),
    "diff": lambda x: x.diff(dim=2),
    "pdist": lambda x: F.pdist(x[0, 0, 0]),
    "cdist": lambda x: torch.cdist(x[0, 0], x[0, 1]),
    "cosine_similarity": lambda x: F.cosine_similarity(x, _other(x), dim=1),
}
MOVEMENT: dict[str, Operation] = {
    "gather": lambda x: x.gather(2, FIRST),
    "index": lambda x: x[:, [0, 2, 1]],
    "index from the end": lambda x: x[:, :, [-1, 0]],
    "index of two axes": lambda x: x[:, :, [0, 1], [1, 0]],
    "index of separate axes": lambda x: x[:, [0, 1], :, [1, 0]],
    "index by computed places": lambda x: x[:, :, :, x[0, 0, 0].argmax(0)],
    "index_select": lambda x: x.index_select(2, PLACES),
    "flip": lambda x: x.flip((2, 4)),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "rot90": lambda x: x.rot90(1, (3, 4)),
    "repeat": lambda x: x.repeat(1, 1, 2, 1, 1),
    "tile": lambda x: x.tile(2, 1, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "unfold": lambda x: x.unfold(2, 2, 1).mean(-1),
    "as_strided": lambda x: (x * 2).as_strided((1, 6, 2, 8, 8), (1536, 256, 128, 8, 1)),
    "pad reflect": lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="reflect"),
    "pad circular": lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="circular"),
    "pad replicate": lambda x: F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate"),
    "pad, negative": lambda x: F.pad(x, (-1, 2, 1, 0, 1, -1)),
    "pad, negative, with a number": lambda x: F.pad(x, (-1, -2, 0, -3, 0, 0), value=2.0),
    "pad of frames, negative": lambda x: F.pad(_frames(x), (-1, 2, -2, -1)),
    "pad constant": lambda x: F.pad(x, (1, 1, 0, 0, 2, 0), value=0.5),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.transpose(1, 2), 1).transpose(1, 2) + F.pixel_shuffle(x[:, :4].transpose(1, 2), 2).mean(),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "stack": lambda x: torch.stack([x, x * 2], 1).mean(1),
    "frames, joined with none": lambda x: torch.cat([_frames(x)[:0], _frames(x)]),
    "tensor_split": lambda x: torch.cat(x.tensor_split(3, 2)[::-1], 2),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "movedim": lambda x: x.movedim(1, -1),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "diagonal": lambda x: x.diagonal(dim1=3, dim2=4),
    "diagonal, shifted": lambda x: x.diagonal(1, 1, 4),
    "scatter": lambda x: x.scatter(2, FIRST[:, :, :1], 0.5),
    "scatter of values": lambda x: x.scatter(2, FIRST[:, :, :1] + 1, x[:, :, 2:3]),
    "scatter_add": lambda x: x.scatter_add(2, FIRST, x[:, :, 2:]),
    "index_add": lambda x: x.index_add(2, torch.tensor([0, 0]), x[:, :, 1:3]),
    "index_fill": lambda x: x.index_fill(2, torch.tensor([0]), 0.5),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([0]), x[:, :, 1:2]),
    "assignment to a slice": lambda x: _assigned(x, slice(None), slice(None), slice(1, 3)),
    "assignment to every second frame": lambda x: _assigned(x, slice(None), slice(None), slice(None, None, 2), value=x[:, :, 1:2]),
    "assignment to places of two axes": lambda x: _assigned(x, slice(None), slice(None), [0, 1], [1, 0], value=x[:, :, 0, 2:4]),
    "assignment to computed places": lambda x: _assigned(x, slice(None), slice(None), slice(None), x[0, 0, 0].argmax(0)),
    "values at computed places": lambda x: _assigned(x, slice(None), x.mean((2, 3, 4))[0].argsort()[:2] - 6, value=x[:, 1:3] + 1),
    "computed places of two axes": lambda x: _assigned(x, 0, x[0, :4, 0, 0, 0].argsort(), x[0, 0, :, 1, 1].argsort()),
    "embedding_bag": lambda x: F.embedding_bag(x[0, :, :, 0].argmax(2), TABLE, mode="mean"),
    "embedding_bag, sums": lambda x: F.embedding_bag(x[0, 0, 0].argmax(1), TABLE, torch.tensor([0, 3, 3]), mode="sum", padding_idx=2),
    "embedding_bag, weights": lambda x: F.embedding_bag(x[0, 0].argmax(2), TABLE, mode="sum", per_sample_weights=x[0, 1, :, :, 0]),
    "embedding_bag, largest": lambda x: F.embedding_bag(x[0, 0, 0].argmax(1), TABLE - 3, torch.tensor([0, 3, 3, 8]), mode="max"),
    "index_add at computed places": lambda x: x.index_add(4, x[0, 0, 0, 0].argsort() // 2, _other(x)),
    "scatter at computed places": lambda x: x.scatter(4, x.argsort(4), _other(x)),
    "scatter_add at computed places": lambda x: x.scatter_add(3, x.argsort(3) // 3, _other(x)),
    **{
        f"scatter_reduce, {reduce}": lambda x, reduce=reduce: x.scatter_reduce(4, x.argsort(4) // 2, _other(x), reduce, include_self=reduce < "b")
        for reduce in ("sum", "prod", "mean", "amax", "amin")
    },
    "put": lambda x: x.put(torch.tensor([3, 5]), torch.tensor([0.5, 2.0])),
    "diagonal_scatter": lambda x: x.diagonal_scatter(x[..., 0, :7], 1, 3, 4),
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argsort(2), 2),
    "channel shuffle": lambda x: x.view(1, 2, 3, 4, 8, 8).transpose(1, 2).reshape_as(x),
    "a view of what was permuted": lambda x: (x + 1).permute(0, 2, 1, 3, 4).contiguous().view(1, 24, 8, 8).flatten(1),
    "meshgrid": lambda x: x + torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")[0],
    "F.unfold": lambda x: F.unfold(_frames(x), 3, padding=1),
    "F.fold": lambda x: F.fold(F.unfold(_frames(x), 2), (8, 8), 2),
    "kron": lambda x: torch.kron(torch.eye(2), x[0, 0, 0, :4, :4]),
    "linspace": lambda x: x * torch.linspace(0, 1, 8) + torch.arange(x.shape[2]).view(1, 1, -1, 1, 1),
    "full_like": lambda x: x + torch.full_like(x, 0.5),
    "full_like of integers": lambda x: torch.full_like((x * 9).int(), 3) // 2 * x,
    "zeros_like of one frame's integers": lambda x: torch.zeros_like((x[0, 0] * 9).long()),
    "new_ones": lambda x: x + x.new_ones((8, 8)) + x[0, 0, 0].new_zeros((8,), dtype=torch.int32),
    "channels_last_3d": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "squeeze of all": lambda x: x.mean((2, 4), keepdim=True).squeeze(),
    "an empty slice": lambda x: torch.cat([x, x[:, :, 4:] * 2], 2) + x[:, 6:].sum(),
    "an empty part": lambda x: torch.cat(x.split([6, 0], 1)[::-1], 1),
    "squeeze": lambda x: x.mean(2, keepdim=True).squeeze(2).unsqueeze(2),
    "other axes": lambda x: torch.sin(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3),
}
PRODUCTS: dict[str, Operation] = {
    "matmul": lambda x: x @ SQUARE,
    "matmul, broadcast": lambda x: MATRICES @ x[0][None],
    "matmul by a vector": lambda x: x @ SQUARE[0],
    "bmm": lambda x: torch.bmm(x[0].flatten(1, 2), x[0].flatten(1, 2).transpose(1, 2)),
    "baddbmm": lambda x: torch.baddbmm(x[0, :, 0], x[0, :, 1], x[0, :, 2], alpha=0.5),
    "einsum": lambda x: torch.einsum("bcthw,cd->bdthw", x, CHANNELS),
    "einsum of two": lambda x: torch.einsum("bcthw,bcshw->bts", x, x),
    "tensordot": lambda x: torch.tensordot(x, CHANNELS, ([1], [0])),
    "linear": lambda x: F.linear(x, SQUARE, SQUARE[0]),
    "linear of computed weights": lambda x: F.linear(x[0, 0], x[0, 1, 0]),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "attention, scaled": lambda x: F.scaled_dot_product_attention(x[0], x[0], x[0], scale=0.5),
    "attention, causal": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "attention, masked": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=MASK),
    "attention, masked by booleans": lambda x: F.scaled_dot_product_attention(x[0], x[0], x[0], attn_mask=MASK > 0.3),
    "bilinear": lambda x: F.bilinear(x, _other(x), torch.ones(3, 8, 8) / 9),
    "cross": lambda x: torch.linalg.cross(x[:, :3], x[:, 3:], dim=1),
    "addbmm": lambda x: torch.addbmm(SQUARE, x[0, :, 0], x[0, :, 1], beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(SQUARE, x[0, 0, 0], x[0, 1, 0], beta=0.5, alpha=2),
}
INTERPOLATION: dict[str, Operation] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "trilinear": lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"),
    "trilinear, corners": lambda x: F.interpolate(x, size=(6, 12, 12), mode="trilinear", align_corners=True),
    "nearest-exact": lambda x: F.interpolate(x, size=(6, 12, 12), mode="nearest-exact"),
    "nearest by 1.25": lambda x: F.interpolate(x, scale_factor=1.25),
    "trilinear by 1.3": lambda x: F.interpolate(x, scale_factor=1.3, mode="trilinear"),
    "over time": lambda x: F.interpolate(x, size=(7, 8, 8), mode="trilinear"),
    "smaller": lambda x: F.interpolate(x, size=(2, 5, 3), mode="trilinear"),
    "area": lambda x: F.interpolate(x, size=(2, 4, 4), mode="area"),
    "frames, nearest": lambda x: F.interpolate(_frames(x), scale_factor=2),
    "frames, nearest by 1.5": lambda x: F.interpolate(_frames(x), scale_factor=1.5),
    "frames, bilinear by 1.3": lambda x: F.interpolate(_frames(x), scale_factor=1.3, mode="bilinear"),
    "frames, bilinear to a size": lambda x: F.interpolate(_frames(x), size=(5, 13), mode="bilinear"),
    "frames, bicubic": lambda x: F.interpolate(_frames(x), scale_factor=2, mode="bicubic"),
    "rows, linear": lambda x: F.interpolate(x[0, :, :, 0], size=11, mode="linear"),
    "grid_sample": lambda x: F.grid_sample(x, F.affine_grid(torch.eye(3, 4)[None] * 0.8, X, align_corners=False), align_corners=False),
    "grid_sample of frames": lambda x: F.grid_sample(_frames(x), _grid(x, 1.3), align_corners=True),
    "grid_sample, border": lambda x: F.grid_sample(_frames(x), _grid(x, 1.3), padding_mode="border", align_corners=False),
    "grid_sample, reflection": lambda x: F.grid_sample(_frames(x), _grid(x, 1.7), padding_mode="reflection", align_corners=False),
    "grid_sample, cubic": lambda x: F.grid_sample(_frames(x), _grid(x, 1.3), mode="bicubic", align_corners=False),
    "grid_sample, cubic, border": lambda x: F.grid_sample(_frames(x), _grid(x, 1.3), mode="bicubic", padding_mode="border", align_corners=True),
    "grid_sample, cubic, reflection": lambda x: F.grid_sample(_frames(x), _grid(x, 1.6), "bicubic", "reflection", align_corners=False),
    "frames, bilinear, antialiased": lambda x: F.interpolate(_frames(x), size=(5, 3), mode="bilinear", antialias=True),
    "frames, bilinear by 0.7, antialiased": lambda x: F.interpolate(_frames(x), scale_factor=0.7, mode="bilinear", antialias=True),
    "frames, bicubic, antialiased": lambda x: F.interpolate(_frames(x), size=(3, 11), mode="bicubic", antialias=True),
    "frames, bicubic, antialiased, corners": lambda x: F.interpolate(_frames(x), (5, 2), mode="bicubic", antialias=True, align_corners=True),
    "grid_sample, nearest": lambda x: F.grid_sample(_frames(x), _grid(x, 0.9), mode="nearest", align_corners=False),
}


def _grid(x: Tensor, scale: float) -> Tensor:
    return F.affine_grid(torch.eye(2, 3).expand(4, -1, -1) * scale, (4, 6, 8, 8), align_corners=False)


W3, W2, W1 = _fixed(6, 6, 3, 3, 3) - 0.5, _fixed(6, 6, 3, 3) - 0.5, _fixed(6, 6, 3) - 0.5


def _kernel(x: Tensor) -> Tensor:
    """Return weights `(6, 6, 3, 3, 3)` that depend on the value."""
    return W3 * x.mean((2, 3, 4)).reshape(6, 1, 1, 1, 1)


LAYERS: dict[str, Operation] = {
    "batch norm by the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "instance norm": lambda x: F.instance_norm(x, weight=torch.arange(6.0), bias=torch.ones(6)),
    "instance norm, kept": lambda x: F.instance_norm(x, torch.arange(6.0), torch.arange(6.0) + 1, use_input_stats=False),
    "group norm": lambda x: F.group_norm(x, 2, torch.arange(6.0), torch.ones(6)),
    "group norm of frames": lambda x: F.group_norm(_frames(x), 3),
    "layer norm": lambda x: F.layer_norm(x, (6, 4, 8, 8)),
    "layer norm of rows": lambda x: F.layer_norm(x, (8,), torch.arange(8.0), torch.ones(8)),
    "rms norm": lambda x: F.rms_norm(x, (8,), torch.arange(8.0)),
    "local response norm": lambda x: F.local_response_norm(x, 3),
    "convolution of two channels each": lambda x: F.conv3d(x, W3[:, :2], groups=3, padding=1),
    "transposed convolution": lambda x: F.conv_transpose3d(x, W3[:, :, :2, :2, :2], stride=2),
    "transposed convolution, padded": lambda x: F.conv_transpose3d(x, W3, torch.arange(6.0), stride=2, padding=1, output_padding=1),
    "transposed convolution, groups": lambda x: F.conv_transpose3d(x, W3[:, :2], groups=3),
    "convolution, weight computed": lambda x: F.conv3d(x, _kernel(x), torch.arange(6.0), stride=(2, 1, 1), padding=(2, 1, 0)),
    "convolution, weight computed, depthwise": lambda x: F.conv3d(x, _kernel(x)[:, :1], x[0, :, 0, 0, 0], padding="same", groups=6),
    "transposed convolution, weight computed": lambda x: F.conv_transpose3d(x, _kernel(x), stride=2, padding=1),
    "frames, transposed convolution, weight computed": lambda x: F.conv_transpose2d(
        _frames(x), _kernel(x)[:, :2, 0], x[0, :, 0, 0, 0], 2, 1, output_padding=1, groups=3
    ),
    "frames, transposed convolution": lambda x: F.conv_transpose2d(_frames(x), W2, stride=2, padding=1),
    "frames, convolution": lambda x: F.conv2d(_frames(x), W2, padding=1),
    "one frame, convolution": lambda x: F.conv2d(x[0, :, 0], W2),
    "convolution over time": lambda x: F.conv1d(x.permute(0, 3, 4, 1, 2).flatten(0, 2), W1, padding=1),
    "convolution over time, same": lambda x: F.conv1d(x.permute(0, 3, 4, 1, 2).flatten(0, 2), W1, padding="same", dilation=2),
    "max pool": lambda x: F.max_pool3d(x, 3, 2, ceil_mode=True),
    "max pool of frames, ceil": lambda x: F.max_pool2d(_frames(x), 3, 2, 1, dilation=2, ceil_mode=True),
    "max pool of frames, ceil, no window in the padding": lambda x: F.max_pool2d(_frames(x)[..., :5, :4], 2, 3, 1, ceil_mode=True),
    "max pool with indices": lambda x: F.max_pool3d(x, 2, return_indices=True)[0],
    "places of a max pool": lambda x: F.max_pool3d(x, 3, 2, 1, return_indices=True)[1].float(),
    "unpooling": lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2),
    "unpooling of frames": lambda x: F.max_unpool2d(*F.max_pool2d(_frames(x), 2, return_indices=True), 2),
    "max pool of frames": lambda x: F.max_pool2d(_frames(x), 2, 1, dilation=2),
    "average pool": lambda x: F.avg_pool3d(x, 3, 2, 1, count_include_pad=False),
    "average pool, ceil": lambda x: F.avg_pool3d(x, 3, 2, ceil_mode=True),
    "average pool of frames, ceil": lambda x: F.avg_pool2d(_frames(x), 3, 2, ceil_mode=True),
    "average pool of frames, padding not counted": lambda x: F.avg_pool2d(_frames(x), 3, 2, 1, count_include_pad=False),
    "average pool of frames, padding counted": lambda x: F.avg_pool2d(_frames(x), 3, 2, 1),
    "average pool over time": lambda x: F.avg_pool1d(x[0, :, :, 0].transpose(1, 2), 2),
    "adaptive average pool": lambda x: F.adaptive_avg_pool3d(x, (2, 3, 3)),
    "adaptive average pool of frames": lambda x: F.adaptive_avg_pool2d(_frames(x), 3),
    "adaptive max pool": lambda x: F.adaptive_max_pool3d(x, (2, 3, 3)),
    "lp pool": lambda x: F.lp_pool3d(_positive(x), 2, 2),
    "dropout": lambda x: F.dropout3d(x, training=False),
}
CLIPS: dict[str, Operation] = {
    "convolution": lambda x: F.conv3d(_clips(x), W3, torch.arange(6.0), padding=1),
    "convolution, groups": lambda x: F.conv3d(_clips(x), W3[:, :2], groups=3, padding=(0, 1, 1)),
    "convolution, depthwise": lambda x: F.conv3d(_clips(x), W3[:, :1], torch.arange(6.0), groups=6, padding=1, stride=(2, 1, 1)),
    "convolution, weight computed": lambda x: F.conv3d(_clips(x), _kernel(x), padding=1),
    "convolution, same": lambda x: F.conv3d(_clips(x), W3, padding="same", dilation=2),
    "convolution of frames": lambda x: F.conv3d(_clips(x), W3[:, :, :1], torch.arange(6.0), stride=(1, 2, 2), padding=(0, 1, 1)),
    "convolution of every second frame": lambda x: F.conv3d(_clips(x), W3[:, :, :1], stride=(2, 1, 1)),
    "transposed convolution": lambda x: F.conv_transpose3d(_clips(x), W3, stride=(1, 2, 2)),
    "batch norm": lambda x: F.batch_norm(_clips(x), torch.arange(6.0), torch.arange(6.0) + 1),
    "average pool": lambda x: F.avg_pool3d(_clips(x), 3, 2, 1, count_include_pad=False),
    "max pool": lambda x: F.max_pool3d(_clips(x), 2, 1),
    "max pool with indices": lambda x: F.max_pool3d(_clips(x), 2, return_indices=True)[0],
    "adaptive average pool": lambda x: F.adaptive_avg_pool3d(_clips(x), (2, 3, 3)),
    "adaptive max pool": lambda x: F.adaptive_max_pool3d(_clips(x), (1, 2, 2)),
    "lp pool": lambda x: F.lp_pool3d(_positive(_clips(x)), 2, 2),
    "local response norm": lambda x: F.local_response_norm(_clips(x), 3),
    "nearest": lambda x: F.interpolate(_clips(x), scale_factor=2),
    "trilinear": lambda x: F.interpolate(_clips(x), size=(5, 7, 9), mode="trilinear"),
    "one value, convolution": lambda x: F.conv3d(x[0], W3),
    "one value, adaptive max pool": lambda x: F.adaptive_max_pool3d(x[0], 2),
    "one value, adaptive max pool of rows": lambda x: F.adaptive_max_pool2d(x[0, :, 0], 2),
    "one value, max pool with indices": lambda x: F.max_pool3d(x[0], 2, return_indices=True)[0],
}
"""Operators with a temporal axis on two clips, and on a value without a batch."""
KINDS: dict[str, dict[str, Operation]] = {
    "unary": UNARY,
    "binary": BINARY,
    "logic": LOGIC,
    "reductions": REDUCTIONS,
    "movement": MOVEMENT,
    "products": PRODUCTS,
    "interpolation": INTERPOLATION,
    "layers": LAYERS,
    "clips": CLIPS,
}


class All(nn.Module):
    """All operations of a kind on one value, which is given without its first axis: results of rank 4 or less, as outputs of a step are."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        super().__init__()
        self.operations = operations

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        results = [operation(x[None] * 1) for operation in self.operations.values()]
        return tuple(y.flatten(0, y.ndim - 4) if y.ndim > 4 else y for y in results)


@functools.cache
def network_of(kind: str) -> tuple[All, Tensor, fx.GraphModule]:
    """The operations of a kind as a network, its input, and its graph before it is lowered for an engine."""
    network, x = All(KINDS[kind]), torch.randn(X[1:], generator=torch.Generator().manual_seed(1))
    return network, x, simplified(network, (x,))


@functools.cache
def lowered_for(target: str, kind: str) -> fx.GraphModule:
    """The operations of a kind as the graph that the writer of a target gets by default. Tests do not change it."""
    _, x, graph = network_of(kind)
    return lower_graph(graph, (x,), next(iter(TARGETS[target].variants.values())))
