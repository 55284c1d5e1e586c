"""Run steps of an artifact in its engine's ARM64 build under QEMU: their outputs and instruction counts."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipstep.benchmarks.arm64.kit import EMULATOR, HERE, Kit
from clipstep.benchmarks.arm64.marks import Mark, step_counts
from clipstep.benchmarks.arm64.operators import executorch_operators, onnxruntime_operators
from clipstep.benchmarks.arm64.processor import Processor
from clipstep.benchmarks.records import Counts, OperatorCount
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.io_check import expected_tensors


@dataclass(frozen=True)
class Emulated:
    """The results of N + 1 steps: N golden steps of one stream, then the first one again from the initial states."""

    outputs: list[list[Array]]
    """For each step, the logits ``(1, classes)``, the next states and the outputs that the export kept."""
    counts: list[Counts]
    """For each step, its instruction counts."""
    operators: tuple[OperatorCount, ...]
    """The operators of the last step with their counts; empty unless they were asked for."""


def emulate(
    kit: Kit, processor: Processor, engine: str, file: Path, interface: Interface, golden: GoldenSteps, *, operators: bool = False
) -> Emulated:
    """Run the golden steps on the artifact ``file``, on an emulated processor.

    Raises:
        ClipstepError: the engine does not load the file, or a step fails.
    """
    steps = len(golden.logits)
    with tempfile.TemporaryDirectory(prefix="clipstep-arm64-") as temporary:
        folder = Path(temporary)
        states = [np.full(state.shape, state.initial, state.dtype) for state in interface.states]
        inputs = [golden.subclips.astype(interface.input.dtype, copy=False), *states]
        (folder / "inputs.bin").write_bytes(b"".join(value.tobytes() for value in inputs))
        run_guest(
            kit,
            processor,
            [*GUESTS[engine].command(kit), file.absolute(), folder, steps, *(["operators"] if operators else [])],
            folder / "counts.txt",
            file.name,
        )
        marks = Mark.read(folder / "counts.txt")
        counted = GUESTS[engine].operators(folder, marks) if operators else ()
        return Emulated(_outputs(folder / "outputs.bin", interface), step_counts(marks), counted)


def run_guest(kit: Kit, processor: Processor, command: Sequence[object], counts: Path, name: str) -> None:
    """Run an ARM64 program under QEMU in the kit's folder; the counter writes its marks to the file ``counts``.

    Beside that file a folder ``root`` is made, which the program sees as the root of its system.

    Raises:
        ClipstepError: the program ends with an error.
    """
    root = counts.parent / "root"
    processor.make_root(kit.path, root)
    words = [EMULATOR, "-cpu", processor.name, "-plugin", "./counter.so", "-L", str(root), *map(str, command)]
    done = subprocess.run(
        words,
        executable=shutil.which(EMULATOR),
        cwd=kit.path,
        env={"CLIPSTEP_COUNTS": str(counts)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"code {done.returncode}, without a message"]
        raise ClipstepError(f"{name} does not run on ARM64", got=said[-1])


def _onnxruntime(kit: Kit) -> list[object]:
    return ["-E", "PYTHONPATH=site", "-E", "PYTHONDONTWRITEBYTECODE=1", "-E", "OMP_NUM_THREADS=1", kit.python, HERE / "step_onnx.py"]


def _executorch(kit: Kit) -> list[object]:
    return ["-E", "LD_LIBRARY_PATH=site/executorch/lib", "./step_executorch"]


@dataclass(frozen=True)
class Guest:
    """How the ARM64 build of an engine is run under QEMU."""

    command: Callable[[Kit], list[object]]
    """Returns QEMU's options and the program, which takes the file, a folder with ``inputs.bin`` and the number of steps."""
    operators: Callable[[Path, Sequence[Mark]], tuple[OperatorCount, ...]]
    """Reads what each operator of the last step cost."""


GUESTS = {
    "onnxruntime": Guest(_onnxruntime, onnxruntime_operators),
    "executorch": Guest(_executorch, executorch_operators),
}
"""For each engine, how its ARM64 build is run."""


def _outputs(path: Path, interface: Interface) -> list[list[Array]]:
    shapes = [shape for _, _, shape in expected_tensors(interface)[1]]
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes])
    steps = np.frombuffer(path.read_bytes(), np.float32).reshape(-1, int(sizes[-1]))
    return [[part.reshape(shape) for part, shape in zip(np.split(step, sizes[:-1]), shapes, strict=True)] for step in steps]
