"""Other runtimes as engines: each loads the rank-5 ONNX of a network, or what its own converter made of it."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.errors import ClipstepError


@dataclass(frozen=True)
class Sources:
    """The inputs of a converter: a bundle and the network behind it, its rank-5 ONNX, and a folder to write to."""

    bundle: Path
    network: NetworkSource
    onnx: Path
    folder: Path


@dataclass(frozen=True)
class Peer:
    """Another runtime: its distributions and modules, how its file is made, and how that is loaded with a number of threads."""

    distributions: tuple[str, ...]
    libraries: tuple[str, ...]
    convert: Callable[[Sources], Path]
    load: Callable[[Path, int], Engine]
    form: str = "3d"
    precision: str = "float32"


class OpenVino:
    """OpenVINO on the CPU, one stream, float32 but for what the file has in int8."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.model: Any = openvino.Core().compile_model(str(path), "CPU", settings)
        self._request = self.model.create_infer_request()
        self._names = [value.any_name for value in self.model.inputs]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        outputs = self._request.infer(dict(zip(self._names, inputs, strict=True)), share_inputs=True)
        return [np.array(outputs[output]) for output in self.model.outputs]

    def close(self) -> None:
        del self._request, self.model


class Mnn:
    """MNN on the CPU, float32."""

    def __init__(self, path: Path, threads: int) -> None:
        import MNN.expr
        import MNN.nn
        import onnx

        graph = onnx.load(path.with_suffix(".onnx"), load_external_data=False).graph
        self._expr = MNN.expr
        self._shapes = [tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) for value in graph.output]
        self._runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
        self._module: Any = MNN.nn.load_module_from_file(
            str(path), [value.name for value in graph.input], [value.name for value in graph.output], runtime_manager=self._runtime
        )

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        expr = self._expr
        values = [expr.const(value, list(value.shape), expr.NCHW, expr.uint8 if value.dtype == np.uint8 else expr.float) for value in inputs]
        outputs = self._module.onForward(values)
        return [np.array(expr.convert(output, expr.NCHW).read()).reshape(shape) for output, shape in zip(outputs, self._shapes, strict=True)]

    def close(self) -> None:
        self._module = None


class Ncnn:
    """ncnn on the CPU, float32. Frames are passed as float32, because it has no uint8 inputs."""

    def __init__(self, path: Path, threads: int) -> None:
        import ncnn

        self._ncnn = ncnn
        self._net: Any = ncnn.Net()
        self._net.opt.num_threads = threads
        self._net.opt.use_fp16_packed = self._net.opt.use_fp16_storage = self._net.opt.use_fp16_arithmetic = False
        if self._net.load_param(str(path)) or self._net.load_model(str(path.with_suffix(".bin"))):
            raise ClipstepError("ncnn cannot load what pnnx wrote", got=_complaints(path))

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        extractor = self._net.create_extractor()
        for name, value in zip(self._net.input_names(), inputs, strict=True):
            extractor.input(name, self._ncnn.Mat(np.ascontiguousarray(value.astype(np.float32).squeeze(0) if len(value) == 1 else value, np.float32)))
        return [np.array(extractor.extract(name)[1])[None] for name in self._net.output_names()]

    def close(self) -> None:
        self._net = None


def _as_onnx(sources: Sources) -> Path:
    return sources.onnx


def _int8_artifact(sources: Sources) -> Path:
    """Return the bundle's ONNX artifact of int8: OpenVINO computes in int8 what lies between its QuantizeLinear and DequantizeLinear."""
    bundle = Bundle.open(sources.bundle)
    found = next((artifact for artifact in bundle.artifacts("onnx") if artifact.precision == "int8"), None)
    if found is None:
        raise ClipstepError("the bundle has no int8 artifact of ONNX", fix="export it with --target onnx --precision float32 --precision int8")
    return bundle.folder() / found.file


def _to_mnn(sources: Sources) -> Path:
    """Convert with MNN's own converter, called directly: its Python module ``MNN.tools`` installs packages when it is imported."""
    import _tools

    path = sources.onnx.with_suffix(".mnn")
    with contextlib.redirect_stdout(io.StringIO()):
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(sources.onnx), "--MNNModel", str(path), "--bizCode", "MNN"])
    return path


def _to_ncnn(sources: Sources) -> Path:
    import pnnx
    import torch

    from clipstep.export.reference import reference_program

    program = reference_program(Bundle.open(sources.bundle), sources.network)
    inputs = (program.frames.float(), *program.states.values())
    trace: Any = torch.jit.trace
    with torch.no_grad():
        trace(program.step, inputs).save(str(sources.folder / "step.pt"))
    shapes = ",".join(f"{list(value.shape)}f32".replace(" ", "") for value in inputs)
    done = subprocess.run(
        [pnnx.EXEC_PATH, "step.pt", f"inputshape={shapes}", "fp16=0"], cwd=sources.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    path = sources.folder / "step.ncnn.param"
    path.with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode or not path.is_file():
        raise ClipstepError("pnnx cannot convert the network", got=_complaints(path))
    return path


def _complaints(path: Path) -> str:
    lines = path.with_suffix(".log").read_text(encoding="utf-8").splitlines()
    return "; ".join(dict.fromkeys(line for line in lines if "not supported" in line)) or "no reason given"


PEERS = {
    "openvino": Peer(("openvino",), ("openvino",), _as_onnx, OpenVino),
    "openvino-int8": Peer(("openvino",), ("openvino",), _int8_artifact, OpenVino, form="lowered", precision="int8"),
    "mnn": Peer(("MNN",), ("MNN.expr", "MNN.nn", "onnx"), _to_mnn, Mnn),
    "ncnn": Peer(("ncnn", "pnnx"), ("ncnn",), _to_ncnn, Ncnn),
}


def convert(name: str, sources: Sources) -> Path:
    """Convert the network for a peer, and return its file. It runs in a process of its own, because converters print and some end the process.

    Raises:
        ClipstepError: the conversion fails.
    """
    task = [name, str(sources.bundle), json.dumps(sources.network.values()), str(sources.onnx), str(sources.folder)]
    done = subprocess.run([sys.executable, "-P", "-m", __name__, *task], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["it ended without a message"]
    if done.returncode:
        raise ClipstepError(f"{name} cannot convert the network", got=lines[-1])
    return Path(lines[-1])


def main() -> None:
    """Convert for one peer and print the path of its file."""
    name, bundle, network, onnx, folder = sys.argv[1:]
    try:
        print(PEERS[name].convert(Sources(Path(bundle), NetworkSource(**json.loads(network)), Path(onnx), Path(folder))))
    except (ClipstepError, ImportError) as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
