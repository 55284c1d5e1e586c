"""`clipstep report`: only what was measured of the bundle, or of the network behind it, is shown as its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.benchmarks.records import Configuration, Record, record_lines
from clipstep.runtime.bundle import Bundle

Cli = Callable[..., tuple[int, str, str]]
TRAINING = {"test_top1": 0.5, "minutes": 1, "train_videos": 3, "test_videos": 4, "test_largest_class_share": 0.5}


def _record(
    record: Record, bundle: Bundle, name: str, ms: float, artifact_sha256: str | None, *, checkpoint: str | None = None, manifest: str = "a" * 64
) -> Record:
    engine = "pytorch" if name == "PyTorch eager" else "onnxruntime"
    configuration = Configuration(name=name, target="onnx", form="3d", precision="float32", engine=engine, threads=1, file=None)
    changed = {
        "bundle": bundle.path.name,
        "manifest_sha256": manifest,
        "artifact_sha256": artifact_sha256,
        "weights_sha256": checkpoint,
        "configuration": configuration,
        "step_ms": (ms,),
    }
    return record.model_copy(update=changed)


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture
def own(record: Record, bundle: Bundle) -> list[Record]:
    """Records of the bundle and of the references that were measured beside it."""
    checkpoint = bundle.manifest.provenance.weights_sha256
    (artifact,) = bundle.manifest.artifacts
    return [
        _record(record, bundle, "naive rank-5 ONNX", 20, None, checkpoint=checkpoint),
        _record(record, bundle, "PyTorch eager", 40, None, checkpoint=checkpoint),
        _record(record, bundle, artifact.file, 10, artifact.sha256, checkpoint=checkpoint),
    ]


@pytest.fixture
def others(record: Record, bundle: Bundle) -> list[Record]:
    """Records of another bundle, and of the references beside that."""
    return [
        _record(record, bundle, "naive rank-5 ONNX", 77777, None, checkpoint="f" * 64, manifest="b" * 64),
        _record(record, bundle, "PyTorch eager", 88888, None, checkpoint="f" * 64, manifest="b" * 64),
        _record(record, bundle, "step.onnx", 99999, "e" * 64, checkpoint="f" * 64, manifest="b" * 64),
    ]


def _written(path: Path, records: list[Record]) -> Path:
    path.write_text(record_lines(records), encoding="utf-8")
    return path


def test_records_of_another_bundle_are_refused(others: list[Record], bundle: Bundle, clipstep: Cli, tmp_path: Path) -> None:
    code, out, err = clipstep("report", bundle.path, _written(tmp_path / "others.jsonl", others))
    assert (code, out) == (2, "")
    assert "others.jsonl: holds no record of" in err and "give its own" in err


def test_references_of_another_network_are_left_out_by_name(
    own: list[Record], others: list[Record], bundle: Bundle, clipstep: Cli, tmp_path: Path
) -> None:
    code, out, err = clipstep("report", bundle.path, _written(tmp_path / "both.jsonl", [*others, *own]))
    assert (code, err) == (0, "")
    assert not any(number in out for number in ("77777", "88888", "99999"))
    (row,) = (line for line in out.splitlines() if bundle.manifest.artifacts[0].file in line.split())
    assert row.split()[4:6] == ["10.0", "2.00"]
    assert f"left out: 3 of another network or of artifacts that this bundle does not hold, measured on {bundle.path.name}" in out


def test_a_note_in_the_manifest_does_not_make_its_records_anothers(own: list[Record], bundle: Bundle, clipstep: Cli, tmp_path: Path) -> None:
    """Recording an accuracy changes the manifest's hash, not the artifacts."""
    copy = Path(shutil.copytree(bundle.path, tmp_path / bundle.path.name))
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert Bundle.open(copy).manifest_sha256 != bundle.manifest_sha256
    code, out, _ = clipstep("report", copy, _written(tmp_path / "own.jsonl", own))
    assert code == 0 and "left out" not in out and "PyTorch eager" in out


def test_references_of_before_belong_to_what_was_measured_beside_them(
    own: list[Record], others: list[Record], bundle: Bundle, clipstep: Cli, tmp_path: Path
) -> None:
    before = [r.model_copy(update={"weights_sha256": None}) for r in [*own, *others]]
    _, out, _ = clipstep("report", bundle.path, _written(tmp_path / "before.jsonl", before))
    assert "20.0" in out and "77777" not in out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--profile", "p.png", "--rounds", "3"), "--profile measures the operators of the artifacts and nothing beside them; got --rounds"),
        (("--profile", "p.png", "--threads", "1", "--threads", "2"), "--profile takes one thread count"),
        (("--force",), "--force does nothing without --profile"),
        (("--operators",), "--operators, --record and --ceilings are for counts"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: tuple[str, ...], line: str, bundle: Bundle, clipstep: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = clipstep("bench", bundle.path, *options)
    assert (code, out, list(tmp_path.iterdir())) == (2, "", [])
    assert line in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("option", [("--weights", "w"), ("--frames", "4"), ("--mean", "1", "2", "3"), ("--fps", "30"), ("--labels", "c")])
def test_facts_of_an_own_network_beside_a_run_are_refused(option: tuple[str, ...], run_folder: Path, clipstep: Cli, tmp_path: Path) -> None:
    code, _, err = clipstep("export", run_folder, "--out", tmp_path / "a.clipstep", *option)
    assert (code, err) == (2, f"error: {option[0]} does nothing without --model; add --model, or leave {option[0]} out\n")


@pytest.mark.parametrize(
    ("training", "code", "said"),
    [
        ({"test_top1": "most"}, 2, "the manifest's training summary is malformed"),
        ({"test_top1": 0.5, "minutes": 1, "train_videos": 3, "test_videos": 0, "test_largest_class_share": 0.5}, 2, "training summary is malformed"),
        (
            {
                "test_top1": 0.5,
                "minutes": 1,
                "train_videos": 3,
                "test_videos": 4,
                "test_largest_class_share": 0.5,
                "warnings": ["a.mp4 is in both lists"],
            },
            0,
            "a warning of that training: a.mp4 is in both lists",
        ),
    ],
)
def test_what_a_manifest_says_of_the_training(
    own: list[Record], training: dict[str, object], code: int, said: str, bundle: Bundle, clipstep: Cli, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "small.clipstep"))
    values = json.loads((copy / "manifest.json").read_text())
    values["provenance"]["training"] = training
    (copy / "manifest.json").write_text(json.dumps(values))
    got, out, err = clipstep("report", copy, _written(tmp_path / "own.jsonl", own))
    assert got == code and said in (err if code else out), out + err
