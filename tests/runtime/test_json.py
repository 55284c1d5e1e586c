"""`--json`: nothing but JSON on standard output, with the numbers that Python gives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.benchmarks.records import Record, record_lines
from clipstep.runtime import StepModel, read_frames
from clipstep.training.choices import ARCHITECTURES

Cli = Callable[..., tuple[int, str, str]]


def test_run_gives_an_object_a_prediction(bundle_path: Path, clip: Path, clipstep: Cli) -> None:
    with StepModel.load(bundle_path) as model:
        stream = model.stream()
        expected = [p for p in map(stream.push, read_frames(clip, fps=25, size=model.interface.input.shape[1])) if p]
    code, out, err = clipstep("run", bundle_path, clip, "--json", "--top", 2)
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, len(found)) == (0, len(expected))
    assert err == f"note: {clip}: 20 frames a second, taken at 25\n"
    for got, prediction in zip(found, expected, strict=True):
        assert got["frames_seen"] == prediction.frames_seen and got["at_end"] is False
        assert [(row["label"], row["probability"]) for row in got["top"]] == [(n, pytest.approx(p, abs=1e-5)) for n, p in prediction.top(2)]


def test_models_gives_exact_numbers(clipstep: Cli) -> None:
    code, out, _ = clipstep("models", "--json")
    rows = {row["network"]: row for row in json.loads(out)}
    assert code == 0 and set(ARCHITECTURES) <= set(rows)
    assert rows["slowfast_causal_shufflenet"]["parameters"] == 612_509


def test_report_gives_the_artifacts_and_records(bundle_path: Path, record: Record, clipstep: Cli, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(record_lines([record]))
    code, out, _ = clipstep("report", bundle_path, tmp_path / "records.jsonl", "--json")
    values = json.loads(out)
    assert code == 0 and [row["step_ms"] for row in values["records"]] == [[10]]
    assert [artifact["file"] for artifact in values["artifacts"]] == ["model.onnx"]
