"""Artifacts of dynamic8: which convolutions are of integers, that each frame has a range of its own, and that a wrong number is found."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.options import ExportOptions
from clipstep.export.targets import dynamic8, executorch_writer
from clipstep.export.targets.dynamic8 import DEPTHWISE, NO_CONVOLUTION, POINTWISE, TOO_FEW
from clipstep.export.targets.float16 import TOO_LARGE
from clipstep.export.targets.quantization import quantized_weight
from clipstep.runtime import Bundle, ClipstepError, ParityError
from clipstep.runtime.bundle.manifest import Placement
from tests.export.test_float16 import program, traced

Cli = Callable[..., tuple[int, str, str]]
RANDOM = torch.Generator().manual_seed(3)
FRAMES = (torch.randn(2, 32, 6, 5, generator=RANDOM) * torch.tensor([1.0, 1000.0]).reshape(2, 1, 1, 1)).half().float()
"""Two frames of numbers that float16 has, of which one has numbers a thousand times as large."""
KERNEL = torch.randn(4, 32, 3, 3, generator=RANDOM) * torch.tensor([1.0, 0.01, 0.1, 1.0]).reshape(4, 1, 1, 1) / 17
BIAS = torch.tensor([0.5, -0.5, 0.25, 2.0])


def written(function: Callable[..., Any], folder: Path, x: Tensor) -> tuple[Placement, Tensor]:
    """The placement, and what the engine computes."""
    placement = executorch_writer.write(traced(function, x), program(x[None]), "dynamic8", "{}", folder / "step.pte")
    (result,) = portable_lib._load_for_executorch(str(folder / "step.pte")).forward([x])
    return placement, result


def rounded(part: Tensor) -> Tensor:
    """The nearest of 256 numbers of the same distance from the least to the greatest of a part of a value, with 0 among them."""
    least, greatest = min(float(part.min()), 0.0), max(float(part.max()), 0.0)
    scale = (greatest - least) / 255 or 1.0
    zero = round(-least / scale)
    return (torch.round(part / scale) + zero).clamp(0, 255).sub(zero) * scale


def rounded_weight(weight: Tensor) -> Tensor:
    integers, scales = quantized_weight(weight, 0)
    return integers * scales.reshape(-1, *[1] * (weight.ndim - 1))


def off(got: Tensor, expected: Tensor) -> Tensor:
    """The largest error of each frame, as a share of its largest number."""
    return (got - expected).abs().flatten(1).amax(1) / expected.abs().flatten(1).amax(1).clamp(min=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_each_frame_of_a_convolution_has_a_range_of_its_own(groups: int, tmp_path: Path) -> None:
    kernel = KERNEL[:, : 32 // groups]
    placement, got = written(lambda x: F.conv2d(x, kernel, BIAS, padding=1, groups=groups), tmp_path, FRAMES)
    expected = F.conv2d(torch.stack([rounded(frame) for frame in FRAMES]), rounded_weight(kernel), BIAS, padding=1, groups=groups)
    exact = F.conv2d(FRAMES, kernel, BIAS, padding=1, groups=groups)
    assert placement.in_float16 == () and placement.in_float32 == ()
    assert off(got, expected).max() < 3e-3 < off(got, exact).min() and off(got, exact).max() < 2e-2


X = torch.linspace(-2, 3, 2 * 24 * 12).reshape(1, 48, 4, 3)
KEPT: dict[str, tuple[Callable[[Tensor], Any], dict[str, str], dict[str, str]]] = {
    "few that are added up": (lambda x: F.conv2d(x[:, :20], torch.ones(4, 5, 2, 2), groups=4), {"conv2d": TOO_FEW}, {}),
    "a convolution of single pixels": (lambda x: F.conv2d(x, torch.ones(4, 48, 1, 1)), {"conv2d": POINTWISE}, {}),
    "channels by themselves": (lambda x: F.conv2d(x, torch.ones(48, 1, 2, 2), groups=48), {"conv2d": DEPTHWISE}, {}),
    "a linear layer": (lambda x: F.linear(x.flatten(1), torch.ones(2, 576)), {"linear": NO_CONVOLUTION}, {}),
    "a product of two values": (lambda x: x[0] @ x[0].transpose(1, 2), {"matmul": NO_CONVOLUTION}, {}),
    "small numbers": (lambda x: F.conv2d(x * 1e-2, torch.full((4, 48, 2, 2), 100.0)), {"conv2d": dynamic8.TOO_SMALL}, {}),
    "numbers beyond float16": (lambda x: F.conv2d(x * 1e5, torch.full((4, 48, 1, 1), 1e-5)), {}, {"mul": TOO_LARGE, "conv2d": TOO_LARGE}),
}


@pytest.mark.parametrize("name", KEPT)
def test_products_that_are_not_of_integers(name: str, tmp_path: Path) -> None:
    function, half, wide = KEPT[name]
    placement, got = written(function, tmp_path, X)
    found = [{one.operator.split(".")[1]: one.reason for one in each} for each in (placement.in_float16, placement.in_float32)]
    assert found == [half, wide]
    expected = function(X)
    assert float((got - expected).abs().max()) <= 5e-3 * float(expected.abs().max())


def test_a_clamp_after_a_product_is_part_of_it(tmp_path: Path) -> None:
    _, got = written(lambda x: F.conv2d(x, KERNEL, BIAS).clamp(-1, 2), tmp_path, FRAMES)
    assert (float(got.min()), float(got.max())) == (-1, 2)


def network() -> nn.Module:
    torch.manual_seed(5)

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv3d(3, 32, (1, 3, 3)), nn.ReLU(), nn.Conv3d(32, 64, (1, 3, 3)), nn.ReLU(), nn.Conv3d(64, 64, (1, 3, 3)))
            self.head = nn.Linear(64, 2)

        def forward(self, frames: Tensor) -> Tensor:
            logits: Tensor = self.head(self.body(frames).mean((2, 3, 4)))
            return logits

    return Wide().eval()


KNOWN: dict[str, Any] = {
    "frames": 2,
    "size": 16,
    "labels": ("a", "b"),
    "mean": (114.0,) * 3,
    "std": (57.0,) * 3,
    "fps": 25.0,
    "targets": ["executorch"],
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a network of wide convolutions."""
    out = tmp_path_factory.mktemp("wide") / "wide.clipstep"
    export(network(), out, precisions=["float32", "float16", "dynamic8"], **KNOWN)
    return out


def test_the_manifest_says_what_it_is_and_what_it_needs(wide: Path, clipstep: Cli) -> None:
    exact, half, artifact = Bundle.open(wide).manifest.artifacts
    assert (artifact.file, artifact.precision, artifact.tuning) == ("step-dynamic8.pte", "dynamic8", None)
    assert artifact.requires is not None and artifact.requires.float16_processor
    assert artifact.parity.bound.startswith("0.1 of each") and 1e-4 < artifact.parity.max_relative_error < 0.03
    assert artifact.placement.delegated == {"XnnpackBackend": half.placement.delegated["XnnpackBackend"] + 2}  # Two values are rounded.
    weights = 4 * (64 * 32 * 9 + 64 * 64 * 9)
    assert exact.size_bytes - artifact.size_bytes > 0.7 * weights
    _, out, _ = clipstep("inspect", wide)
    assert "step-dynamic8.pte: executorch, lowered, dynamic8, uint8 frames" in out and "a processor that computes in float16" in out


def test_another_number_in_its_weights_is_found(wide: Path, rehash: Callable[..., Bundle], tmp_path: Path, clipstep: Cli) -> None:
    """A quarter of the integers of the widest convolution become 0."""
    copy = shutil.copytree(wide, tmp_path / "copy.clipstep")
    integers = quantized_weight(network().state_dict()["body.4.weight"][:, :, 0].permute(0, 2, 3, 1), 0)[0].numpy().tobytes()
    content = (copy / "step-dynamic8.pte").read_bytes()
    assert content.count(integers) == 1
    (copy / "step-dynamic8.pte").write_bytes(content.replace(integers, integers[: len(integers) * 3 // 4].ljust(len(integers), b"\0")))
    rehash(copy)
    code, _, error = clipstep("verify", copy)
    assert code != 0 and "step-dynamic8.pte: logits is off" in error and "--float32-layers" not in error


REFUSED = {
    "onnx": ({"targets": ("onnx",), "precisions": ("dynamic8",)}, "onnx is not written in dynamic8: .* written for ExecuTorch alone"),
    "coreml": ({"precisions": ("dynamic8",)}, "onnx is not written in dynamic8: .*ask for it by target: --precision executorch=dynamic8"),
    "its ranges": ({"precisions": ("executorch=dynamic8",), "calibration": ("a.mp4",)}, "--calibrate is for artifacts that compute in int8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ClipstepError, match=message):
        ExportOptions(**options)  # type: ignore[arg-type]


class Spread(nn.Module):
    """Adds up numbers of a thousandth, beside a number of 1 that does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(31, 2, (1, 3, 3))
        nn.init.normal_(self.conv.weight, std=100.0)
        nn.init.zeros_(self.conv.weight[:, 30:])

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.conv(torch.cat([(frames.abs() + 1).repeat(1, 10, 1, 1, 1) * 1e-3, frames[:, :1] * 0 + 1], 1)).mean((2, 3, 4))
        return logits


def test_ranges_too_wide_for_256_numbers_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(5)
    with pytest.raises(ParityError, match=r"step-dynamic8\.pte: logits is off .*256 numbers are too few for the values of a frame in"):
        export(Spread().eval(), tmp_path / "x.clipstep", precisions=["float32", "dynamic8"], **KNOWN)
    assert list(tmp_path.iterdir()) == []
