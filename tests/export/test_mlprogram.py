"""The ML Program evaluator: each operation against torch, and no silent default for what it does not know."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.mil import OPERATIONS
from clipstep.export.mil.constants import unrounded
from clipstep.export.mlprogram import MIL, MlProgram
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps

PACKAGE = "step-float32.mlpackage"
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def first(block: Any, kind: str) -> Any:
    return next(operation for operation in block.operations if operation.type == kind)


def test_a_weight_that_is_no_number_is_itself_in_float16() -> None:
    exact = {"weight": torch.tensor([torch.nan, 0.3])}
    assert unrounded({"weight": exact["weight"].half()}, exact, Path("x")) == exact
    with pytest.raises(ClipstepError, match="weight is not the float32 package's weight"):
        unrounded({"weight": torch.tensor([0.0, 0.3]).half()}, exact, Path("x"))


def unknown_operation(block: Any) -> None:
    first(block, "relu").type = "lstm"


def unknown_input(block: Any) -> None:
    first(block, "relu").inputs["alpha"].CopyFrom(first(block, "relu").inputs["x"])


def missing_input(block: Any) -> None:
    del first(block, "conv").inputs["pad"]


def unknown_attribute(block: Any) -> None:
    first(block, "relu").attributes["threshold"].CopyFrom(first(block, "relu").attributes["name"])


def second_output(block: Any) -> None:
    first(block, "relu").outputs.add().CopyFrom(first(block, "relu").outputs[0])


def another_shape(block: Any) -> None:
    first(block, "relu").outputs[0].type.tensorType.dimensions[1].constant.size += 1


def unknown_result_type(block: Any) -> None:
    first(block, "relu").outputs[0].type.tensorType.dataType = MIL.FLOAT64


def unknown_stored_type(block: Any) -> None:
    stored = next(o for o in block.operations if o.type == "const" and o.attributes["val"].WhichOneof("value") == "blobFileValue")
    stored.attributes["val"].type.tensorType.dataType = MIL.INT16


def unknown_immediate_type(block: Any) -> None:
    given = next(o for o in block.operations if o.type == "const" and o.attributes["val"].WhichOneof("value") == "immediateValue")
    given.attributes["val"].type.tensorType.dataType = MIL.FLOAT64


def unknown_setting(block: Any) -> None:
    name = first(block, "conv").inputs["pad_type"].arguments[0].name
    constant = next(o for o in block.operations if o.outputs[0].name == name)
    constant.attributes["val"].immediateValue.tensor.strings.values[:] = ["mirrored"]


def another_output(block: Any) -> None:
    block.outputs[0] = "something"


CHANGES: dict[Callable[[Any], None], str] = {
    unknown_operation: "unknown ML Program operation lstm; expected one of abs, acos, add",
    unknown_input: "relu: inputs this evaluator does not know; got .*alpha",
    missing_input: "conv: inputs this evaluator does not know",
    unknown_attribute: "relu: blocks or attributes",
    second_output: "relu: another number of results than declared; got 1; expected 2",
    another_shape: "relu: the result has another shape than declared",
    unknown_result_type: "relu: .*type",
    unknown_stored_type: "a stored constant of a type this evaluator does not know; got INT16",
    unknown_immediate_type: "an immediate constant of a type this evaluator does not know; got FLOAT64",
    unknown_setting: "a setting this evaluator does not know: pad_type mirrored",
    another_output: "the description's inputs and outputs are not the program's",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_the_evaluator_does_not_know_is_refused(change: Callable[[Any], None], bundle_copy: Path, golden: GoldenSteps) -> None:
    package = bundle_copy / PACKAGE
    spec = coremltools.models.utils.load_spec(str(package))
    function = spec.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(ClipstepError, match=CHANGES[change]):
        MlProgram(package).run([golden.subclips[0].astype(np.float32), *(np.zeros_like(value[0]) for value in golden.states.values())])


DAMAGED = {
    **dict.fromkeys(("no package", "an empty specification", "a cut specification"), r"\.mlpackage: cannot be read as an ML Program; got "),
    "no weights": r"\.mlpackage/Data/com\.apple\.CoreML/weights/weight\.bin: no such file; export it again",
    "empty weights": r"\.mlpackage/Data/com\.apple\.CoreML/weights/weight\.bin: is empty; export it again",
    "cut weights": r"\.mlpackage: the entry of a weight at byte \d+ is damaged; got \d+ bytes at \d+; expected \d+ bytes within \d+",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_package_is_a_clear_error(damage: str, bundle_copy: Path) -> None:
    package = bundle_copy / PACKAGE
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    if damage == "no package":
        package = bundle_copy / "missing.mlpackage"
    elif damage == "no weights":
        weights.unlink()
    else:
        file = weights if "weights" in damage else package / MODEL
        file.write_bytes(b"" if "empty" in damage else file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ClipstepError, match=DAMAGED[damage]) as error:
        MlProgram(package)
    assert "\n" not in str(error.value)


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def sampled(rows: int, points: Sequence[float]) -> Any:
    """The matrix that takes linear samples of so many rows at these points."""
    return np.maximum(0, 1 - abs(np.clip(points, 0, rows - 1)[:, None] - np.arange(rows)))


def softmaxed(values: Any) -> Any:
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def added(values: Any, places: Sequence[tuple[int, ...]], numbers: Any) -> Any:
    """Numbers added to the rows at these places, one after the other."""
    result = values.copy()
    for place, number in zip(places, numbers, strict=True):
        result[place] += number
    return result


torch.manual_seed(2)
X, Y, KERNEL, BIAS = torch.randn(1, 4, 6, 5), torch.randn(1, 4, 6, 5), torch.randn(6, 2, 3, 2), torch.randn(6)
CONV = {"weight": KERNEL, "bias": BIAS, "strides": ints(2, 1), "dilations": ints(1, 2), "groups": 2}
POOL = {"kernel_sizes": ints(3, 2), "strides": ints(1, 2), "ceil_mode": False}
ROWS = torch.arange(4.0)
COLUMN = ROWS.numpy()[:, None, None]
P, N = X.abs().numpy() + 0.5, X.numpy()
CASES: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "acos": ({"x": X.tanh()}, lambda: np.arccos(np.tanh(N))),
    "argsort": ({"x": X, "axis": 1, "ascending": False}, lambda: np.argsort(-N, 1)),
    "asin": ({"x": X.tanh()}, lambda: np.arcsin(np.tanh(N))),
    "atan": ({"x": X}, lambda: np.arctan(N)),
    "atanh": ({"x": X / 9}, lambda: np.arctanh(N / 9)),
    "avg_pool, one side, padding excluded": (
        {"x": X, "pad_type": "custom", "pad": ints(0, 0, 0, 1), **POOL, "strides": ints(3, 3), "exclude_padding_from_average": True},
        lambda: np.stack([np.stack([N[:, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 2].mean((2, 3)) for j in range(2)], 2) for i in range(2)], 2),
    ),
    "avg_pool, ceil_mode": (
        {"x": X, "pad_type": "valid", "pad": ints(), **POOL, "strides": ints(2, 2), "ceil_mode": True, "exclude_padding_from_average": False},
        lambda: np.stack([np.stack([N[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(3)], 2) for i in range(3)], 2),
    ),
    "band_part": ({"x": X, "lower": 1, "upper": 2}, lambda: np.tril(np.triu(N, -1), 2)),
    "band_part, all below": ({"x": X, "lower": -1, "upper": 0}, lambda: np.tril(N)),
    "cast, whole numbers": ({"x": X * 9, "dtype": "int32"}, lambda: np.trunc(N * 9)),
    "quantize": (
        {"input": X, "scale": 0.02, "zero_point": -3, "output_dtype": "int8"},
        lambda: np.clip(np.round(N / np.float32(0.02)) - 3, -128, 127),
    ),
    "dequantize": ({"input": (X * 9).int(), "scale": 0.02, "zero_point": -3}, lambda: (np.trunc(N * 9) + 3) * np.float32(0.02)),
    "cast, truth": ({"x": X.relu(), "dtype": "bool"}, lambda: N > 0),
    "ceil": ({"x": X}, lambda: np.ceil(N)),
    "clamped_relu": ({"x": X, "alpha": 0.5, "beta": 0.25}, lambda: np.minimum(np.where(N >= 0, N, N / 2), 0.25)),
    "concat, interleaved": ({"values": [X, Y], "axis": 1, "interleave": True}, lambda: np.stack([N, Y.numpy()], 2).reshape(1, 8, 6, 5)),
    "conv, along one axis": (
        {"x": X[..., 0], "pad_type": "same", "pad": ints(), **CONV, "weight": KERNEL[..., 0], "strides": ints(1), "dilations": ints(1)},
        lambda: F.conv1d(X[..., 0], KERNEL[..., 0], BIAS, 1, 1, 1, 2),
    ),
    "conv, same": (
        {"x": X, "pad_type": "same", "pad": ints(), **CONV, "dilations": ints(1, 1)},
        lambda: F.conv2d(F.pad(X, (0, 1, 0, 1)), KERNEL, BIAS, (2, 1), 0, 1, 2),
    ),
    "conv, same, the other side": (
        {"x": X, "pad_type": "same_lower", "pad": ints(), **CONV, "dilations": ints(1, 1)},
        lambda: F.conv2d(F.pad(X, (1, 0, 1, 0)), KERNEL, BIAS, (2, 1), 0, 1, 2),
    ),
    "conv_transpose": (
        {"x": X, "pad_type": "custom", "pad": ints(1, 0, 0, 2), **CONV, "weight": KERNEL[:4], "bias": BIAS[:4]},
        lambda: F.conv_transpose2d(X, KERNEL[:4], BIAS[:4], (2, 1), 0, 0, 2, (1, 2))[:, :, 1:, :-2],
    ),
    "conv_transpose, longer": (
        {"x": X, "pad_type": "valid", "pad": ints(), **CONV, "weight": KERNEL[:4], "bias": BIAS[:4], "output_shape": ints(1, 4, 14, 7)},
        lambda: F.conv_transpose2d(X, KERNEL[:4], BIAS[:4], (2, 1), 0, (1, 0), 2, (1, 2)),
    ),
    "cos": ({"x": X}, lambda: np.cos(N)),
    "cosh": ({"x": X}, lambda: np.cosh(N)),
    "crop": ({"x": X, "crop_height": ints(1, 2), "crop_width": ints(0, 1)}, lambda: N[:, :, 1:4, :4]),
    "cumsum, of those before": (
        {"x": X, "axis": 1, "exclusive": True, "reverse": False},
        lambda: np.stack([N[:, :i].sum(1) for i in range(4)], 1),
    ),
    "cumsum, from the end": ({"x": X, "axis": 1, "exclusive": False, "reverse": True}, lambda: np.stack([N[:, i:].sum(1) for i in range(4)], 1)),
    "einsum": ({"values": [X, X.permute(0, 3, 2, 1)], "equation": "nchw,nwhu->nchu"}, lambda: np.einsum("nchw,nuhw->nchu", N, N)),
    "equal": ({"x": X.round(), "y": Y.round()}, lambda: np.round(N) == np.round(Y.numpy())),
    "erf": ({"x": X}, lambda: np.vectorize(math.erf)(N)),
    "exp2": ({"x": X}, lambda: np.exp2(N)),
    "fill": ({"shape": ints(2, 3), "value": 0.5}, lambda: np.full((2, 3), 0.5)),
    "fill_like": ({"ref_tensor": X, "value": 2}, lambda: np.full(N.shape, 2)),
    "flatten2d": ({"x": X, "axis": 2}, lambda: N.reshape(4, 30)),
    "flatten2d, all": ({"x": X, "axis": 0}, lambda: N.reshape(1, 120)),
    "floor": ({"x": X}, lambda: np.floor(N)),
    "floor_div": ({"x": X, "y": 0.3}, lambda: np.floor_divide(N, np.float32(0.3))),
    "floor_div, whole numbers": ({"x": ints(-7, 7), "y": ints(2, -2)}, lambda: [-4, -4]),
    "gather": ({"x": X, "indices": ints(3, -1, 0), "axis": 1}, lambda: N[:, [3, 3, 0]]),
    "gather, one": ({"x": X, "indices": 2, "axis": 3}, lambda: N[..., 2]),
    "gather, of batches": (
        {"x": X[0], "indices": ints(0, 1, 2, 3, 4, 5, 0, 1).reshape(4, 2), "axis": 1, "batch_dims": 1},
        lambda: np.stack([N[0, i][[2 * i % 6, (2 * i + 1) % 6]] for i in range(4)]),
    ),
    "gather_along_axis": (
        {"x": X, "indices": X.argsort(2).int(), "axis": 2},
        lambda: np.sort(N, 2),
    ),
    "gather_nd": ({"x": X[0], "indices": ints(0, 1, 3, 5).reshape(2, 2)}, lambda: N[0][[0, 3], [1, 5]]),
    "gather_nd, of batches": (
        {"x": X[0], "indices": ints(0, 1, 5, 4).reshape(4, 1, 1), "batch_dims": 1},
        lambda: N[0][range(4), [0, 1, 5, 4]][:, None],
    ),
    "gelu, by sigmoid": ({"x": X, "mode": "SIGMOID_APPROXIMATION"}, lambda: N / (1 + np.exp(-1.702 * N))),
    "greater": ({"x": X, "y": Y}, lambda: Y.numpy() < N),
    "greater_equal": ({"x": X, "y": X}, lambda: N >= N),
    "instance_norm": (
        {"x": X, "gamma": ROWS, "beta": -ROWS, "epsilon": 0.1},
        lambda: (N - N.mean((2, 3), keepdims=True)) / np.sqrt(N.var((2, 3), keepdims=True) + 0.1) * COLUMN - COLUMN,
    ),
    "l2_norm": ({"x": X, "epsilon": 0.1}, lambda: N / np.sqrt((N**2).sum() + 0.1)),
    "l2_pool": (
        {"x": X, "pad_type": "valid", "pad": ints(), **POOL, "strides": ints(3, 2)},
        lambda: np.stack(
            [np.stack([np.sqrt((N[:, :, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2] ** 2).sum((2, 3))) for j in range(2)], 2) for i in range(2)], 2
        ),
    ),
    "layer_norm, an axis within": (
        {"x": X, "axes": ints(1), "epsilon": 0.1, "gamma": ROWS, "beta": ROWS + 1},
        lambda: (N - N.mean(1, keepdims=True)) / np.sqrt(N.var(1, keepdims=True) + 0.1) * COLUMN + COLUMN + 1,
    ),
    "less": ({"x": X, "y": 0.25}, lambda: N < 0.25),
    "less_equal": ({"x": X, "y": X}, lambda: N <= N),
    "linear, without a bias": ({"x": X[0, 0], "weight": Y[0, 0]}, lambda: X[0, 0].numpy() @ Y[0, 0].numpy().T),
    "linear_activation": ({"x": X, "alpha": 2.0, "beta": -1.0}, lambda: 2 * N - 1),
    "local_response_norm": (
        {"x": X, "size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0},
        lambda: N / (1 + 0.5 / 3 * np.stack([(N[:, max(0, i - 1) : i + 2] ** 2).sum(1) for i in range(4)], 1)) ** 0.75,
    ),
    "logical_and": ({"x": X > 0, "y": Y > 0}, lambda: (N > 0) & (Y.numpy() > 0)),
    "logical_not": ({"x": X > 0}, lambda: N <= 0),
    "logical_or": ({"x": X > 0, "y": Y > 0}, lambda: (N > 0) | (Y.numpy() > 0)),
    "logical_xor": ({"x": X > 0, "y": Y > 0}, lambda: (N > 0) ^ (Y.numpy() > 0)),
    "max_pool, ceil_mode": (
        {"x": X, "pad_type": "valid", "pad": ints(), **POOL, "strides": ints(2, 2), "ceil_mode": True},
        lambda: np.stack([np.stack([N[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2].max((2, 3)) for j in range(3)], 2) for i in range(3)], 2),
    ),
    "mod": ({"x": X, "y": 0.3}, lambda: np.mod(N, np.float32(0.3))),
    "not_equal": ({"x": X.round(), "y": 0}, lambda: np.round(N) != 0),
    "one_hot": (
        {"indices": ints(2, 0), "one_hot_vector_size": 3, "axis": -1, "on_value": 2.0, "off_value": -1.0},
        lambda: [[-1, -1, 2], [2, -1, -1]],
    ),
    "one_hot, first": ({"indices": ints(2, 0), "one_hot_vector_size": 3, "axis": 0, "on_value": 1, "off_value": 0}, lambda: [[0, 1], [0, 0], [1, 0]]),
    "pad, reflected": (
        {"x": X, "pad": ints(1, 2, 3, 0), "mode": "reflect", "constant_val": 0.0},
        lambda: np.pad(N, ((0, 0), (0, 0), (1, 2), (3, 0)), "reflect"),
    ),
    "pad, of the border": (
        {"x": X, "pad": ints(2, 0, 1, 2, 3, 0), "mode": "replicate", "constant_val": 0.0},
        lambda: np.pad(N, ((0, 0), (2, 0), (1, 2), (3, 0)), "edge"),
    ),
    "pixel_shuffle": ({"x": X, "upscale_factor": 2}, lambda: N.reshape(1, 1, 2, 2, 6, 5).transpose(0, 1, 4, 2, 5, 3).reshape(1, 1, 12, 10)),
    "pixel_unshuffle": (
        {"x": X[..., :4], "downscale_factor": 2},
        lambda: N[..., :4].reshape(1, 4, 3, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(1, 16, 3, 2),
    ),
    "prelu": ({"x": X, "alpha": ROWS}, lambda: np.where(N > 0, N, COLUMN * N)),
    "range_1d": ({"end": 7, "start": 1, "step": 2}, lambda: [1, 3, 5]),
    "reduce_argmax": ({"x": X, "axis": 1, "keep_dims": False}, lambda: N.argmax(1)),
    "reduce_argmin": ({"x": X, "axis": 3, "keep_dims": True, "output_dtype": "uint16"}, lambda: N.argmin(3)[..., None]),
    "reduce_l1_norm": ({"x": X, "axes": ints(1, 2), "keep_dims": True}, lambda: np.abs(N).sum((1, 2), keepdims=True)),
    "reduce_l2_norm": ({"x": X, "axes": ints(1), "keep_dims": False}, lambda: np.sqrt((N**2).sum(1))),
    "reduce_log_sum": ({"x": torch.tensor(P), "axes": ints(1), "keep_dims": False}, lambda: np.log(P.sum(1))),
    "reduce_log_sum_exp": ({"x": X, "axes": ints(1), "keep_dims": False}, lambda: np.log(np.exp(N).sum(1))),
    "reduce_max, of all": ({"x": X, "keep_dims": False}, lambda: N.max()),
    "reduce_prod": ({"x": X, "axes": ints(1, 3), "keep_dims": False}, lambda: N.prod((1, 3))),
    "reduce_sum_square": ({"x": X, "axes": ints(1), "keep_dims": False}, lambda: (N**2).sum(1)),
    "reshape, sizes kept": ({"x": X, "shape": ints(0, 0, -1)}, lambda: N.reshape(1, 4, 30)),
    "resample": (
        {
            "x": X,
            "coordinates": torch.stack([torch.linspace(-1.5, 1, 4).expand(3, 4), torch.linspace(-1, 1, 3)[:, None].expand(3, 4)], -1)[None],
            "sampling_mode": "bilinear",
            "padding_mode": "border",
            "padding_value": 0.0,
            "coordinates_mode": "normalized_minus_one_to_one",
            "align_corners": True,
        },
        lambda: np.einsum("nchw,ih,jw->ncij", N, sampled(6, np.linspace(0, 5, 3)), sampled(5, np.clip((np.linspace(-1.5, 1, 4) + 1) * 2, 0, 4))),
    ),
    "resize": (
        {"x": X, "shape": ints(1, 0, 4), "resized_dims": 2, "interpolation_mode": "LINEAR", "sampling_mode": "DEFAULT"},
        lambda: np.einsum("nchw,jw->nchj", N, sampled(5, [j * 5 / 4 for j in range(4)])),
    ),
    "resize_bilinear, corners offset": (
        {"x": X, "target_size_height": 7, "target_size_width": 4, "sampling_mode": "OFFSET_CORNERS"},
        lambda: np.einsum(
            "nchw,ih,jw->ncij", N, sampled(6, [(i + 0.5) * 5 / 7 for i in range(7)]), sampled(5, [(j + 0.5) * 4 / 4 for j in range(4)])
        ),
    ),
    "resize_bilinear, one element": (
        {"x": X, "target_size_height": 1, "target_size_width": 5, "sampling_mode": "ALIGN_CORNERS"},
        lambda: N[:, :, 2:4].mean(2, keepdims=True),
    ),
    "resize_nearest_neighbor": ({"x": X, "target_size_height": 3, "target_size_width": 10}, lambda: N[:, :, ::2].repeat(2, 3)),
    "round": ({"x": X * 4}, lambda: np.round(N * 4)),
    "scaled_dot_product_attention": (
        {"query": X, "key": Y, "value": Y, "attn_mask": X[:, :, :, :1] * 0 + X[:, :, :, 0][:, :, None]},
        lambda: np.einsum("nhqk,nhkd->nhqd", softmaxed(np.einsum("nhqd,nhkd->nhqk", N, Y.numpy()) / 5**0.5 + N[..., 0][:, :, None]), Y.numpy()),
    ),
    "scaled_tanh": ({"x": X, "alpha": 2.0, "beta": 0.5}, lambda: 2 * np.tanh(N / 2)),
    "scatter": (
        {"data": X, "indices": ints(2, 0), "updates": Y[:, :2], "axis": 1, "mode": "update"},
        lambda: np.stack([Y[:, 1], X[:, 1], Y[:, 0], X[:, 3]], 1),
    ),
    "scatter, multiplied": (
        {"data": X, "indices": ints(2, 2), "updates": Y[:, :2], "axis": 1, "mode": "mul"},
        lambda: np.stack([X[:, 0], X[:, 1], X[:, 2] * Y[:, 0] * Y[:, 1], X[:, 3]], 1),
    ),
    "scatter, divided": (
        {"data": X, "indices": ints(2), "updates": torch.tensor(P[:, :1]), "axis": 1, "mode": "div"},
        lambda: np.stack([N[:, 0], N[:, 1], N[:, 2] / P[:, 0], N[:, 3]], 1),
    ),
    "scatter_along_axis": (
        {"data": X, "indices": X.argsort(1).argsort(1).int(), "updates": X, "axis": 1, "mode": "update"},
        lambda: np.sort(N, 1),
    ),
    "scatter_along_axis, subtracted": (
        {"data": X, "indices": ints(1).expand(1, 1, 6, 5), "updates": Y[:, :1], "axis": 1, "mode": "sub"},
        lambda: N - np.eye(4)[1][:, None, None] * Y[:, :1].numpy(),
    ),
    "scatter_nd": (
        {"data": X[0], "indices": ints(0, 1, 3, 5, 3, 5).reshape(3, 2), "updates": Y[0, 0, :3], "mode": "add"},
        lambda: added(N[0], [(0, 1), (3, 5), (3, 5)], Y[0, 0, :3].numpy()),
    ),
    "select": ({"cond": X > 0, "a": X, "b": 0.5}, lambda: np.where(N > 0, N, 0.5)),
    "shape": ({"x": X}, lambda: [1, 4, 6, 5]),
    "sign": ({"x": X.round()}, lambda: np.sign(np.round(N))),
    "sin": ({"x": X}, lambda: np.sin(N)),
    "sinh": ({"x": X}, lambda: np.sinh(N)),
    "slice_by_index, squeezed and backwards": (
        {
            "x": X,
            "begin": ints(0, -1, 4, 0),
            "end": ints(0, 0, 0, 5),
            "stride": ints(1, -2, -3, 1),
            "end_mask": torch.tensor([False, True, False, False]),
            "squeeze_mask": torch.tensor([True, False, False, False]),
        },
        lambda: N[0, -1::-2, 4:0:-3],
    ),
    "slice_by_size": ({"x": X, "begin": ints(0, 1, 2, 3), "size": ints(1, 2, -1, 1)}, lambda: N[:, 1:3, 2:, 3:4]),
    "slice_update": (
        {"x": X, "update": Y[:, :1, ::2], "begin": ints(0, 1, 0, 0), "end": ints(1, 2, 6, 5), "stride": ints(1, 1, 2, 1)},
        lambda: np.where((np.arange(4)[:, None, None] == 1) & (np.arange(6)[:, None] % 2 == 0), Y[:, :1].numpy(), N),
    ),
    "sliding_windows": ({"x": X, "axis": 2, "size": 3, "stride": 2}, lambda: np.stack([N[:, :, 2 * i : 2 * i + 3] for i in range(2)], 2)),
    "softplus_parametric": ({"x": X, "alpha": ROWS, "beta": ROWS + 1}, lambda: COLUMN * np.log1p(np.exp((COLUMN + 1) * N))),
    "softsign": ({"x": X}, lambda: N / (1 + np.abs(N))),
    "split": ({"x": X, "axis": 2, "split_sizes": ints(1, 5)}, lambda: (N[:, :, :1], N[:, :, 1:])),
    "split, equal parts": ({"x": X, "axis": 1, "num_splits": 2}, lambda: (N[:, :2], N[:, 2:])),
    "stack": ({"values": [X, Y], "axis": 1}, lambda: np.stack([X, Y], 1)),
    "tan": ({"x": X / 2}, lambda: np.tan(N / 2)),
    "threshold": ({"x": X, "alpha": 0.3}, lambda: np.maximum(N, 0.3)),
    "topk": ({"x": X, "k": 2, "axis": 2, "ascending": False}, lambda: (-np.sort(-N, 2)[:, :, :2], np.argsort(-N, 2)[:, :, :2])),
    "topk, all values, ascending": ({"x": X, "k": -1, "axis": 2, "ascending": True, "return_indices": False}, lambda: (np.sort(N, 2),)),
    "abs": ({"x": X}, lambda: np.abs(N)),
    "add": ({"x": X, "y": Y}, lambda: X.numpy() + Y.numpy()),
    "avg_pool": (
        {"x": X, "pad_type": "valid", "pad": ints(1, 1, 1, 1), **POOL, "strides": ints(3, 2), "exclude_padding_from_average": True},
        lambda: np.stack([np.stack([N[:, :, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(2)], 2) for i in range(2)], 2),
    ),
    "avg_pool, padding counted": (
        {"x": X, "pad_type": "custom", "pad": ints(0, 0, 0, 1), **POOL, "strides": ints(3, 3), "exclude_padding_from_average": False},
        lambda: np.stack([np.stack([N[:, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 2].sum((2, 3)) / 6 for j in range(2)], 2) for i in range(2)], 2),
    ),
    "batch_norm": (
        {"x": X, "mean": ROWS, "variance": ROWS + 1, "gamma": -ROWS, "beta": ROWS * 2, "epsilon": 0.1},
        lambda: (N - COLUMN) / np.sqrt(COLUMN + 1.1) * -COLUMN + COLUMN * 2,
    ),
    "clip": ({"x": X, "alpha": -0.5, "beta": 0.25}, lambda: np.clip(N, -0.5, 0.25)),
    "cumsum": ({"x": X, "axis": 2, "exclusive": False, "reverse": False}, lambda: np.cumsum(N, 2)),
    "elu": ({"x": X, "alpha": 0.5}, lambda: np.where(N > 0, N, 0.5 * (np.exp(N) - 1))),
    "exp": ({"x": X}, lambda: np.exp(N)),
    "expand_dims": ({"x": X[0], "axes": ints(0, 4)}, lambda: N[0][None, ..., None]),
    "gelu": ({"x": X, "mode": "EXACT"}, lambda: N * 0.5 * (1 + np.vectorize(math.erf)(N / 2**0.5))),
    "gelu, by tanh": (
        {"x": X, "mode": "TANH_APPROXIMATION"},
        lambda: N * 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (N + 0.044715 * N**3))),
    ),
    "identity": ({"x": X}, lambda: N),
    "inverse": ({"x": torch.tensor(P), "epsilon": 0.1}, lambda: 1 / (P + 0.1)),
    "layer_norm": (
        {"x": X, "axes": ints(-1), "epsilon": 0.1, "gamma": Y[0, 0, 0], "beta": Y[0, 0, 1]},
        lambda: (N - N.mean(-1, keepdims=True)) / np.sqrt(N.var(-1, keepdims=True) + 0.1) * Y[0, 0, 0].numpy() + Y[0, 0, 1].numpy(),
    ),
    "leaky_relu": ({"x": X, "alpha": 0.3}, lambda: np.where(N > 0, N, 0.3 * N)),
    "log": ({"x": torch.tensor(P), "epsilon": 0.1}, lambda: np.log(P + 0.1)),
    "matmul": ({"x": X, "y": Y, "transpose_x": False, "transpose_y": True}, lambda: np.einsum("nchw,nckw->nchk", N, Y.numpy())),
    "matmul, the first transposed": ({"x": X, "y": Y, "transpose_x": True, "transpose_y": False}, lambda: np.einsum("nchw,nchk->ncwk", N, Y.numpy())),
    "minimum": ({"x": X, "y": Y}, lambda: np.minimum(N, Y.numpy())),
    "minimum, a number": ({"x": X, "y": 0.5}, lambda: np.minimum(N, 0.5)),
    "pow": ({"x": torch.tensor(P), "y": 1.5}, lambda: P**1.5),
    "real_div": ({"x": X, "y": torch.tensor(P)}, lambda: N / P),
    "reduce_max": ({"x": X, "axes": ints(1), "keep_dims": False}, lambda: N.max(1)),
    "reduce_min": ({"x": X, "axes": ints(3), "keep_dims": True}, lambda: N.min(3, keepdims=True)),
    "reduce_sum": ({"x": X, "axes": ints(0, 2), "keep_dims": False}, lambda: N.sum((0, 2))),
    "relu6": ({"x": X * 9}, lambda: np.clip(N * 9, 0, 6)),
    "resize_bilinear": (
        {"x": X, "target_size_height": 7, "target_size_width": 4, "sampling_mode": "UNALIGN_CORNERS"},
        lambda: np.einsum(
            "nchw,ih,jw->ncij", N, sampled(6, [(i + 0.5) * 6 / 7 - 0.5 for i in range(7)]), sampled(5, [(j + 0.5) * 5 / 4 - 0.5 for j in range(4)])
        ),
    ),
    "resize_bilinear, corners aligned": (
        {"x": X, "target_size_height": 7, "target_size_width": 4, "sampling_mode": "STRICT_ALIGN_CORNERS"},
        lambda: np.einsum("nchw,ih,jw->ncij", N, sampled(6, [i * 5 / 6 for i in range(7)]), sampled(5, [j * 4 / 3 for j in range(4)])),
    ),
    "reverse": ({"x": X, "axes": ints(1, 3)}, lambda: N[:, ::-1, :, ::-1]),
    "rsqrt": ({"x": torch.tensor(P), "epsilon": 0.1}, lambda: 1 / np.sqrt(P + 0.1)),
    "sigmoid": ({"x": X}, lambda: 1 / (1 + np.exp(-N))),
    "sigmoid_hard": ({"x": X, "alpha": 0.3, "beta": 0.4}, lambda: np.clip(0.3 * N + 0.4, 0, 1)),
    "silu": ({"x": X}, lambda: N / (1 + np.exp(-N))),
    "softmax": ({"x": X, "axis": 1}, lambda: np.exp(N) / np.exp(N).sum(1, keepdims=True)),
    "softplus": ({"x": X}, lambda: np.log1p(np.exp(N))),
    "sqrt": ({"x": torch.tensor(P)}, lambda: np.sqrt(P)),
    "square": ({"x": X}, lambda: N * N),
    "squeeze": ({"x": X[:, :1], "axes": ints(0, 1)}, lambda: N[0, 0]),
    "sub": ({"x": X, "y": Y}, lambda: N - Y.numpy()),
    "tanh": ({"x": X}, lambda: np.tanh(N)),
    "thresholded_relu": ({"x": X, "alpha": -0.2}, lambda: np.where(N >= -0.2, N, 0)),
    "tile": ({"x": X, "reps": ints(1, 2, 1, 3)}, lambda: np.tile(N, (1, 2, 1, 3))),
    "upsample_bilinear": (
        {"x": X, "scale_factor_height": 2.0, "scale_factor_width": 1.0, "align_corners": False, "half_pixel_centers": True},
        lambda: np.concatenate(
            [
                N[:, :, :1],
                *((N[:, :, i : i + 1] * (3 - 2 * j) + N[:, :, i + 1 : i + 2] * (1 + 2 * j)) / 4 for i in range(5) for j in range(2)),
                N[:, :, -1:],
            ],
            2,
        ),
    ),
    "upsample_nearest_neighbor": ({"x": X, "scale_factor_height": 2.0, "scale_factor_width": 3.0}, lambda: N.repeat(2, 2).repeat(3, 3)),
    "mul": ({"x": X, "y": 3.0}, lambda: X.numpy() * 3),
    "cast": ({"x": X, "dtype": "fp16"}, lambda: X.numpy().astype(np.float16)),
    "concat": ({"values": [X, Y], "axis": 2, "interleave": False}, lambda: np.concatenate([X, Y], 2)),
    "conv": ({"x": X, "pad_type": "custom", "pad": ints(1, 1, 2, 2), **CONV}, lambda: F.conv2d(X, KERNEL, BIAS, (2, 1), (1, 2), (1, 2), 2)),
    "conv, one side": (
        {"x": X, "pad_type": "custom", "pad": ints(1, 0, 0, 3), **CONV},
        lambda: F.conv2d(F.pad(X, (0, 3, 1, 0)), KERNEL, BIAS, (2, 1), 0, (1, 2), 2),
    ),
    "conv, valid": ({"x": X, "pad_type": "valid", "pad": ints(1, 1, 1, 1), **CONV}, lambda: F.conv2d(X, KERNEL, BIAS, (2, 1), 0, (1, 2), 2)),
    "linear": ({"x": X[0, 0], "weight": Y[0, 0], "bias": BIAS}, lambda: X[0, 0].numpy() @ Y[0, 0].numpy().T + BIAS.numpy()),
    "max_pool": ({"x": X - 9, "pad_type": "custom", "pad": ints(1, 1, 1, 1), **POOL}, lambda: F.max_pool2d(X - 9, (3, 2), (1, 2), (1, 1))),
    "max_pool, one side": (
        {"x": X - 9, "pad_type": "custom", "pad": ints(0, 2, 0, 1), **POOL},
        lambda: F.max_pool2d(F.pad(X - 9, (0, 1, 0, 2), value=-99), (3, 2), (1, 2)),
    ),
    "maximum": ({"x": X, "y": Y}, lambda: np.maximum(X.numpy(), Y.numpy())),
    "pad": (
        {"x": X, "pad": ints(0, 0, 1, 2, 0, 3, 4, 0), "mode": "constant", "constant_val": 0.5},
        lambda: np.pad(X, ((0, 0), (1, 2), (0, 3), (4, 0)), constant_values=0.5),
    ),
    "reduce_mean": ({"x": X, "axes": ints(2, 3), "keep_dims": True}, lambda: X.numpy().mean((2, 3), keepdims=True)),
    "relu": ({"x": X}, lambda: np.maximum(X.numpy(), 0)),
    "reshape": ({"x": X, "shape": ints(2, -1)}, lambda: X.numpy().reshape(2, -1)),
    "slice_by_index": ({"x": X, "begin": ints(0, 1, 0, 4), "end": ints(1, 3, -1, 5)}, lambda: X.numpy()[:, 1:3, :-1, 4:]),
    "slice_by_index, masks and strides": (
        {
            "x": X,
            "begin": ints(0, 1, 2, 1),
            "end": ints(1, 3, 2, 2),
            "stride": ints(1, 1, 2, 3),
            "begin_mask": torch.tensor([0, 1, 0, 0]),
            "end_mask": torch.tensor([1, 0, 1, 1]),
        },
        lambda: X.numpy()[:, :3, 2::2, 1::3],
    ),
    "transpose": ({"x": X, "perm": ints(0, 3, 1, 2)}, lambda: X.numpy().transpose(0, 3, 1, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str) -> None:
    arguments, expected = CASES[name]
    got, wanted = OPERATIONS[name.split(",")[0]](**arguments), expected()
    for one, other in zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]:
        np.testing.assert_allclose(one.numpy(), np.asarray(other), rtol=1e-5, atol=1e-5)


def test_every_operation_has_a_case() -> None:
    assert {name.split(",")[0] for name in CASES} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("conv", {"pad_type": "mirrored"}),
        ("conv", {"x": X[0, 0]}),
        ("conv_transpose", {"pad_type": "same"}),
        ("max_pool", {"pad": ints(3, 0, 0, 0), "ceil_mode": True}),
        ("l2_pool", {"ceil_mode": True}),
        ("gelu", {"mode": "SOFT"}),
        ("upsample_bilinear", {"align_corners": True}),
        ("resize", {"interpolation_mode": "NEAREST_NEIGHBOR"}),
        ("resize_bilinear", {"sampling_mode": "CORNERS"}),
        ("resample", {"padding_mode": "reflection"}),
        ("pad", {"mode": "wrap"}),
        ("pad, reflected", {"pad": ints(0, 0, 6, 0)}),
        ("cast", {"dtype": "fp8"}),
        ("quantize", {"output_dtype": "int4"}),
        ("quantize", {"scale": torch.ones(3)}),
        ("dequantize", {"scale": torch.ones(3)}),
        ("cast", {"x": X * 1000, "dtype": "int8"}),
        ("gather", {"indices": ints(4)}),
        ("scatter", {"mode": "median"}),
        ("slice_update", {"stride": ints(1, -1, 1, 1)}),
        ("local_response_norm", {"size": 2}),
        ("real_div", {"x": ints(1), "y": ints(2)}),
        ("split", {"num_splits": 4, "split_sizes": None}),
        ("topk", {"output_indices_dtype": "int8"}),
    ],
)
def test_a_setting_that_the_evaluator_does_not_know_is_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ClipstepError, match="a setting this evaluator does not know"):
        OPERATIONS[name.split(",")[0]](**CASES[name][0] | change)
