"""One configuration in a process of its own: loads, then steps when told to. Not for users: ``clipstep bench`` starts it.

Reads one JSON task, then numbers of steps, from standard input; answers each line with one line of JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipstep.benchmarks.records import Start, Subject
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engines import Array, load_engine
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.model import StepModel


class Eager:
    """The network itself, in PyTorch, as an engine."""

    def __init__(self, run: Path, stream: int | None, threads: int) -> None:
        import torch

        from clipstep.export.step import program_of
        from clipstep.training.run import load_run

        torch.set_num_threads(threads)
        self._step = program_of(load_run(run), stream).step

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        import torch

        with torch.inference_mode():
            return [output.numpy() for output in self._step(*(torch.from_numpy(value) for value in inputs))]

    def close(self) -> None:
        del self._step


def load(subject: Subject, bundle: Bundle, run: str | None) -> StepModel:
    """The subject as a step model, whatever executes it."""
    if subject.engine == "pytorch":
        engine = Eager(Path(str(run)), bundle.manifest.provenance.stream_frames, subject.threads)
        return StepModel(bundle.manifest.interface("uint8"), engine, subject.name)
    if subject.form == "3d":
        return StepModel(bundle.manifest.interface("uint8"), load_engine(subject.engine, Path(str(subject.file)), subject.threads), subject.name)
    return StepModel.load(bundle.path, subject.engine, subject.threads)


def threads_used(subject: Subject) -> int:
    """What the engine says it uses; onnxruntime does not say, it is given the number for its session."""
    if subject.engine == "pytorch":
        import torch

        return torch.get_num_threads()
    if subject.engine == "executorch":
        from executorch.extension.pybindings import portable_lib

        return int(portable_lib._threadpool_get_thread_count())
    return subject.threads


def memory_bytes(key: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Serves one configuration until standard input ends."""
    task = json.loads(sys.stdin.readline())
    subject = Subject.model_validate(task["subject"])
    bundle = Bundle.open(task["bundle"])
    golden = GoldenSteps.of(bundle)
    if subject.engine == "pytorch":
        import clipstep.export.step  # noqa: F401  Its libraries do not count as the model's memory.
    elif subject.engine == "executorch":
        import executorch.extension.pybindings.portable_lib  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    model = load(subject, bundle, task["run"])
    loaded = time.perf_counter()
    logits, states = model.step(golden.subclips[0], model.initial_states())
    first = time.perf_counter()
    start = Start(
        load_s=loaded - started,
        first_step_ms=(first - loaded) * 1e3,
        threads_used=threads_used(subject),
        largest_error=float(np.abs(logits - golden.logits[0]).max() / max(1.0, np.abs(golden.logits[0]).max())),
    )
    print(json.dumps({"start": start.model_dump(), "memory_before_load_bytes": before}), flush=True)
    position = 1
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            frames = golden.subclips[position % len(golden.subclips)]
            begin = time.perf_counter()
            logits, states = model.step(frames, states)
            times.append((time.perf_counter() - begin) * 1e3)
            position += 1
        print(json.dumps({"step_ms": times, "peak_memory_bytes": memory_bytes("VmHWM")}), flush=True)


if __name__ == "__main__":
    main()
