"""Compare two files of records: each configuration that both hold, with a verdict."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from clipstep.benchmarks.comparison.limits import limits_by_name
from clipstep.benchmarks.comparison.records import Source, check_one_artifact, differences, is_the_same_program, pair, runs_of
from clipstep.benchmarks.comparison.result import ComparedConfiguration, Comparison, Verdict
from clipstep.benchmarks.comparison.statistics import BLOCKS, CONFIDENCE, RESAMPLES, SEED, interval_of, median_of
from clipstep.benchmarks.records import InstructionRecord, Record
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

Pairs = Mapping[str, tuple[Sequence[Record], Sequence[Record]]]
CountedPairs = Mapping[str, tuple[Sequence[InstructionRecord], Sequence[InstructionRecord]]]


def compare_sources(
    a: Source,
    b: Source,
    limits: Mapping[str, float] | None = None,
    limits_source: str = "limits",
    relative_to: str | None = None,
) -> Comparison:
    """Compare the records of `b` with those of `a`; `clipstep.benchmarks.compare` says what the arguments are.

    Raises:
        ClipstepError: the files have no configuration in common, or hold what cannot be compared; a limit has no effect.
    """
    timed, *timed_alone = pair(a.timed, b.timed)
    counts, *counted_alone = pair(a.counted, b.counted)
    only_a, only_b = (tuple({**one, **other}) for one, other in zip(timed_alone, counted_alone, strict=True))
    if not timed and not counts:
        got = f"{listed(only_a)} in {a.name}; {listed(only_b)} in {b.name}"
        raise ClipstepError("no configuration is in both files", got=got, fix="measure the same artifacts, engines and threads")
    references = {name: both for name, both in timed.items() if both[0][0].configuration.name == relative_to}
    timed = {name: both for name, both in timed.items() if name not in references}
    if relative_to is not None and not timed:
        raise ClipstepError(
            f"nothing was measured beside {relative_to} in both files", got=listed(tuple(counts)) or relative_to, fix="leave --relative-to out"
        )
    rows = [*_times(timed, a, b, relative_to), *_counts(counts, a, b)]
    allowed = {} if limits is None else limits_by_name(limits, [row.name for row in rows], limits_source)
    return Comparison(
        a=a.name,
        b=b.name,
        configurations=tuple(replace(row, limit=allowed.get(row.name)) for row in rows),
        only_in_a=only_a,
        only_in_b=only_b,
        notes=(*_differences(timed, counts), *_cautions(rows, timed, references)),
        confidence=CONFIDENCE,
        method=_method(len(timed), relative_to),
    )


def _times(pairs: Pairs, a: Source, b: Source, relative_to: str | None) -> list[ComparedConfiguration]:
    rows = []
    for name, (one, other) in pairs.items():
        check_one_artifact(name, one, a.name)
        check_one_artifact(name, other, b.name)
        before, after = (median_of(runs_of(name, records, source, relative_to)) for records, source in ((one, a), (other, b)))
        interval = interval_of(before, after, len(pairs))
        rows.append(
            ComparedConfiguration(
                name=name,
                unit="ms" if relative_to is None else f"times {relative_to}",
                a=math.exp(before.log),
                b=math.exp(after.log),
                ratio=math.exp(after.log - before.log),
                interval=interval,
                verdict=_verdict(interval),
                runs=(len(one), len(other)),
            )
        )
    return rows


def _verdict(interval: tuple[float, float] | None) -> Verdict:
    if interval is None or interval[0] <= 1 <= interval[1]:
        return "cannot tell"
    return "slower" if interval[0] > 1 else "faster"


def _counts(pairs: CountedPairs, a: Source, b: Source) -> list[ComparedConfiguration]:
    """Compare the counts of instructions as they are; of a file to which several were appended, the last."""
    rows = []
    for name, (one, other) in pairs.items():
        check_one_artifact(name, one, a.name)
        check_one_artifact(name, other, b.name)
        before, after = (records[-1].step.instructions for records in (one, other))
        for count, source in ((before, a), (after, b)):
            if count <= 0:
                raise ClipstepError(f"{source.name}: {name}: its count is no measurement", got=count, expected="instructions of a step")
        verdict: Verdict = "equal" if before == after else "more" if after > before else "fewer"
        rows.append(ComparedConfiguration(name, "instructions", before, after, after / before, None, verdict, (len(one), len(other))))
    return rows


def _differences(timed: Pairs, counts: CountedPairs) -> list[str]:
    """Return what differs between the files beside the measurements, each with the configurations that it is true of."""
    found = {name: differences(*both) for name, both in timed.items()} | {name: differences(*both) for name, both in counts.items()}
    names: dict[str, list[str]] = defaultdict(list)
    for name, differing in found.items():
        for what in differing:
            names[what].append(name)
    return [what if len(where) == len(found) else f"{'; '.join(where)}: {what}" for what, where in names.items()]


def _cautions(rows: Sequence[ComparedConfiguration], timed: Pairs, references: Pairs) -> list[str]:
    """Return what the intervals do not cover. `references` are those of the configuration that the others are relative to."""
    found = [
        f"{name}, which others are relative to, is not the same file, device and versions in both: the ratios are also of what changed in it"
        for name, both in references.items()
        if not is_the_same_program(*both)
    ]
    times = [row for row in rows if row.name in timed]
    unknown = [row.name for row in times if row.interval is None]
    if unknown:
        found.append(f"{'; '.join(unknown)}: one run of a single turn has no interval; measure more rounds")
    if not references and any(1 in row.runs for row in times):
        found.append(
            "the intervals of one run do not cover what changes from run to run, such as other work on the computer: "
            "run A and B in turns, appending three runs or more to each file, or compare with --relative-to"
        )
    unchanged = [row.name for row in times if row.verdict != "cannot tell" and not references and is_the_same_program(*timed[row.name])]
    if unchanged:
        found.append(
            f"{'; '.join(unchanged)}: the same file, device and versions in both, and yet different: the computer itself was slower or faster, "
            "or clipstep's own code is another"
        )
    for row in rows:
        if row.name not in timed and max(row.runs) > 1:
            found.append(f"{row.name}: of several counts in a file the last is compared")
    return found


def _method(comparisons: int, relative_to: str | None) -> str:
    """Say how the intervals were computed."""
    if not comparisons:
        return "instructions are exact, and compared as they are"
    of = "medians" if relative_to is None else f"medians, each relative to that of {relative_to} in the same turns"
    together = f"hold for all {comparisons} configurations together (Bonferroni)" if comparisons > 1 else "are of one configuration"
    return (
        f"ratios of {of}; the {CONFIDENCE:.0%} intervals {together}; Welch's t, with the variance of a run from {RESAMPLES} resamples "
        f"of its turns in up to {BLOCKS} blocks (seed {SEED}), and of several runs from their medians"
    )
