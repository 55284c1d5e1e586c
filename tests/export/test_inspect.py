"""`clipstep inspect`: what it says is what the files' own readers, and the manifest, say; what does not fit is caught."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import coremltools
import onnx
import pytest

from clipstep.runtime import Bundle, Manifest

Command = Callable[..., tuple[int, str, str]]
FILES = {"onnx": "step.onnx", "executorch": "step.pte", "coreml": "step-float16.mlpackage"}


@pytest.fixture
def inspected(clipstep: Command) -> Callable[[Path], dict]:
    def inspect(path: Path) -> dict:
        code, text, error = clipstep("inspect", path, "--json")
        assert (code, error) == (0, "")
        return json.loads(text)

    return inspect


def test_a_bundle_is_its_manifest(inspected: Callable[[Path], dict], clipstep: Command, bundle: Bundle) -> None:
    assert Manifest.model_validate(inspected(bundle.path)) == bundle.manifest
    code, text, _ = clipstep("inspect", bundle.path)
    assert code == 0 and text.splitlines()[0] == "small: a step takes 4 frames of 32x32, every frame at 25 a second"
    assert "state         fast_buffer float32 (1, 12, 16, 16), 0 at the start; then fast_buffer_out" in text
    assert "labels        fight, nofight, other" in text and "golden steps  16 on 5 subclips" in text
    assert bundle.manifest.provenance.weights_sha256 in text and "step-float32.mlpackage" in text


@pytest.mark.parametrize("target", FILES)
def test_a_lone_file_says_its_inputs_and_carries_the_bundles_interface(
    inspected: Callable[[Path], dict], clipstep: Command, bundle: Bundle, target: str
) -> None:
    info = inspected(bundle.path / FILES[target])
    frames = ["float32" if target == "coreml" else "uint8", [4, 32, 32, 3]]
    states = [["float32", [1, 12, 16, 16]]] * 2
    assert [[value["dtype"], value["shape"]] for value in info["inputs"]] == [frames, *states]
    assert [[value["dtype"], value["shape"]] for value in info["outputs"]] == [["float32", [1, 3]], *states]
    assert info["interface"] == json.loads(bundle.manifest.interface(frames[0]).model_dump_json())
    code, text, _ = clipstep("inspect", bundle.path / FILES[target])
    assert code == 0 and "clipstep's metadata in it, which fits its inputs and outputs:" in text


def test_operations_and_weights_are_those_that_other_readers_count(inspected: Callable[[Path], dict], bundle: Bundle) -> None:
    model = onnx.load(bundle.path / "step.onnx")
    info = inspected(bundle.path / "step.onnx")
    assert info["operations"] == Counter(node.op_type for node in model.graph.node)
    assert info["weights_bytes"] == sum(len(value.raw_data) for value in model.graph.initializer)
    assert inspected(bundle.path / "step.pte")["operations"] == {"XnnpackBackend": 1}
    placed = next(item for item in bundle.manifest.artifacts if item.file == FILES["coreml"]).placement.delegated["ML Program"]
    assert sum(inspected(bundle.path / FILES["coreml"])["operations"].values()) == placed


def test_another_onnx_file_shows_its_own_inputs_and_that_it_carries_nothing(
    inspected: Callable[[Path], dict], clipstep: Command, tmp_path: Path
) -> None:
    """With a dimension that has a name, and one that has none."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size, 3]) for name, size in (("x", "batch"), ("y", None)))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "relu.onnx")
    info = inspected(tmp_path / "relu.onnx")
    assert info["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}] and info["outputs"][0]["shape"] == ["?", 3]
    assert info["interface"] is None and info["operations"] == {"Relu": 1}
    assert "It carries no clipstep metadata" in clipstep("inspect", tmp_path / "relu.onnx")[1]


def renamed_state(metadata: dict) -> None:
    metadata["states"][0]["name"], metadata["outputs"][1] = "other", "other_out"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: metadata["states"][0].update(shape=[1, 12, 16, 17]), "(1, 12, 16, 16); expected slow_buffer float32 (1, 12, 16, 17)"),
        (renamed_state, "got slow_buffer float32 (1, 12, 16, 16); expected other float32 (1, 12, 16, 16)"),
        (lambda metadata: (metadata["states"].pop(), metadata["outputs"].pop()), "got 3 inputs; expected 2 inputs"),
        (lambda metadata: metadata["input"].update(dtype="float32"), "got frames uint8 (4, 32, 32, 3); expected frames float32 (4, 32, 32, 3)"),
        (lambda metadata: metadata["labels"].append("more"), "got logits float32 (1, 3); expected logits float32 (1, 4)"),
        (lambda metadata: metadata.update(colour=1), "the clipstep metadata in it is malformed at colour"),
    ],
)
def test_facts_that_do_not_fit_the_file_are_said(clipstep: Command, bundle: Bundle, tmp_path: Path, change: Callable, message: str) -> None:
    model = onnx.load(bundle.path / "step.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "clipstep")
    metadata = json.loads(entry.value)
    change(metadata)
    entry.value = json.dumps(metadata)
    onnx.save(model, tmp_path / "changed.onnx")
    code, _, error = clipstep("inspect", tmp_path / "changed.onnx")
    assert code == 2 and message in error


def test_facts_that_are_no_json(clipstep: Command, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path / FILES["coreml"], tmp_path / "x.mlpackage")
    spec = coremltools.utils.load_spec(str(tmp_path / "x.mlpackage"))
    spec.description.metadata.userDefined["clipstep"] = "{"
    (path,) = (tmp_path / "x.mlpackage").rglob("*.mlmodel")
    path.write_bytes(spec.SerializeToString())
    code, _, error = clipstep("inspect", tmp_path / "x.mlpackage")
    assert code == 2 and "the clipstep metadata in it is malformed at its start" in error


@pytest.mark.parametrize("name", FILES.values())
def test_a_damaged_file_is_one_line(clipstep: Command, bundle: Bundle, tmp_path: Path, name: str) -> None:
    copy = tmp_path / name
    if (bundle.path / name).is_dir():
        shutil.copytree(bundle.path / name, copy)
        (damaged,) = copy.rglob("*.mlmodel")
    else:
        damaged = Path(shutil.copy(bundle.path / name, copy))
    damaged.write_bytes(damaged.read_bytes()[:2000])
    code, out, error = clipstep("inspect", copy)
    assert (code, out) == (2, "") and "cannot be read" in error and len(error.splitlines()) == 1


def test_a_folder_that_is_no_package_is_left_as_it_is(clipstep: Command, tmp_path: Path) -> None:
    """Core ML Tools would write a package's manifest into it."""
    (tmp_path / "x.mlpackage").mkdir()
    (tmp_path / "x.mlpackage/notes.txt").write_text("no package")
    code, out, error = clipstep("inspect", tmp_path / "x.mlpackage")
    assert (code, out) == (2, "") and "x.mlpackage: cannot be read; got FileNotFoundError: no Manifest.json" in error
    assert [path.name for path in (tmp_path / "x.mlpackage").iterdir()] == ["notes.txt"]


def test_other_bad_input(clipstep: Command, bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty.onnx").touch()
    with (bundle_copy / "step.onnx").open("ab") as file:
        file.write(b"0")
    for path, message in (
        (tmp_path / "notes.txt", "is not an artifact; expected a bundle, or a file that ends in .onnx, .pte, .mlpackage"),
        (tmp_path / "none.onnx", "no such file"),
        (tmp_path / "empty.onnx", "empty.onnx: is empty; check the path"),
        (tmp_path / "none.clipstep", "is not a bundle"),
        (bundle_copy, "step.onnx"),
    ):
        code, _, error = clipstep("inspect", path)
        assert code == 2 and message in error
