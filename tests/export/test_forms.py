"""What may be asked of an export: the form, the type of frames, fixed shapes; the same twice; nothing half when it is interrupted."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps
from clipstep.runtime.bundle import tree_sha256
from clipstep.training.run import Run

Command = Callable[..., tuple[int, str, str]]


def test_a_network_as_trained_keeps_its_3d_convolutions(pooled_run: Run, tmp_path: Path) -> None:
    """Verified at export as any form; the lowered graph has nothing of rank 5."""
    ranks = {}
    for form in ("3d", "lowered", "auto"):
        manifest = export_network(pooled_run.spec("pooled"), tmp_path / f"{form}.clipstep", ExportOptions(("onnx",), form)).manifest
        assert [artifact.form for artifact in manifest.artifacts] == ["3d" if form == "3d" else "lowered"]
        model = onnx.load(tmp_path / f"{form}.clipstep/step.onnx")
        inferred = onnx.shape_inference.infer_shapes(model).graph
        ranks[form] = max(len(value.type.tensor_type.shape.dim) for value in inferred.value_info)
    assert ranks == {"3d": 5, "lowered": 4, "auto": 4}


def test_float32_frames_hold_what_uint8_ones_do(pooled_run: Run, tmp_path: Path) -> None:
    """The artifact's own inputs say it; the golden steps, which are uint8, were run through each."""
    manifest = export_network(
        pooled_run.spec("pooled"), tmp_path / "float.clipstep", ExportOptions(("onnx", "executorch"), input_dtype="float32")
    ).manifest
    assert [artifact.input_dtype for artifact in manifest.artifacts] == ["float32", "float32"]
    frames = onnx.load(tmp_path / "float.clipstep/step.onnx").graph.input[0].type.tensor_type
    assert frames.elem_type == onnx.TensorProto.FLOAT
    assert GoldenSteps.of(Bundle.open(tmp_path / "float.clipstep")).subclips.dtype == "uint8"
    assert manifest.artifacts[1].placement.not_delegated == ()  # The conversion from uint8 is what XNNPACK does not take.


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"form": "3d"}, "executorch does not take the form; got 3d; expected auto or lowered; export executorch by itself"),
        ({"targets": ("coreml",), "input_dtype": "uint8"}, "coreml does not take the input; got uint8; expected auto or float32"),
    ],
)
def test_what_a_target_does_not_take_is_said(ask: dict, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        ExportOptions(**ask)


@pytest.mark.parametrize("value", ["dynamic", "-1", "112..224", "0", "1.5"])
@pytest.mark.parametrize("option", ["--size", "--frames"])
def test_dynamic_shapes_are_refused_with_the_reason(clipstep: Command, tmp_path: Path, option: str, value: str) -> None:
    code, _, error = clipstep("export", "--model", "m:f", "--out", tmp_path / "x.clipstep", option, value)
    assert code == 2
    assert f"{option}: shapes are fixed at export" in error and f"got {value}; expected a whole number of at least 1" in error


def test_the_same_twice_in_a_row_byte_by_byte(pooled_run: Run, tmp_path: Path) -> None:
    first, second = (export_network(pooled_run.spec("pooled"), tmp_path / f"same{i}/same.clipstep") for i in range(2))
    for a, b in zip(first.manifest.artifacts, second.manifest.artifacts, strict=True):
        if a.target == "coreml":
            weights = "Data/com.apple.CoreML/weights"
            assert tree_sha256(first.bundle / a.file / weights) == tree_sha256(second.bundle / b.file / weights)
        else:
            assert a.sha256 == b.sha256


def hear_interrupts() -> None:
    """Tests in the background inherit that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_export_leaves_the_older_bundle_or_none(pooled_run: Run, run_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted while the first artifact is written: its working folder is there, the bundle is not."""
    old, new = tmp_path / "old.clipstep", tmp_path / "new.clipstep"
    export_network(pooled_run.spec("pooled"), old, ExportOptions(("onnx",)))
    before = tree_sha256(old)
    for out in (old, new):
        command = [Path(sys.executable).parent / "clipstep", "export", run_folder, "--out", out, "--force"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts) as process:
            while not list(tmp_path.glob(f".{out.name}.new-*")) and process.poll() is None:
                time.sleep(0.02)
            assert process.poll() is None
            process.send_signal(number)
            _, error = process.communicate(timeout=300)
        assert process.returncode != 0
        assert "Traceback" not in error
        if number == signal.SIGINT:
            assert not list(tmp_path.glob(".*"))
    assert tree_sha256(old) == before and not new.exists()
    export_network(pooled_run.spec("pooled"), new, ExportOptions(("onnx",)))
    Bundle.open(new)


def test_an_interrupt_that_nobody_heard_stops_the_export_all_the_same(pooled_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hear_interrupts()
    unheard = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)

    class Interrupting:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def report(_: object) -> None:
        Interrupting()  # Deleted at once.

    with pytest.raises(KeyboardInterrupt):
        export_network(pooled_run.spec("pooled"), tmp_path / "new.clipstep", ExportOptions(("onnx",)), report)
    assert [error.exc_type for error in unheard] == [KeyboardInterrupt]
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
