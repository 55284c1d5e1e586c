"""The function that compares two files of records. It needs no more than a base install, as its command."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipstep.benchmarks.comparison.limits import checked_limits, read_limits
from clipstep.benchmarks.comparison.records import Source
from clipstep.benchmarks.comparison.result import Comparison
from clipstep.benchmarks.comparison.verdicts import compare_sources
from clipstep.benchmarks.records import Record
from clipstep.benchmarks.report import read_records
from clipstep.runtime.errors import ClipstepError


def compare(
    a: Path | str | Sequence[Record],
    b: Path | str | Sequence[Record],
    *,
    limits: Path | str | Mapping[str, float] | None = None,
    relative_to: str | None = None,
) -> Comparison:
    """Compare records ``b`` with records ``a``: which configurations are faster or slower, by how much, and of which that cannot be told.

    Of each configuration that both hold it gives the ratio of the medians with an interval. The intervals of all configurations hold together
    with a probability of 95 %. They are of what changes within a run; a record file to which several runs were appended gives intervals that also
    cover what changes from run to run. ARM64 instructions are exact, and compared as they are.

    Example:
        ```python
        comparison = compare("before.jsonl", "after.jsonl", limits={"*, 1 thread": 1.1})
        for each in comparison.configurations:
            print(each.name, each.ratio, each.interval, each.verdict)
        assert not comparison.above_limits
        ```

    Args:
        a: A file that ``clipstep bench --out`` wrote, or what `bench` returned.
        b: The same, of what is compared with ``a``.
        limits: The largest ratio allowed, by patterns of the configurations' names, or the JSON file that holds them. The parts of a pattern
            between commas match parts of a name; the first pattern that matches a name applies.
        relative_to: The name of a configuration, such as ``"naive rank-5 ONNX"``, that was measured beside the others in both. Step times are then
            compared relative to its own in the same turns, so that a computer that was slower as a whole makes no difference.

    Raises:
        ClipstepError: There is no such file, or it holds something else than records, or none; the two have no configuration in common; the limits
            are malformed, or one of them is for no configuration.
    """
    allowed, limits_source = None, "limits"
    if isinstance(limits, Path | str):
        allowed, limits_source = read_limits(Path(limits)), str(limits)
    elif limits is not None:
        allowed = checked_limits(limits, limits_source)
    return compare_sources(_source(a, "a"), _source(b, "b"), allowed, limits_source, relative_to)


def _source(records: Path | str | Sequence[Record], name: str) -> Source:
    if isinstance(records, Path | str):
        timed, counted, *_ = read_records(Path(records))
        source = Source(str(records), timed, counted)
    else:
        source = Source(name, tuple(records), ())
    if not source.timed and not source.counted:
        raise ClipstepError(f"{source.name}: holds no record", expected="times or counts, which clipstep bench --out wrote")
    return source
