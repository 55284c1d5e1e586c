"""What to ship for which platform: chosen by `RULE` from what was measured, or said not to be measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipstep.benchmarks.arm64.processor import CPU
from clipstep.benchmarks.records import Record
from clipstep.benchmarks.report_page.data import Report, device_text, memory_mb
from clipstep.benchmarks.report_page.markup import Html, element, joined, paragraph
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.engines import engine_of
from clipstep.runtime.precision import FLOATS
from clipstep.runtime.target import DESTINATIONS, DestinationName
from clipstep.runtime.targets import TARGETS, targets_for
from clipstep.runtime.wording import counted, listed

EQUAL = 0.05
"""Medians that differ by no more than this share of the lowest count as equal."""
RULE = (
    "The rule: of the artifacts that run on a platform, the one with the lowest median step time on a device of that platform; medians within "
    f"{EQUAL:.0%} of the lowest count as equal, and of equals the one with the least memory is taken. Where no time was measured on Android, "
    "the fewest ARM64 instructions decide, which are not time. Otherwise none is chosen. Artifacts of lower precision than float16 are chosen only "
    "if their accuracy was evaluated and is not clearly below that of float32. "
    "Every artifact was compared with the golden steps when it was exported."
)
X86, ARM64 = ("x86_64", "amd64"), ("aarch64", "arm64", "arm64-v8a")
"""What devices call the two processors, in small letters."""


@dataclass(frozen=True)
class Platform:
    """A platform to ship to: its name, where its artifacts run, its processor as artifacts name it, and whether its devices are phones."""

    name: str
    destination: DestinationName
    machine: str
    phones: bool = False

    def has(self, record: Record) -> bool:
        """Whether the record was measured on such a device. Only Android phones are measured as phones."""
        names = X86 if self.machine == "x86_64" else ARM64
        if (record.phone is not None) != self.phones:
            return False
        return self.destination == "android" if self.phones else self.destination == "python" and record.device.machine.lower() in names


ANDROID = Platform("Android, ARM64", "android", "arm64", phones=True)
IOS = Platform("iOS", "ios", "arm64")
SERVER = Platform("Server, x86", "python", "x86_64")
COMPUTER = Platform("Computer, ARM64", "python", "arm64")
"""It is listed only if such a computer was measured."""
MEASURED = "time measured"
COUNTED = "counted, not timed"
NOT_MEASURED = "not measured here"
"""How it is known what to ship."""


@dataclass(frozen=True)
class Choice:
    """What to ship for a platform, and why."""

    platform: str
    evidence: str
    """How it is known: `MEASURED`, `COUNTED` or `NOT_MEASURED`."""
    artifact: Artifact | None
    why: str
    others: tuple[str, ...] = ()
    """The others that could be shipped, each with what is known of it."""
    threads: int | None = None


def choices(report: Report) -> list[Choice]:
    """Return what to ship, by `RULE`: for each platform one choice, or one for each device of it that was measured."""
    return [replace(choice, others=(*choice.others, *_doubts(report, platform))) for platform, choice in _choices(report)]


def _choices(report: Report) -> list[tuple[Platform, Choice]]:
    found = []
    for platform in (ANDROID, IOS, SERVER, COMPUTER):
        devices = [records for records in report.devices().values() if platform.has(records[0])]
        chosen = [choice for records in devices if (choice := _by_time(report, platform, records))]
        if not chosen and platform is not COMPUTER:
            chosen = [_by_instructions(report, platform) or _not_measured(report, platform)]
        found += [(platform, choice) for choice in chosen]
    return found


def _doubts(report: Report, platform: Platform) -> list[str]:
    """Return the artifacts that are not chosen because of their accuracy, each with the reason."""
    return [f"{artifact.file}: {doubt}" for artifact in _taken(report, platform) if (doubt := _doubt(artifact)) is not None]


def _doubt(artifact: Artifact) -> str | None:
    """Return why the accuracy of an artifact keeps it from being chosen; None if it does not."""
    if artifact.precision in FLOATS:
        return None
    against = None if artifact.accuracy is None else artifact.accuracy.against_float32
    if against is None:
        return "not chosen, because its accuracy was not compared with that of float32 (clipstep export --evaluate)"
    if against.top1_change_interval[1] < 0:
        return f"not chosen, because its top-1 is {-100 * against.top1_change:.1f} points below that of {against.file}"
    return None


def ship_body(report: Report) -> Html:
    """Return the content of the section: a card for each platform, and the rule."""
    cards = element("div", *map(_card, choices(report)), class_="cards")
    return joined([cards, paragraph(RULE, class_="note")])


def _card(choice: Choice) -> Html:
    threads = "" if choice.threads is None else f", {counted(choice.threads, 'thread')}"
    pick = choice.evidence if choice.artifact is None else f"{choice.artifact.file}{threads}"
    needs = [] if choice.artifact is None or choice.artifact.requires is None else [paragraph(f"It needs {choice.artifact.requires}.", class_="note")]
    kind = "none" if choice.artifact is None else "measured" if choice.evidence == MEASURED else "counted"
    return element(
        "div",
        element("h3", choice.platform),
        paragraph(pick, class_="pick"),
        *([] if choice.artifact is None else [paragraph(choice.evidence, class_=f"chip {kind}")]),
        paragraph(choice.why),
        *([element("ul", *(element("li", other) for other in choice.others))] if choice.others else []),
        *needs,
        class_="card",
    )


def _candidates(report: Report, platform: Platform) -> list[Artifact]:
    return [artifact for artifact in _taken(report, platform) if _doubt(artifact) is None]


def _taken(report: Report, platform: Platform) -> list[Artifact]:
    """Return the artifacts that the platform's runtimes take: of each target and precision the one for its processor, or else the one for any."""
    found: dict[tuple[str, str], Artifact] = {}
    for artifact in report.bundle.manifest.artifacts:
        if artifact.target in targets_for(platform.destination) and artifact.platform in (platform.machine, "any"):
            key = (artifact.target, artifact.precision)
            if key not in found or artifact.platform == platform.machine:
                found[key] = artifact
    return list(found.values())


def _by_time(report: Report, platform: Platform, records: Sequence[Record]) -> Choice | None:
    candidates = {artifact.sha256: artifact for artifact in _candidates(report, platform)}
    least_pause = min(record.pause_ms for record in records)
    timed = [r for r in records if r.artifact_sha256 in candidates and r.configuration.is_plain and r.pause_ms == least_pause]
    if not timed:
        return None
    lowest = min(record.percentile_ms(50) for record in timed)
    equal = [record for record in timed if record.percentile_ms(50) <= lowest * (1 + EQUAL)]
    best = min(equal, key=memory_mb)
    artifact = candidates[str(best.artifact_sha256)]
    why = f"The median step takes {_ms(best)} on {device_text(best)}: {best.real_time_factor:.0f} times real time."
    if best.percentile_ms(99) > best.subclip_s * 1000:
        lasts = f"a step's frames last {best.subclip_s * 1000:.0f} ms"
        why += f" It does not keep up with a live stream: p99 is {best.percentile_ms(99):.0f} ms, and {lasts}."
    fastest = {record.artifact_sha256: record for record in sorted(timed, key=lambda r: -r.percentile_ms(50))}  # The lowest comes last, and stays.
    others = []
    for sha256, one in candidates.items():
        if sha256 not in fastest:
            others.append(f"{one.file}: not measured there")
        elif one is not artifact:
            record = fastest[sha256]
            equal_too = f", which counts as equal, with {memory_mb(record):.0f} MB in place of {memory_mb(best):.0f} MB" * (record in equal)
            others.append(f"{one.file}: {_ms(record)}{equal_too}")
    return Choice(platform.name, MEASURED, artifact, why, tuple(others), best.configuration.threads)


def instructions(report: Report) -> dict[str, int]:
    """Return the ARM64 instructions of a step by the hash of the artifact: from the records or, where these have none, from the manifest.

    Those on `CPU`, whose counts the manifest holds, come before those on other processors.
    """
    noted = {sha256: a.arm64_step.instructions for sha256, a in report.artifacts.items() if a.arm64_step}
    return {
        **noted,
        **{r.artifact_sha256: r.step.instructions for r in sorted(report.counted, key=lambda r: r.cpu_model == CPU) if r.artifact_sha256 is not None},
    }


def _by_instructions(report: Report, platform: Platform) -> Choice | None:
    if platform is not ANDROID:
        return None
    counts = instructions(report)
    ranked = sorted((counts[a.sha256], a.file, a) for a in _candidates(report, platform) if a.sha256 in counts)
    if len(ranked) < 2:
        return None
    (least, _, artifact), *others = ranked
    why = f"It takes the fewest ARM64 instructions, {least / 1e6:.1f} M a step. They are not time: measure on a phone before you ship."
    return Choice(platform.name, COUNTED, artifact, why, tuple(f"{file}: {count / 1e6:.1f} M" for count, file, _ in others))


def _not_measured(report: Report, platform: Platform) -> Choice:
    candidates = _candidates(report, platform)
    if not candidates:
        return Choice(platform.name, NOT_MEASURED, None, f"The bundle holds no artifact that runs on {DESTINATIONS[platform.destination]}.")
    nowhere = list(dict.fromkeys(TARGETS[a.target].display_name for a in candidates if engine_of(a.target) is None))
    reason = f"{listed(nowhere)} runs on {DESTINATIONS[platform.destination]} only, so that no time was measured. " if nowhere else ""
    facts = tuple(
        f"{a.file}: {a.precision}, {a.size_bytes / 1e6:.1f} MB, largest error {a.parity.max_relative_error:.1e} of an output's range"
        for a in sorted(candidates, key=lambda a: a.size_bytes)
    )
    return Choice(platform.name, NOT_MEASURED, None, f"{reason}Measure on a device what could be shipped, the smallest first:", facts)


def _ms(record: Record) -> str:
    return f"{record.percentile_ms(50):.1f} ms"
