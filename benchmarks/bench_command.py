"""``clipstep bench``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from clipstep.benchmarks.arm64.ceilings import ceilings_text, check_ceilings, read_ceilings
from clipstep.benchmarks.arm64.kit import Kit
from clipstep.benchmarks.arm64.measure import arm64_step, count_bundle
from clipstep.benchmarks.arm64.processor import CPU, Processor
from clipstep.benchmarks.arm64.table import KEY, instruction_table, operator_table, processor_lines
from clipstep.benchmarks.comparison.command import compare_command
from clipstep.benchmarks.latency import bench_bundle
from clipstep.benchmarks.options import ROUNDS, STEPS, BenchOptions, thread_counts
from clipstep.benchmarks.output import append_records, record_table, whole_stream_lines
from clipstep.benchmarks.phone import phone_command
from clipstep.benchmarks.profile import check_plot, plot_bars, profile_bundle, profile_table
from clipstep.benchmarks.records import InstructionRecord, ProfileRecord, Record
from clipstep.benchmarks.whole_stream import check_video
from clipstep.export.network_source import NetworkSource, given_network, network_options
from clipstep.runtime.bundle import MANIFEST, Bundle, open_for_command
from clipstep.runtime.bundle.recording import check_recordable, record_arm64
from clipstep.runtime.command_line.options import Command, OutputFile, import_quietly, signer_option
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.wording import counted

ARM64 = "arm64"

GROUPS = {
    "The network behind it": ("run", "model", "weights", "no_reference"),
    "What to measure": ("threads", "rounds", "steps", "video"),
    "Operators": ("profile", "force"),
    "Instructions on ARM64": ("arch", "cpu", "operators", "record", "ceilings"),
    "Where": ("out",),
}
"""The headings of the options in the help."""
JOBS: dict[str, Command] = {"phone": phone_command, "compare": compare_command}
"""Commands of their own under `clipstep bench`."""


class WithJobs(Command):
    """A command that hands ``clipstep bench phone ...`` and the like to `JOBS`, and otherwise takes its first argument as a bundle."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        if args and args[0] in JOBS:
            return JOBS[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text("clipstep bench phone measures on a phone: clipstep bench phone --help.")
        formatter.write_paragraph()
        formatter.write_text("clipstep bench compare compares two files of records: clipstep bench compare --help.")


@click.command("bench", cls=WithJobs, groups=GROUPS, needs=[("force", "profile")])
@click.argument("bundle", type=click.Path(path_type=Path))
@network_options
@signer_option
@click.option("--no-reference", is_flag=True, help="Measure the artifacts alone, which is also what happens without --run and --model.")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1 and 2]")
@click.option("--rounds", type=click.IntRange(1), help="How often the configurations take turns. [default: 20]")
@click.option("--steps", type=click.IntRange(1), help="Steps in each turn [default: 5]; with --arch, golden steps to run [default: all].")
@click.option("--pause", type=click.FloatRange(0), help="Milliseconds to wait before each step, as a live stream does. [default: 0]")
@click.option("--spinning", is_flag=True, help="Also measure onnxruntime with threads that wait busily between steps, its own default.")
@click.option(
    "--video", type=click.Path(path_type=Path), help="Also measure the whole stream of this video: decoding, resizing and steps, in as many threads."
)
@click.option("--arch", help="arm64: count the instructions of a step on ARM64 under QEMU, in place of measuring this computer.")
@click.option("--cpu", help=f"With --arch: the processor that QEMU emulates, such as a53 for cortex-a53. [default: {CPU}]")
@click.option("--operators", is_flag=True, help="With --arch: also count each operator.")
@click.option(
    "--profile", type=OutputFile(), help="Profile each operator of a step: print a table for each artifact, and plot them to this file, .png or .svg."
)
@click.option("--record", is_flag=True, help="With --arch: record the counts in the bundle's manifest.")
@click.option("--ceilings", type=click.Path(path_type=Path), help="With --arch: fail if a count is above its ceiling in this JSON file.")
@click.option("--out", type=OutputFile(), help="Append the records to this file, one JSON object a line.")
@click.option("--force", is_flag=True, help="Replace an older plot of --profile.")
def bench_command(
    bundle: Path,
    run: Path | None,
    model: str | None,
    weights: Path | None,
    signer: Path | None,
    no_reference: bool,
    threads: tuple[int, ...],
    rounds: int | None,
    steps: int | None,
    pause: float | None,
    spinning: bool,
    video: Path | None,
    arch: str | None,
    cpu: str | None,
    operators: bool,
    profile: Path | None,
    record: bool,
    ceilings: Path | None,
    out: Path | None,
    force: bool,
) -> None:
    """Measure BUNDLE's artifacts on this computer; given --run or --model, beside PyTorch eager and the naive rank-5 ONNX of that network."""
    network = given_network(run, model, weights)
    if no_reference and network is not None:
        raise ClipstepError(f"--no-reference leaves out the network that {'--run' if run else '--model'} gives", fix="leave one of them out")
    if arch is not None and (spinning or pause or video):
        raise ClipstepError("--pause, --spinning and --video are for measuring time", expected=f"neither beside --arch {ARM64}: it counts one thread")
    _check_options(arch, threads, rounds, operators or record or ceilings is not None or cpu is not None)
    if profile is not None and arch is None:
        _check_profile(
            threads,
            {
                "--rounds": rounds is not None,
                "--run or --model": network is not None,
                "--pause": bool(pause),
                "--spinning": spinning,
                "--video": video is not None,
            },
        )
    if profile is not None:
        click.get_current_context().with_resource(write_lock(profile))
        check_plot(profile, "--profile", force=force)
    allowed = None if ceilings is None else read_ceilings(ceilings)
    threads = thread_counts(threads or None)
    opened, console = click.get_current_context().with_resource(open_for_command(bundle, signer)), new_console()
    if record:
        check_recordable(opened)
    if video is not None:
        check_video(opened, video)
    if network is not None:
        check_network(opened, network)
    elif not no_reference and profile is None:
        console.print(
            f"{opened.path.name}: its artifacts alone; PyTorch and naive ONNX beside them with --run RUN or --model FACTORY", soft_wrap=True
        )
    if profile is not None and arch is None:
        append_records(out, _profile(opened, profile, steps or ROUNDS, threads[0], console), console)
        return
    if arch is None:
        append_records(
            out, _measure(opened, network, BenchOptions(threads, rounds or ROUNDS, steps or STEPS, pause or 0, spinning, video), console), console
        )
    else:
        counts = _count(opened, network, steps, cpu or CPU, operators or profile is not None, record, console)
        append_records(out, counts, console)
        if profile is not None:
            plot_bars({r.configuration.name: _millions_by_kind(r) for r in counts}, "M instructions", profile)
            console.print(f"wrote {profile}", soft_wrap=True)
        if ceilings is not None and allowed is not None:
            console.print(f"ceilings by these counts:\n{ceilings_text(counts)}", soft_wrap=True, highlight=False)
            check_ceilings(counts, allowed, ceilings)


def _check_options(arch: str | None, threads: Sequence[int], rounds: int | None, of_counts: bool) -> None:
    if arch not in (None, ARM64):
        raise ClipstepError("unknown architecture", got=arch, expected=ARM64, fix="leave --arch out to measure this computer")
    if arch is None and of_counts:
        raise ClipstepError("--cpu, --operators, --record and --ceilings are for counts", expected=f"--arch {ARM64} beside them")
    if arch is not None and (threads or rounds):
        raise ClipstepError("--threads and --rounds are for measuring time", expected=f"neither beside --arch {ARM64}: it counts one thread")


def _check_profile(threads: Sequence[int], ignored: Mapping[str, bool]) -> None:
    """Refuse options that a profile would ignore: it covers the artifacts alone, with one thread count."""
    names = [name for name, asked in ignored.items() if asked]
    if names:
        raise ClipstepError(
            "--profile measures the operators of the artifacts and nothing beside them", got=" and ".join(names), fix="measure without --profile"
        )
    if len(threads) > 1:
        raise ClipstepError("--profile takes one thread count", got=", ".join(map(str, threads)), fix="profile once for each")


def _measure(bundle: Bundle, network: NetworkSource | None, options: BenchOptions, console: Console) -> list[Record]:
    records = bench_bundle(bundle, network, options, console)
    device, steps = records[0].device, len(records[0].step_ms)
    console.print(
        f"{records[0].bundle} on {device.cpu_model}, {counted(device.cores, 'core')}; {counted(steps, 'step')} each, taking turns", soft_wrap=True
    )
    print_table(console, record_table(records))
    for line in whole_stream_lines(records):
        console.print(line, soft_wrap=True)
    return records


def _profile(bundle: Bundle, picture: Path, steps: int, threads: int, console: Console) -> list[ProfileRecord]:
    profiles = profile_bundle(bundle, steps, threads)
    for each in profiles:
        print_table(console, profile_table(each))
    plot_bars({f"{each.configuration.name} in {each.configuration.engine}": each.by_kind() for each in profiles}, "ms", picture)
    console.print(f"medians of {counted(steps, 'step')}, threads {threads}; wrote {picture}", soft_wrap=True)
    return profiles


def _millions_by_kind(record: InstructionRecord) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for operator in record.operators:
        sums[operator.kind] += operator.instructions / 1e6
    return dict(sums)


def _count(
    bundle: Bundle, network: NetworkSource | None, steps: int | None, cpu: str, operators: bool, record: bool, console: Console
) -> list[InstructionRecord]:
    kit = Kit.open()
    processor = Processor.read(kit.path, cpu)
    if record and processor.name != CPU:
        raise ClipstepError(f"--record notes counts of {CPU} in the manifest", got=f"--cpu {cpu}", fix="leave one of them out, or write --out")
    records = count_bundle(bundle, network, console, steps=steps, operators=operators, kit=kit, processor=processor)
    first = records[0]
    console.print(f"{first.bundle} on ARM64 ({first.cpu_model} in {first.emulator}), one thread: instructions of a step, not time", soft_wrap=True)
    print_table(console, instruction_table(records))
    for line in (KEY, *processor_lines(records)):
        console.print(line, soft_wrap=True)
    for each in records if operators else ():
        print_table(console, operator_table(each))
    if record:
        record_arm64(bundle, {r.configuration.name: arm64_step(r) for r in records if r.artifact_sha256})
        console.print(f"noted in {bundle.path / MANIFEST}")
    return records


def check_network(bundle: Bundle, network: NetworkSource) -> None:
    """Check that the network is the one behind the bundle, before anything is measured.

    The module that reads the network is imported here, when it is needed, because importing it takes seconds.

    Raises:
        ClipstepError: it does not exist, or is another one.
    """
    import_quietly("clipstep.export.reference")
    from clipstep.export.reference import reference_network

    reference_network(bundle, network)
