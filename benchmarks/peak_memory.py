"""The peak memory of an artifact, measured in a process of its own, which this module is, too: `python -m clipstep.benchmarks.peak_memory`."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from clipstep.benchmarks.worker import memory_bytes
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.engines import engine_info, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.openmp import environment_for_timing

STEPS = 3
MARK = "peak memory: "
"""What the line with the number begins with; engines may print others."""


def peak_memory_bytes(engine: str, file: Path, interface: Interface) -> int:
    """Return the peak memory of a process that loads a file and runs steps on one thread, over what it had with the engine's libraries alone.

    Raises:
        ClipstepError: the file does not run.
    """
    command = [sys.executable, "-P", "-m", "clipstep.benchmarks.peak_memory", engine, str(file.absolute())]
    done = subprocess.run(command, input=interface.model_dump_json(), capture_output=True, text=True, env=environment_for_timing())
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not said:
        last = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
        raise ClipstepError(f"the memory of {file.name} cannot be measured", got=last)
    return int(said[-1].removeprefix(MARK))


def main() -> None:
    """Measure the file that the arguments name, whose interface is read from standard input, and print its peak memory in bytes."""
    engine, path = sys.argv[1:]
    interface = Interface.model_validate_json(sys.stdin.read())
    importlib.import_module(engine_info(engine).module)
    before = memory_bytes("VmRSS")
    with StepModel(interface, load_engine(engine, Path(path), 1), path) as model:
        frames, states = np.zeros(interface.input.shape, interface.input.dtype), model.initial_states()
        for _ in range(STEPS):
            _, states = model.step(frames, states)
        print(f"{MARK}{memory_bytes('VmHWM') - before}", flush=True)


if __name__ == "__main__":
    main()
