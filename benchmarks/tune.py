"""``clipstep export --tune``: measure the cost of a step in each variant of an artifact."""

import platform as machine
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from clipstep.benchmarks.arm64.emulate import emulate
from clipstep.benchmarks.arm64.kit import Kit
from clipstep.benchmarks.arm64.measure import check_emulated, first_steps
from clipstep.benchmarks.arm64.processor import CPU, Processor
from clipstep.benchmarks.peak_memory import peak_memory_bytes
from clipstep.export.choosing import Measured
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.engines import ENGINES, engine_of, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.model import StepModel
from clipstep.runtime.wording import either

ROUNDS, STEPS, WARM_UP_ROUNDS = 20, 3, 2
COUNTED_STEPS = 2


def tune(
    platform: str, target: str, precision: str, files: Mapping[str, Path], interface: Interface, golden: GoldenSteps
) -> tuple[str, dict[str, Measured]]:
    """Return the unit, and the cost of a step and the peak memory of each file in its engine with one thread.

    For ``x86_64`` the cost is the 10th percentile of step times in milliseconds, since disturbances only make a step slower; the files take turns.
    For ``arm64`` the cost is the number of instructions under QEMU, in millions, and what a file computes there in the first steps is compared with
    the golden ones, because the engines have other kernels for ARM64. Memory is that of this computer for either.

    Raises:
        ClipstepError: this computer is no x86_64, or has no ARM64 engines; a file does not run.
    """
    info = engine_of(target)
    if info is None:
        raise ClipstepError(
            f"{target} cannot be tuned", got="no engine on this computer runs it", expected=either([e.target for e in ENGINES.values()])
        )
    engine = info.name
    if platform == "arm64":
        unit, found = "M ARM64 instructions", _count(engine, precision, files, interface, golden)
    elif machine.machine() not in ("x86_64", "AMD64"):
        raise ClipstepError("--tune times x86_64 on an x86_64 processor", got=machine.machine(), fix="tune it on such a computer")
    else:
        unit, found = "ms", _time(engine, files, interface, golden)
    return unit, {name: replace(one, peak_memory_bytes=peak_memory_bytes(engine, files[name], interface)) for name, one in found.items()}


def _count(engine: str, precision: str, files: Mapping[str, Path], interface: Interface, golden: GoldenSteps) -> dict[str, Measured]:
    kit, few = Kit.open(), first_steps(golden, COUNTED_STEPS)
    processor, found = Processor.read(kit.path, CPU), {}
    for name, file in files.items():
        emulated = emulate(kit, processor, engine, file, interface, few)
        fault = None
        try:
            check_emulated(emulated, "it", precision, interface, few)
        except ClipstepError as error:
            fault = str(error)
        found[name] = Measured(emulated.counts[-1].instructions / 1e6, fault=fault)
    return found


def _time(engine: str, files: Mapping[str, Path], interface: Interface, golden: GoldenSteps) -> dict[str, Measured]:
    models = {name: StepModel(interface, load_engine(engine, file, 1), name) for name, file in files.items()}
    frames = golden.subclips[0].astype(interface.input.dtype, copy=False)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARM_UP_ROUNDS + ROUNDS):
        for name, model in models.items():
            states = model.initial_states()
            for _ in range(STEPS):
                begin = time.perf_counter()
                _, states = model.step(frames, states)
                if turn >= WARM_UP_ROUNDS:
                    times[name].append((time.perf_counter() - begin) * 1e3)
    for model in models.values():
        model.close()
    return {name: Measured(float(np.percentile(values, 10))) for name, values in times.items()}
