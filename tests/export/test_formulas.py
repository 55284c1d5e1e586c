"""Formulas that stand in for operators which engines lack, against PyTorch's own in double precision: no digits cancel near 0, nothing overflows."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import lower
from clipstep.export.mlprogram import MlProgram
from clipstep.export.targets import coreml, coreml_writer, executorch, executorch_writer, onnx
from clipstep.export.targets.onnx_model import onnx_model

NEAR_ZERO = [0.0, 1e-7, -1e-7, 1e-4, -1e-4, 3e-3, -3e-3, 0.1, -0.1, 0.45, -0.45]
ANY = [*NEAR_ZERO, 0.9, -0.9, 1.0, -1.0, 3.0, -3.0, 9.0, -9.0, 20.0, -20.0]
LARGE = [100.0, 1e4, 1e10, 1e30]
FORMULAS: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "log1p": (torch.log1p, [*NEAR_ZERO, 0.9, -0.9, 1.0, 3.0, 9.0, *LARGE, -1.0, math.inf, -2.0]),
    "expm1": (torch.expm1, [*ANY, math.inf, -math.inf]),
    "asinh": (torch.asinh, [*ANY, *LARGE, -1e4, -1e30]),
    "acosh": (torch.acosh, [1.0, 1.0001, 1.01, 1.5, 3.0, 9.0, *LARGE, 0.5]),
    "erfc": (torch.erfc, [*NEAR_ZERO, 0.9, -0.9, 1.0, -1.0, 3.0, -3.0, 5.0, 8.0, -8.0]),
    "softplus": (F.softplus, ANY),
    "softplus, sharper": (lambda x: F.softplus(x, 3.0), ANY),
    "log_sigmoid": (F.logsigmoid, [*ANY, 60.0]),
    "elu, scaled": (lambda x: torch.ops.aten.elu.default(x, 0.7, 1.3, 0.5), ANY),
    "selu": (F.selu, ANY),
    "celu": (lambda x: F.celu(x, 0.7), ANY),
    "mish": (F.mish, ANY),
    "log": (torch.log, [1e-30, 1e-7, 1e-3, 0.5, 2.0, 1e30, 0.0]),
    "rsqrt": (torch.rsqrt, [1e-30, 1e-13, 1e-7, 0.5, 2.0, 1e30]),
    "reciprocal": (torch.reciprocal, [1e-30, -1e-13, 1e-7, 0.5, 2.0, 1e30, 0.0]),
    "hypot": (lambda x: torch.hypot(x, x * 0.75), [*ANY, *LARGE, 1e-30]),
    "atan2": (lambda x: torch.atan2(x, x.flip(0)), [*ANY, 1e10, -1e10]),
    "prelu": (lambda x: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)), ANY),
    "logsumexp": (lambda x: torch.logsumexp(torch.stack([x, x * 0.5, x - 1]), 0), [*ANY, 1e4, -1e4, math.inf, -math.inf]),
    "logaddexp": (lambda x: torch.logaddexp(x, x - 1), [*ANY, 1e4]),
}


class All(nn.Module):
    """All of them, each on values of its own."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(part) for (function, _), part in zip(FORMULAS.values(), x.split(SIZES), strict=True))


SIZES = [len(values) for _, values in FORMULAS.values()]
VALUES = torch.tensor([value for _, values in FORMULAS.values() for value in values])


def _compared(results: Any, rtol: float, atol: float = 1e-37) -> None:
    for name, got, expected in zip(FORMULAS, results, All()(VALUES.double()), strict=True):
        expected = expected.float()
        torch.testing.assert_close(
            torch.as_tensor(got), expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_in_float32() -> None:
    _compared(lower(All(), (VALUES,), onnx.PROFILE)(VALUES), 2e-6)


def test_in_onnxruntime() -> None:
    model = onnx_model(lower(All(), (VALUES,), onnx.PROFILE), ["x"], list(FORMULAS))
    _compared(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": VALUES.numpy()}), 4e-6)


def test_in_executorch(tmp_path: Path) -> None:
    """XNNPACK's logarithm of numbers near 1 is off by 1e-7, and mish multiplies that."""
    graph, program = lower(All(), (VALUES,), executorch.PROFILE), SimpleNamespace(inputs=(VALUES,))
    executorch_writer.write(graph, program, "float32", "{}", tmp_path / "step.pte")
    _compared(portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([VALUES]), 4e-6, 2e-6)


def test_in_an_ml_program(tmp_path: Path) -> None:
    program: Any = SimpleNamespace(input_names=["x"], output_names=[f"y{place}" for place in range(len(FORMULAS))], frames=VALUES, states={})
    coreml_writer.to_ml_program(lower(All(), (VALUES,), coreml.PROFILE), program, "float32").save(str(tmp_path / "step.mlpackage"))
    _compared(MlProgram(tmp_path / "step.mlpackage").run([VALUES.numpy()]), 4e-6)
