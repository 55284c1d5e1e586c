"""The process that measures one configuration: it loads the configuration, then runs steps on request. ``clipstep bench`` starts it.

It reads one JSON task and then numbers of steps from standard input, and answers each line with one line of JSON.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipstep.benchmarks.peers.engines import PEERS
from clipstep.benchmarks.records import ColdStart, Configuration
from clipstep.benchmarks.whole_stream import WholeStream
from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.engines import ENGINES, load_engine
from clipstep.runtime.golden import GoldenSteps, error_at
from clipstep.runtime.model import StepModel


class Eager:
    """The network itself in PyTorch as an engine, eager or ``compiled`` by torch.compile."""

    def __init__(self, bundle: Bundle, network: NetworkSource, threads: int, *, compiled: bool) -> None:
        import torch

        from clipstep.export.reference import reference_program

        torch.set_num_threads(threads)
        step = reference_program(bundle, network).step
        self._step: Callable[..., Any] = torch.compile(step) if compiled else step

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        import torch

        with torch.inference_mode():
            return [output.numpy() for output in self._step(*(torch.from_numpy(value) for value in inputs))]

    def close(self) -> None:
        del self._step


LIBRARIES: dict[str, Sequence[str]] = {
    "pytorch": ["clipstep.export.step"],
    "torch.compile": ["clipstep.export.step"],
    **{name: [info.module] for name, info in ENGINES.items()},
    **{name: peer.libraries for name, peer in PEERS.items()},
}
"""The modules of each engine. They are imported before memory is measured, because they do not count as the model's memory."""


def load(configuration: Configuration, bundle: Bundle, network: NetworkSource | None) -> StepModel:
    """Load a configuration as a step model, whatever engine runs it."""
    if configuration.is_artifact:
        return StepModel.load(
            bundle.path, configuration.engine, configuration.threads, spinning=configuration.spinning, precision=configuration.precision
        )
    engine: Engine
    if configuration.target == "pytorch":
        assert network is not None
        engine = Eager(bundle, network, configuration.threads, compiled=configuration.engine == "torch.compile")
    elif configuration.engine in PEERS:
        engine = PEERS[configuration.engine].load(Path(str(configuration.file)), configuration.threads)
    else:
        engine = load_engine(configuration.engine, Path(str(configuration.file)), configuration.threads)
    return StepModel(bundle.manifest.interface("uint8"), engine, configuration.name)


def threads_used(configuration: Configuration) -> int:
    """Return the number of threads that the engine reports; most engines report none, and use the number that they were given."""
    if configuration.target == "pytorch":
        import torch

        return torch.get_num_threads()
    info = ENGINES.get(configuration.engine)
    return configuration.threads if info is None or info.threads_used is None else info.threads_used()


def memory_bytes(key: str) -> int:
    """Return this process' memory in bytes: the current one with ``key`` ``"VmRSS"``, its peak with ``"VmHWM"``."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Serve one configuration until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Some engines print to standard output, which is for the answers.
    task = json.loads(sys.stdin.readline())
    configuration = Configuration.model_validate(task["configuration"])
    bundle = Bundle.open(task["bundle"])
    network = NetworkSource(**task["network"]) if task["network"] else None
    golden = GoldenSteps.of(bundle)
    for library in LIBRARIES[configuration.engine]:
        importlib.import_module(library)
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    model = load(configuration, bundle, network)
    loaded = time.perf_counter()
    logits, states = model.step(golden.subclips[0], model.initial_states())
    first = time.perf_counter()
    cold_start = ColdStart(
        load_s=loaded - started,
        first_step_ms=(first - loaded) * 1e3,
        threads_used=threads_used(configuration),
        largest_error=error_at("logits", 0, golden.logits[0], logits) / golden.scale("logits"),
    )
    print(json.dumps({"cold_start": cold_start.model_dump(), "memory_before_load_bytes": before}), file=answers, flush=True)
    stream = None if configuration.video is None else WholeStream(model, Path(configuration.video), configuration.threads)
    position = 1
    for line in sys.stdin:
        times, processor, parts = [], [], []
        for _ in range(int(line)):
            frames = golden.subclips[position % len(golden.subclips)]
            used = time.process_time()
            time.sleep(task["pause_ms"] / 1e3)
            begin = time.perf_counter()
            if stream is None:
                logits, states = model.step(frames, states)
            else:
                parts.append(stream.subclip().model_dump())
            times.append((time.perf_counter() - begin) * 1e3)
            processor.append((time.process_time() - used) * 1e3)
            position += 1
        answer = {"step_ms": times, "processor_ms": processor, "parts": parts, "peak_memory_bytes": memory_bytes("VmHWM")}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
