"""The wheel in an empty environment without extras runs a bundle from outside the checkout; torch is absent."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from clipstep.runtime.bundle import MANIFEST, tree_sha256
from clipstep.runtime.bundle.manifest import Manifest

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "training/demo/fight/videos/Fight/v_Fight_g02_c01.mp4"


def _run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A network by hand: the logits of two classes are the mean of the frames, and 255 less that mean."""
    folder = tmp_path / "mean.clipstep"
    folder.mkdir()
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("factor", TensorProto.FLOAT, [1, 2], [1.0, -1.0]),
        helper.make_tensor("offset", TensorProto.FLOAT, [1, 2], [0.0, 255.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [4, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "step.onnx")
    save_file({"subclips": np.zeros((1, 4, 8, 8, 3), np.uint8), "logits": np.array([[0, 255]], np.float32)}, folder / "golden.safetensors")
    files = {
        name: {"file": name, "size_bytes": (folder / name).stat().st_size, "sha256": tree_sha256(folder / name)}
        for name in ("step.onnx", "golden.safetensors")
    }
    manifest = Manifest.model_validate(
        {
            "schema_version": "2.0",
            "name": "mean",
            "input": {"shape": [4, 8, 8, 3], "dtype": "uint8", "mean": [0, 0, 0], "std": [1, 1, 1], "fps": 25},
            "states": [],
            "outputs": ["logits"],
            "labels": ["bright", "dark"],
            "artifacts": [
                {
                    **files["step.onnx"],
                    "target": "onnx",
                    "platform": "any",
                    "form": "lowered",
                    "precision": "float32",
                    "tool_versions": {},
                    "placement": {"delegated": {}, "not_delegated": []},
                    "input_dtype": "uint8",
                    "parity": {"reference": "by hand", "steps": 1, "max_absolute_error": 0, "max_relative_error": 0, "bound": "0"},
                }
            ],
            "golden": files["golden.safetensors"],
            "provenance": {"kind": "module", "source": "", "weights_sha256": "0" * 64, "config": {}},
            "export": {"clipstep_version": "0"},
        }
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


def _check_the_demo_is_in(wheel: Path) -> None:
    """The network and every clip that clipstep demo needs, byte for byte."""
    here = ROOT / "training/demo"
    with zipfile.ZipFile(wheel) as packed:
        for file in (file for folder in ("network", "fight") for file in (here / folder).rglob("*") if file.is_file()):
            assert packed.read(f"clipstep/training/demo/{file.relative_to(here).as_posix()}") == file.read_bytes()


def _check_the_page_is_in(wheel: Path) -> None:
    """The style and the script that the page of clipstep report carries."""
    with zipfile.ZipFile(wheel) as packed:
        for file in ("style.css", "script.js"):
            assert packed.read(f"clipstep/benchmarks/report_page/{file}") == (ROOT / "benchmarks/report_page" / file).read_bytes()


def test_a_base_install_of_the_wheel_runs_a_bundle(tmp_path: Path, bundle: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "network", "training", "export", "runtime", "benchmarks"):
        (source / name).symlink_to(ROOT / name)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", cwd=source)
    (wheel,) = (tmp_path / "dist").glob("clipstep-*.whl")
    _check_the_demo_is_in(wheel)
    _check_the_page_is_in(wheel)
    _run(sys.executable, "-m", "venv", tmp_path / "empty", cwd=tmp_path)
    python = tmp_path / "empty/bin/python"
    _run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    found = _run(python, "-c", "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('clipstep.runtime').origin)", cwd=outside).split()
    assert found[0] == "None"
    assert found[1].startswith(str(tmp_path / "empty"))
    lines = _run(tmp_path / "empty/bin/clipstep", "run", bundle, CLIP, "--top", "1", cwd=outside).splitlines()
    assert "onnxruntime" in lines[0]
    assert len(lines) == 1 + 58 * 25 // 20 // 4  # 58 frames of 20 a second, taken at 25.
    schema = "import importlib.resources as r; print(r.files('clipstep.runtime.bundle').joinpath('manifest.schema.json').read_text()[:1])"
    assert _run(python, "-c", schema, cwd=outside).strip() == "{"
    refused = subprocess.run([tmp_path / "empty/bin/clipstep", "train", "x", "--out", "y"], cwd=outside, capture_output=True, text=True)
    assert refused.returncode == 2
    assert f"pip install '{wheel}[training]'" in refused.stderr
