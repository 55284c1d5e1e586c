"""Which precisions are written, what a manifest says of them, and which artifact a runtime takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.benchmarks import latency
from clipstep.export import export, parity, result_lines
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.targets.float16 import TOO_LARGE
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, ParityError, StepModel, isolated_engine
from clipstep.runtime.bundle import MANIFEST
from clipstep.training.run import Run

Cli = Callable[..., tuple[int, str, str]]
BOTH = ("executorch=float16", "executorch=float32")


@pytest.fixture(scope="module")
def both(pooled_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of ONNX, and of ExecuTorch in both precisions."""
    out = tmp_path_factory.mktemp("both") / "both.clipstep"
    export_network(pooled_run.spec(), out, ExportOptions(("onnx", "executorch"), precisions=(*BOTH, *BOTH)))
    return out


WRITTEN: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "the default ones": ((), [("float32",), ("float32",), ("float32", "float16")]),
    "one for all": (("float32",), [("float32",)] * 3),
    "more for one of them": (("float32", "executorch=float16"), [("float32",), ("float32", "float16"), ("float32",)]),
    "the same again, in another order": (BOTH + BOTH, [("float32",), ("float32", "float16"), ("float32", "float16")]),
    "other than the default one": (("coreml=float16", "executorch=float16"), [("float32",), ("float16",), ("float16",)]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_precisions_of_each_target(name: str) -> None:
    given, expected = WRITTEN[name]
    options = ExportOptions(precisions=given)
    assert [options.precisions_of(target) for target in ("onnx", "executorch", "coreml")] == expected


REFUSED = {
    "float16": "onnx is not written in float16: onnxruntime has few .* 258 M .*; got --precision float16; expected onnx in float32 or int8; "
    "ask for it by target: --precision executorch=float16 --precision coreml=float16",
    "onnx=float16": "onnx is not written in float16: .*; got --precision onnx=float16; expected onnx in float32",
    "float64": "unknown precision; got float64; expected some of float32, float16, dynamic8, int8, .*, or TARGET=PRECISION",
    "executorch=": "unknown precision; got executorch=",
    "tflite=float16": "a precision is for a target that is not exported; got tflite=float16; expected one of onnx, executorch, coreml",
}


@pytest.mark.parametrize("given", REFUSED)
def test_precisions_that_cannot_be_written(given: str) -> None:
    with pytest.raises(ClipstepError, match=REFUSED[given]):
        ExportOptions(precisions=(given,))


def test_the_command_line_refuses_them_before_any_work(run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--precision", "float16")
    assert code == 2 and error.startswith("error: onnx is not written in float16") and list(tmp_path.iterdir()) == []


def test_the_manifest_says_what_a_float16_artifact_needs(both: Path) -> None:
    artifacts = Bundle.open(both).manifest.artifacts
    assert [(a.file, a.precision) for a in artifacts] == [("step.onnx", "float32"), ("step.pte", "float32"), ("step-float16.pte", "float16")]
    needs = [a.requires.float16_processor if a.requires else None for a in artifacts]
    assert needs == [None, None, True] and str(artifacts[2].requires).endswith(", a processor that computes in float16")
    assert artifacts[2].parity.bound.startswith("0.02 of each output's range")
    assert [a.precision for a in Bundle.open(both).artifacts("executorch")] == ["float32", "float16"]


def test_a_runtime_takes_float16_if_it_is_asked_for(both: Path) -> None:
    golden = GoldenSteps.of(Bundle.open(both))
    errors = {}
    for precision, said in (("float32", "step.pte (lowered, for any)"), ("float16", "step-float16.pte (lowered, float16, for any)")):
        with StepModel.load(both, "executorch", precision=precision) as loaded:
            assert loaded.precision == precision and loaded.description == f"{said} in executorch, 1 thread"
            logits, _ = loaded.step(golden.subclips[0], loaded.initial_states())
            assert logits.dtype == np.float32
            errors[precision] = float(np.abs(logits - golden.logits[0]).max() / golden.scale("logits"))
    assert errors["float32"] < 1e-5 < errors["float16"] < 5e-3
    with StepModel.load(both, "executorch") as loaded:
        assert loaded.precision == "float32"


def test_a_processor_without_float16_takes_float32_and_says_so(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated_engine, "computes_float16", lambda machine: False)
    with StepModel.load(both, "executorch", precision="float16") as loaded:
        assert loaded.precision == "float32"
        kind = "float32 in place of float16, which this processor does not compute in"
        assert loaded.description == f"step.pte (lowered, {kind}, for any) in executorch, 1 thread"


def test_a_precision_that_a_bundle_lacks_is_an_error(both: Path, clipstep: Cli, clip: Path) -> None:
    with pytest.raises(ClipstepError, match=r"no float16 onnx artifact .*; got executorch for any, float16 executorch for any, onnx for any; choose"):
        StepModel.load(both, "onnxruntime", precision="float16")
    with pytest.raises(ClipstepError, match="unknown precision; got int4; expected one of float32, float16"):
        StepModel.load(both, "executorch", precision="int4")
    code, _, error = clipstep("run", both, clip, "--precision", "float16")
    assert code == 2 and "has no float16 onnx artifact for this processor" in error


def test_inspect_says_which_is_which(both: Path, clipstep: Cli) -> None:
    _, out, _ = clipstep("inspect", both)
    assert "step-float16.pte: executorch, lowered, float16, uint8 frames, for any" in out and "a processor that computes in float16" in out


def test_what_cannot_be_run_here_is_not_verified(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export writes nothing that was not verified."""
    monkeypatch.setattr(parity, "computes_float16", lambda machine: False)
    bundle = Bundle.open(both)
    known = "executorch", bundle.manifest.interface("uint8"), GoldenSteps.of(bundle)
    assert parity.check_artifact(known[0], both / "step.pte", "float32", *known[1:]).relative < 1e-5
    with pytest.raises(ParityError, match=r"step-float16\.pte: it cannot be verified here, because this processor does not compute in float16"):
        parity.check_artifact(known[0], both / "step-float16.pte", "float16", *known[1:])


class Loud(nn.Module):
    """Computes numbers of 100,000, and gives logits of usual size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4, 2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.linear((self.conv(frames) * 1e5).relu().mean((2, 3, 4)) / 1e5)


class Cancelling(nn.Module):
    """Adds a number so large that float16 drops all digits of what it is added to, and takes it away again."""

    def forward(self, frames: Tensor) -> Tensor:
        return (frames.mean((3, 4)) * 0.1 + 3000).mean(2)[:, :2] - 3000


def exported(network: nn.Module, out: Path) -> Path:
    torch.manual_seed(0)
    known = {"frames": 4, "size": 16, "labels": ("a", "b"), "mean": (114.0,) * 3, "std": (57.0,) * 3, "fps": 25.0}
    export(network.eval(), out, targets=("executorch",), precisions=BOTH, **known)  # type: ignore[arg-type]
    return out


def test_a_network_of_large_activations_is_written_with_some_of_it_in_float32(tmp_path: Path) -> None:
    artifact = Bundle.open(exported(Loud(), tmp_path / "loud.clipstep")).artifact("executorch", precision="float16")
    assert {one.operator for one in artifact.placement.in_float32 if one.reason == TOO_LARGE} >= {"aten.relu", "aten.mean.dim"}
    assert artifact.parity.max_relative_error < 5e-3


def test_a_network_that_float16_is_too_coarse_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"step-float16.pte: logits is off at step 0; got an error of"):
        exported(Cancelling(), tmp_path / "x.clipstep")
    assert list(tmp_path.iterdir()) == []


def test_the_error_does_not_grow_with_the_steps(both: Path) -> None:
    """The states are handed on as float32; what they lose in a step is not added up."""
    golden = GoldenSteps.of(Bundle.open(both))
    scale, differences = golden.scale("logits"), []
    with StepModel.load(both, "executorch") as exact, StepModel.load(both, "executorch", precision="float16") as half:
        states = [exact.initial_states(), half.initial_states()]
        for step in range(100):
            (logits, states[0]), (rounded, states[1]) = (
                each.step(golden.subclips[step % len(golden.subclips)], before) for each, before in zip((exact, half), states, strict=True)
            )
            differences.append(float(np.abs(logits - rounded).max()) / scale)
    assert 0 < max(differences[16:]) <= 1.5 * max(differences[:16])


def test_core_ml_in_float16_alone(pooled_run: Run, tmp_path: Path) -> None:
    options = ExportOptions(("coreml",), precisions=("float16",))
    (artifact,) = export_network(pooled_run.spec(), tmp_path / "x.clipstep", options).manifest.artifacts
    assert (artifact.file, artifact.precision) == ("step-float16.mlpackage", "float16") and (tmp_path / "x.clipstep" / MANIFEST).is_file()


def test_every_precision_is_measured(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> list[tuple[str, str]]:
        return [(each.name, each.precision) for each in latency.configurations_of(Bundle.open(both), None, 1)]

    assert measured() == [("step.onnx", "float32"), ("step.pte", "float32"), ("step-float16.pte", "float16")]
    monkeypatch.setattr(isolated_engine, "computes_float16", lambda machine: False)
    assert measured() == [("step.onnx", "float32"), ("step.pte", "float32")]
    assert latency.check_engines(Bundle.open(both)) == {"step-float16.pte": "this processor does not compute in float16"}


@pytest.mark.parametrize(
    ("machine", "said"), [("x86_64", ["a note: step-float16.pte: verified with this processor's kernels, which add up in float32"]), ("arm64", [])]
)
def test_the_command_says_that_arm64_rounds_more(machine: str, said: list[str], both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_lines, "this_machine", lambda: machine)
    lines = result_lines._output_and_golden_lines(Bundle.open(both).manifest)
    assert [line.partition(";")[0] for line in lines if "float16" in line] == said
