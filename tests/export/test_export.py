"""A bundle is verified and written whole, or not at all; its manifest describes its files."""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx, nn

from clipstep.export import variants
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.step import StepProgram
from clipstep.export.targets import onnx_writer
from clipstep.network.spec import weights_sha256
from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import Bundle, BundleError
from clipstep.runtime.bundle.manifest import Manifest, Placement
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import ParityError
from clipstep.training.models import build, slowfast_causal_shufflenet
from clipstep.training.run import Run, RunInfo, load_run, save_run

Cli = Callable[..., tuple[int, str, str]]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def wrong_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the ONNX target write a bias that is off by a hundredth."""
    original = onnx_writer.write

    def write(graph: fx.GraphModule, program: StepProgram, precision: str, metadata: str, path: Path, *more: object) -> Placement:
        placement = original(graph, program, precision, metadata, path, *more)
        model = onnx.load(path)
        shape, kind = [len(program.labels)], onnx.TensorProto.FLOAT
        bias = next(value for value in model.graph.initializer if list(value.dims) == shape and value.data_type == kind)
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 0.01, bias.name))
        onnx.save(model, path)
        return placement

    monkeypatch.setattr(onnx_writer, "write", write)


def test_nothing_is_written_if_an_artifact_fails_verification(wrong_onnx: None, pooled_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"step\.onnx: logits is off at step 0; got an error of 0\.01"):
        export_network(pooled_run.spec(tmp_path), tmp_path / "deep/small.clipstep", ExportOptions(("onnx",)))
    assert list(tmp_path.iterdir()) == []  # The temporary folder is removed, too.


def test_an_older_bundle_stays_if_the_new_one_fails(wrong_onnx: None, pooled_run: Run, bundle_copy: Path) -> None:
    before = tree(bundle_copy.parent)
    with pytest.raises(ParityError):
        export_network(pooled_run.spec(bundle_copy), bundle_copy, ExportOptions(("onnx",)), force=True)
    assert tree(bundle_copy.parent) == before and [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_a_bundle_is_replaced_only_with_force(pooled_run: Run, bundle_copy: Path) -> None:
    before = tree(bundle_copy)
    with pytest.raises(ClipstepError, match=r"holds a finished bundle \(slowfast_causal_shufflenet, 3 classes, of 20.*\); replace it with --force"):
        export_network(pooled_run.spec(bundle_copy), bundle_copy, ExportOptions(("onnx",)))
    assert tree(bundle_copy) == before


def test_an_older_bundle_is_replaced_whole_and_everyone_may_read_it(pooled_run: Run, bundle_copy: Path) -> None:
    """A service of another user than the one who exported it, too."""
    umask = os.umask(0o022)
    try:
        export_network(pooled_run.spec(bundle_copy), bundle_copy, ExportOptions(("onnx",)), force=True)
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in bundle_copy.iterdir()} == {0o644} and stat.S_IMODE(bundle_copy.stat().st_mode) == 0o755
    assert set(tree(bundle_copy)) == {"manifest.json", "golden.safetensors", "step.onnx"}
    assert Bundle.open(bundle_copy).manifest.architecture == "pooled"
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


def test_an_initial_state_that_no_manifest_can_hold_is_refused(pooled_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven = {name: torch.arange(2048.0).reshape(value.shape) for name, value in pooled_run.network.initial_states().items()}
    monkeypatch.setattr(pooled_run.network, "initial_states", lambda: uneven)
    with pytest.raises(ClipstepError, match="state first: its initial value differs from element to element"):
        export_network(pooled_run.spec(tmp_path), tmp_path / "x.clipstep")
    assert list(tmp_path.iterdir()) == []


def test_a_single_target_from_the_command_line(clipstep: Cli, randomise: Callable[..., nn.Module], clip: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(slowfast_causal_shufflenet, "STAGE_UNITS", (1, 1, 1))
    config = {"classes": 2, "frames": 2, "size": 32}
    info = RunInfo("slowfast_causal_shufflenet", config, ("a", "b"), (104.0,) * 3, (58.0,) * 3, 30.0, training={"epochs": 3})
    save_run(tmp_path / "run", Run(randomise(build(info.architecture, config)), info, read_subclips(clip, 2, 32)[:3]))
    out = tmp_path / "tiny.clipstep"
    code, text, err = clipstep("export", tmp_path / "run", "--out", out, "--target", "onnx", "--target", "onnx")
    assert (code, err) == (0, "")
    assert "step.onnx: " in text and "verified over 16 steps and a reset" in " ".join(text.split())
    manifest = Bundle.open(out).manifest
    assert [artifact.target for artifact in manifest.artifacts] == ["onnx"]
    assert manifest.name == "tiny" and manifest.labels == ("a", "b") and manifest.input.shape == (2, 32, 32, 3) and manifest.input.fps == 30.0
    assert manifest.training == {"epochs": 3} and manifest.provenance.config == config
    provenance = manifest.provenance
    assert (provenance.kind, provenance.source, provenance.architecture) == ("run", str(tmp_path / "run"), "slowfast_causal_shufflenet")
    assert provenance.weights_sha256 == weights_sha256(load_run(tmp_path / "run").network.state_dict())


def test_the_manifest_is_what_the_files_are(bundle: Bundle, run: Run) -> None:
    manifest = bundle.manifest
    assert [(a.target, a.precision, a.input_dtype) for a in manifest.artifacts] == [
        ("onnx", "float32", "uint8"),
        ("executorch", "float32", "uint8"),
        ("coreml", "float32", "float32"),
        ("coreml", "float16", "float32"),
    ]
    for item in (*manifest.artifacts, manifest.golden):
        path = bundle.path / item.file
        data = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()} if path.is_dir() else {}
        listing = "".join(f"{hashlib.sha256(data[name]).hexdigest()}  {name}\n" for name in sorted(data))
        assert item.sha256 == hashlib.sha256(listing.encode() if data else path.read_bytes()).hexdigest()
        assert item.size_bytes == (sum(map(len, data.values())) if data else len(path.read_bytes()))
    for artifact in manifest.artifacts:
        assert artifact.parity.steps >= 16 and torch.__version__ in artifact.parity.reference and artifact.form == "lowered"
        assert artifact.parity.max_relative_error <= artifact.parity.max_absolute_error < (1e-4 if artifact.precision == "float32" else 0.1)
        assert artifact.tool_versions["torch"] == version("torch") and len(artifact.tool_versions) >= 2
    assert [sum(artifact.placement.delegated.values()) > 100 for artifact in manifest.artifacts] == [True] * 4
    assert len(onnx.load(bundle.path / "step.onnx").graph.node) == manifest.artifacts[0].placement.delegated["CPUExecutionProvider"]
    assert manifest.provenance.weights_sha256 == weights_sha256(run.network.state_dict()) and manifest.export.clipstep_version == version("clipstep")


def test_the_manifest_has_the_keys_of_its_schema_and_no_others(bundle: Bundle) -> None:
    schema = Manifest.model_json_schema(mode="serialization")
    values = json.loads((bundle.path / "manifest.json").read_text())

    def walk(value: object, node: dict) -> None:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if isinstance(value, dict) and "properties" in node:
            assert node["additionalProperties"] is False and set(node["required"]) <= set(value) <= set(node["properties"])
            for key, inner in value.items():
                walk(inner, node["properties"][key])
        elif isinstance(value, list) and "items" in node:
            for inner in value:
                walk(inner, node["items"])

    walk(values, schema)
    values["parity"] = 1
    (other := bundle.path.parent / "extra.clipstep").mkdir()
    (other / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"manifest\.json is malformed at parity"):
        Bundle.open(other)


@pytest.mark.parametrize("targets", [["tflite"], ["onnx", "tflite"], []])
def test_the_error_for_an_unknown_target_lists_the_known_ones(targets: list[str], pooled_run: Run, tmp_path: Path) -> None:
    wanted = "tflite" if targets else "none"
    with pytest.raises(ClipstepError, match=f"unknown target; got {wanted}; expected some of onnx, executorch, coreml"):
        export_network(pooled_run.spec(tmp_path), tmp_path / "x.clipstep", ExportOptions(targets))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["RUN", "--out", "x.clipstep", "--target", "tflite"], "unknown target; got tflite; expected some of onnx, executorch, coreml"),
        (["RUN", "--out", "x"], "a bundle's name ends in .clipstep; got x; expected x.clipstep"),
        (["RUN", "--out", "taken.clipstep"], "taken.clipstep: exists and is not a bundle"),
        (["missing", "--out", "x.clipstep"], "missing: is not a run; got no run.json"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], text: str, clipstep: Cli, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(variants, "simplified", lambda *_: pytest.fail("lowered before the arguments were checked"))
    (tmp_path / "taken.clipstep").mkdir()
    (tmp_path / "taken.clipstep/notes.txt").write_text("mine")
    code, _, err = clipstep("export", *(run_folder if argument == "RUN" else argument for argument in arguments))
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and text in err
    assert tree(tmp_path) == {"taken.clipstep/notes.txt": b"mine"}


def test_the_out_option_is_required(clipstep: Cli, run_folder: Path) -> None:
    code, _, err = clipstep("export", run_folder)
    assert code == 2 and "--out" in err
