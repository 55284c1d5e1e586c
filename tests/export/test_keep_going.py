"""What happens when one target fails: nothing is written, or, if the user asks to keep going, the others are; and nothing ends in a traceback."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clipstep.export import export, pipeline
from clipstep.export.targets import TARGETS, coreml_writer, executorch_writer, onnx_writer
from clipstep.runtime import Bundle, ClipstepError, ParityError, StepModel
from clipstep.training.run import Run

SETTINGS: dict[str, Any] = {"frames": 3, "size": 8, "labels": ("a", "b"), "mean": (0, 0, 0), "std": (255, 255, 255), "fps": 25}
Cli = Callable[..., tuple[int, str, str]]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.conv(frames).relu().mean((2, 3, 4)))
        return logits


def breaks(writer: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 0) -> None:
    """Make a target's writer raise an error, after that many files."""
    right, written = writer.write, list[Path]()

    def write(graph: Any, program: Any, precision: str, metadata: str, path: Path, *more: Any) -> Any:
        if len(written) >= after:
            path.write_bytes(b"half of it")
            raise error
        written.append(path)
        return right(graph, program, precision, metadata, path, *more)

    monkeypatch.setattr(writer, "write", write)


def test_without_keep_going_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(executorch_writer, monkeypatch, TypeError("an internal matter"))
    with pytest.raises(ClipstepError, match=r"step\.pte cannot be written; got TypeError: an internal matter; .*export the other targets") as raised:
        export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], keep_going=False, **SETTINGS)
    assert isinstance(raised.value.__cause__, TypeError) and list(tmp_path.iterdir()) == []


def test_the_api_keeps_going_and_says_which_target_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(executorch_writer, monkeypatch, TypeError("an internal matter"))
    result = export(Small().eval(), tmp_path / "out.clipstep", targets=["executorch", "onnx"], **SETTINGS)
    assert list(result.failed) == ["executorch"] and "an internal matter" in str(result.failed["executorch"])
    assert sorted(file.name for file in result.bundle.iterdir()) == ["golden.safetensors", "manifest.json", "step.onnx"]
    assert [artifact.target for artifact in Bundle.open(result.bundle).manifest.artifacts] == ["onnx"]
    with StepModel.load(result.bundle) as model:
        assert model.labels == ("a", "b")
    with pytest.raises(ClipstepError, match="an internal matter"):
        result.check_whole()


def test_a_target_is_left_out_whole_if_its_second_artifact_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(coreml_writer, monkeypatch, RuntimeError("the second precision"), after=1)
    seen: list[str] = []
    result = export(
        Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "coreml"], on_artifact=lambda w: seen.append(w.artifact.file), **SETTINGS
    )
    assert seen == ["step.onnx", "step-float32.mlpackage"] and list(result.failed) == ["coreml"]
    assert sorted(file.name for file in result.bundle.iterdir()) == ["golden.safetensors", "manifest.json", "step.onnx"]


def test_a_target_that_computes_something_else_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = pipeline.check_artifact

    def check(target: str, *others: Any) -> Any:
        if target == "onnx":
            raise ParityError("step.onnx: logits is off at step 3")
        return right(target, *others)

    monkeypatch.setattr(pipeline, "check_artifact", check)
    result = export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], **SETTINGS)
    assert isinstance(result.failed["onnx"], ParityError) and [a.target for a in result.manifest.artifacts] == ["executorch"]


def test_if_every_target_fails_each_reason_is_told_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(executorch_writer, monkeypatch, TypeError("one matter"))
    breaks(onnx_writer, monkeypatch, ValueError("another"))
    with pytest.raises(ClipstepError, match=r"no target could be written; got onnx: .* another; .* executorch: .* one matter"):
        export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_breach_of_the_contract_ends_the_export_in_any_case(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match="the first output is not the logits"):
        export(Small().eval(), tmp_path / "out.clipstep", **SETTINGS | {"labels": ("a", "b", "c")})
    assert list(tmp_path.iterdir()) == []


def _caused(cause: BaseException) -> RuntimeError:
    error = RuntimeError("a library's")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (MemoryError(), MemoryError), (_caused(KeyboardInterrupt()), KeyboardInterrupt)],
)
def test_ctrl_c_and_a_lack_of_memory_stay_what_they_are(
    error: BaseException, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(onnx_writer, monkeypatch, error)
    with pytest.raises(raised):
        export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_network_that_cannot_be_lowered_is_refused_before_golden_steps_are_recorded(
    keep_going: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Branches(Small):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            logits = super().forward(frames)
            return logits if bool(logits.sum() > 1e9) else logits * 2

    monkeypatch.setattr(pipeline, "record_assessed_golden", lambda *_: pytest.fail("golden steps were recorded"))
    with pytest.raises(ClipstepError, match=r"torch\.export cannot capture the network; got .*test_keep_going\.py"):
        export(Branches().eval(), tmp_path / "out.clipstep", keep_going=keep_going, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_what_torch_raises_in_the_lowering_names_the_operator_and_the_line(tmp_path: Path) -> None:
    class Reads(Small):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            logits = super().forward(frames)
            return logits * logits.sum().item()

    with pytest.raises(ClipstepError, match=r"no lowering for aten\._local_scalar_dense.*got shapes \[\(\)\]; it comes from .*test_keep_going\.py"):
        export(Reads().eval(), tmp_path / "out.clipstep", **SETTINGS)


def test_an_error_of_the_users_own_callback_is_theirs(tmp_path: Path) -> None:
    def stop(written: Any) -> None:
        raise ClipstepError("enough")

    with pytest.raises(ClipstepError, match=r"^enough$"):
        export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], on_artifact=stop, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_a_files_limit_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "onnx", replace(TARGETS["onnx"], weight_limit=1000))
    message = r"the network is too large for the target onnx; got 0\.00 GB of weights; expected at most 0\.00 GB.*; export other targets"
    with monkeypatch.context() as work:
        work.setattr(pipeline, "program_of", lambda *_, **__: pytest.fail("it was traced"))
        for options in ({"targets": ["onnx"]}, {"targets": ["onnx", "executorch"], "keep_going": False}):
            with pytest.raises(ClipstepError, match=message):
                export(Small().eval(), tmp_path / "out.clipstep", **SETTINGS | options)
    monkeypatch.setattr(onnx_writer, "write", lambda *_: pytest.fail("it was written"))
    result = export(Small().eval(), tmp_path / "out.clipstep", targets=["onnx", "executorch"], **SETTINGS)
    assert list(result.failed) == ["onnx"] and [a.target for a in result.manifest.artifacts] == ["executorch"]


def test_keep_going_on_the_command_line(clipstep: Cli, pooled_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipstep.export.reference.network_of_run", lambda folder: pooled_run.spec("pooled"))
    breaks(executorch_writer, monkeypatch, TypeError("an internal matter"))
    call = ("export", tmp_path, "--target", "executorch", "--target", "onnx", "--out", tmp_path / "out.clipstep")
    code, out, err = clipstep(*call)
    assert code == 2 and "error: step.pte cannot be written; got TypeError: an internal matter" in err and not (tmp_path / "out.clipstep").exists()
    code, out, err = clipstep(*call, "--keep-going")
    assert code == 0 and "a warning: executorch failed, and is not in the bundle: step.pte cannot be written" in out, err
    assert out.splitlines()[-1].startswith("wrote ") and ": 1 artifact, verified" in out.splitlines()[-1]
    code, _, err = clipstep("export", tmp_path, "--target", "executorch", "--out", tmp_path / "none.clipstep", "--keep-going")
    assert code == 2 and "an internal matter" in err and not (tmp_path / "none.clipstep").exists()
