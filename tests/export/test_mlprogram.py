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

from clipstep.export.mil_operations import OPERATIONS
from clipstep.export.mlprogram import MIL, MlProgram
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps

PACKAGE = "step-float32.mlpackage"
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def first(block: Any, kind: str) -> Any:
    return next(operation for operation in block.operations if operation.type == kind)


def unknown_operation(block: Any) -> None:
    first(block, "relu").type = "softsign"


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
    first(block, "relu").outputs[0].type.tensorType.dataType = MIL.INT8


def unknown_stored_type(block: Any) -> None:
    stored = next(o for o in block.operations if o.type == "const" and o.attributes["val"].WhichOneof("value") == "blobFileValue")
    stored.attributes["val"].type.tensorType.dataType = MIL.INT8


def unknown_immediate_type(block: Any) -> None:
    given = next(o for o in block.operations if o.type == "const" and o.attributes["val"].WhichOneof("value") == "immediateValue")
    given.attributes["val"].type.tensorType.dataType = MIL.UINT8


def unknown_setting(block: Any) -> None:
    name = first(block, "conv").inputs["pad_type"].arguments[0].name
    constant = next(o for o in block.operations if o.outputs[0].name == name)
    constant.attributes["val"].immediateValue.tensor.strings.values[:] = ["same_lower"]


def interleaved_concat(block: Any) -> None:
    name = first(block, "concat").inputs["interleave"].arguments[0].name
    constant = next(o for o in block.operations if o.outputs[0].name == name)
    constant.attributes["val"].immediateValue.tensor.bools.values[:] = [True]


def another_output(block: Any) -> None:
    block.outputs[0] = "something"


CHANGES: dict[Callable[[Any], None], str] = {
    unknown_operation: "unknown ML Program operation softsign; expected one of abs, add",
    unknown_input: "relu: inputs this evaluator does not know; got .*alpha",
    missing_input: "conv: inputs this evaluator does not know",
    unknown_attribute: "relu: more outputs, blocks or attributes",
    second_output: "relu: more outputs, blocks or attributes",
    another_shape: "relu: the result has another shape than declared",
    unknown_result_type: "relu: .*type",
    unknown_stored_type: "a stored constant of a type this evaluator does not know; got INT8",
    unknown_immediate_type: "an immediate constant of a type this evaluator does not know; got UINT8",
    unknown_setting: "conv with pad_type same_lower",
    interleaved_concat: "concat with interleave",
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


torch.manual_seed(2)
X, Y, KERNEL, BIAS = torch.randn(1, 4, 6, 5), torch.randn(1, 4, 6, 5), torch.randn(6, 2, 3, 2), torch.randn(6)
CONV = {"weight": KERNEL, "bias": BIAS, "strides": ints(2, 1), "dilations": ints(1, 2), "groups": 2}
POOL = {"kernel_sizes": ints(3, 2), "strides": ints(1, 2), "ceil_mode": False}
ROWS = torch.arange(4.0)
COLUMN = ROWS.numpy()[:, None, None]
P, N = X.abs().numpy() + 0.5, X.numpy()
CASES: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
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
    np.testing.assert_allclose(OPERATIONS[name.split(",")[0]](**arguments).numpy(), np.asarray(expected()), rtol=1e-5, atol=1e-5)


def test_every_operation_has_a_case() -> None:
    assert {name.split(",")[0] for name in CASES} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("conv", {"pad_type": "same"}),
        ("conv", {"x": X[0]}),
        ("max_pool", {"ceil_mode": True}),
        ("max_pool", {"pad_type": "same"}),
        ("avg_pool", {"ceil_mode": True}),
        ("avg_pool", {"pad_type": "custom"}),
        ("cumsum", {"reverse": True}),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}),
        ("layer_norm", {"axes": ints(1)}),
        ("upsample_bilinear", {"align_corners": True}),
        ("resize_bilinear", {"sampling_mode": "DEFAULT"}),
        ("pad", {"mode": "reflect"}),
        ("concat", {"interleave": True}),
        ("cast", {"dtype": "int32"}),
        ("slice_by_index", {"squeeze_mask": torch.tensor([True, False, False, False])}),
        ("slice_by_index", {"stride": ints(1, -1, 1, 1)}),
    ],
)
def test_a_setting_that_the_evaluator_does_not_know_is_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ClipstepError, match="a setting this evaluator does not know"):
        OPERATIONS[name](**CASES[name][0] | change)
