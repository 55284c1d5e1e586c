"""Faults that golden steps detect, networks that end in softmax or sigmoid, and `verify --model`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.golden_faults import record_assessed_golden, undetected_faults
from clipstep.export.golden_steps import record_golden
from clipstep.export.output_kind import infer_output_kind
from clipstep.export.step import StepProgram, program_of
from clipstep.runtime import Bundle, ClipstepError, StepModel
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.synthetic_frames import synthetic_subclips
from clipstep.training.run import Run, RunInfo

Cli = Callable[..., tuple[int, str, str]]
SCENES = torch.from_numpy(synthetic_subclips(8, 3, 12, 12))


class Head(nn.Module):
    """A convolution over time and space, a mean, a linear layer, and a function `last` of the logits."""

    def __init__(self, last: Callable[[Tensor], Tensor] = lambda x: x, see: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.linear = nn.Conv3d(3, 6, (2, 3, 3)), nn.Linear(6, 3)
        self.last, self.see = last, see

    def forward(self, frames: Tensor) -> Tensor:
        return self.last(self.linear(torch.relu(self.conv(self.see(frames))).mean((2, 3, 4))))


def _program(network: nn.Module, sample: Tensor = SCENES) -> StepProgram:
    return program_of(Run(network.eval(), RunInfo("head", {}, ("a", "b", "c"), (100.0,) * 3, (60.0,) * 3, 25.0), sample).spec())


LASTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "linear": (lambda x: x, "logits"),
    "softmax": (lambda x: x.softmax(1), "probabilities"),
    "softmax of parts, averaged": (lambda x: torch.stack([x, 2 * x]).softmax(2).mean(0), "probabilities"),
    "divided by their sum": (lambda x: x.exp() / x.exp().sum(1, keepdim=True), "probabilities"),
    "log softmax": (lambda x: x.log_softmax(1), "logits"),
    "sigmoid": (lambda x: x.sigmoid(), "multilabel_probabilities"),
    "sigmoid of parts, averaged": (lambda x: torch.stack([x, 2 * x]).sigmoid().mean(0), "multilabel_probabilities"),
    "sigmoid by its formula": (lambda x: 1 / (1 + (-x).exp()), "multilabel_probabilities"),
    "sigmoid by a formula that overflows": (lambda x: x.exp() / (1 + x.exp()), "multilabel_probabilities"),
    "sigmoid by tanh": (lambda x: 0.5 * (1 + (x / 2).tanh()), "multilabel_probabilities"),
    "sigmoid with parts swapped": (lambda x: torch.where(x > 0, x.sigmoid(), 1 - (-x).sigmoid()), "multilabel_probabilities"),
    "1 - sigmoid": (lambda x: 1 - x.sigmoid(), "multilabel_probabilities"),
    "softmax by its formula": (lambda x: (x - x.logsumexp(1, keepdim=True)).exp(), "probabilities"),
    "logits between 0 and 1, without a bound": (lambda x: 0.5 + 0.01 * x, "logits"),
    "sigmoid, then linear": (lambda x: x.sigmoid() * 3 - 1, "logits"),
    "logits that happen to lie between 0 and 1": (lambda x: 0.5 + 0.01 * x.clamp(-9, 9), "logits"),
}


@pytest.mark.parametrize("last", LASTS)
def test_the_output_kind_is_inferred(last: str) -> None:
    program = _program(Head(LASTS[last][0]))
    assert infer_output_kind(None, program, record_golden(program, SCENES).logits) == LASTS[last][1]


@pytest.mark.parametrize(
    ("last", "requested", "expected"),
    [
        ("linear", "logits", "logits"),
        ("linear", "multilabel", "multilabel_logits"),
        ("sigmoid", "multilabel", "multilabel_probabilities"),
        ("softmax", "probabilities", "probabilities"),
        ("softmax", "logits", "logits"),
        ("linear", "probabilities", "--output-kind probabilities: the network's outputs are not probabilities; got values from"),
        ("sigmoid", "probabilities", "--output-kind probabilities: the network's outputs are not probabilities; got values from"),
        ("softmax", "multilabel", "--output-kind multilabel: the network's outputs always sum to 1"),
    ],
)
def test_the_user_overrides_the_output_kind(last: str, requested: str, expected: str) -> None:
    program = _program(Head(LASTS[last][0]))
    logits = record_golden(program, SCENES).logits
    if expected.startswith("--"):
        with pytest.raises(ClipstepError, match=expected):
            infer_output_kind(requested, program, logits)
    else:
        assert infer_output_kind(requested, program, logits) == expected


# Which faults golden steps detect.


def test_synthetic_scenes_detect_every_fault_and_noise_moves_the_logits_less(program: StepProgram) -> None:
    """In a network of random weights noise moves the logits by less than a fifth of what scenes do."""
    small = _program(Head())
    scenes, noise = record_golden(small, SCENES), record_golden(small, torch.randint(256, SCENES.shape, dtype=torch.uint8))
    assert undetected_faults(small, scenes) == ()
    spread = [np.ptp(golden.logits, axis=0).max() for golden in (scenes, noise)]
    assert spread[0] > 5 * spread[1]
    assert undetected_faults(program, record_golden(program, torch.from_numpy(synthetic_subclips(8, *program.frames.shape)))) == ()


INSENSITIVE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "colour": (lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1, -1), "red and blue exchanged"),
    "space": (lambda x: x.mean((3, 4), keepdim=True).expand(-1, -1, -1, 12, 12), "height and width exchanged"),
    "time": (lambda x: x.mean(2, keepdim=True).expand(-1, -1, 3, -1, -1), "time reversed"),
}


@pytest.mark.parametrize("axis", INSENSITIVE)
def test_a_fault_that_a_network_is_insensitive_to_is_undetected(axis: str) -> None:
    see, fault = INSENSITIVE[axis]
    assert record_assessed_golden(_program(Head(see=see)), SCENES, "synthetic").undetected_faults == (fault,)


def test_a_grey_sample_is_followed_by_synthetic_scenes() -> None:
    """A still grey video detects no fault of colours, directions or time; the scenes after it do."""
    still = torch.arange(8, dtype=torch.uint8).mul(30).reshape(8, 1, 1, 1, 1).expand(SCENES.shape).contiguous()
    program = _program(Head(), still)
    assert set(undetected_faults(program, record_golden(program, still))) >= {"red and blue exchanged", "height and width exchanged", "time reversed"}
    recorded = record_assessed_golden(program, still, "video")
    assert recorded.frame_sources == ("video", "synthetic") and recorded.undetected_faults == ()
    assert recorded.golden.subclips.shape == (16, 3, 12, 12, 3) and len(recorded.golden.logits) == 16
    np.testing.assert_array_equal(recorded.golden.subclips[:8], still.numpy())


def test_a_fault_that_breaks_an_assertion_of_the_network_is_undetected() -> None:
    """A wrong mean breaks its assertion about the frames; what an artifact, which has no assertions, would compute is unknown."""

    def see(frames: Tensor) -> Tensor:
        if frames.min() < -100 / 60:  # By hand: pytest's `assert` would have the network reach all of pytest, which the purity check goes through.
            raise AssertionError("not normalised")
        return frames

    recorded = record_assessed_golden(_program(Head(see=see)), SCENES, "synthetic")
    assert recorded.undetected_faults == ("another mean",)


def test_a_network_of_constant_output_detects_no_fault() -> None:
    found = record_assessed_golden(_program(Head(last=lambda x: 0 * x + torch.tensor([1.0, 2.0, 3.0]))), SCENES, "synthetic")
    assert len(found.undetected_faults) == 5


# From the command line.

NETWORK = """
import torch
from torch import nn

class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.linear = nn.Conv3d(3, 6, (2, 3, 3)), nn.Linear(6, 3)
    def forward(self, frames):
        return 40 * self.linear(torch.relu(self.conv(frames)).mean((2, 3, 4)))

class Softmax(Raw):
    def forward(self, frames):
        return super().forward(frames).softmax(1)

class Sigmoid(Raw):
    def forward(self, frames):
        return super().forward(frames).sigmoid()

class Grey(Raw):
    def forward(self, frames):
        return super().forward(frames.mean(1, keepdim=True).expand(-1, 3, -1, -1, -1))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipstep: Cli) -> Cli:
    """`own(factory, *options)` exports one of these networks to ONNX as own.clipstep, in a folder of its own."""
    (tmp_path / "heads.py").write_text(NETWORK)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "heads", raising=False)
    torch.manual_seed(1)
    weights = nn.ModuleDict({"conv": nn.Conv3d(3, 6, (2, 3, 3)), "linear": nn.Linear(6, 3)})
    torch.save(weights.state_dict(), tmp_path / "heads.pth")

    def call(factory: str, *options: object) -> tuple[int, str, str]:
        fixed = ("--weights", "heads.pth", "--labels", "labels.txt", "--frames", 3, "--size", 12, "--target", "onnx", "--out", "own.clipstep")
        return clipstep("export", "--model", f"heads:{factory}", "--mean", 100, 100, 100, "--std", 60, 60, 60, *fixed, *options)

    return call


@pytest.mark.parametrize(
    ("factory", "options", "output", "apply", "said"),
    [
        ("Raw", (), "logits", "softmax", ""),
        ("Softmax", (), "probabilities", "none", "output: probabilities, made inside the artifacts"),
        ("Sigmoid", (), "multilabel_probabilities", "none", "with sigmoid inside"),
        ("Raw", ("--output-kind", "multilabel"), "multilabel_logits", "sigmoid", "the runtimes apply sigmoid"),
    ],
)
def test_no_second_softmax_from_export_to_the_stream(
    factory: str, options: tuple[str, ...], output: str, apply: str, said: str, own: Cli, clipstep: Cli
) -> None:
    """The stream's probabilities are the eager network's; the output kind is in the manifest and in the lone file."""
    code, out, err = own(factory, *options)
    assert code == 0 and said in out and "golden steps: frames of synthetic scenes" in out, err
    assert Bundle.open("own.clipstep").manifest.output_kind == output
    embedded = Interface.model_validate_json(onnx.load("own.clipstep/step.onnx").metadata_props[0].value)
    assert embedded.output_kind == output and Bundle.open("own.clipstep").manifest.golden.frame_sources == ("synthetic",)
    import heads  # type: ignore[import-not-found]

    network = getattr(heads, factory)().eval()
    frames = SCENES[5]
    with torch.no_grad():
        raw = network((frames[None].permute(0, 4, 1, 2, 3).float() - 100) / 60)[0]
    expected = {"softmax": raw.softmax(0), "sigmoid": raw.sigmoid(), "none": raw}[apply]
    with StepModel.load("own.clipstep") as model:
        stream = model.stream()
        prediction = [stream.push(frame) for frame in frames.numpy()][-1]
    assert prediction is not None
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
    code, _, err = clipstep("verify", "own.clipstep")
    assert code == 0, err


def test_output_that_contradicts_the_network_is_refused(own: Cli) -> None:
    code, _, err = own("Raw", "--output-kind", "probabilities")
    assert (
        code == 2
        and err.startswith("error: --output-kind probabilities: the network's outputs are not probabilities")
        and not Path("own.clipstep").exists()
    )


def test_an_undetected_fault_is_warned_of_and_in_the_manifest(own: Cli, clipstep: Cli) -> None:
    code, out, err = own("Grey")
    assert code == 0 and "do not detect, because no output moves beyond the bound: red and blue exchanged" in out, err
    assert Bundle.open("own.clipstep").manifest.golden.undetected_faults == ("red and blue exchanged",)
    assert "faults that these golden steps do not detect: red and blue exchanged" in clipstep("verify", "own.clipstep")[1]


def test_verify_with_a_network_of_ones_own(own: Cli, clipstep: Cli) -> None:
    assert own("Raw")[0] == 0
    network = ("--model", "heads:Raw", "--weights", "heads.pth")
    code, out, err = clipstep("verify", "own.clipstep", *network)
    assert code == 0 and "equal" in out and "not compared, because the network does not record it: labels, mean, std, fps" in out, err
    known = ("--labels", "labels.txt", "--mean", 100, 100, 100, "--std", 60, 60, 60, "--fps", 25)
    code, out, err = clipstep("verify", "own.clipstep", *network, *known)
    assert code == 0 and "not compared" not in out, err
    Path("permuted.txt").write_text("b\na\nc\n")
    for options, message in (
        (("--mean", 100, 100, 99), "the manifest's mean is not what --mean says; got (100.0, 100.0, 100.0); expected (100.0, 100.0, 99.0)"),
        (("--std", 60, 60, 61), "the manifest's std is not what --std says"),
        (("--fps", 24), "the manifest's fps is not what --fps says; got 25.0; expected 24.0"),
        (("--labels", "permuted.txt"), "the manifest's labels is not what --labels says"),
    ):
        code, _, err = clipstep("verify", "own.clipstep", *network, *options)
        assert code == 2 and err.startswith(f"error: {message}"), err


def test_verify_with_another_network(own: Cli, clipstep: Cli) -> None:
    """It has the same weights, so that their hash does not distinguish it. Options without a network are refused."""
    assert own("Raw")[0] == 0
    code, _, err = clipstep("verify", "own.clipstep", "--model", "heads:Grey", "--weights", "heads.pth")
    assert code == 2 and "golden logits are not what the eager network computes" in err
    for options in (("--fps", 25), ("--video", "x.mp4"), ("--weights", "heads.pth")):
        assert clipstep("verify", "own.clipstep", *options)[0] == 2


def test_golden_logits_that_are_half_as_large_again_are_caught_by_the_network(own: Cli, clipstep: Cli) -> None:
    from clipstep.runtime.bundle import MANIFEST, tree_sha256, tree_size
    from clipstep.runtime.golden import GoldenSteps

    assert own("Raw")[0] == 0
    golden = GoldenSteps.of(Bundle.open("own.clipstep"))
    file = Path("own.clipstep/golden.safetensors")
    logits = golden.logits + np.float32(2 * BOUNDS["float32"] * golden.scale("logits"))
    GoldenSteps(golden.subclips, logits, golden.states).save(file)
    values = json.loads(Path("own.clipstep", MANIFEST).read_text())
    values["golden"].update(sha256=tree_sha256(file), size_bytes=tree_size(file))
    Path("own.clipstep", MANIFEST).write_text(json.dumps(values))
    for options in ((), ("--model", "heads:Raw", "--weights", "heads.pth")):
        assert clipstep("verify", "own.clipstep", *options)[0] == 2
