"""Core ML packages whose weights are integers or indices: they are those that the weights give, and compute what the network does."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.models.utils import load_spec
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.mil.compressed import Linear, Palettized, compressed_of
from clipstep.export.mlprogram import MlProgram
from clipstep.export.options import ExportOptions
from clipstep.export.parity import check_artifact
from clipstep.export.targets.coreml_weights import NOT_A_WEIGHT, NOT_SMALLER, packed_bits
from clipstep.export.targets.palettes import palette_of
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, ParityError
from clipstep.runtime.golden import BOUNDS

BITS = {"palette8": 8, "palette6": 6, "palette4": 4}
COMPRESSED = ("int8", *BITS)
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


class Layered(nn.Module):
    """A convolution, one by group and one that becomes larger again, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 24, (1, 3, 3), bias=False)
        self.grouped = nn.Conv3d(24, 48, (1, 3, 3), groups=2)
        self.linear = nn.Linear(48, 40)
        self.last = nn.Linear(40, 3)

    def forward(self, frames: Tensor) -> Tensor:
        y = F.relu(self.grouped(F.relu(self.conv(frames))))
        last: Tensor = self.last(F.relu(self.linear(y.mean((2, 3, 4)))))
        return last


def exported(folder: Path, ios: int, precisions: tuple[str, ...]) -> Path:
    torch.manual_seed(4)
    path = folder / f"{ios}.clipstep"
    export(
        Layered().eval(),
        path,
        frames=2,
        size=16,
        labels=("a", "b", "c"),
        mean=(0.0, 0.0, 0.0),  # So that the weights of the first layer are the network's own.
        std=(1.0, 1.0, 1.0),
        fps=25,
        targets=("coreml",),
        precisions=precisions,
        format_versions={"ios": ios},
    )
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with packages of all precisions."""
    return Bundle.open(exported(tmp_path_factory.mktemp("compressed"), 17, ("float32", "float16", *COMPRESSED)))


def weights_of(package: Path) -> dict[str, Any]:
    spec = load_spec(str(package))
    function = spec.mlProgram.functions["main"]
    return dict(compressed_of(function.block_specializations[function.opset], package))


def originals() -> list[Any]:
    """The weights of the network's layers in half precision, as packages hold their channels."""
    torch.manual_seed(4)
    network = Layered()
    return [layer.weight.detach().half().double().numpy() for layer in (network.conv, network.grouped, network.linear, network.last)]


@pytest.mark.parametrize("precision", COMPRESSED)
def test_it_is_within_its_bound_of_eager_pytorch(bundle: Bundle, precision: str) -> None:
    artifact = next(a for a in bundle.manifest.artifacts if a.precision == precision)
    golden = GoldenSteps.of(bundle)
    torch.manual_seed(4)
    eager = Layered().eval()
    frames = torch.from_numpy(golden.subclips[0]).permute(3, 0, 1, 2).float()
    expected = eager(frames[None]).detach().numpy()
    (logits,) = MlProgram(bundle.path / artifact.file).run([golden.subclips[0].astype(np.float32)])
    assert 0 < abs(logits - expected).max() <= BOUNDS[precision] * golden.scale("logits")
    assert artifact.parity.bound.startswith(f"{BOUNDS[precision]:g} of each output's range")


def test_files_become_smaller_and_errors_larger_with_fewer_bits(bundle: Bundle) -> None:
    sizes = {a.precision: (bundle.path / a.file / WEIGHTS).stat().st_size for a in bundle.manifest.artifacts}
    assert sizes["float32"] > sizes["float16"] > sizes["int8"] > sizes["palette6"] > sizes["palette4"] and sizes["palette8"] < sizes["float16"]
    assert {a.precision: a.parity.max_relative_error for a in bundle.manifest.artifacts}["palette4"] > 1e-2


def test_the_manifest_says_which_weights_are_compressed_and_why_others_are_not(bundle: Bundle) -> None:
    found = {a.precision: a.placement.compressed_weights for a in bundle.manifest.artifacts}
    assert found["float32"] is None and found["float16"] is None
    linear, palette = found["int8"], found["palette4"]
    assert linear is not None and (linear.scheme, linear.bits, linear.count) == ("linear", 8, 3)
    assert palette is not None and (palette.scheme, palette.bits) == ("palette", 4)
    reasons = {(one.operator, one.reason) for one in linear.as_floats}
    assert ("linear.weight", NOT_SMALLER) in reasons and ("conv.bias", NOT_A_WEIGHT) in reasons and 0.9 < linear.share < 1


def test_integers_are_half_a_scale_from_the_weights(bundle: Bundle) -> None:
    found = [weight for weight in weights_of(bundle.path / "step-int8.mlpackage").values() if isinstance(weight, Linear)]
    assert len(found) == 3
    for weight in found:
        matching = [w.reshape(tuple(weight.integers.shape)) for w in originals() if w.size == weight.integers.numel()]
        scales, integers = weight.scales.double().numpy(), weight.integers.numpy().astype(np.float64)
        (original,) = matching
        assert (abs(integers * scales - original) <= scales / 2 * (1 + 1e-9)).all()
        largest = abs(original).reshape(len(original), -1).max(1)
        assert np.array_equal(scales.reshape(-1), (largest / 127).astype(np.float16))


@pytest.mark.parametrize("precision", BITS)
def test_each_weight_has_the_nearest_entry_of_its_palette(bundle: Bundle, precision: str) -> None:
    found = [weight for weight in weights_of(bundle.path / f"step-{precision}.mlpackage").values() if isinstance(weight, Palettized)]
    assert found
    for weight in found:
        (original,) = (w.reshape(-1) for w in originals() if w.size == weight.indices.numel())
        palette, indices = weight.palette.double().numpy(), weight.indices.numpy().reshape(-1)
        assert len(palette) == 2 ** BITS[precision]
        assert np.array_equal(abs(palette[indices] - original), abs(palette[None] - original[:, None]).min(1))
        assert all(abs(palette[i] - original[indices == i].mean()) <= 5e-4 * abs(palette[i]) + 1e-7 for i in set(indices.tolist()))


def test_the_newer_operations_of_core_ml_hold_the_same_weights(bundle: Bundle, tmp_path: Path) -> None:
    newer = exported(tmp_path, 18, ("float32", "int8", "palette4"))
    for file in ("step-int8.mlpackage", "step-palette4.mlpackage"):
        old, new = ({name: one.numbers for name, one in weights_of(path / file).items()} for path in (bundle.path, newer))
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_palette_is_where_k_means_rests(bits: int) -> None:
    weight = np.random.default_rng(1).normal(size=3000).astype(np.float16)
    palette, indices = palette_of(weight, 2**bits)
    wide = weight.astype(np.float64)
    assert np.array_equal(abs(palette[indices] - wide), abs(palette.astype(np.float64) - wide[:, None]).min(1))
    assert all(palette[i] == wide[indices == i].mean().astype(np.float16) for i in set(indices.tolist()))
    even = np.linspace(wide.min(), wide.max(), 2**bits)
    assert ((palette[indices] - wide) ** 2).mean() < (abs(even - wide[:, None]).min(1) ** 2).mean()


def test_a_weight_of_few_numbers_is_kept_as_it_is() -> None:
    weight = np.array([[0.5, -1.0], [0.5, 3.0]], np.float32)
    palette, indices = palette_of(weight, 16)
    assert np.array_equal(palette[indices], weight) and palette.tolist() == [-1.0, 0.5] + [3.0] * 14


def test_indices_are_packed_as_the_reference_of_core_ml_draws_it() -> None:
    """Two bits each of 0, 3, 2, 1 in the first byte, the first in its lowest bits, and the fifth, 3, in the second."""
    assert packed_bits(np.array([0b00, 0b11, 0b10, 0b01, 0b11]), 2).tolist() == [0b01101100, 0b11]


def flipped(package: Path, precision: str, bit: int) -> None:
    """Flip a bit of the last scale, or of the entry of a palette that is in the middle, where it is in the file of weights."""
    weight = max(weights_of(package).values(), key=lambda one: one.numbers.numel())
    values = weight.scales if isinstance(weight, Linear) else weight.palette
    data = values.reshape(-1).numpy().tobytes()
    file = package / WEIGHTS
    content = bytearray(file.read_bytes())
    assert content.count(data) == 1
    place = content.index(data) + len(data) // 4 * 2
    content[place + bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("bit", [0, 9, 15])
@pytest.mark.parametrize("precision", ["int8", "palette4"])
def test_a_flipped_bit_of_a_scale_or_of_a_palette_is_found(bundle: Bundle, precision: str, bit: int, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "copy.clipstep")
    package, golden = copy / f"step-{precision}.mlpackage", GoldenSteps.of(bundle)
    interface = bundle.manifest.interface("float32")
    check_artifact("coreml", package, precision, interface, golden)
    flipped(package, precision, bit)
    with pytest.raises(ParityError, match="is not what the float32 package's weight gives"):
        check_artifact("coreml", package, precision, interface, golden)


def unknown_bits(operation: Any) -> None:
    del operation.outputs[0].type.tensorType.dimensions[0]


def unknown_input(operation: Any) -> None:
    place = operation.attributes if "scale" in operation.attributes else operation.inputs
    place["offsets"].CopyFrom(place["scale"])


@pytest.mark.parametrize(
    ("change", "message"), [(unknown_bits, "not of the declared type"), (unknown_input, "a compressed weight that this evaluator does not know")]
)
def test_what_the_evaluator_does_not_know_of_a_weight_is_refused(bundle: Bundle, change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    package = shutil.copytree(bundle.path / "step-int8.mlpackage", tmp_path / "step.mlpackage")
    spec = load_spec(str(package))
    function = spec.mlProgram.functions["main"]
    change(next(o for o in function.block_specializations[function.opset].operations if o.type.startswith("constexpr_")))
    (package / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(ClipstepError, match=message):
        MlProgram(package)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a number of bits that there is not": (
        {"precisions": ("coreml=palette5",)},
        "unknown precision; got coreml=palette5; expected .*palette4",
    ),
    "another target": ({"precisions": ("onnx=palette4",)}, "onnx is not written in palette4: its format has no palettes .*coreml=palette4"),
    "every target": ({"precisions": ("palette6",)}, "onnx is not written in palette6: .*ask for it by target: --precision coreml=palette6"),
    "an old iOS": ({"precisions": ("coreml=palette8",), "format_versions": {"ios": 15}}, "coreml in palette8 needs a later format; got --ios 15"),
    "calibration": (
        {"targets": ("coreml",), "precisions": ("int8",), "calibration": ("x.mp4",)},
        "--calibrate is for artifacts that compute in int8; got none of them",
    ),
    "layers": (
        {"targets": ("coreml",), "precisions": ("int8",), "float32_layers": 1},
        "--float32-layers is for artifacts that compute in int8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compressed_is_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ClipstepError, match=message):
        ExportOptions(**options)
