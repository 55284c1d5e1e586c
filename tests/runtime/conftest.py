"""A bundle written by hand, without torch: an ONNX model small enough to compute on paper; videos written by PyAV."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clipstep.runtime import GoldenSteps, StepModel
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.format_version import SCHEMA_VERSION
from clipstep.runtime.bundle.manifest import Artifact, Export, Golden, Input, Manifest, Parity, Placement, RunProvenance, State
from clipstep.runtime.command_line.cli import main

T, SIZE, LABELS, INITIAL = 4, 8, ("red", "green", "blue"), 0.25
VIDEOS = Path(__file__).parents[2] / "training/demo/fight/videos"


def _write_onnx(path: Path) -> None:
    """`m` = mean of the frames a channel, 0..1; `logits = 4 m - memory`; `memory_out = memory / 2 + m`."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["float_frames"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float_frames", "axes"], ["raw"], keepdims=0),
        helper.make_node("Div", ["raw", "white"], ["m"]),
        helper.make_node("Mul", ["m", "four"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "memory"], ["logits"]),
        helper.make_node("Mul", ["memory", "half"], ["decayed"]),
        helper.make_node("Add", ["decayed", "m"], ["memory_out"]),
    ]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [3], [0, 1, 2])]
    constants += [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in (("white", 255.0), ("four", 4.0), ("half", 0.5))]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, (T, SIZE, SIZE, 3))
    memory, logits, memory_out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3)) for name in ("memory", "logits", "memory_out"))
    graph = helper.make_graph(nodes, "mean_colour", [frames, memory], [logits, memory_out], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def _reference(subclips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    memory = np.full(3, INITIAL)
    logits, memories = [], []
    for subclip in subclips:
        m = subclip.reshape(-1, 3).mean(axis=0) / 255
        logits.append(4 * m - memory)
        memory = memory / 2 + m
        memories.append(memory)
    return np.array(logits), np.array(memories)


@pytest.fixture(scope="session")
def reference() -> Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """What the bundle's model computes, in numpy float64: `(S, T, H, W, 3)` to logits `(S, 3)` and memories `(S, 3)`."""
    return _reference


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle. Tests that change it take `copied_bundle`."""
    folder = tmp_path_factory.mktemp("bundle") / "colour.clipstep"
    folder.mkdir()
    model, golden = folder / "model.onnx", folder / "golden.safetensors"
    _write_onnx(model)
    subclips = np.random.default_rng(0).integers(0, 256, (3, T, SIZE, SIZE, 3), np.uint8)
    logits, memories = (values.astype(np.float32) for values in _reference(subclips))
    GoldenSteps(subclips, logits, {"memory": memories[:, None]}).save(golden)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="colour",
        input=Input(shape=(T, SIZE, SIZE, 3), dtype="uint8", mean=(0, 0, 0), std=(255, 255, 255), fps=25),
        states=(State(name="memory", shape=(1, 3), dtype="float32", initial=INITIAL),),
        outputs=("logits", "memory_out"),
        labels=LABELS,
        artifacts=(
            Artifact(
                target="onnx",
                platform="any",
                form="3d",
                precision="float32",
                file=model.name,
                size_bytes=tree_size(model),
                sha256=tree_sha256(model),
                tool_versions={"onnx": onnx.__version__},
                placement=Placement(delegated={}, not_delegated=()),
                input_dtype="uint8",
                parity=Parity(reference="numpy", steps=3, max_absolute_error=0, max_relative_error=0, bound="exact"),
            ),
        ),
        golden=Golden(file=golden.name, size_bytes=tree_size(golden), sha256=tree_sha256(golden)),
        provenance=RunProvenance(kind="run", source="by hand", weights_sha256="0" * 64, config={}, architecture="mean", training={}),
        export=Export(clipstep_version="0"),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return folder


@pytest.fixture
def copied_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copy.clipstep"))


@pytest.fixture
def edit_manifest(copied_bundle: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Changes the copied bundle's manifest: `edit_manifest(lambda values: values.update(name="x"))` gives the bundle."""

    def edit(change: Callable[[dict[str, Any]], Any]) -> Path:
        values = json.loads((copied_bundle / "manifest.json").read_text())
        change(values)
        (copied_bundle / "manifest.json").write_text(json.dumps(values))
        return copied_bundle

    return edit


@pytest.fixture
def model(bundle_path: Path) -> Iterator[StepModel]:
    with StepModel.load(bundle_path) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def clip() -> Path:
    """A real video."""
    return VIDEOS / "Fight/v_Fight_g02_c01.mp4"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`start("run", BUNDLE, VIDEO)` runs the command line here and gives its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["clipstep", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    """`write_video(frames, name, rate, codec)` writes `(N, H, W, 3)` uint8 frames and gives the path."""

    def write(frames: np.ndarray, name: str = "written.mp4", rate: int = 25, codec: str = "libx264") -> Path:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / name

    return write


@pytest.fixture
def damaged_video(write_video: Callable[..., Path]) -> Path:
    """Twelve frames, of which the packets after the eighth are noise."""
    path = write_video(np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8), "damaged.mp4")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in packets[8:]:
        data[place : place + size] = b"\x00" * size
    path.write_bytes(data)
    return path
