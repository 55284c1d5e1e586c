"""Run golden steps of an ONNX file in onnxruntime with one thread, while a QEMU plugin counts instructions.

It runs in an ARM64 Python that has NumPy and onnxruntime only.

usage: step_onnx.py FILE FOLDER STEPS [operators]

FOLDER/inputs.bin holds the subclips and then the initial states, raw. It runs STEPS steps of one stream and then the first step again; step i
takes subclip i modulo the number of subclips. FOLDER/outputs.bin gets every output of every step, raw. getppid is called before and after each
step, as a mark for the counter. With "operators", FOLDER/operators.json gets onnxruntime's profile; while it profiles, it reads the clock and calls
getpid for each operator, and the counter writes a mark at these calls.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def main(file: str, folder: Path, steps: int, operators: bool) -> None:
    """Run the steps."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling = operators
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    subclips, initial = _read(folder / "inputs.bin", session.get_inputs())
    names = [value.name for value in session.get_inputs()]
    states = initial
    with (folder / "outputs.bin").open("wb") as out:
        for step in range(steps + 1):
            if step == steps:
                step, states = 0, initial
            feed = dict(zip(names, [subclips[step % len(subclips)], *states], strict=True))
            os.getppid()
            outputs = session.run(None, feed)
            os.getppid()
            states = outputs[1 : 1 + len(initial)]  # Outputs that the export kept come after them.
            for value in outputs:
                out.write(value.tobytes())
    if operators:
        Path(session.end_profiling()).rename(folder / "operators.json")


def _read(path: Path, inputs: list[Any]) -> tuple[Any, list[Any]]:
    """Return the subclips ``(S, T, H, W, 3)`` and the initial states, in the shapes and types of the model's inputs."""
    given = np.frombuffer(path.read_bytes(), np.uint8)
    states: list[Any] = []
    for value in reversed(inputs[1:]):
        given, state = np.split(given, [given.size - int(np.prod(value.shape)) * np.dtype(TYPES[value.type]).itemsize])
        states.insert(0, state.view(TYPES[value.type]).reshape(value.shape))
    return given.view(TYPES[inputs[0].type]).reshape(-1, *inputs[0].shape), states


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4)
