"""The demo app's records of minutes without pause, as `clipstep report` reads them. ``sustained.jsonl`` is as the app's test wrote it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from clipstep.benchmarks.records import StepCount, SustainedRecord
from clipstep.benchmarks.report import html_report, read_records
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError

Call = Callable[..., tuple[int, str, str]]
WRITTEN = Path(__file__).with_name("sustained.jsonl")


@pytest.fixture
def values() -> dict[str, Any]:
    """What the app wrote: 60 s of 12 ms, then 15 ms, and hot at the end."""
    given: dict[str, Any] = json.loads(WRITTEN.read_text())
    return given


@pytest.fixture
def own(values: dict[str, Any], bundle_path: Path, tmp_path: Path) -> Path:
    """The same as a record of the test bundle."""
    artifact = Bundle.open(bundle_path).artifact("onnx")
    out = tmp_path / "records.jsonl"
    out.write_text(json.dumps({**values, "artifact_sha256": artifact.sha256}) + "\n")
    return out


def test_the_app_computes_what_python_does(values: dict[str, Any]) -> None:
    [record] = read_records(WRITTEN).sustained
    times = np.repeat([count.ms for count in record.histogram], [count.steps for count in record.histogram])
    for percent in (50, 90, 95, 99):
        assert values["percentiles_ms"][f"p{percent}"] == pytest.approx(np.percentile(times, percent)) == record.percentile_ms(percent)
    assert record.last_over_first == pytest.approx(values["last_over_first"]) == pytest.approx(1.25)
    assert record.steps_per_s == pytest.approx(values["steps_per_s"]) == pytest.approx(len(times) / 60)
    assert (len(record.buckets), record.duration_s, record.complete) == (60, 60, True)


def test_the_report_says_how_much_slower_it_became_and_how_hot(own: Path, bundle_path: Path, clipstep: Call) -> None:
    code, said, error = clipstep("report", bundle_path, own)
    assert code == 0, error
    sentence = "60 s without pause: a step takes +25% at the end; thermal status none 30 s, light 18 s, moderate 12 s; thermal headroom 0.83 at most"
    assert sentence in said
    [row] = [line for line in said.splitlines() if line.endswith("1.25")]
    assert row.split()[-8:] == ["2", "60", "180", "12.50", "16.30", "16.30", "16.30", "1.25"]
    [given] = json.loads(clipstep("report", bundle_path, own, "--json")[1])["sustained_records"]
    assert given["percentiles_ms"]["p95"] == 16.3 and given["last_over_first"] == 1.25
    assert sentence in html_report(bundle_path, own)


def test_what_the_phone_does_not_say_is_said_to_be_unknown(own: Path, values: dict[str, Any], bundle_path: Path, clipstep: Call) -> None:
    record = json.loads(own.read_text())
    record["headrooms"] = [{"at_s": 1.0, "share": None}]
    record["buckets"] = [{**bucket, "thermal_status": None} for bucket in record["buckets"]]
    own.write_text(json.dumps({**record, "complete": False, "sustained_s": 600, "left_app": True}) + "\n")
    said = clipstep("report", bundle_path, own)[1]
    assert "stopped before its 600 s, the app left for a part of it" in said
    assert "thermal status not reported; thermal headroom not reported" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unknown": 1}, "unknown"),
        ({"buckets": []}, "buckets"),
        ({"histogram": [{"ms": 10.0, "steps": 1}]}, "buckets hold 180 steps, but histogram 1"),
        ({"histogram": [{"ms": 12.0, "steps": 90}, {"ms": 10.0, "steps": 90}]}, "the shortest first"),
        ({"histogram": [{"ms": float("nan"), "steps": 180}]}, "finite"),
        ({"complete": None}, "complete"),
    ],
)
def test_another_record_is_refused(values: dict[str, Any], tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    out = tmp_path / "records.jsonl"
    out.write_text(json.dumps({**values, **changes}) + "\n")
    with pytest.raises(ClipstepError, match="is not a record"):
        read_records(out)
    computed = SustainedRecord.model_computed_fields
    with pytest.raises(ValidationError, match=words):
        SustainedRecord.model_validate({key: value for key, value in {**values, **changes}.items() if key not in computed})


def test_buckets_follow_each_other(values: dict[str, Any]) -> None:
    computed = SustainedRecord.model_computed_fields
    backwards = {**values, "buckets": values["buckets"][::-1]}
    with pytest.raises(ValidationError, match="must follow each other in time"):
        SustainedRecord.model_validate({key: value for key, value in backwards.items() if key not in computed})


def test_percentiles_lie_between_counted_times() -> None:
    [record] = read_records(WRITTEN).sustained
    few = record.model_copy(update={"histogram": (StepCount(ms=1, steps=1), StepCount(ms=2, steps=2), StepCount(ms=4, steps=1))})
    assert [few.percentile_ms(percent) for percent in (0, 50, 90, 100)] == pytest.approx([1, 2, 3.4, 4])
