"""The process that makes and exports one network, so that its peak of memory is its own and whatever ends it does not end the others.

It reads a task as JSON from standard input, and writes the outcome as JSON to standard output. Run as a module: ``python -m``.
"""

import os
import resource
import sys
import time
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from clipstep.benchmarks.rounding import SUBCLIPS, float32_error
from clipstep.benchmarks.zoo.entries import Entry
from clipstep.benchmarks.zoo.outcome import Exported
from clipstep.benchmarks.zoo.weights import fill
from clipstep.export.adapters import adapted
from clipstep.export.factory import load_network, network_of_factory
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.step import program_of
from clipstep.network.count import count_parameters
from clipstep.network.preprocess import normalise
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.targets import TARGETS

FPS = 25.0
FRAMES_FOR_STATISTICS = 16
"""How many frames at once a network with states is given, because the statistics of a single frame are not those of a video."""


class Task(BaseModel):
    """What to export: an entry, a video for its statistics and golden steps, and the files to write."""

    entry: Entry
    video: Path
    weights: Path
    bundle: Path
    targets: tuple[str, ...] = tuple(TARGETS)


def export_entry(task: Task) -> Exported:
    """Make the network, write its weights and its bundle, and return what that cost. What fails is in the outcome.

    Raises:
        ClipstepError: the network cannot be made.
    """
    entry = task.entry
    with quiet():
        spec = _spec(entry, task)
        started, failed = time.monotonic(), dict[str, str]()
        try:
            result = export_network(spec, task.bundle, ExportOptions(targets=task.targets, stream=entry.stream, keep_going=True), force=True)
            failed = {target: str(error) for target, error in result.failed.items()}
        except ClipstepError as error:
            failed = dict.fromkeys(task.targets, str(error))
        seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Exported(
            input=entry.input,
            seconds=seconds,
            peak_bytes=peak,
            parameters=count_parameters(spec.module),
            weights_bytes=sum(tensor.numel() * tensor.element_size() for tensor in spec.module.state_dict().values()),
            float32_error=float32_error(program_of(spec), spec.sample[:SUBCLIPS]),
            failed=failed,
        )


def _spec(entry: Entry, task: Task) -> NetworkSpec:
    network = load_network(entry.factory)
    frames = max(entry.frames, FRAMES_FOR_STATISTICS) if hasattr(network, "initial_states") else entry.frames
    subclips = read_subclips(task.video, frames, entry.size)[:SUBCLIPS]
    pixels = subclips.float().flatten(0, 3)
    mean, std = tuple(pixels.mean(0).tolist()), tuple(pixels.std(0).tolist())
    fill(adapted(network, entry.adapters, entry.frames, entry.size), normalise(subclips, mean, std), entry.classes)
    _save(network.state_dict(), task.weights)
    return network_of_factory(
        entry.factory,
        frames=entry.frames,
        size=entry.size,
        labels=[f"class {number}" for number in range(1, entry.classes + 1)],
        mean=mean,
        std=std,
        fps=FPS,
        weights=task.weights,
        video=task.video,
        adapters=entry.adapters,
    )


def _save(weights: dict[str, Tensor], path: Path) -> None:
    """Write the weights; one that an interruption leaves behind has another name."""
    partial = path.with_suffix(".partial")
    torch.save(weights, partial)
    partial.replace(path)


def main() -> None:
    """Export the network that standard input names."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Converters print to standard output, which is for the answer.
    task = Task.model_validate_json(sys.stdin.read())
    try:
        outcome = export_entry(task)
    except ClipstepError as error:
        sys.exit(f"error: {error}")
    print(outcome.model_dump_json(), file=answers, flush=True)


if __name__ == "__main__":
    main()
