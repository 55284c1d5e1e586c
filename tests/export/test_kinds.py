"""Operators of every kind after the lowering, compared with torch, and those that cannot be lowered, with their reasons."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from onnx.checker import check_model
from onnxruntime import InferenceSession
from operations import KINDS, X, lowered_for, network_of
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import LoweringError, lower
from clipstep.export.mlprogram import MlProgram
from clipstep.export.targets import coreml_writer, executorch, executorch_writer, onnx
from clipstep.export.targets.executorch_kernels import PRODUCTS
from clipstep.export.targets.onnx_model import onnx_model


@pytest.mark.parametrize("target", ["onnx", "executorch"])
@pytest.mark.parametrize("kind", KINDS)
def test_operations_of_a_kind(kind: str, target: str) -> None:
    network, lowered = network_of(kind)[0], lowered_for(target, kind)
    other = torch.randn(X[1:], generator=torch.Generator().manual_seed(2))
    for name, got, expected in zip(KINDS[kind], lowered(other), network(other), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape, name
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    values = [node.meta["val"] for node in lowered.graph.nodes if "val" in node.meta]
    assert max(value.ndim for value in values if isinstance(value, Tensor)) <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_files_with_operations_of_a_kind(kind: str) -> None:
    """Written by our own writer alone, and run in onnxruntime."""
    network = network_of(kind)[0]
    names = [f"y{place}" for place in range(len(KINDS[kind]))]
    model = onnx_model(lowered_for("onnx", kind), ["x"], names)
    check_model(model, full_check=True)
    session = InferenceSession(model.SerializeToString())
    other = torch.randn(X[1:], generator=torch.Generator().manual_seed(2))
    for name, got, expected in zip(KINDS[kind], session.run(None, {"x": other.numpy()}), network(other), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_executorch_programs_with_operations_of_a_kind(kind: str, tmp_path: Path) -> None:
    """Written and run in ExecuTorch, with the products inside of XNNPACK."""
    network, x, _ = network_of(kind)
    program: Any = SimpleNamespace(inputs=(x,))
    placement = executorch_writer.write(lowered_for("executorch", kind), program, "float32", "{}", tmp_path / "step.pte")
    other = torch.randn(X[1:], generator=torch.Generator().manual_seed(2))
    results = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([other])
    for name, got, expected in zip(KINDS[kind], results, network(other), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape, name
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert len(placement.delegated) <= 3
    assert not {one.operator.rsplit(".", 1)[0] for one in placement.reasons} & {str(product) for product in PRODUCTS}
    assert not any(word in name for name in placement.not_delegated for word in ("conv", "mm", "linear", "pool"))


class WindowMask(nn.Module):
    """Adds a mask that is written window by window into new numbers, one of them empty, as shifted-window attention makes it."""

    def __init__(self, new: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
        super().__init__()
        self.new = new

    def forward(self, x: Tensor) -> Tensor:
        windows = self.new(x, (6, 4))
        for number, rows in enumerate((slice(0, -6), slice(-6, -2), slice(-2, None))):
            windows[rows, :2] = number
        rows = windows.reshape(1, 24)
        return x + (rows - rows.T).ne(0) * -100.0


@pytest.mark.parametrize("new", [Tensor.new_zeros, Tensor.new_ones, lambda x, size: x.new_full(size, 3), lambda x, size: torch.zeros(size)])
def test_a_mask_that_depends_on_no_input_is_a_constant(new: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
    network, x = WindowMask(new), torch.randn(24, 24)
    lowered = lower(network, (x,), executorch.PROFILE)
    torch.testing.assert_close(lowered(2 * x), network(2 * x))
    assert [node.target for node in lowered.graph.nodes if node.op == "call_function"] == [torch.ops.aten.add.Tensor]


@pytest.mark.parametrize("kind", KINDS)
def test_ml_programs_with_operations_of_a_kind(kind: str, tmp_path: Path) -> None:
    """Written by our own writer alone, and evaluated."""
    network, x, _ = network_of(kind)
    program: Any = SimpleNamespace(input_names=["x"], output_names=[f"y{place}" for place in range(len(KINDS[kind]))], frames=x, states={})
    coreml_writer.to_ml_program(lowered_for("coreml", kind), program, "float32").save(str(tmp_path / "step.mlpackage"))
    other = torch.randn(X[1:], generator=torch.Generator().manual_seed(2))
    for name, got, expected in zip(KINDS[kind], MlProgram(tmp_path / "step.mlpackage").run([other.numpy()]), network(other), strict=True):
        values = torch.from_numpy(got).to(expected.dtype)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def _assigned(x: Tensor, places: Tensor) -> Tensor:
    changed = x.clone()
    changed[:, :, places] = 0.5
    return changed


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "random numbers": (lambda x: x + torch.rand(1), "aten.rand.default: it draws random numbers"),
    "random numbers like a value": (lambda x: x + torch.randn_like(x), "aten.randn_like.default: it draws random numbers"),
    "dropout that is always on": (lambda x: F.dropout(x, 0.5, training=True), "it draws random numbers"),
    "a Fourier transform": (lambda x: torch.fft.rfft(x).abs(), "aten._fft_r2c.default: it computes complex numbers"),
    "bfloat16": (lambda x: x.bfloat16() * 2, "aten._to_copy.default: it computes numbers of bfloat16; compute in float32"),
    "complex numbers": (lambda x: torch.view_as_complex(torch.stack([x, x], -1)).real, "view_as_complex.default: it computes complex numbers"),
    "places of nonzeros": (lambda x: x.nonzero().float(), "the shape of what it returns depends on the numbers in a tensor"),
    "the numbers that occur": (lambda x: x.unique(), "the shape of what it returns depends on the numbers in a tensor"),
    "places of nonzeros in a matrix": (lambda x: x[0, 0, 0].nonzero(), "aten.nonzero.default: the shape of what it returns depends on the numbers"),
    "chosen numbers of a matrix": (lambda x: x[0, 0, 0].masked_select(x[0, 0, 0] > 0), "aten.masked_select.default: the shape of what it returns"),
    "how often numbers occur": (lambda x: (x[0, 0, 0, 0] * 4).long().abs().bincount(), "aten.bincount.default: the shape of what it returns"),
    "a number out of a tensor": (lambda x: x * x.max().item(), "it reads a number out of a tensor, as item() does"),
    "two results of each number": (lambda x: x.frexp()[0], "aten.frexp.Tensor: it has no rule"),
    "whole numbers added at computed places": (
        lambda x: x.long().index_add(4, x[0, 0, 0, 0].argsort(), x.long()).float(),
        "aten.index_put.default: a sum of whole numbers at computed places",
    ),
    "a max pool with places that may run over the end": (
        lambda x: F.max_pool3d(x, 3, 2, return_indices=True, ceil_mode=True)[1].float(),
        "aten.max_pool3d_with_indices.default: a max pool with places and a kernel of more than 64 entries, or with ceil_mode",
    ),
}


class Refused(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.function(x[None]),)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lowered_says_why_and_where(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(LoweringError) as error:
        lower(Refused(function), (torch.randn(X[1:]),), onnx.PROFILE)
    assert reason in str(error.value)
    assert f'it comes from File "{__file__}"' in str(error.value)
