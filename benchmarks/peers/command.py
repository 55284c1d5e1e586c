"""``clipstep peers``: the same network and frames in other runtimes, side by side with a bundle's artifacts."""

import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from clipstep.benchmarks.cli import append, check_network, record_table
from clipstep.benchmarks.latency import NAIVE, Plan, as_trained, measure, subjects_of, write_naive
from clipstep.benchmarks.peers.engines import PEERS, Sources, convert
from clipstep.benchmarks.records import Record, Subject
from clipstep.export.network_source import given_network, network_options
from clipstep.runtime.bundle import Bundle, opened_for
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import check_threads
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install import install_extra
from clipstep.runtime.options import NewFile, command, signer_option
from clipstep.runtime.terminal import new_console, print_table
from clipstep.runtime.wording import counted

GEMM, GEMM_ROUNDS = 1024, 12
"""Rows and columns of the matrices, and how often they are multiplied."""


@command("peers")
@click.argument("bundle", type=click.Path(path_type=Path))
@network_options
@signer_option
@click.option("--peer", "names", multiple=True, type=click.Choice(list(PEERS)), help="May be given several times. [default: all]")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1 and 2]")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=5, show_default=True, type=click.IntRange(1), help="Steps a turn.")
@click.option("--out", type=NewFile(), help="Append the records to this file, one JSON object a line.")
def peers_command(
    bundle: Path,
    run: Path | None,
    model: str | None,
    weights: Path | None,
    signer: Path | None,
    names: tuple[str, ...],
    threads: tuple[int, ...],
    rounds: int,
    steps: int,
    out: Path | None,
) -> None:
    """Measure BUNDLE's artifacts beside the same network in PyTorch, torch.compile, onnxruntime, OpenVINO, MNN and ncnn.

    Each runs in a process of its own, taking turns; what does not load, or computes other numbers, is named and not timed.
    """
    network, names = given_network(run, model, weights), names or tuple(PEERS)
    _check_installed(names)
    if network is None:
        raise ClipstepError("other runtimes convert the network behind the bundle", got="none", fix="give --run RUN, or --model FACTORY")
    threads = tuple(dict.fromkeys(threads or (1, min(2, available_cores()))))
    check_threads(max(threads))
    opened, console = click.get_current_context().with_resource(opened_for(bundle, signer)), new_console()
    check_network(opened, network)
    records: list[Record] = []
    refused: dict[str, str] = {}
    gemms: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="clipstep-peers-") as temporary:
        naive = write_naive(opened, network, Path(temporary) / "naive.onnx", console)
        files = _converted(names, Sources(opened.folder(), network, naive, Path(temporary)), refused)
        for count in threads:
            gemms[count] = gemm_rate(count)
            records += measure(_subjects(opened, naive, files, count), opened, network, Plan((count,), rounds, steps), console, refused)
    device = records[0].device
    console.print(
        f"{opened.path.name} on {device.cpu_model}, {counted(device.cores, 'core')}; {counted(rounds * steps, 'step')} each, taking turns",
        soft_wrap=True,
    )
    print_table(console, record_table(records))
    for count, rate in gemms.items():
        console.print(_limit(count, rate, opened.manifest.export.multiply_accumulates), soft_wrap=True)
    for name, reason in refused.items():
        console.print(f"not timed: {name}: {reason}", soft_wrap=True)
    tools = sorted({pair for record in records for pair in record.tool_versions.items()})
    console.print(", ".join(f"{tool} {number}" for tool, number in tools), soft_wrap=True)
    append(out, records, console)


def gemm_rate(threads: int) -> float:
    """Multiply-accumulates a second of PyTorch's product of two large float32 matrices: what this processor can do."""
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


def _limit(threads: int, rate: float, multiply_accumulates: int | None) -> str:
    least = (
        ""
        if multiply_accumulates is None
        else f", at which the step's {multiply_accumulates / 1e6:.0f} M take {multiply_accumulates / rate * 1e3:.2f} ms"
    )
    return f"a product of large matrices here: {rate / 1e9:.1f} G multiply-accumulates a second, threads {threads}{least}"


def _check_installed(names: tuple[str, ...]) -> None:
    missing = []
    for distribution in (d for name in names for d in PEERS[name].distributions):
        try:
            version(distribution)
        except PackageNotFoundError:
            missing.append(distribution)
    if missing:
        raise ClipstepError("peers are not installed", got=f"no {', '.join(missing)}", fix=f"{install_extra('peers')}, or choose with --peer")


def _converted(names: tuple[str, ...], sources: Sources, refused: dict[str, str]) -> dict[str, Path]:
    files = {}
    for name in names:
        try:
            files[name] = convert(name, sources)
        except ClipstepError as error:
            refused[name] = str(error)
    return files


def _subjects(bundle: Bundle, naive: Path, files: dict[str, Path], threads: int) -> list[Subject]:
    reference, *others = subjects_of(bundle, naive, threads)
    assert reference.name == NAIVE
    peers = [as_trained(name, name, name, threads, file) for name, file in files.items()]
    return [reference, as_trained("torch.compile", "pytorch", "torch.compile", threads), *peers, *others]
