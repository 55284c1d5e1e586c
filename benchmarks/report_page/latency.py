"""The sections of times: how long a step takes, and what a fast one costs in memory and exactness."""

from collections.abc import Sequence

from clipstep.benchmarks.records import Record, naive_ms
from clipstep.benchmarks.report_page.charts import SHOWN_STEPS, Lane, Point, box_plot, scatter
from clipstep.benchmarks.report_page.data import Report, memory_mb, name_of, name_without_threads
from clipstep.benchmarks.report_page.markup import Html, element, figure, joined, number, paragraph, table
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.wording import counted

FEW_STEPS = 100
"""Of fewer steps the 99th percentile is hardly more than the longest."""


def latency_body(report: Report) -> Html | None:
    """Return the distributions and the table for each device, or None if no time was measured."""
    parts = [part for device, records in report.devices().items() for part in _device(report, device, records)]
    return joined(parts) if parts else None


def cost_body(report: Report) -> Html | None:
    """Return latency against memory and, for artifacts, against parity error; None if no device has two configurations to compare."""
    parts = []
    for device, records in report.devices().items():
        fastest = _fastest(records)
        if len(fastest) > 1:
            pictures = [_memory_figure(fastest), *_error_figures(report, fastest)]
            parts += [*_heading(report, device), element("div", *pictures, class_="pair")]
    return joined(parts) if parts else None


def _heading(report: Report, device: str) -> list[Html]:
    return [element("h3", device)] if len(report.devices()) > 1 else []


def _fastest(records: Sequence[Record]) -> list[Record]:
    """Return of each configuration the record with the thread count, and the pause, that is fastest for it."""
    found: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=lambda record: record.percentile_ms(50)):
        found.setdefault((record.configuration.name, record.configuration.engine), record)
    return list(found.values())


def own(records: Sequence[Record]) -> list[Record]:
    """Return the records of the bundle's artifacts, as clipstep loads them."""
    return [record for record in records if record.configuration.is_plain]


def times_naive(record: Record, records: Sequence[Record]) -> float | None:
    """Return how many times as fast as the naive ONNX a configuration is, on the same device with as many threads; None if that was not measured."""
    naive = naive_ms([other for other in records if other.pause_ms == record.pause_ms])
    known = record.configuration.threads in naive and record.parts is None
    return naive[record.configuration.threads] / record.percentile_ms(50) if known else None


def _device(report: Report, device: str, records: Sequence[Record]) -> list[Html]:
    lanes = [Lane(_lane_label(record, records), record.step_ms, record.artifact_sha256 is not None) for record in records]
    steps = min(len(record.step_ms) for record in records)
    few = f" Of {counted(steps, 'step')}, p99 is hardly less than the longest." if steps < FEW_STEPS else ""
    explanation = (
        f"A dot is a step ({SHOWN_STEPS} at most are drawn), the box the middle half, the thick line the median; the thin line goes from p10 to p99. "
        f"Blue: the bundle's artifacts; grey: the same network without them.{few}"
    )
    picture = box_plot(f"Distribution of the step times on {device}", lanes, "milliseconds a step")
    return [*_heading(report, device), figure(_finding(records), picture, explanation, class_="boxes"), _table(device, records)]


def _lane_label(record: Record, beside: Sequence[Record]) -> str:
    return f"{name_of(record, beside)}: {record.percentile_ms(50):.1f} ms"


def _finding(records: Sequence[Record]) -> str:
    best = min(own(records) or records, key=lambda record: record.percentile_ms(50))
    ratio = times_naive(best, records)
    beside = f"{best.real_time_factor:.0f} times real time" if ratio is None else f"{ratio:.2f} times as fast as the naive export"
    return f"{name_of(best, records)} has the lowest median: {best.percentile_ms(50):.1f} ms a step, {beside}"


def _table(device: str, records: Sequence[Record]) -> Html:
    pauses = any(record.pause_ms for record in records)
    processor = pauses or any(record.configuration.spinning for record in records)
    headings = [
        *("what runs", "engine", "threads", "median, ms", "p90, ms", "p99, ms"),
        *(["processor, ms"] if processor else []),
        *("times naive", "times real time", "load, s", "first step, ms", "memory, MB", "file, MB", "steps"),
        *(["pause, ms"] if pauses else []),
    ]
    rows = [
        [
            r.configuration.name,
            r.configuration.engine,
            number(r.configuration.threads, 0),
            *(number(r.percentile_ms(percent), 2) for percent in (50, 90, 99)),
            *([number(r.processor_ms, 2)] if processor else []),
            number(times_naive(r, records), 2),
            number(r.real_time_factor),
            number(r.cold_start.load_s, 2),
            number(r.cold_start.first_step_ms),
            number(memory_mb(r)),
            number(None if r.file_bytes is None else r.file_bytes / 1e6, 2),
            number(len(r.step_ms), 0),
            *([number(r.pause_ms)] if pauses else []),
        ]
        for r in records
    ]
    explanation = (
        "Times naive: how many times as fast as the rank-5 ONNX of the same network in onnxruntime, with as many threads. Times real time: "
        "seconds of video for each second of work. Memory: the peak of the process beyond what it took before loading. "
        f"{'Processor: the time of a step in all threads. ' * processor}Each first step was compared with the golden steps before anything was timed."
    )
    return joined([table(f"Step times on {device}", headings, rows), paragraph(explanation, class_="note")])


def _memory_figure(records: Sequence[Record]) -> Html:
    points = [Point(name_without_threads(r, records), r.percentile_ms(50), memory_mb(r), r.artifact_sha256 is not None) for r in records]
    fast, small = (min(own(records) or records, key=key) for key in (lambda record: record.percentile_ms(50), memory_mb))
    finding = f"{fast.configuration.name} is the fastest, and takes the least memory: {memory_mb(fast):.0f} MB"
    if fast is not small:
        least = f"{small.configuration.name} takes the least memory ({memory_mb(small):.0f} MB)"
        finding = f"{fast.configuration.name} is the fastest ({memory_mb(fast):.0f} MB), {least}"
    picture = scatter("Median step time and peak memory of each configuration", points, ("median, milliseconds a step", "memory, MB"))
    return figure(finding, picture, "Lower left is better. Each with the thread count that is fastest for it.", class_="scatter")


def _error_figures(report: Report, records: Sequence[Record]) -> list[Html]:
    timed = [(r, report.artifacts[r.artifact_sha256]) for r in own(records) if r.artifact_sha256 in report.artifacts]
    errors = [(r, a) for r, a in timed if a.parity.max_relative_error > 0]
    if len({artifact.sha256 for _, artifact in errors}) < 2:
        return []
    points = [Point(name_without_threads(r, records), r.percentile_ms(50), a.parity.max_relative_error) for r, a in errors]
    margin = min(BOUNDS[a.precision] / a.parity.max_relative_error for _, a in errors)
    bounds = [(f"bound of {name}", value) for name, value in BOUNDS.items() if name in {a.precision for _, a in errors}]
    picture = scatter(
        "Median step time and parity error of each artifact", points, ("median, milliseconds a step", "error, share of range"), bounds=bounds
    )
    finding = f"Every timed artifact stays at least {margin:.0f} times below its bound"
    if margin < 2:
        finding = f"The largest error of a timed artifact is {1 / margin:.0%} of its bound"
    return [figure(finding, picture, "The largest error over the golden steps at export, as a share of the output's range.", class_="scatter")]
