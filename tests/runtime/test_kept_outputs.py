"""Outputs that an export kept beside the logits and the states: what a manifest may say of them, and how they are returned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clipstep.runtime import Bundle, BundleError, ClipstepError, GoldenSteps, ParityError, StepModel, check_golden, inspect
from clipstep.runtime.bundle import tree_sha256, tree_size

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
KEPT = {"name": "m", "shape": [1, 3], "dtype": "float32"}


def _keep_mean(path: Path) -> None:
    """Make an output `mean` `(1, 3)` of the value `m` that the bundle's model computes, and record it in the golden steps and the manifest."""
    model = onnx.load(path / "model.onnx")
    model.graph.node.append(helper.make_node("Reshape", ["m", "one_row"], ["mean"]))
    model.graph.initializer.append(helper.make_tensor("one_row", TensorProto.INT64, [2], [1, 3]))
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, (1, 3)))
    onnx.save(model, path / "model.onnx")
    golden = GoldenSteps.load(path / "golden.safetensors", ["memory"])
    means = golden.subclips.reshape(3, -1, 3).mean(axis=1, dtype=np.float64)[:, None].astype(np.float32) / 255
    GoldenSteps(golden.subclips, golden.logits, golden.states, kept={"mean": means}).save(path / "golden.safetensors")
    values = json.loads((path / "manifest.json").read_text())
    values["outputs"], values["kept_outputs"] = ["logits", "memory_out", "mean"], [{**KEPT, "name": "mean"}]
    for item in (*values["artifacts"], values["golden"]):
        item.update(sha256=tree_sha256(path / item["file"]), size_bytes=tree_size(path / item["file"]))
    (path / "manifest.json").write_text(json.dumps(values))


@pytest.fixture
def kept_bundle(copied_bundle: Path) -> Path:
    _keep_mean(copied_bundle)
    return copied_bundle


@pytest.mark.parametrize("isolated", [False, True])
def test_steps_and_streams_return_kept_outputs_by_name(isolated: bool, kept_bundle: Path) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    with StepModel.load(kept_bundle, isolated=isolated) as model:
        stream, states = model.stream(), model.initial_states()
        for subclip in frames:
            outputs = model.step_outputs(subclip, states)
            logits, following = model.step(subclip, states)
            np.testing.assert_array_equal(outputs.logits, logits)
            np.testing.assert_array_equal(outputs.states[0], following[0])
            (prediction,) = [given for frame in subclip if (given := stream.push(frame)) is not None]
            for kept in (outputs.kept, prediction.kept):
                assert list(kept) == ["mean"]
                np.testing.assert_allclose(kept["mean"], subclip.reshape(1, -1, 3).mean(axis=1) / 255, atol=1e-6)
            states = outputs.states


def test_a_bundle_without_them_returns_none(model: StepModel) -> None:
    assert model.step_outputs(np.zeros((4, 8, 8, 3), np.uint8), model.initial_states()).kept == {}
    assert model.interface.kept_outputs == ()


def test_they_are_compared_with_the_golden_steps(kept_bundle: Path) -> None:
    with Bundle.open(kept_bundle) as bundle, StepModel.load(bundle) as model:
        golden = GoldenSteps.of(bundle)
        assert check_golden(model, golden, "float32").relative < 1e-6
        golden.kept["mean"][2, 0, 1] += 1e-3
        with pytest.raises(ParityError, match=r"mean is off at step 2; got an error of 0.001"):
            check_golden(model, golden, "float32")
    assert "kept output" in repr(inspect(kept_bundle))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(kept_outputs=[KEPT]), "outputs must be logits, memory_out, m"),
        (lambda v: v.update(outputs=["logits", "m", "memory_out"], kept_outputs=[KEPT]), "outputs must be logits, memory_out, m"),
        (lambda v: v.update(outputs=["logits", "memory_out", "logits"], kept_outputs=[{**KEPT, "name": "logits"}]), "differ from each other"),
        (lambda v: v.update(outputs=["logits", "memory_out", "frames"], kept_outputs=[{**KEPT, "name": "frames"}]), "differ from each other"),
        (lambda v: v.update(outputs=["logits", "memory_out", "m", "m"], kept_outputs=[KEPT, KEPT]), "differ from each other"),
        (lambda v: v.update(outputs=["logits", "memory_out", ""], kept_outputs=[{**KEPT, "name": ""}]), "must not be empty"),
        (lambda v: v.update(kept_outputs=[{**KEPT, "shape": []}]), "kept_outputs.0.shape"),
        (lambda v: v.update(kept_outputs=[{**KEPT, "shape": [1] * 5}]), "kept_outputs.0.shape"),
        (lambda v: v.update(kept_outputs=[{**KEPT, "shape": [1, 0]}]), "kept_outputs.0.shape"),
        (lambda v: v.update(kept_outputs=[{**KEPT, "dtype": "int64"}]), "kept_outputs.0.dtype"),
        (lambda v: v.update(kept_outputs=[{**KEPT, "unit": "m"}]), "kept_outputs.0.unit"),
        (lambda v: v.update(outputs=["logits", "memory_out", "m"], kept_outputs=[{**KEPT, "shape": [1, 2**29]}]), "must fit into 1073741824 bytes"),
        (
            lambda v: v.update(
                outputs=["logits", "memory_out", *(f"m{i}" for i in range(257))], kept_outputs=[{**KEPT, "name": f"m{i}"} for i in range(257)]
            ),
            "there may be 256 kept outputs, not 257",
        ),
    ],
)
def test_what_a_manifest_may_not_say_of_them_is_refused(edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.open(edit_manifest(change))


def test_an_artifact_without_an_output_that_the_manifest_keeps_is_refused(edit_manifest: Edit) -> None:
    path = edit_manifest(lambda v: v.update(outputs=["logits", "memory_out", "m"], kept_outputs=[KEPT]))
    with pytest.raises(ClipstepError, match=r"model.onnx.*does not fit the manifest; got 2 outputs; expected 3"):
        StepModel.load(path)
    with pytest.raises(ClipstepError, match=r"got no outputs\.m; expected golden steps"), Bundle.open(path) as bundle:
        GoldenSteps.of(bundle)
