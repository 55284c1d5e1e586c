"""Each artifact alone: what it carries, where it runs, what it computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import onnx
import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings import portable_lib
from torch import Tensor, fx, nn

from clipstep.export.lowering.lower import lower
from clipstep.export.options import ExportOptions
from clipstep.export.parity import load_for_verification
from clipstep.export.pipeline import export_network
from clipstep.export.step import StepProgram, program_of
from clipstep.export.targets import TARGETS
from clipstep.export.targets.onnx import PROFILE
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.targets import TARGETS as RUNTIME_TARGETS
from clipstep.training.run import Run, RunInfo


def onnx_metadata(path: Path) -> str:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["clipstep"]


def coreml_metadata(path: Path) -> str:
    return coremltools.models.utils.load_spec(str(path)).description.metadata.userDefined["clipstep"]


def executorch_metadata(path: Path) -> str:
    return portable_lib._load_for_executorch(str(path)).run_method("clipstep", ())[0]


def test_the_writers_are_those_of_the_runtimes_table() -> None:
    """In its order, and their files end as a reader knows them."""
    assert list(TARGETS) == list(RUNTIME_TARGETS)
    assert {name: target.info for name, target in TARGETS.items()} == RUNTIME_TARGETS


@pytest.mark.parametrize(
    ("file", "read", "dtype"),
    [
        ("step.onnx", onnx_metadata, "uint8"),
        ("step.pte", executorch_metadata, "uint8"),
        ("step-float32.mlpackage", coreml_metadata, "float32"),
        ("step-float16.mlpackage", coreml_metadata, "float32"),
    ],
)
def test_a_lone_artifact_carries_what_is_needed_to_use_it(file: str, read: Callable[[Path], str], dtype: str, bundle: Bundle, run: Run) -> None:
    interface = Interface.model_validate_json(read(bundle.path / file))
    assert interface.schema_version == json.loads(read(bundle.path / file))["schema_version"] == "2.0"
    assert interface.labels == run.info.labels and interface.input.fps == run.info.fps
    assert interface.input.mean == run.info.mean and interface.input.std == run.info.std
    assert (interface.input.shape, interface.input.dtype) == ((4, 32, 32, 3), dtype)
    states = {state.name: (state.shape, state.initial) for state in interface.states}
    assert states == {name: (tuple(value.shape), 0.0) for name, value in run.network.initial_states().items()}  # type: ignore[operator]
    assert interface.outputs == ("logits", "slow_buffer_out", "fast_buffer_out")


def test_the_onnx_file_names_its_inputs_and_outputs_and_hides_this_machine(bundle: Bundle, program: StepProgram) -> None:
    model = onnx.load(bundle.path / "step.onnx")
    assert [value.name for value in model.graph.input] == program.input_names
    assert [value.name for value in model.graph.output] == program.output_names
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for here in (Path(torch.__file__).parent, Path(__file__).parents[2]):
        assert str(here).encode() not in model.SerializeToString()


def test_the_ml_program_names_its_inputs_and_outputs(bundle: Bundle, program: StepProgram) -> None:
    for precision in ("float32", "float16"):
        spec = coremltools.models.utils.load_spec(str(bundle.path / f"step-{precision}.mlpackage"))
        assert [value.name for value in spec.description.input] == program.input_names
        assert [value.name for value in spec.description.output] == program.output_names


def test_the_executorch_file_is_one_call_of_the_delegate(bundle: Bundle) -> None:
    plan = next(plan for plan in program_in(bundle.path / "step.pte").execution_plan if plan.name == "forward")
    assert [delegate.id for delegate in plan.delegates] == ["XnnpackBackend"]
    assert not plan.operators
    kinds = [type(instruction.instr_args).__name__ for instruction in plan.chains[0].instructions]
    assert sorted(kind for kind in kinds if kind != "FreeCall") == ["DelegateCall"]
    placement = bundle.artifact("executorch").placement
    assert not placement.not_delegated and list(placement.delegated) == ["XnnpackBackend"]


def program_in(path: Path) -> Any:
    """The flatbuffer as it was written, read by ExecuTorch's own tools."""
    read = deserialize_pte_binary(path.read_bytes())
    return getattr(read, "program", read)


def test_what_xnnpack_does_not_take_runs_beside_it_and_is_named(pooled_run: Run, tmp_path: Path) -> None:
    network = pooled_run.network

    class Odd(torch.nn.Module):
        initial_states = network.initial_states

        def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
            logits, *states = network(frames, *(state.sort(3)[0] for state in states))
            return (logits.sort(1)[0], *states)

    written = []
    export_network(
        Run(Odd().eval(), pooled_run.info, pooled_run.sample).spec(tmp_path),
        tmp_path / "odd.clipstep",
        ExportOptions(("executorch",)),
        written.append,
    )
    placement = written[0].artifact.placement
    assert placement.not_delegated.count("aten::topk") == 3
    assert list(placement.delegated) == ["XnnpackBackend"] and placement.delegated["XnnpackBackend"] > 100
    assert ("aten.topk", 3, "XNNPACK has no such operator") in [(one.operator, one.count, one.reason) for one in placement.reasons]
    assert written[0].artifact.parity.max_absolute_error < 1e-4


@pytest.mark.parametrize("artifact", range(4))
def test_three_chained_steps_on_random_frames_equal_the_eager_network(artifact: int, bundle: Bundle, program: StepProgram) -> None:
    item = bundle.manifest.artifacts[artifact]
    engine = load_for_verification(item.target, bundle.path / item.file)
    clips = torch.randint(256, (3, *program.frames.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(11))
    eager = list(program.states.values())
    states = [value.numpy() for value in eager]
    for clip in clips:
        with torch.no_grad():
            logits, *eager = program.step(clip, *eager)
        got, *states = engine.run([clip.numpy().astype(item.input_dtype), *states])
        for value, expected in zip((got, *states), (logits, *eager), strict=True):
            bound = BOUNDS[item.precision] * max(1.0, float(expected.abs().max()))
            np.testing.assert_allclose(value, expected.numpy(), rtol=0, atol=bound)
    engine.close()


def test_the_same_graph_gives_the_same_onnx_file(pooled_run: Run, tmp_path: Path) -> None:
    program = program_of(pooled_run.spec())
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    with quiet():
        graphs: list[fx.GraphModule] = [lower(program.step, program.inputs, PROFILE) for _ in files]
        for graph, file in zip(graphs, files, strict=True):
            TARGETS["onnx"].load_writer().write(graph, program, "float32", "{}", file)
    assert files[0].read_bytes() == files[1].read_bytes()


class _Smallest(nn.Module):
    """A convolution and a mean."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(3, 2, 3, padding=padding)

    def forward(self, frames: Tensor) -> Tensor:
        mean: Tensor = self.conv(frames).mean((2, 3, 4))
        return mean


@pytest.mark.parametrize("padding", [0, 1])
def test_the_smallest_network_is_written(padding: int, tmp_path: Path) -> None:
    sample = torch.randint(256, (2, 4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    run = Run(_Smallest(padding).eval(), RunInfo("smallest", {}, ("a", "b"), (100.0,) * 3, (60.0,) * 3, 25.0, "0" * 64), sample)
    manifest = export_network(run.spec("smallest"), tmp_path / "smallest.clipstep").manifest
    assert {artifact.target for artifact in manifest.artifacts} == {"onnx", "executorch", "coreml"}
