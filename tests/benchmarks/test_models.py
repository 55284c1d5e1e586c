"""``clipstep bench-models``: the table of every network, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.benchmarks.report import read_records
from clipstep.runtime.bundle import Bundle
from clipstep.training.models import HOME

FIGHT = Path(__file__).parents[2] / "training/demo/fight"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run_folder: Path, bundle_path: Path) -> Path:
    """A folder with earlier results: the home network as the small run of the tests."""
    out = tmp_path_factory.mktemp("models")
    shutil.copytree(run_folder, out / HOME)
    shutil.copytree(bundle_path, out / f"{HOME}.clipstep")
    (out / f"{HOME}.export.json").write_text('{"seconds": 12.0, "peak_bytes": 2147483648, "float32_error": 3e-7}')
    return out


@pytest.mark.long
def test_existing_results_are_reused_in_the_tables(clipstep: Command, exported: Path) -> None:
    arguments = ("bench-models", FIGHT, "--out", exported, "--architecture", HOME, "--frames", 4, "--size", 32, "--rounds", 2, "--steps", 1)
    code, text, error = clipstep(*arguments)
    assert (code, error) == (0, "")
    rows = [line for line in text.splitlines() if line.startswith(f"{HOME} ")]
    assert max(map(len, rows)) <= 80
    cells, times = (row.split() for row in rows)
    sizes = {item.file: item.size_bytes for item in Bundle.open(exported / f"{HOME}.clipstep").manifest.artifacts}
    records = {record.configuration.name: record.percentile_ms(50) for record in read_records(exported / f"{HOME}.jsonl")[0]}
    assert cells[3:5] == ["12", "2.0"]
    assert cells[5:8] == [f"{sizes[file] / 1e6:.1f}" for file in ("step.onnx", "step.pte", "step-float32.mlpackage")]
    assert times[2] == f"{records['naive rank-5 ONNX'] / records['step.onnx']:.2f}"
    assert "measuring" in text and "measuring" not in clipstep(*arguments)[1]


def test_existing_results_of_another_size_are_refused(clipstep: Command, exported: Path) -> None:
    code, _, error = clipstep("bench-models", FIGHT, "--out", exported, "--architecture", HOME, "--frames", 4, "--size", 48)
    assert code == 2 and "is of another size; got (4, 32); expected (4, 48); choose another --out" in error


def test_a_network_that_is_too_large_for_its_frames(clipstep: Command, tmp_path: Path) -> None:
    code, _, error = clipstep("bench-models", FIGHT, "--out", tmp_path, "--architecture", "mobilenet3d", "--frames", 4, "--size", 32)
    assert code == 2 and "subclips too small to train on; got 4 frames of 32x32" in error


def test_an_unknown_architecture_is_answered_with_the_known_ones(clipstep: Command, tmp_path: Path) -> None:
    code, _, error = clipstep("bench-models", FIGHT, "--out", tmp_path, "--architecture", "movinet")
    assert code == 2 and HOME in error
