"""The function of clipstep.benchmarks: what a bundle costs on this computer."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from clipstep.benchmarks.latency import Plan, bench_bundle, check_engines
from clipstep.benchmarks.records import Record
from clipstep.export.network_source import given_network
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import check_threads
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.terminal import new_console


def bench(
    bundle: Path | str,
    *,
    run: Path | str | None = None,
    model: str | None = None,
    weights: Path | str | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 20,
    steps: int = 5,
    pause_ms: float = 0,
    spinning: bool = False,
) -> list[Record]:
    """Measures the artifacts of a bundle, each in a process of its own, taking turns so that a noisy computer hits all alike.

    Example:
        ```python
        for record in bench("fight.clipstep", threads=[1]):
            print(record.subject.name, record.percentile_ms(50), "ms")
        ```

    Given the network behind it, the folder of a ``run`` or a factory ``model="package.module:factory"`` with its ``weights``, PyTorch and the
    naive rank-5 ONNX are measured beside them; their processes have to make it anew, so that a module in memory will not do.

    Each of ``threads`` (1 and 2 unless given) is measured for ``rounds`` turns of ``steps`` steps, with ``pause_ms`` milliseconds before
    each step, as a live stream waits. With ``spinning`` onnxruntime is also measured with threads that wait busily.

    Raises:
        ClipstepError: an artifact's engine is not installed; something does not load, or computes something else than the golden steps.
    """
    network = given_network(None if run is None else Path(run), model, None if weights is None else Path(weights))
    for name, value in (("rounds", rounds), ("steps", steps)):
        if value < 1:
            raise ClipstepError(f"{name} is a whole number", got=value, expected="at least 1")
    counts = tuple(dict.fromkeys(threads if threads is not None else (1, min(2, available_cores()))))
    if not counts or min(counts) < 1:
        raise ClipstepError("threads are whole numbers", got=counts, expected="at least one, none below 1")
    check_threads(max(counts))
    with Bundle.open(Path(bundle)) as opened:
        left_out = check_engines(opened)
        if left_out:
            file, reason = next(iter(left_out.items()))
            raise ClipstepError(f"{file} cannot be measured: {reason}")
        return bench_bundle(opened, network, Plan(counts, rounds, steps, pause_ms, spinning), new_console(quiet=True), nullcontext)
