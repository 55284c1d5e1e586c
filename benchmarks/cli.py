"""``clipstep bench``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from clipstep.benchmarks.arm64.ceilings import ceilings_text, check_ceilings, read_ceilings
from clipstep.benchmarks.arm64.measure import arm64_step, count_bundle
from clipstep.benchmarks.arm64.table import KEY, instruction_table, operator_table
from clipstep.benchmarks.latency import Plan, bench_bundle
from clipstep.benchmarks.phone import WithPhone
from clipstep.benchmarks.profile import check_picture, draw, profile_bundle, profile_table
from clipstep.benchmarks.records import InstructionRecord, Record, naive_ms, record_lines
from clipstep.export.network_source import NetworkSource, given_network, network_options
from clipstep.runtime.bundle import MANIFEST, Bundle, opened_for
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import check_threads
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.lock import one_writer
from clipstep.runtime.options import NewFile, import_quietly, signer_option
from clipstep.runtime.recording import check_recordable, record_arm64
from clipstep.runtime.terminal import new_console, new_table, print_table
from clipstep.runtime.wording import counted

ARM64 = "arm64"
ROUNDS, STEPS = 20, 5

GROUPS = {
    "The network behind it": ("run", "model", "weights", "no_reference"),
    "How much": ("threads", "rounds", "steps"),
    "Operators": ("profile", "force"),
    "Instructions on ARM64": ("arch", "operators", "record", "ceilings"),
    "Where": ("out",),
}
"""The headings of the options in the help."""


@click.command("bench", cls=WithPhone, groups=GROUPS, needs=[("force", "profile")])
@click.argument("bundle", type=click.Path(path_type=Path))
@network_options
@signer_option
@click.option("--no-reference", is_flag=True, help="Measure the artifacts alone, without PyTorch and naive ONNX, as without --run and --model.")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1 and 2]")
@click.option("--rounds", type=click.IntRange(1), help="How often the configurations take turns. [default: 20]")
@click.option("--steps", type=click.IntRange(1), help="Steps a turn [default: 5]; with --arch, how many golden steps [default: all].")
@click.option("--pause", type=click.FloatRange(0), help="Milliseconds to wait before each step, as a live stream does. [default: 0]")
@click.option("--spinning", is_flag=True, help="Also measure onnxruntime with threads that wait busily between steps, its own default.")
@click.option("--arch", help="arm64: count the instructions of a step on ARM64 under QEMU, in place of measuring this computer.")
@click.option("--operators", is_flag=True, help="With --arch: also what each operator costs.")
@click.option("--profile", type=NewFile(), help="What each operator of a step takes: a table an artifact, and this picture, .png or .svg.")
@click.option("--record", is_flag=True, help="With --arch: note the counts in the bundle's manifest.")
@click.option("--ceilings", type=click.Path(path_type=Path), help="With --arch: fail if a count is above its ceiling in this JSON file.")
@click.option("--out", type=NewFile(), help="Append the records to this file, one JSON object a line.")
@click.option("--force", is_flag=True, help="Replace an older picture of --profile.")
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
    arch: str | None,
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
    if arch is not None and (spinning or pause):
        raise ClipstepError("--pause and --spinning are for measuring time", expected=f"neither beside --arch {ARM64}: it counts one thread")
    _check_options(arch, threads, rounds, operators or record or ceilings is not None)
    if profile is not None and arch is None:
        _check_profile(
            threads,
            {
                "--out": out is not None,
                "--rounds": rounds is not None,
                "--run or --model": network is not None,
                "--pause": bool(pause),
                "--spinning": spinning,
            },
        )
    if profile is not None:
        click.get_current_context().with_resource(one_writer(profile))
        check_picture(profile, "--profile", force=force)
    allowed = None if ceilings is None else read_ceilings(ceilings)
    threads = tuple(dict.fromkeys(threads or (1, min(2, available_cores()))))
    check_threads(max(threads))
    opened, console = click.get_current_context().with_resource(opened_for(bundle, signer)), new_console()
    if record:
        check_recordable(opened)
    if network is not None:
        check_network(opened, network)
    elif not no_reference and profile is None:
        console.print(
            f"{opened.path.name}: its artifacts alone; PyTorch and naive ONNX beside them with --run RUN or --model FACTORY", soft_wrap=True
        )
    if profile is not None and arch is None:
        _profile(opened, profile, steps or ROUNDS, threads[0], console)
        return
    if arch is None:
        append(out, _measure(opened, network, Plan(threads, rounds or ROUNDS, steps or STEPS, pause or 0, spinning), console), console)
    else:
        counts = _count(opened, network, steps, operators or profile is not None, record, console)
        append(out, counts, console)
        if profile is not None:
            draw({r.subject.name: _millions_by_kind(r) for r in counts}, "M instructions", profile)
            console.print(f"wrote {profile}", soft_wrap=True)
        if ceilings is not None and allowed is not None:
            console.print(f"ceilings by these counts:\n{ceilings_text(counts)}", soft_wrap=True, highlight=False)
            check_ceilings(counts, allowed, ceilings)


def _check_options(arch: str | None, threads: Sequence[int], rounds: int | None, of_counts: bool) -> None:
    if arch not in (None, ARM64):
        raise ClipstepError("unknown architecture", got=arch, expected=ARM64, fix="leave --arch out to measure this computer")
    if arch is None and of_counts:
        raise ClipstepError("--operators, --record and --ceilings are for counts", expected=f"--arch {ARM64} beside them")
    if arch is not None and (threads or rounds):
        raise ClipstepError("--threads and --rounds are for measuring time", expected=f"neither beside --arch {ARM64}: it counts one thread")


def _check_profile(threads: Sequence[int], ignored: Mapping[str, bool]) -> None:
    """A profile is a table and a picture of the artifacts, with one thread count: what else was asked for would be ignored."""
    names = [name for name, asked in ignored.items() if asked]
    if names:
        raise ClipstepError(f"--profile writes no records and measures nothing beside the artifacts; got {' and '.join(names)}", fix="measure apart")
    if len(threads) > 1:
        raise ClipstepError("--profile takes one thread count", got=", ".join(map(str, threads)), fix="profile once for each")


def _measure(bundle: Bundle, network: NetworkSource | None, plan: Plan, console: Console) -> list[Record]:
    records = bench_bundle(bundle, network, plan, console)
    device, steps = records[0].device, len(records[0].step_ms)
    console.print(
        f"{records[0].bundle} on {device.cpu_model}, {counted(device.cores, 'core')}; {counted(steps, 'step')} each, taking turns", soft_wrap=True
    )
    print_table(console, record_table(records))
    return records


def _profile(bundle: Bundle, picture: Path, steps: int, threads: int, console: Console) -> None:
    profiles = profile_bundle(bundle, steps, threads)
    for each in profiles:
        print_table(console, profile_table(each))
    draw({f"{each.name} in {each.engine}": each.by_kind() for each in profiles}, "ms", picture)
    console.print(f"medians of {counted(steps, 'step')}, threads {threads}; wrote {picture}", soft_wrap=True)


def _millions_by_kind(record: InstructionRecord) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for operator in record.operators:
        sums[operator.kind] += operator.instructions / 1e6
    return dict(sums)


def _count(
    bundle: Bundle, network: NetworkSource | None, steps: int | None, operators: bool, record: bool, console: Console
) -> list[InstructionRecord]:
    records = count_bundle(bundle, network, console, steps=steps, operators=operators)
    first = records[0]
    console.print(f"{first.bundle} on ARM64 ({first.cpu_model} in {first.emulator}), one thread: instructions of a step, not time", soft_wrap=True)
    print_table(console, instruction_table(records))
    console.print(KEY, soft_wrap=True)
    for each in records if operators else ():
        print_table(console, operator_table(each))
    if record:
        record_arm64(bundle, {r.subject.name: arm64_step(r) for r in records if r.artifact_sha256})
        console.print(f"noted in {bundle.path / MANIFEST}")
    return records


def append(out: Path | None, records: Sequence[BaseModel], console: Console) -> None:
    if out is None:
        return
    with out.open("ab", buffering=0) as file:  # At once: lines of another process that appends to it come before or after.
        file.write(record_lines(records).encode())
    console.print(f"{counted(len(records), 'record')} appended to {out}")


def check_network(bundle: Bundle, network: NetworkSource) -> None:
    """Checks before anything is measured that the network is the one behind the bundle; importing what reads it takes seconds.

    Raises:
        ClipstepError: it is not there, or is another one.
    """
    import_quietly("clipstep.export.reference")
    from clipstep.export.reference import reference_network

    reference_network(bundle, network)


def record_table(records: Sequence[Record]) -> Table:
    """A row a record; with ``cpu ms``, the processor time of all threads a step, where steps were paused or threads spun."""
    processor = any(r.pause_ms or r.subject.spinning for r in records)
    timed = ("p50\nms", "p90\nms", *(["cpu\nms"] if processor else []))
    table = new_table("what runs", "threads", *timed, "times\nnaive", "x real\ntime", "load\ns", "first\nms", "peak\n+MB", "file\nMB")
    naive = naive_ms(records)
    for r in records:
        ratio = f"{naive[r.subject.threads] / r.percentile_ms(50):.2f}" if naive else "-"
        table.add_row(
            r.subject.name,
            str(r.subject.threads),
            f"{r.percentile_ms(50):.2f}",
            f"{r.percentile_ms(90):.2f}",
            *([f"{r.processor_ms:.1f}" if r.processor_ms is not None else "-"] if processor else []),
            ratio,
            f"{r.real_time_factor:.0f}",
            f"{r.start.load_s:.2f}",
            f"{r.start.first_step_ms:.0f}",
            f"{(r.peak_memory_bytes - r.memory_before_load_bytes) / 1e6:.0f}",
            f"{r.file_bytes / 1e6:.1f}" if r.file_bytes else "-",
        )
    return table
