"""The functions of clipstep.benchmarks: what a bundle costs on this computer, alone and beside other runtimes.

They print nothing and raise `ClipstepError`.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from clipstep.benchmarks.latency import bench_bundle, check_engines
from clipstep.benchmarks.options import ROUNDS, STEPS, BenchOptions, thread_counts
from clipstep.benchmarks.peers.comparison import PeersResult, compare_peers
from clipstep.benchmarks.peers.engines import PEERS
from clipstep.benchmarks.records import Record
from clipstep.benchmarks.whole_stream import check_video
from clipstep.export.network_source import given_network
from clipstep.export.reference import reference_network
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError


def bench(
    bundle: Path | str,
    *,
    run: Path | str | None = None,
    model: str | None = None,
    weights: Path | str | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    pause_ms: float = 0,
    spinning: bool = False,
    video: Path | str | None = None,
) -> list[Record]:
    """Measure the artifacts of a bundle. Each has a process of its own, and they take turns, so that noise on the computer affects all alike.

    If ``run`` or ``model`` gives the network behind the bundle, two more configurations are measured beside the artifacts: PyTorch, and the naive
    rank-5 ONNX, which is the network converted by torch.onnx without lowering. The network is built anew in another process, so a module in
    memory cannot be given.

    Example:
        ```python
        for record in bench("fight.clipstep", threads=[1]):
            print(record.configuration.name, record.percentile_ms(50), "ms")
        ```

    Args:
        bundle: The folder that ``clipstep export`` wrote, or a pack of it.
        run: The folder of the run that the bundle was exported from.
        model: Instead of ``run``, the factory of the network, ``"package.module:factory"``.
        weights: The file of the factory's weights, as it was given to the export.
        threads: The thread counts to measure with; 1 and, where there is a second core, 2 unless given.
        rounds: How often the configurations take turns.
        steps: Steps of a turn.
        pause_ms: Milliseconds to wait before each step, as a live stream does.
        spinning: Whether onnxruntime is also measured with threads that wait busily between steps.
        video: A video whose whole stream is measured, too: decoding, cropping and resizing, and steps, in as many threads.

    Returns:
        A record for each configuration and thread count.

    Raises:
        ClipstepError: An artifact's engine is not installed; something does not load, or computes something else than the golden steps; the
            network is not the one that the bundle was exported from; the value of an option is invalid; the video cannot be read, or is too short.
    """
    whole = None if video is None else Path(video)
    network, options = given_network(run, model, weights), BenchOptions(thread_counts(threads), rounds, steps, pause_ms, spinning, whole)
    with Bundle.open(Path(bundle)) as opened:
        left_out = check_engines(opened)
        if left_out:
            file, reason = next(iter(left_out.items()))
            raise ClipstepError(f"{file} cannot be measured: {reason}")
        if whole is not None:
            check_video(opened, whole)
        if network is not None:
            reference_network(opened, network)
        return bench_bundle(opened, network, options, new_console(quiet=True), nullcontext)


def bench_peers(
    bundle: Path | str,
    *,
    run: Path | str | None = None,
    model: str | None = None,
    weights: Path | str | None = None,
    peers: Sequence[str] = tuple(PEERS),
    threads: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    steps: int = STEPS,
) -> PeersResult:
    """Measure the artifacts of a bundle beside the same network in other runtimes, each in a process of its own, taking turns.

    The other runtimes convert the network behind the bundle, so that ``run`` or ``model`` has to be given, as to `bench`.

    Example:
        ```python
        result = bench_peers("own.clipstep", model="own:Network", weights="own.pt", peers=["openvino"], threads=[1])
        print(min(result.records, key=lambda record: record.percentile_ms(50)), result.not_measured)
        ```

    Args:
        bundle: The folder that ``clipstep export`` wrote, or a pack of it.
        run: The folder of the run that the bundle was exported from.
        model: Instead of ``run``, the factory of the network, ``"package.module:factory"``.
        weights: The file of the factory's weights, as it was given to the export.
        peers: The other runtimes, some of ``"openvino"``, ``"mnn"`` and ``"ncnn"``.
        threads: The thread counts to measure with; 1 and, where there is a second core, 2 unless given.
        rounds: How often the configurations take turns.
        steps: Steps of a turn.

    Raises:
        ClipstepError: No network is given, or another one than that behind the bundle; a peer is unknown or not installed; an artifact does
            not load, or computes something else than the golden steps.
    """
    network, options = given_network(run, model, weights), BenchOptions(thread_counts(threads), rounds, steps)
    with Bundle.open(Path(bundle)) as opened:
        return compare_peers(opened, network, peers, options, new_console(quiet=True), nullcontext)
