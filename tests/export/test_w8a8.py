"""Core ML packages of w8a8: products of values and weights that stand for integers of 8 bits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.models.utils import load_spec
from torch import Tensor, nn

from clipstep.export import export
from clipstep.export.mil import OPERATIONS
from clipstep.export.mlprogram import MlProgram
from clipstep.export.options import ExportOptions
from clipstep.export.parity import check_artifact
from clipstep.export.targets.quantization import Quantization
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, ParityError

Cli = Callable[..., tuple[int, str, str]]
MODEL = "Data/com.apple.CoreML/model.mlmodel"


class Two(nn.Module):
    """A convolution that two others read, one of them by group, and a linear layer; values between them are computed in floats."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first = nn.Conv3d(3, 24, (1, 3, 3))
        self.left, self.right = nn.Conv3d(24, 32, (1, 3, 3)), nn.Conv3d(24, 32, (1, 3, 3), groups=2)
        self.last = nn.Linear(32, 4)

    def forward(self, frames: Tensor) -> Tensor:
        y = self.first(frames).relu()
        logits: Tensor = self.last((self.left(y).sigmoid() * self.right(y)).mean((2, 3, 4)))
        return logits


def exported(out: Path, network: nn.Module | None = None, **options: Any) -> Bundle:
    facts: dict[str, Any] = {"frames": 2, "size": 16, "labels": list("abcd"), "mean": [110.0] * 3, "std": [58.0] * 3, "fps": 25}
    given = facts | {"targets": ["coreml"], "precisions": ["float32", "w8a8"]} | options
    return Bundle.open(export((network or Two()).eval(), out, **given).bundle)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("w8a8") / "x.clipstep")


def operations_of(package: Path) -> list[Any]:
    function = load_spec(str(package)).mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


X = np.array([-9.0, -1.0, -0.005, 0.0, 0.005, 0.014, 0.015, 0.025, 1.55, 9.0], np.float32)


@pytest.mark.parametrize(("zero_point", "dtype"), [(np.int8(-28), "int8"), (np.int8(0), "int8"), (np.uint8(100), "uint8")])
def test_values_are_rounded_as_coremltools_reference_does(zero_point: Any, dtype: str) -> None:
    """Halves go to the even number, and what is beyond the range becomes its end."""

    def function() -> Any:
        integers = mb.quantize(input=X, scale=np.float32(0.01), zero_point=zero_point, output_dtype=dtype)
        expected.extend(integers.op.value_inference().tolist())
        return integers

    expected: list[int] = []
    mb.program(input_specs=[], opset_version=ct.target.iOS17)(function)
    got = OPERATIONS["quantize"](input=torch.from_numpy(X), scale=0.01, zero_point=int(zero_point), output_dtype=dtype)
    assert got.tolist() == expected
    numbers = OPERATIONS["dequantize"](input=got, scale=0.01, zero_point=int(zero_point))
    assert numbers.tolist() == pytest.approx([0.01 * (integer - int(zero_point)) for integer in expected])


def test_the_operands_of_products_are_rounded_once_each(bundle: Bundle) -> None:
    """Three values: the frames, what two convolutions read, and the mean. Two weights: the others do not become smaller."""
    package = bundle.file(bundle.manifest.artifacts[1])
    kinds = [operation.type for operation in operations_of(package)]
    assert (kinds.count("quantize"), kinds.count("dequantize"), kinds.count("constexpr_affine_dequantize")) == (3, 3, 2)
    (artifact,) = [one for one in bundle.manifest.artifacts if one.precision == "w8a8"]
    assert artifact.requires is not None and artifact.requires.ios == ">=17"
    assert artifact.placement.compressed_weights is not None and artifact.placement.compressed_weights.count == 2
    assert {one.layer for one in artifact.placement.sensitive_layers} == {"first", "left", "right", "last"}
    assert 1e-3 < artifact.parity.max_relative_error < 0.1


def test_a_convolution_is_that_of_rounded_values_and_weights(tmp_path: Path) -> None:
    """Computed from the definition of both roundings, for the range of the golden frames, with scales of float16."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.conv = nn.Conv3d(3, 40, (1, 3, 3))

        def forward(self, frames: Tensor) -> Tensor:
            y: Tensor = self.conv(frames.sqrt()).flatten(1)[:, ::980]
            return y

    network = One()
    made = exported(tmp_path / "x.clipstep", network, labels=[str(index) for index in range(16)], mean=[0.0] * 3, std=[1.0] * 3)
    golden = GoldenSteps.of(made)
    values = torch.from_numpy(golden.subclips).float().permute(0, 4, 1, 2, 3).sqrt()
    exact_rounding = Quantization.of_range(0.0, float(values.max()))
    rounding = Quantization(float(np.float16(exact_rounding.scale)), exact_rounding.zero_point)
    held = network.conv.weight.half().float()
    scales = (held.abs().amax((1, 2, 3, 4), keepdim=True) / 127).half().float()
    weight, bias = torch.round(held / scales) * scales, network.conv.bias.half().float()  # type: ignore[union-attr]
    rounded = rounding.numbers(rounding.integers(values.half().float()))
    expected = torch.conv3d(rounded, weight, bias).flatten(1)[:, ::980].detach().numpy()
    engine = MlProgram(made.file(made.manifest.artifacts[1]))
    got = np.concatenate([engine.run([subclip.astype(np.float32)])[0] for subclip in golden.subclips])
    exact = torch.conv3d(values, network.conv.weight, network.conv.bias).flatten(1)[:, ::980].detach().numpy()
    assert np.sqrt(((got - expected) ** 2).mean()) < 0.15 * np.sqrt(((expected - exact) ** 2).mean())


def test_wrong_scales_are_found_by_the_golden_steps(bundle: Bundle, tmp_path: Path) -> None:
    golden, interface = GoldenSteps.of(bundle), bundle.manifest.interface("float32")
    copies = [tmp_path / name for name in ("step-float32.mlpackage", "step-w8a8.mlpackage")]
    for artifact, copy in zip(bundle.manifest.artifacts, copies, strict=True):
        shutil.copytree(bundle.file(artifact), copy)
    check_artifact("coreml", copies[1], "w8a8", interface, golden)
    spec = load_spec(str(copies[1]))
    function = spec.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    scales = [one for one in operations if one.outputs[0].name.startswith("quantize_") and "_scale_" in one.outputs[0].name]
    assert len(scales) == 3
    for scale in scales:
        held = scale.attributes["val"].immediateValue.tensor
        held.bytes.values = (np.frombuffer(held.bytes.values, np.float16) * np.float16(4)).tobytes()
    (copies[1] / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(ParityError):
        check_artifact("coreml", copies[1], "w8a8", interface, golden)


def test_one_layer_stays_in_float16(bundle: Bundle, tmp_path: Path) -> None:
    mixed = exported(tmp_path / "x.clipstep", precisions=["w8a8"], float32_layers=1)
    most = bundle.manifest.artifacts[1].placement.sensitive_layers[0].layer
    placement = mixed.manifest.artifacts[0].placement
    assert most not in {one.layer for one in placement.sensitive_layers} and sum(one.count for one in placement.in_float16) == 1


class Tiny(Two):
    """The same, whose values are too small for scales of float16 after its first convolution."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.first.weight *= 1e-7
            self.first.bias *= 1e-7  # type: ignore[operator]
            self.left.weight *= 1e7
            self.right.weight *= 1e7


def test_a_product_is_listed_in_the_type_that_it_is_computed_in(tmp_path: Path) -> None:
    """Once: what float16 is too small for, too, is in float32."""
    placement = exported(tmp_path / "x.clipstep", Tiny(), precisions=["w8a8"]).manifest.artifacts[0].placement
    products = sum(
        one.count for one in (*placement.in_float32, *placement.in_float16) if one.operator in ("aten.conv2d.default", "aten.linear.default")
    )
    assert placement.in_float32 and not placement.in_float16 and products <= 4


def test_the_command_line_and_evaluation(tmp_path: Path, run_folder: Path, write_video: Callable[..., Path], clipstep: Cli) -> None:
    out = tmp_path / "x.clipstep"
    code, text, error = clipstep(
        "export", run_folder, "--precision", "coreml=w8a8", "--target", "coreml", "--calibrate", write_video(8), "--out", out
    )
    assert (code, error) == (0, "") and "step-w8a8.mlpackage" in text
    assert clipstep("verify", out)[0] == 0 and "w8a8" in clipstep("inspect", out)[1]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an older iOS": ({"precisions": ("coreml=w8a8",), "format_versions": {"ios": 16}}, "w8a8.*17"),
    "another target": ({"targets": ("executorch",), "precisions": ("w8a8",)}, "its int8 has integers for weights and values already"),
    "other weights": ({"targets": ("coreml",), "precisions": ("w8a8",), "equalize": True}, "--equalize is for artifacts that compute in int8"),
    "other biases": ({"targets": ("coreml",), "precisions": ("w8a8",), "correct_biases": True}, "--correct-biases is for artifacts that"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(ClipstepError, match=message):
        ExportOptions(**given)
