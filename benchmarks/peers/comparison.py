"""A bundle's artifacts beside the same network in other runtimes, measured in one run."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from clipstep.benchmarks.latency import NAIVE, ContextFactory, as_trained, configurations_of, measure_configurations, write_naive
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.peers.engines import PEERS, Sources, convert
from clipstep.benchmarks.records import Configuration, Record
from clipstep.export.network_source import NetworkSource
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra

GEMM, GEMM_ROUNDS = 1024, 12
"""The number of rows and columns of the matrices that `gemm_rate` multiplies, and how often it does."""


@dataclass(frozen=True)
class PeersResult:
    """What was measured of a bundle's artifacts and of the same network in other runtimes."""

    records: tuple[Record, ...]
    """The naive rank-5 ONNX, torch.compile, the other runtimes, PyTorch and the artifacts, for each thread count."""
    not_measured: dict[str, str]
    """What could not be converted or loaded, or computes something else than the golden steps: the reason for each, by name."""
    gemm_macs_per_s: dict[int, float]
    """For each thread count the multiply-accumulates a second of a product of large matrices in PyTorch: what this processor can do."""


def compare_peers(
    bundle: Bundle,
    network: NetworkSource | None,
    names: Sequence[str],
    options: BenchOptions,
    console: Console,
    library_context: ContextFactory = quiet,
) -> PeersResult:
    """Measure the artifacts of ``bundle`` beside the network behind it in the runtimes ``names``, each in a process of its own.

    The naive ONNX is written inside the context that `library_context` returns.

    Raises:
        ClipstepError: there is no network, or it is another one; a runtime is unknown or not installed.
    """
    _check_peers(names)
    if network is None:
        raise ClipstepError("other runtimes convert the network behind the bundle", got="none", fix="give --run RUN, or --model FACTORY")
    with library_context():
        from clipstep.export.reference import reference_network
    reference_network(bundle, network)
    records: list[Record] = []
    not_measured: dict[str, str] = {}
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="clipstep-peers-") as temporary:
        naive = write_naive(bundle, network, Path(temporary) / "naive.onnx", console, library_context)
        files = _converted(names, Sources(bundle.folder(), network, naive, Path(temporary)), not_measured)
        for count in options.threads:
            rates[count] = gemm_rate(count)
            configurations = _configurations(bundle, naive, files, count)
            records += measure_configurations(configurations, bundle, network, replace(options, threads=(count,)), console, not_measured)
    return PeersResult(tuple(records), not_measured, rates)


def gemm_rate(threads: int) -> float:
    """Return the multiply-accumulates a second of PyTorch's product of two large float32 matrices: what this processor can do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times = []
    try:
        a, b = (torch.ones(GEMM, GEMM) for _ in range(2))
        for _ in range(GEMM_ROUNDS):
            begin = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return GEMM**3 / min(times)


def _check_peers(names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ClipstepError("peers are a list of names", got=repr(names), expected=f"{[names]!r}")
    unknown = [name for name in names if name not in PEERS]
    if unknown or not names:
        raise ClipstepError("unknown peer", got=", ".join(map(str, unknown)) or "none", expected=f"some of {', '.join(PEERS)}")
    missing = []
    for distribution in (d for name in names for d in PEERS[name].distributions):
        try:
            version(distribution)
        except PackageNotFoundError:
            missing.append(distribution)
    if missing:
        raise ClipstepError("peers are not installed", got=f"no {', '.join(missing)}", fix=f"{install_extra('peers')}, or choose with --peer")


def _converted(names: Sequence[str], sources: Sources, not_measured: dict[str, str]) -> dict[str, Path]:
    files = {}
    for name in names:
        try:
            files[name] = convert(name, sources)
        except ClipstepError as error:
            not_measured[name] = str(error)
    return files


def _configurations(bundle: Bundle, naive: Path, files: dict[str, Path], threads: int) -> list[Configuration]:
    reference, *others = configurations_of(bundle, naive, threads)
    assert reference.name == NAIVE
    peers = [
        as_trained(name, name, name, threads, file).model_copy(update={"form": PEERS[name].form, "precision": PEERS[name].precision})
        for name, file in files.items()
    ]
    return [reference, as_trained("torch.compile", "pytorch", "torch.compile", threads), *peers, *others]
