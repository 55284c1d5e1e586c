"""Verification: a good bundle passes, and every way that we could think of to damage an artifact is caught."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx

from clipstep.export.lowering.lower import lower
from clipstep.export.options import ExportOptions
from clipstep.export.parity import verify_bundle
from clipstep.export.pipeline import export_network
from clipstep.export.step import StepProgram, program_of
from clipstep.export.targets import executorch, executorch_writer
from clipstep.runtime.bundle import Bundle, BundleError
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps, ParityError
from clipstep.training.run import Run

Rehash = Callable[..., Bundle]
MODEL = "Data/com.apple.CoreML/model.mlmodel"
PACKAGES = ("step-float32.mlpackage", "step-float16.mlpackage")
aten = torch.ops.aten


def verify(bundle: Bundle) -> dict[str, int]:
    golden = GoldenSteps.load(bundle.path / bundle.manifest.golden.file, [state.name for state in bundle.manifest.states])
    return {artifact.file: errors.steps for artifact, errors in verify_bundle(bundle, golden)}


def test_a_good_bundle_passes_with_sixteen_steps_each(bundle: Bundle) -> None:
    steps = verify(bundle)
    assert set(steps) == {"step.onnx", "step.pte", *PACKAGES}
    assert min(steps.values()) >= 16


# ONNX: the protobuf of the session's bundle, edited.


def onnx_weight(model: Any) -> None:
    weight = next(value for value in model.graph.initializer if list(value.dims[2:]) == [3, 3])
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 1, 1] += 1.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def onnx_relu(model: Any) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Identity"


def onnx_pool(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "MaxPool")
    next(a for a in node.attribute if a.name == "pads").ints[:] = [0, 0, 2, 2]


def onnx_states(model: Any) -> None:
    names = {"slow_buffer_out": "fast_buffer_out", "fast_buffer_out": "slow_buffer_out"}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]


@pytest.mark.parametrize("damage", [onnx_weight, onnx_relu, onnx_pool, onnx_states])
def test_a_damaged_onnx_is_caught(damage: Callable[[Any], None], bundle_copy: Path, rehash: Rehash) -> None:
    model = onnx.load(bundle_copy / "step.onnx")
    damage(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, bundle_copy / "step.onnx")
    with pytest.raises(ParityError, match=r"step\.onnx: .* is off at step [01]"):
        verify(rehash(bundle_copy, "step.onnx"))


# Core ML: the specification and the weights of the session's bundle, edited.


def block_of(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def mil_relu(block: Any) -> None:
    relu = next(o for o in reversed(block.operations) if o.type == "relu")
    before, after = relu.inputs["x"].arguments[0].name, relu.outputs[0].name
    for argument in (a for o in block.operations for binding in o.inputs.values() for a in binding.arguments):
        if argument.name == after:
            argument.name = before


def mil_pool(block: Any) -> None:
    pool = next(o for o in block.operations if o.type == "max_pool")
    constant = next(o for o in block.operations if o.outputs[0].name == pool.inputs["pad"].arguments[0].name)
    constant.attributes["val"].immediateValue.tensor.ints.values[:] = [0, 2, 0, 2]


def mil_states(block: Any) -> None:
    names = {"slow_buffer_out": "fast_buffer_out", "fast_buffer_out": "slow_buffer_out"}
    for operation in block.operations:
        operation.outputs[0].name = names.get(operation.outputs[0].name, operation.outputs[0].name)


@pytest.mark.parametrize("file", PACKAGES)
@pytest.mark.parametrize("damage", [mil_relu, mil_pool, mil_states])
def test_a_damaged_ml_program_is_caught(damage: Callable[[Any], None], file: str, bundle_copy: Path, rehash: Rehash) -> None:
    spec = coremltools.models.utils.load_spec(str(bundle_copy / file))
    damage(block_of(spec))
    (bundle_copy / file / MODEL).write_bytes(spec.SerializeToString())
    with pytest.raises(ParityError, match=rf"{file}: .* is off at step 0"):
        verify(rehash(bundle_copy, file))


@pytest.mark.parametrize(
    ("file", "width", "bit", "text"),
    [(PACKAGES[0], 4, 0x01, "is off at step"), (PACKAGES[1], 2, 0x10, "is not the float32 package's weight rounded to float16")],
)
def test_a_changed_exponent_of_one_core_ml_weight_is_caught(file: str, width: int, bit: int, text: str, bundle_copy: Path, rehash: Rehash) -> None:
    block = block_of(coremltools.models.utils.load_spec(str(bundle_copy / file)))
    conv = next(o for o in block.operations if o.type == "conv")
    constant = next(o for o in block.operations if o.outputs[0].name == conv.inputs["weight"].arguments[0].name)
    weights = bundle_copy / file / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    (start,) = struct.unpack_from("<Q", data, constant.attributes["val"].blobFileValue.offset + 16)
    data[start + 4 * width + width - 1] ^= bit  # The sign and exponent byte of the kernel's centre.
    weights.write_bytes(data)
    with pytest.raises(ParityError, match=rf"{file}: .* {text}"):
        verify(rehash(bundle_copy, file))


# ExecuTorch: one weight of the session's bundle, and a small network written again with a changed graph.


def test_a_changed_exponent_of_one_executorch_weight_is_caught(run: Run, bundle_copy: Path, rehash: Rehash) -> None:
    data = bytearray((bundle_copy / "step.pte").read_bytes())
    weight: Any = run.network.get_submodule("classifier").weight
    start = data.index(weight.detach().numpy().tobytes())
    data[start + 3] ^= 0x01
    (bundle_copy / "step.pte").write_bytes(data)
    with pytest.raises(ParityError, match=r"step\.pte: logits is off at step 0"):
        verify(rehash(bundle_copy, "step.pte"))


@pytest.fixture(scope="module")
def pooled(pooled_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, StepProgram]]:
    """A small network in ExecuTorch alone; the export itself says that the undamaged program passes."""
    out = tmp_path_factory.mktemp("pooled") / "pooled.clipstep"
    export_network(pooled_run.spec(out), out, ExportOptions(("executorch",)))
    yield Bundle.open(out), program_of(pooled_run.spec())


def pte_relu(graph: fx.Graph) -> None:
    for relu in graph.find_nodes(op="call_function", target=aten.relu.default):
        relu.replace_all_uses_with(relu.args[0])
        graph.erase_node(relu)


def pte_pool(graph: fx.Graph) -> None:
    for pool in graph.find_nodes(op="call_function", target=aten.max_pool2d.default):
        pool.args = (pool.args[0], [2, 2], [2, 2], [0, 0])


def pte_states(graph: fx.Graph) -> None:
    logits, first, newest = graph.output_node().args[0]
    graph.output_node().args = ((logits, newest, first),)


@pytest.mark.parametrize("damage", [pte_relu, pytest.param(pte_pool, marks=pytest.mark.heavy), pte_states])
def test_an_executorch_program_of_a_damaged_graph_is_caught(
    damage: Callable[[fx.Graph], None], pooled: tuple[Bundle, StepProgram], rehash: Rehash
) -> None:
    bundle, program = pooled
    with quiet():
        graph = lower(program.step, program.inputs, executorch.PROFILE)
        damage(graph.graph)
        graph.recompile()
        executorch_writer.write(graph, program, "float32", bundle.manifest.interface("uint8").model_dump_json(), bundle.path / "step.pte")
    changed = rehash(bundle.path)
    with pytest.raises(ParityError, match=r"step\.pte: .* is off at step 0"):
        verify(changed)


# The golden steps and the hashes.


@pytest.mark.parametrize(("change", "text"), [(0.01, "logits is off at step 7"), (float("nan"), "a value in logits that is not finite")])
def test_altered_golden_steps_are_caught(change: float, text: str, bundle_copy: Path, golden: GoldenSteps, rehash: Rehash) -> None:
    logits = golden.logits.copy()
    logits[7, 1] += change
    GoldenSteps(golden.subclips, logits, golden.states).save(bundle_copy / "golden.safetensors")
    with pytest.raises(ClipstepError, match=text):
        verify(rehash(bundle_copy))


@pytest.mark.parametrize("file", ["step.onnx", "step.pte", f"{PACKAGES[0]}/{MODEL}", f"{PACKAGES[1]}/{MODEL}", "golden.safetensors"])
def test_one_flipped_bit_breaks_the_hash(file: str, bundle_copy: Path) -> None:
    data = np.fromfile(bundle_copy / file, np.uint8)
    data[len(data) // 2] ^= 1
    data.tofile(bundle_copy / file)
    with pytest.raises(BundleError, match=f"{file.split('/')[0]} was altered"):
        Bundle.open(bundle_copy)
