"""`clipstep bench compare` on records whose truth is known: how often it errs, what it notes, limits, forms of output and refusals."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.benchmarks import Record, compare
from clipstep.benchmarks.comparison.statistics import t_quantile
from clipstep.benchmarks.options import ROUNDS, STEPS
from clipstep.benchmarks.records import ColdStart, Configuration, Counts, Device, InstructionRecord, record_lines
from clipstep.runtime import ClipstepError

Cli = Callable[..., tuple[int, str, str]]
DEVICE = Device(cpu_model="AMD EPYC", cores=2, os="Linux", machine="x86_64")
ONNX, PTE = "step.onnx, onnxruntime, 1 thread", "step.pte, executorch, 1 thread"
ENGINES = {".onnx": "onnxruntime", ".pte": "executorch"}


def timed(step_ms: Any, name: str = "step.onnx", threads: int = 1, **changes: Any) -> Record:
    engine = ENGINES.get(Path(name).suffix, "onnxruntime")
    file = name if Path(name).suffix else None
    values: dict[str, Any] = {
        "bundle": "fight.clipstep",
        "manifest_sha256": "a" * 64,
        "artifact_sha256": None if file is None else "b" * 64,
        "weights_sha256": "c" * 64,
        "configuration": Configuration(name=name, target="onnx", form="lowered", precision="float32", engine=engine, threads=threads, file=file),
        "cold_start": ColdStart(load_s=0, first_step_ms=1, threads_used=1, largest_error=0),
        "device": DEVICE,
        "tool_versions": {"clipstep": "0.1.0", engine: "1.0"},
        "placement": {},
        "not_delegated": (),
        "file_bytes": 1,
        "subclip_s": 0.64,
        "peak_memory_bytes": 1,
        "memory_before_load_bytes": 1,
        "step_ms": tuple(np.ravel(step_ms)),
        "turn_steps": 5,
    }
    return Record(**{**values, **changes})


def instructions(count: int, **changes: Any) -> InstructionRecord:
    one = Counts(instructions=count, vector_fmas=1, loads=1, stores=1)
    record = timed(1)
    shared = {key: getattr(record, key) for key in ("bundle", "manifest_sha256", "artifact_sha256", "configuration", "tool_versions")}
    values = {"emulator": "qemu", "cpu_model": "a76", "file_bytes": 1, "needed_multiply_accumulates": None, "largest_error": 0, "first_step": one}
    return InstructionRecord(**{**shared, **values, "steps": (one,), **changes})


def latencies(seed: int, median_ms: float = 10, *, bursts: bool = False, turns: int = ROUNDS) -> np.ndarray:
    """Step times `(turns, steps)` as on a shared computer: turns that are a few per cent off, similarly to those before them, rare steps that take
    far longer and, with `bursts`, stretches in which other work makes all steps up to twice as slow."""
    random = np.random.default_rng(seed)
    offset, factors = 0.0, np.empty(turns)
    for turn in range(turns):
        offset = 0.3 * offset + random.normal(0, 0.02)
        factors[turn] = offset
    if bursts:
        start = random.integers(0, turns - 3)
        factors[start : start + 3] += random.uniform(0.2, 0.7)
    noise = random.normal(0, 0.03, (turns, STEPS)) + (random.random((turns, STEPS)) < 0.05) * random.exponential(0.5, (turns, STEPS))
    return median_ms * np.exp(factors[:, None] + noise)


def verdict_of(a: np.ndarray, b: np.ndarray) -> str:
    return compare([timed(a)], [timed(b)]).configurations[0].verdict


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(name: str, *records: Record | InstructionRecord) -> Path:
        (tmp_path / name).write_text(record_lines(records))
        return tmp_path / name

    return written


@pytest.fixture
def slower(write: Callable[..., Path]) -> tuple[Path, Path]:
    """Two files: onnxruntime surely takes 1.5 times as long in the second, ExecuTorch may take the same."""
    a = write("a.jsonl", timed(latencies(1)), timed(latencies(2, 5), "step.pte"))
    return a, write("b.jsonl", timed(latencies(3, 15)), timed(latencies(4, 5), "step.pte"))


@pytest.mark.parametrize(("confidence", "degrees", "value"), [(0.95, 1, 12.706), (0.95, 9, 2.262), (0.99, 4, 4.604), (0.95, 1000, 1.962)])
def test_quantiles_of_students_t_are_those_of_tables(confidence: float, degrees: int, value: float) -> None:
    assert t_quantile(confidence, degrees) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("bursts", "least"), [(False, 95), (True, 70)])
def test_a_planted_slowdown_of_5_percent_is_found_with_the_default_rounds(bursts: bool, least: int) -> None:
    verdicts = [verdict_of(latencies(2 * seed, bursts=bursts), 1.05 * latencies(2 * seed + 1, bursts=bursts)) for seed in range(100)]
    assert verdicts.count("slower") >= least and "faster" not in verdicts


def test_it_is_found_among_four_configurations() -> None:
    def records(seed: int, factors: Sequence[float]) -> list[Record]:
        return [timed(factor * latencies(1000 + 8 * seed + threads), threads=threads) for threads, factor in enumerate(factors, 1)]

    found = [compare(records(2 * seed, [1] * 4), records(2 * seed + 1, [1, 1.05, 1, 1])).configurations[1].verdict for seed in range(40)]
    assert found.count("slower") >= 34


def test_the_inverse_of_a_slowdown_is_a_speedup() -> None:
    a, b = latencies(1), latencies(2, 12)
    (there,), (back,) = (compare([timed(one)], [timed(other)]).configurations for one, other in ((a, b), (b, a)))
    assert (there.verdict, back.verdict) == ("slower", "faster")
    assert there.ratio == pytest.approx(np.median(b) / np.median(a))
    assert there.interval is not None and back.interval is not None
    assert (1 / back.ratio, 1 / back.interval[1], 1 / back.interval[0]) == pytest.approx((there.ratio, *there.interval))


@pytest.mark.parametrize("bursts", [False, True])
def test_the_same_twice_is_called_different_no_oftener_than_stated(bursts: bool) -> None:
    """The stated rate is 5 %: of 100 pairs more than 10 would be called different with a probability of 1 %."""
    verdicts = [verdict_of(latencies(2 * seed, bursts=bursts), latencies(2 * seed + 1, bursts=bursts)) for seed in range(100)]
    assert 100 - verdicts.count("cannot tell") <= 10


def test_the_stated_rate_is_that_of_all_configurations_together() -> None:
    """The stated rate is 5 %: of 50 sets of 4 more than 6 would hold one that is called different with a probability of 1 %. Each at 5 %, 9 would."""

    def records(seed: int) -> list[Record]:
        return [timed(latencies(1000 + 8 * seed + threads), threads=threads) for threads in range(1, 5)]

    verdicts = [{row.verdict for row in compare(records(2 * seed), records(2 * seed + 1)).configurations} for seed in range(50)]
    assert sum(found != {"cannot tell"} for found in verdicts) <= 6


def test_several_runs_are_compared_by_what_changes_from_run_to_run() -> None:
    """Runs of constant times: the interval is Welch's of the logarithms, with 3.83 degrees of freedom, and 3.182 is t for 3."""
    a, b = (10.0, 11.0, 12.0), (12.0, 13.0, 15.0)
    (row,) = compare([timed([ms] * 10) for ms in a], [timed([ms] * 10) for ms in b]).configurations
    logs = np.log(a), np.log(b)
    middle, error = logs[1].mean() - logs[0].mean(), math.sqrt(sum(each.var(ddof=1) / 3 for each in logs))
    assert row.interval == pytest.approx((math.exp(middle - 3.1824 * error), math.exp(middle + 3.1824 * error)), rel=1e-4)
    assert (row.runs, row.verdict, row.ratio) == ((3, 3), "cannot tell", pytest.approx(math.exp(middle)))


def test_a_slower_computer_does_not_matter_relative_to_what_ran_beside() -> None:
    """In B the computer is slower, by more from turn to turn, and one artifact itself takes 1.2 times as long."""
    load = np.linspace(1.3, 1.7, ROUNDS)[:, None]
    a = [timed(latencies(1, 20), "naive rank-5 ONNX"), timed(latencies(2)), timed(latencies(3, 5), "step.pte")]
    b = [timed(load * latencies(4, 20), "naive rank-5 ONNX"), timed(load * latencies(5)), timed(load * latencies(6, 6), "step.pte")]
    plain, relative = compare(a, b), compare(a, b, relative_to="naive rank-5 ONNX")
    assert [row.verdict for row in plain.configurations] == ["slower"] * 3
    assert any("the same file, device and versions in both, and yet different: the computer itself" in note for note in plain.notes)
    assert [(row.name, row.verdict) for row in relative.configurations] == [(ONNX, "cannot tell"), (PTE, "slower")]
    onnx, pte = relative.configurations
    assert onnx.a == pytest.approx(np.median(a[1].step_ms) / np.median(a[0].step_ms)) and onnx.unit == "times naive rank-5 ONNX"
    assert pte.ratio == pytest.approx(1.2, rel=0.05) and relative.notes == ()


@pytest.mark.parametrize("loads", [[1, 3], [np.linspace(1, 3, ROUNDS * STEPS)]], ids=["of runs", "of turns"])
def test_runs_and_turns_are_relative_to_what_ran_beside_each(loads: list[Any]) -> None:
    """Nothing but the computer's load changes the times within a file, and that is the same in the turns of both configurations."""

    def records(ms: float) -> list[Record]:
        return [timed(ms_there * load * np.ones(100), name) for load in loads for name, ms_there in (("naive rank-5 ONNX", 20), ("step.onnx", ms))]

    (row,) = compare(records(10), records(12), relative_to="naive rank-5 ONNX").configurations
    assert (row.a, row.b, row.ratio) == pytest.approx((0.5, 0.6, 1.2)) and row.interval == pytest.approx((1.2, 1.2))


def test_a_reference_that_is_another_one_is_noted() -> None:
    def records(version: str) -> list[Record]:
        return [timed(latencies(1), "naive rank-5 ONNX", tool_versions={"onnxruntime": version}), timed(latencies(2))]

    (note,) = compare(records("1.0"), records("2.0"), relative_to="naive rank-5 ONNX").notes
    assert note.startswith("naive rank-5 ONNX, onnxruntime, 1 thread, which others are relative to, is not the same")


def test_other_devices_bundles_and_versions_are_noted() -> None:
    a = [timed(latencies(1)), timed(latencies(2), "step.pte")]
    changes: dict[str, Any] = {"device": DEVICE.model_copy(update={"cpu_model": "Xeon"}), "bundle": "other.clipstep", "pause_ms": 40}
    b = [timed(latencies(3), tool_versions={"onnxruntime": "2.0"}, **changes), timed(latencies(4), "step.pte", **changes)]
    notes = compare(a, b).notes
    assert "device: AMD EPYC, 2 cores, Linux, x86_64 in A, Xeon, 2 cores, Linux, x86_64 in B" in notes
    assert "bundle: fight.clipstep in A, other.clipstep in B" in notes
    assert "pause before each step: 0 ms in A, 40 ms in B" in notes
    assert f"{ONNX}: versions: clipstep 0.1.0 onnxruntime 1.0 in A, onnxruntime 2.0 in B" in notes
    again = compare(a, [timed(latencies(3), manifest_sha256="d" * 64, artifact_sha256="e" * 64), a[1]]).notes
    assert f"{ONNX}: another bundle of the same name, with another artifact" in again


def test_bundles_and_devices_within_a_file_are_told_apart() -> None:
    one, other = timed(latencies(1)), timed(latencies(2, 20), bundle="other.clipstep")
    comparison = compare([one, other], [other])
    assert [(row.name, row.ratio) for row in comparison.configurations] == [(f"{ONNX}, other.clipstep", 1)]
    assert comparison.only_in_a == (f"{ONNX}, fight.clipstep",)


def test_what_only_one_file_holds_is_listed(write: Callable[..., Path], clipstep: Cli) -> None:
    a = write("a.jsonl", timed(latencies(1)), timed(latencies(2), "step.pte"), instructions(100))
    b = write("b.jsonl", timed(latencies(3)), timed(latencies(4), threads=2))
    code, out, err = clipstep("bench", "compare", a, b)
    assert (code, err) == (0, "")
    assert f"only in A: {PTE}; step.onnx, onnxruntime, arm64 instructions\n" in out
    assert "only in B: step.onnx, onnxruntime, 2 threads\n" in out


@pytest.mark.parametrize(("count", "verdict"), [(100_000_001, "more"), (99_999_999, "fewer"), (100_000_000, "equal")])
def test_instructions_are_compared_as_they_are(write: Callable[..., Path], count: int, verdict: str) -> None:
    (row,) = compare(write("a.jsonl", instructions(100_000_000)), write("b.jsonl", instructions(count)), limits={"*": 1}).configurations
    assert (row.a, row.b, row.ratio, row.interval, row.verdict) == (100_000_000, count, count / 100_000_000, None, verdict)
    assert row.exceeds_limit == (verdict == "more")


def test_a_single_turn_has_no_interval() -> None:
    single, two = ([timed(latencies(1, turns=count), turn_steps=20)] for count in (4, 8))
    (row,), (other,) = compare(single, single).configurations, compare(two, two).configurations
    assert row.interval is None and row.verdict == "cannot tell"
    assert other.interval is not None


@pytest.mark.parametrize(
    ("limits", "above"),
    [
        ({"onnxruntime, 1 thread": 1.3}, [ONNX]),
        ({"*": 1.3}, [ONNX]),
        ({"step.onnx": 2, "*": 1.3}, []),
        ({"1 thread": 1.3}, [ONNX]),
        ({"executorch": 0.98}, []),  # The ratio is above it, but that is not sure.
        ({"*.onnx, *runtime": 1.6}, []),
        ({"*": 0.5}, [ONNX, PTE]),
    ],
)
def test_what_is_surely_above_its_limit_is_named_and_ends_with_1(
    slower: tuple[Path, Path], clipstep: Cli, tmp_path: Path, limits: dict[str, float], above: list[str]
) -> None:
    (tmp_path / "limits.json").write_text(json.dumps(limits))
    code, _, err = clipstep("bench", "compare", *slower, "--limits", tmp_path / "limits.json")
    assert code == (1 if above else 0)
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["above its limit", name] for name in above]


def test_without_limits_a_slowdown_is_no_failure(slower: tuple[Path, Path], clipstep: Cli) -> None:
    code, out, err = clipstep("bench", "compare", *slower)
    assert (code, err) == (0, "") and "slower" in out


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is not a file of limits"),
        ("{", "is not a file of limits"),
        ("[1.1]", "holds no limits"),
        ("{}", "holds no limits"),
        ('{"*": "1.1"}', "the limit of \"*\" is no ratio; got '1.1'"),
        ('{"*": true}', 'the limit of "*" is no ratio'),
        ('{"*": NaN}', 'the limit of "*" is no ratio'),
        ('{"*": 0}', 'the limit of "*" is no ratio'),
        ('{" ": 1.1}', "a pattern of limits is a text"),
        ('{"*": 1.1, "*": 1.2}', 'got "*" is there twice'),
        ('{"openvino": 1.1}', f'the limit of "openvino" is for no configuration that both files hold; got {ONNX}, {PTE}'),
        (
            '{"*": 1.1, "step.onnx": 1.05}',
            'the limit of "step.onnx" is for no configuration that both files hold; got only those of the patterns before',
        ),
    ],
)
def test_limits_without_effect_or_malformed_are_refused(slower: tuple[Path, Path], clipstep: Cli, tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "limits.json").write_text(text)
    code, out, err = clipstep("bench", "compare", *slower, "--limits", tmp_path / "limits.json")
    assert (code, out, err.count("\n")) == (2, "", 1) and "limits.json: " in err and error in err


def test_csv_json_and_markdown_hold_the_numbers_of_the_function(slower: tuple[Path, Path], clipstep: Cli, tmp_path: Path) -> None:
    with slower[0].open("a") as file:
        file.write(record_lines([timed(latencies(7), "only|here")]))
    comparison = compare(*slower, limits={"step.onnx": 1.2})
    (tmp_path / "limits.json").write_text('{"step.onnx": 1.2}')
    outputs = {}
    for form in ("--csv", "--markdown", "--json"):
        code, outputs[form], err = clipstep("bench", "compare", *slower, "--limits", tmp_path / "limits.json", form)
        notes = [line for line in err.splitlines() if not line.startswith("above its limit: ")]
        assert code == 1 and notes == ([f"note: {note}" for note in comparison.notes] if form == "--csv" else [])
    rows = list(csv.DictReader(io.StringIO(outputs["--csv"])))
    values = json.loads(outputs["--json"])
    assert values["notes"] == list(comparison.notes) and values["only_in_a"] == ["only|here, onnxruntime, 1 thread"]
    assert [row["configuration"] for row in rows] == [ONNX, PTE, "only|here, onnxruntime, 1 thread"]
    for row, got, one in zip(rows, values["configurations"], comparison.configurations, strict=False):
        assert one.interval is not None
        assert [float(row[key]) for key in ("a", "b", "ratio", "low", "high")] == pytest.approx([one.a, one.b, one.ratio, *one.interval], abs=1e-4)
        assert (got["name"], got["ratio"], tuple(got["interval"]), got["verdict"]) == (one.name, one.ratio, one.interval, one.verdict)
        assert got["exceeds_limit"] == one.exceeds_limit and row["verdict"] == one.verdict
    assert [row["above_limit"] for row in rows] == ["yes", "", ""] and rows[2]["verdict"] == "only in A"
    table = [line for line in outputs["--markdown"].splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 3 and f"| {ONNX} | ms | " in table[2] and "| only\\|here, onnxruntime, 1 thread |" in table[4]
    assert all(f"- {note}\n" in outputs["--markdown"] for note in comparison.notes)


def test_the_function_prints_nothing_and_its_values_are_frozen(slower: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    comparison = compare(*map(str, slower))
    assert capfd.readouterr() == ("", "")
    for value, field in ((comparison, "notes"), (comparison.configurations[0], "verdict")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    assert comparison == compare(*slower)


BROKEN: list[tuple[str, Sequence[Any], str]] = [
    ("no such file", (), "no such file; expected records written by clipstep bench --out"),
    ("empty", (), "holds no record"),
    ("text", (), "a.jsonl:2: is not a record"),
    ("not whole turns", (), "no whole number of turns of 5 steps; got 6 steps"),
    ("an earlier version", (), "turns of unknown length; got 20 steps; measure again"),
    ("other artifacts", (), f"{ONNX}: holds records of different artifacts; got 2 versions of it"),
    ("zero", (), f"{ONNX}: its step times are no measurement"),
    ("nothing in common", (), "no configuration is in both files; got step.other"),
    ("fine", ("--csv", "--json"), "the output has one form; got --csv and --json"),
    ("fine", ("--relative-to", "naive"), "naive was not measured beside step.onnx; got 0 records of it, 1 of step.onnx"),
    ("fine", ("--relative-to", "step.onnx"), "nothing was measured beside step.onnx in both files"),
]


@pytest.mark.parametrize(("case", "options", "error"), BROKEN, ids=[f"{case} {' '.join(options)}" for case, options, _ in BROKEN])
def test_what_cannot_be_compared_is_refused_on_one_line(
    write: Callable[..., Path], clipstep: Cli, case: str, options: Sequence[str], error: str
) -> None:
    good = timed(latencies(1))
    records = {
        "not whole turns": [timed([10] * 6)],
        "an earlier version": [timed([10] * 20, turn_steps=None)],
        "other artifacts": [good, timed(latencies(1), artifact_sha256="d" * 64)],
        "zero": [timed([10] * 4 + [0])],
        "nothing in common": [timed(latencies(1), "step.other")],
        "empty": [],
    }
    a, b = write("a.jsonl", *records.get(case, [good])), write("b.jsonl", good)
    if case == "text":
        a.write_text(a.read_text() + "to be or not to be\n")
    if case == "no such file":
        a.unlink()
    code, out, err = clipstep("bench", "compare", a, b, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and error in err


def test_records_without_steps_are_refused() -> None:
    with pytest.raises(ClipstepError, match=r"^b: step.onnx, onnxruntime, 1 thread: its step times are no measurement; got none$"):
        compare([timed(latencies(1))], [timed([])])


def test_the_help_of_bench_names_it(clipstep: Cli) -> None:
    assert "clipstep bench compare compares two files of records" in " ".join(clipstep("bench", "--help")[1].split())
    assert "--relative-to" in clipstep("bench", "compare", "--help")[1]
