"""``clipstep peers``: the same network and frames in other runtimes, side by side with a bundle's artifacts."""

from pathlib import Path

import click

from clipstep.benchmarks.options import ROUNDS, STEPS, BenchOptions, thread_counts
from clipstep.benchmarks.output import append_records, record_table
from clipstep.benchmarks.peers.comparison import compare_peers
from clipstep.benchmarks.peers.engines import PEERS
from clipstep.export.network_source import given_network, network_options
from clipstep.runtime.bundle import open_for_command
from clipstep.runtime.command_line.options import OutputFile, command, signer_option
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.wording import counted


@command("peers")
@click.argument("bundle", type=click.Path(path_type=Path))
@network_options
@signer_option
@click.option("--peer", "names", multiple=True, type=click.Choice(list(PEERS)), help="May be given several times. [default: all]")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1 and 2]")
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=STEPS, show_default=True, type=click.IntRange(1), help="Steps in each turn.")
@click.option("--out", type=OutputFile(), help="Append the records to this file, one JSON object a line.")
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
    network, options = given_network(run, model, weights), BenchOptions(thread_counts(threads or None), rounds, steps)
    opened, console = click.get_current_context().with_resource(open_for_command(bundle, signer)), new_console()
    result = compare_peers(opened, network, names or tuple(PEERS), options, console)
    device = result.records[0].device
    console.print(
        f"{opened.path.name} on {device.cpu_model}, {counted(device.cores, 'core')}; {counted(rounds * steps, 'step')} each, taking turns",
        soft_wrap=True,
    )
    print_table(console, record_table(result.records))
    for count, rate in result.gemm_macs_per_s.items():
        console.print(_limit(count, rate, opened.manifest.export.multiply_accumulates), soft_wrap=True)
    for name, reason in result.not_measured.items():
        console.print(f"not timed: {name}: {reason}", soft_wrap=True)
    tools = sorted({pair for record in result.records for pair in record.tool_versions.items()})
    console.print(", ".join(f"{tool} {number}" for tool, number in tools), soft_wrap=True)
    append_records(out, result.records, console)


def _limit(threads: int, rate: float, multiply_accumulates: int | None) -> str:
    """Return a sentence that says how long the step's arithmetic would take at the rate of a product of large matrices."""
    least = (
        ""
        if multiply_accumulates is None
        else f", at which the step's {multiply_accumulates / 1e6:.0f} M take {multiply_accumulates / rate * 1e3:.2f} ms"
    )
    return f"a product of large matrices here: {rate / 1e9:.1f} G multiply-accumulates a second, threads {threads}{least}"
