"""States that are called as values inside of the artifacts would be: the writers give those other names."""

from pathlib import Path

import coremltools
import onnx
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import export
from clipstep.export.targets import coreml_writer
from clipstep.export.unsupported import Unsupported

KNOWN = {"frames": 4, "size": 8, "labels": ("a", "b"), "mean": (114.0,) * 3, "std": (57.0,) * 3, "fps": 25.0}


class Averaging(nn.Module):
    """Has states of the given names, each a running average of the features."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.names = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2), names

    def initial_states(self) -> dict[str, Tensor]:
        return {name: torch.zeros(1, 4) for name in self.names}

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        features = self.conv(frames).relu().mean((2, 3, 4))
        following = [state * 0.5 + features * (place + 1) for place, state in enumerate(states)]
        return (self.linear(sum(following, features)), *following)


def names_inside_onnx(path: Path) -> list[str]:
    graph = onnx.load(path / "step.onnx").graph
    return [*(name for node in graph.node for name in node.output), *(value.name for value in graph.initializer)]


def names_inside_core_ml(path: Path) -> list[str]:
    block = coremltools.utils.load_spec(str(path / "step-float32.mlpackage")).mlProgram.functions["main"].block_specializations
    return [value.name for specialised in block.values() for operation in specialised.operations for value in operation.outputs]


@pytest.mark.parametrize(
    ("target", "form", "names_inside"),
    [
        ("onnx", "lowered", names_inside_onnx),
        pytest.param("onnx", "3d", names_inside_onnx, marks=pytest.mark.heavy),
        ("coreml", "lowered", names_inside_core_ml),
    ],
)
def test_a_state_may_be_called_as_a_value_inside(target: str, form: str, names_inside: object, tmp_path: Path) -> None:
    """`export` verifies that each artifact computes what the network does."""
    export(Averaging(["memory"]).eval(), tmp_path / "a.clipstep", targets=[target], form=form, **KNOWN)
    inside = [name for name in dict.fromkeys(names_inside(tmp_path / "a.clipstep")) if name.isidentifier() and name not in ("logits", "memory_out")]
    assert len(inside) > 5
    manifest = export(Averaging(inside[:3] + inside[-3:]).eval(), tmp_path / "b.clipstep", targets=[target], form=form, **KNOWN).manifest
    assert [state.name for state in manifest.states] == inside[:3] + inside[-3:]


def not_written(*_: object) -> None:
    raise Unsupported("an operator that is not written here")


def test_a_state_may_be_called_as_a_value_of_coremltools_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml_writer, "to_ml_program", not_written)
    manifest = export(Averaging(["mean", "relu", "logits_1"]).eval(), tmp_path / "a.clipstep", targets=["coreml"], **KNOWN).manifest
    assert [state.name for state in manifest.states] == ["mean", "relu", "logits_1"]


def test_a_state_may_be_called_as_a_rounded_value(tmp_path: Path) -> None:
    manifest = export(Averaging(["frames_to_fp16", "mean_to_fp32"]).eval(), tmp_path / "a.clipstep", targets=["coreml"], **KNOWN).manifest
    assert [state.name for state in manifest.states] == ["frames_to_fp16", "mean_to_fp32"]
