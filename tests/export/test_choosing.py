"""What `--tune` chooses among precisions, within a budget or without, and what the Pareto front is: by hand-made measurements."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from clipstep.export import EvaluationData, ExportOptions
from clipstep.export.budget import parse_budget
from clipstep.export.choice_tables import choice_lines
from clipstep.export.choosing import Measured, NothingFitsError, TunedArtifact, best_variant, choose
from clipstep.runtime import ClipstepError
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.choice import Budget, Choice, MeasuredVariant
from clipstep.runtime.bundle.manifest import Accuracy, AgainstFloat32, Artifact, Tuning
from clipstep.runtime.bundle.pareto_front import pareto_front
from clipstep.runtime.command_line.terminal import new_console, print_table

UNIT = "M ARM64 instructions"
MEASURED = {
    "float32": {"gemm": (108.0, 2.5, 20), "direct": (146.0, 2.3, 18)},
    "float16": {"gemm": (64.0, 1.4, 12), "direct": (90.0, 1.3, 13)},
    "int8": {"direct": (50.0, 0.8, 9)},
}
"""By precision and variant, the cost of a step, the megabytes of the file, and those of memory."""


OFF = "it computes something else than the golden steps on ARM64"


def variant(name: str, cost: float, megabytes: float, memory: float | None, fault: str | None = None) -> MeasuredVariant:
    peak = None if memory is None else round(memory * 1e6)
    return MeasuredVariant(variant=name, cost=cost, size_bytes=round(megabytes * 1e6), peak_memory_bytes=peak, fault=fault)


def accuracy(lost: int | None, gained: int = 0) -> Accuracy:
    """Of 50 videos, so that one is two points; without a comparison if `lost` is None."""
    known = {"dataset": "d", "engine": "executorch", "videos": 50, "crops": 1, "top1": 0.5, "top5": None, "processor": "x86_64"}
    if lost is None:
        return Accuracy.model_validate(known)
    steps = {"steps": 50, "agreeing_steps": 48, "agreement_interval": (0.9, 1), "drift_steps": 9, "drift": ()}
    change = {"top1": 0.5, "top1_change": (gained - lost) / 50, "top1_change_interval": (-0.2, 0.1), "gained_videos": gained, "lost_videos": lost}
    return Accuracy.model_validate({**known, "against_float32": AgainstFloat32.model_validate({"file": "a", "engine": "e", **steps, **change})})


TEMPLATE = Artifact.model_validate(
    {
        **{"target": "executorch", "platform": "arm64", "form": "lowered", "precision": "float32", "file": "step.pte", "size_bytes": 1},
        **{"sha256": "0" * 64, "tool_versions": {}, "placement": {"delegated": {}, "not_delegated": ()}, "input_dtype": "uint8"},
        "parity": {"reference": "r", "steps": 1, "max_absolute_error": 0, "max_relative_error": 0, "bound": "b"},
    }
)


def tuned(
    accuracies: Mapping[str, Accuracy | None], budget: Budget | None = None, unit: Any = UNIT, memory: bool = True, faulty: tuple[str, ...] = ()
) -> list[TunedArtifact]:
    """An artifact of each precision, whose variant is chosen as an export does, and its measured variants."""
    made = list[TunedArtifact]()
    for precision, known in accuracies.items():
        variants = [
            variant(name, cost, size, peak if memory else None, OFF if f"{precision} {name}" in faulty else None)
            for name, (cost, size, peak) in MEASURED[precision].items()
        ]
        tuning = Tuning(unit=unit, chosen=best_variant(variants, budget, unit).variant, measured={one.variant: one.cost for one in variants})
        made.append((TEMPLATE.model_copy(update={"precision": precision, "tuning": tuning, "accuracy": known}), variants))
    return made


def verdicts(choice: Choice) -> list[str]:
    return [f"{one.precision} {one.variant} {one.verdict}" for one in choice.tried]


UNKNOWN: dict[str, Accuracy | None] = {"float32": None, "float16": None, "int8": None}
CASES: dict[str, tuple[Mapping[str, Accuracy | None], str, float | None, list[str]]] = {
    "int8 is cheaper, but nobody knows how accurate it is": (
        UNKNOWN,
        "",
        None,
        ["float32 gemm not cheaper than float16", "float16 gemm chosen: the cheapest", "int8 direct its accuracy is not known"],
    ),
    "int8 gains a video": (
        {"float32": accuracy(None), "float16": accuracy(0), "int8": accuracy(1, 2)},
        "",
        None,
        ["float32 gemm not cheaper than int8", "float16 gemm not cheaper than int8", "int8 direct chosen: the cheapest"],
    ),
    "any fall is a doubt without a limit": (
        {"float32": accuracy(None), "float16": accuracy(1), "int8": accuracy(3)},
        "",
        None,
        ["float32 gemm chosen: the cheapest", "float16 gemm its top-1 falls by 2.0 points", "int8 direct its top-1 falls by 6.0 points"],
    ),
    "a fall of exactly the limit is allowed": (
        {"float32": accuracy(None), "float16": accuracy(1), "int8": accuracy(2)},
        "",
        2.0,
        ["float32 gemm not cheaper than float16", "float16 gemm chosen: the cheapest", "int8 direct its top-1 falls by 4.0 points"],
    ),
    "the highest precision that fits": (
        UNKNOWN,
        "size=1.35MB",
        None,
        [
            "float32 direct its file has 2.3 MB",
            "float16 direct chosen: the most accurate that fits",
            "int8 direct fits, but float16 is more accurate",
        ],
    ),
    "what loses least fits": (
        {"float32": accuracy(None), "float16": accuracy(2), "int8": accuracy(1)},
        "memory=15MB",
        None,
        [
            "float32 direct it takes 18 MB of memory",
            "float16 gemm fits, but int8 is more accurate",
            "int8 direct chosen: the most accurate that fits, although its top-1 falls by 2.0 points",
        ],
    ),
    "everything fits": (
        {"float32": accuracy(None), "float16": accuracy(0), "int8": accuracy(0, 5)},
        "memory=20MB",
        1.0,
        [
            "float32 gemm chosen: the most accurate that fits",
            "float16 gemm fits, but float32 is more accurate",
            "int8 direct fits, but float32 is more accurate",
        ],
    ),
    "only int8 fits, whatever it costs in accuracy": (
        UNKNOWN,
        "size=2MB,instructions=60M",
        None,
        [
            "float32 gemm a step takes 108 M instructions, its file has 2.5 MB",
            "float16 gemm a step takes 64 M instructions",
            "int8 direct chosen: the only one left, although its accuracy is not known",
        ],
    ),
    "the only one": ({"int8": None}, "", None, ["int8 direct chosen: the only one tried, although its accuracy is not known"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_chosen_and_why(case: str) -> None:
    accuracies, text, most, expected = CASES[case]
    budget = parse_budget(text) if text else None
    choice = choose(tuned(accuracies, budget), budget, most)
    assert verdicts(choice) == expected
    chosen = [one for one in choice.tried if one.verdict.startswith("chosen: ")]
    assert chosen == [choice.chosen] and choice.chosen.own.variant == choice.chosen.variant
    assert (choice.target, choice.platform, choice.budget, choice.max_accuracy_drop) == ("executorch", "arm64", budget, most)


def test_nothing_fits() -> None:
    """A limit on memory that was not measured is not met."""
    budget = parse_budget("instructions=70M,size=1.3MB")
    with pytest.raises(NothingFitsError) as raised:
        choose(tuned({"float32": None, "float16": None}, budget), budget, 3)
    assert str(raised.value).startswith("executorch for arm64: nothing that was tried is within size=1.3MB,instructions=70M and --max-accuracy")
    falls = "its accuracy could not be compared with float32"
    assert f"float16 (gemm): its file has 1.4 MB, {falls}; allow more" in str(raised.value)
    assert [one.variant for one in raised.value.tried] == ["gemm", "gemm"]
    budget = parse_budget("memory=1GB")
    with pytest.raises(NothingFitsError, match=r"float32 \(gemm\): its peak memory was not measured"):
        choose(tuned({"float32": None}, budget, memory=False), budget)


def test_what_computes_other_numbers_on_the_platform_is_not_chosen() -> None:
    """Another variant of it is, or another precision. It is not on the Pareto front, and the table marks it."""
    half = {"float32": None, "float16": None}
    one = choose(tuned(half, faulty=("float16 gemm",)))
    assert verdicts(one) == ["float32 gemm not cheaper than float16", "float16 direct chosen: the cheapest"]
    assert f"float16 (gemm): {OFF}" in printed(one) and "float16 gemm" not in on_front(one)
    assert [line.split()[-1] for line in printed(one).splitlines() if line.startswith("float16    ")] == ["off", "chosen"]
    whole = choose(tuned(half, faulty=("float16 gemm", "float16 direct")))
    assert verdicts(whole) == ["float32 gemm chosen: the only one left", f"float16 gemm {OFF}"] and printed(whole).count(f"(gemm): {OFF}") == 1
    budget = parse_budget("instructions=70M")
    assert (
        verdicts(choose(tuned(half | {"int8": None}, budget, faulty=("float16 gemm",)), budget))[1] == "float16 direct a step takes 90 M instructions"
    )
    with pytest.raises(NothingFitsError, match=rf"nothing that was tried is within the bound of its precision; got int8 \(direct\): {OFF}"):
        choose(tuned({"int8": None}, faulty=("int8 direct",)))


def test_latency_is_in_milliseconds() -> None:
    budget = parse_budget("latency=0.1s")
    choice = choose(tuned({"float32": None, "float16": None}, budget, "ms"), budget)
    assert verdicts(choice)[0] == "float32 gemm a step takes 108 ms" and choice.precision == "float16"


def on_front(choice: Choice) -> list[str]:
    return [f"{precision.precision} {one.variant}" for precision, one in pareto_front(choice.tried)]


def test_the_pareto_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing is better than in every respect; of precisions that lose nothing, the higher one is more accurate."""
    every = ["float32 gemm", "float32 direct", "float16 gemm", "float16 direct", "int8 direct"]
    assert on_front(choose(tuned(UNKNOWN))) == every
    none_lost = {"float32": accuracy(None), "float16": accuracy(0), "int8": accuracy(0, 1)}
    assert on_front(choose(tuned(none_lost))) == every
    monkeypatch.setitem(MEASURED, "float32", {"gemm": (108.0, 2.5, 20), "direct": (146.0, 2.5, 20)})
    assert on_front(choose(tuned(none_lost))) == [name for name in every if name != "float32 direct"]
    most_lost = {**none_lost, "float16": accuracy(4)}
    assert on_front(choose(tuned(most_lost))) == ["float32 gemm", "int8 direct"]
    monkeypatch.setitem(MEASURED, "float32", {"gemm": (108.0, 2.5, 20), "direct": (146.0, 2.5, 19)})
    assert on_front(choose(tuned(most_lost))) == ["float32 gemm", "float32 direct", "int8 direct"]
    assert on_front(choose(tuned(most_lost, memory=False))) == ["float32 gemm", "int8 direct"]


def printed(choice: Choice) -> str:
    console = new_console(text := io.StringIO())
    for line in choice_lines(choice):
        console.print(line, soft_wrap=True) if isinstance(line, str) else print_table(console, line)
    return text.getvalue()


def test_what_is_printed() -> None:
    budget = parse_budget("size=1.35MB")
    said = printed(choose(tuned({"float32": accuracy(None), "float16": accuracy(0, 1)}, budget), budget))
    rows = [line.split() for line in said.splitlines()]
    assert said.startswith("tried for executorch on arm64, within size=1.35MB\n")
    assert ["float32", "gemm", "108", "2.50", "20.0", "yes", "over"] in rows
    assert ["float16", "direct", "90", "1.30", "13.0", "+2.0", "-20.0", "to", "+10.0", "yes", "chosen"] in rows
    assert "float16 (direct): chosen: the only one left" in said
    assert "not on arm64: peak memory, accuracy" in said and "not in the bundle" not in said
    assert "not in the bundle: int8\n" in printed(choose(tuned(UNKNOWN)))
    assert printed(choose(tuned({"float32": None}))) == ""


def test_the_accuracy_of_int8_is_shown_of_the_variant_that_was_evaluated() -> None:
    """Of these the one with the smallest error was chosen and evaluated; one with a larger error that costs more is not on the front."""
    variants = [
        variant(name, cost, 1, 10).model_copy(update={"float32_layers": layers, "max_relative_error": error})
        for name, cost, layers, error in (("gemm", 50, 0, 0.04), ("gemm+2", 55, 2, 0.01), ("direct+2", 57, 2, 0.02), ("gemm+3", 65, 3, 0.005))
    ]
    budget = parse_budget("instructions=60M")
    best = best_variant(variants, budget, UNIT)
    tuning = Tuning(unit=UNIT, chosen=best.variant, measured={one.variant: one.cost for one in variants})
    artifact = TEMPLATE.model_copy(update={"precision": "int8", "tuning": tuning, "accuracy": accuracy(0)})
    choice = choose([(artifact, variants)], budget)
    rows = [line.split() for line in printed(choice).splitlines() if line.startswith("int8  ")]
    assert [(row[1], row[5], row[6]) for row in rows] == [
        ("gemm", "4", "-"),
        ("gemm+2", "1", "+0.0"),
        ("direct+2", "2", "-"),
        ("gemm+3", "0.5", "-"),
    ]
    assert rows[1][-1] == "chosen" and on_front(choice) == ["int8 gemm", "int8 gemm+2", "int8 gemm+3"]


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [
        ("size=0.5MB", "small"),
        ("memory=1MB", "light"),
        ("instructions=10M", "cheap"),
        ("instructions=49M,size=0.5MB", "small"),  # 1.6 times the size, where "cheap" has 5 times.
        ("instructions=1M,size=0.5MB", "cheap"),  # 50 times the instructions, where "small" has 90 times.
        ("memory=1MB,size=9MB", "light"),
    ],
)
def test_if_nothing_fits_what_is_nearest_to_the_budget_is_named(budget: str, nearest: str) -> None:
    variants = [variant("cheap", 50, 2.5, 13), variant("small", 90, 0.8, 14), variant("light", 80, 1.2, 9), variant("off", 1, 0.1, 1, OFF)]
    assert best_variant(variants, parse_budget(budget), UNIT).variant == nearest


def test_unmeasured_memory_is_not_near_a_budget() -> None:
    variants = [variant("cheap", 50, 2.5, None), variant("light", 80, 1.2, 9)]
    assert best_variant(variants, parse_budget("memory=1MB"), UNIT).variant == "light"


def test_what_is_just_over_the_budget_is_told_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURED, "float16", {"gemm": (60.00001, 1.30000400, 12.00000006)})
    budget = parse_budget("size=1.3MB,instructions=60M,memory=12MB")
    with pytest.raises(NothingFitsError, match=r"a step takes 60\.00001 M instructions, its file has 1\.300004 MB") as raised:
        choose(tuned({"float16": None}, budget), budget)
    assert "memory" not in str(raised.value).partition("got")[2]  # 12,000,000.06 bytes are 12,000,000.


BUDGETS = {
    "latency=20ms": Budget(latency_ms=20),
    " latency = 1.5s, memory=14MB": Budget(latency_ms=1500, memory_bytes=14_000_000),
    "size=1.3MB,instructions=60M": Budget(size_bytes=1_300_000, instructions=60_000_000),
    "size=2KiB": Budget(size_bytes=2048),
    "instructions=1.5e2k": Budget(instructions=150_000),
}
BAD = {
    "": "a budget is quantities with numbers and units; got ''; expected such as size=1.3MB,instructions=60M",
    "20ms": "a budget is quantities with numbers and units; got '20ms'",
    "latency=20ms,": "a budget is quantities with numbers and units; got ''",
    "energy=3J": "unknown quantity of a budget; got energy; expected latency, memory, size or instructions",
    "memory=14": "the budget's memory needs a unit; got memory=14; expected B, kB, MB, GB, KiB, MiB or GiB",
    "memory=14ms": "unknown unit of the budget's memory; got memory=14ms",
    "size=-1MB": "the budget's size must be a number above 0; got size=-1MB",
    "size=MB": "the budget's size must be a number above 0",
    "latency=0ms": "the budget's latency must be a number above 0",
    "latency=1e999s": "the budget's latency must be a number above 0",
    "size=0.2B": "the budget's size must be at least 1B; got size=0.2B",
    "instructions=0.0001k": "the budget's instructions must be at least one instruction; got instructions=0.0001k",
    "latency=nanms": "the budget's latency must be a number above 0; got latency=nanms",
    "memory=-InfMB": "the budget's memory must be a number above 0; got memory=-InfMB",
    "size=1MB,size=2MB": "the budget has size twice",
}


@pytest.mark.parametrize("text", BUDGETS)
def test_a_budget_is_read_and_written(text: str) -> None:
    assert parse_budget(text) == BUDGETS[text]
    assert parse_budget(str(BUDGETS[text])) == BUDGETS[text]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_budget_is_refused(text: str) -> None:
    with pytest.raises(ClipstepError) as raised:
        parse_budget(text)
    assert str(raised.value).startswith(BAD[text])


def nothing(*_: Any) -> tuple[str, dict[str, Measured]]:
    raise AssertionError("nothing is measured")


UNMEASURABLE: dict[str, tuple[str, Sequence[str], str]] = {
    "latency": (
        "latency=20ms",
        ("arm64", "x86_64"),
        "the budget's latency cannot be measured for arm64; got --budget latency=20ms; expected --platform x86_64 alone, or instructions",
    ),
    "instructions": (
        "instructions=60M",
        ("x86_64",),
        "the budget's instructions cannot be measured for x86_64; got --budget instructions=60M; expected --platform arm64 alone, or latency",
    ),
}


@pytest.mark.parametrize("name", UNMEASURABLE)
def test_a_budget_that_cannot_be_measured_is_refused(name: str) -> None:
    text, platforms, message = UNMEASURABLE[name]
    with pytest.raises(ClipstepError) as raised:
        ExportOptions(("onnx",), platforms=platforms, tune=nothing, budget=parse_budget(text))
    assert str(raised.value).startswith(message)


def test_accuracy_is_measured_for_other_processors_when_tuning() -> None:
    """So that a limit on its fall has an effect."""
    other = "x86_64" if this_machine() == "arm64" else "arm64"
    given: dict[str, Any] = {"targets": ("executorch",), "platforms": (other,), "precisions": ("float32", "float16")}
    given |= {"evaluate": EvaluationData("data"), "max_accuracy_drop": 1}
    assert ExportOptions(**given, tune=nothing).max_accuracy_drop == 1
    with pytest.raises(ClipstepError, match="none is written that can be evaluated on this computer"):
        ExportOptions(**given)


def test_a_budget_needs_something_to_hold_it_to() -> None:
    with pytest.raises(ClipstepError, match="--budget needs --tune, which measures what artifacts take; got --budget size=1MB; add --tune"):
        ExportOptions(budget=parse_budget("size=1MB"))
    with pytest.raises(ClipstepError, match="budget is a value of Budget; got 'size=1MB'"):
        ExportOptions(("onnx",), platforms=("arm64",), tune=nothing, budget="size=1MB")  # type: ignore[arg-type]
    with pytest.raises(ClipstepError, match="a budget limits something; got no limit"):
        ExportOptions(("onnx",), platforms=("arm64",), tune=nothing, budget=Budget())
