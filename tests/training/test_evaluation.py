"""Metrics computed by hand; a bundle predicts the same as its run; the files that are written."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from clipstep.network.videos import read_subclips
from clipstep.runtime import ClipstepError, StepModel, StepOutputs, VideoError, read_frames
from clipstep.runtime.bundle import Bundle, this_machine
from clipstep.runtime.bundle.hashes import tree_sha256, tree_size
from clipstep.runtime.resize import Box
from clipstep.training.cli import evaluate_command
from clipstep.training.data.encode import write_video
from clipstep.training.data.lists import Clip
from clipstep.training.evaluation import summarise
from clipstep.training.metrics import confusion_matrix, largest_share, top_k_share, top_k_when_seen
from clipstep.training.plots import confusion_finding
from clipstep.training.predict import VideoPrediction, bundle_logits, fused, predict_videos, video_logits
from clipstep.training.run import Run

QUIET = Console(quiet=True)


def _says(label: int, *classes: int) -> VideoPrediction:
    """A video of class ``label``; after each subclip the given class is the most probable, then the others in order."""
    rows = []
    for likeliest in classes:
        order = [likeliest, *(c for c in range(7) if c != likeliest)]
        rows.append([7.0 - order.index(c) for c in range(7)])
    return VideoPrediction(Path(f"{label}.mp4"), label, torch.tensor(rows).softmax(dim=1))


def test_top_k_takes_the_last_subclip() -> None:
    predictions = [_says(1, 0, 1), _says(2, 2, 0), _says(6, 6, 6, 6), _says(5, 0)]
    assert top_k_share(predictions, 1) == 2 / 4
    assert top_k_share(predictions, 3) == 3 / 4
    assert top_k_share(predictions, 5) == 3 / 4
    assert top_k_share(predictions, 6) == 4 / 4


def test_equal_probabilities_are_not_all_correct() -> None:
    """A network with constant outputs is correct for the first class only, in every metric."""
    same = [VideoPrediction(Path(f"{label}.mp4"), label, torch.full((2, 7), 1 / 7)) for label in (0, 1, 1, 3)]
    assert top_k_share(same, 1) == top_k_when_seen(same, 1, 0.5)[0] == 1 / 4
    assert (top_k_share(same, 3), top_k_share(same, 4)) == (3 / 4, 1)
    assert confusion_matrix(same, 7)[:, 0].tolist() == [1, 2, 0, 1, 0, 0, 0]
    saturated = VideoPrediction(Path("a.mp4"), 2, torch.tensor([[0.2, 1.0, 1.0]]))
    assert (top_k_share([saturated], 1), top_k_share([saturated], 2)) == (0, 1)


def test_a_network_of_no_numbers_has_no_accuracy(fight: Path) -> None:
    clips = [Clip(fight / "videos/Fight/v_Fight_g13_c01.mp4", 0)]
    with pytest.raises(ClipstepError, match=r"v_Fight_g13_c01\.mp4: the network's outputs are not finite"):
        predict_videos(lambda subclips: torch.full((len(subclips), 2), torch.nan), clips, (16, 32, 3), None, QUIET)


@pytest.mark.parametrize(("seen", "right"), [(0.1, 1), (0.25, 1), (0.26, 0), (0.5, 0), (0.75, 1), (0.76, 1), (1.0, 1)])
def test_what_was_seen_is_rounded_up_to_whole_subclips(seen: float, right: int) -> None:
    assert top_k_when_seen([_says(3, 3, 2, 3, 3)], 1, seen) == (right, 1)


def test_videos_without_a_prediction_yet_are_left_out() -> None:
    """One video has no predictions for two of four subclips, then a wrong and a correct one; the other is always correct."""
    late = replace(_says(3, 2, 3), silent=2)
    assert [top_k_when_seen([late], 1, seen) for seen in (0.25, 0.5, 0.51, 0.75, 0.76)] == [(None, 0), (None, 0), (0, 1), (0, 1), (1, 1)]
    assert [top_k_when_seen([late, _says(1, 1)], 1, seen) for seen in (0.5, 0.75, 1.0)] == [(1, 1), (0.5, 2), (1, 2)]
    summary = summarise([late, _says(1, 1)], tuple("abcdefg"), {})
    assert summary["seen"] | {} == {f"{k / 10:.1f}": 1.0 if k <= 5 or k >= 8 else 0.5 for k in range(1, 11)}
    assert list(summary["seen_videos"].values()) == [1] * 5 + [2] * 5
    assert summarise([late], tuple("abcdefg"), {})["seen"]["0.2"] is None


def test_fused_predictions_begin_when_both_networks_predict() -> None:
    first = replace(_says(3, 2, 3), silent=2)
    (both,) = fused([first], [_says(3, 1, 1, 1, 3)])
    assert both.silent == 2 and both.probabilities.shape == (2, 7)
    torch.testing.assert_close(both.probabilities[-1], _says(3, 3).probabilities[0])
    torch.testing.assert_close(both.probabilities[0], (_says(3, 2).probabilities[0] + _says(3, 1).probabilities[0]) / 2)


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    matrix = confusion_matrix([_says(0, 0), _says(0, 2), _says(0, 2), _says(2, 0, 2)], 7)
    expected = np.zeros((7, 7), int)
    expected[0, 0], expected[0, 2], expected[2, 2] = 1, 2, 1
    np.testing.assert_array_equal(matrix, expected)


def test_largest_share() -> None:
    assert largest_share([3, 1, 3, 3, 0]) == 3 / 5


def test_a_summary_of_everything() -> None:
    names = tuple("abcdefg")
    summary = summarise([_says(0, 0), _says(0, 2), _says(2, 0, 2)], names, {"x.mp4": "broken"})
    assert summary["videos"] == 3 and summary["skipped_videos"] == {"x.mp4": "broken"}
    assert summary["top1"] == 2 / 3 and summary["top5"] == 1.0 and summary["largest_class_share"] == 2 / 3
    assert summary["per_class"]["a"] == {"videos": 2, "accuracy": 0.5}
    assert summary["per_class"]["b"] == {"videos": 0, "accuracy": None}
    assert summary["seen"]["0.5"] == 1 / 3 and summary["seen"]["1.0"] == 2 / 3


def test_five_crops_are_the_centre_and_the_corners(write_video: Callable[..., Path]) -> None:
    """Frames of 48x64; corners of 40 pixels (0.84 of 48). The mean of the probabilities, not of the logits."""
    path = write_video(8)
    boxes = [Box(0, 8, 48), Box(0, 0, 40), Box(0, 24, 40), Box(8, 0, 40), Box(8, 24, 40)]

    def logits(subclips: torch.Tensor) -> torch.Tensor:
        return subclips.float().mean(dim=(1, 2, 3))[:, :2] * torch.tensor([1.0, -1.0]) * 0.01

    views = [logits(read_subclips(path, 4, 16, box=lambda *_, box=box: box)).softmax(dim=1) for box in boxes]
    for crops, expected in ((1, views[0]), (5, sum(views) / 5)):
        (prediction,), _ = predict_videos(logits, [Clip(path, 1)], (4, 16, 3), None, QUIET, crops=crops)
        torch.testing.assert_close(prediction.probabilities, expected)


def test_unusable_videos_are_named(write_video: Callable[..., Path], tmp_path: Path) -> None:
    good, broken = write_video(4), tmp_path / "broken.mp4"
    broken.write_text("no video")
    predictions, unusable = predict_videos(lambda s: torch.zeros(len(s), 2), [Clip(broken, 1), Clip(good, 0)], (4, 16, 3), None, QUIET)
    assert [p.path for p in predictions] == [good] and "cannot be decoded" in unusable[str(broken)]
    with pytest.raises(VideoError, match=r"no usable video: .*broken\.mp4"):
        predict_videos(lambda s: torch.zeros(len(s), 2), [Clip(broken, 1)], (4, 16, 3), None, QUIET)


def test_two_streams_are_fused_by_the_mean_of_their_probabilities() -> None:
    first = [VideoPrediction(Path("a"), 0, torch.tensor([[0.6, 0.4], [0.3, 0.7]])), VideoPrediction(Path("b"), 1, torch.tensor([[0.9, 0.1]]))]
    second = [VideoPrediction(Path("a"), 0, torch.tensor([[0.2, 0.8], [0.9, 0.1]])), VideoPrediction(Path("b"), 1, torch.tensor([[0.3, 0.7]]))]
    both = fused(first, second)
    assert [(p.path, p.label) for p in both] == [(Path("a"), 0), (Path("b"), 1)]
    torch.testing.assert_close(both[0].probabilities, torch.tensor([[0.4, 0.6], [0.6, 0.4]]))
    torch.testing.assert_close(both[1].probabilities, torch.tensor([[0.6, 0.4]]))


@pytest.fixture
def three_classes(tiny_data: Path) -> Path:
    """The tiny data set with the classes of the small run."""
    (tiny_data / "classInd.txt").write_text("1 fight\n2 nofight\n3 other\n")
    for name in ("trainlist01.txt", "testlist01.txt"):
        text = (tiny_data / name).read_text().replace("NoFight/", "nofight/").replace("Fight/", "fight/")
        (tiny_data / name).write_text(text)
    (tiny_data / "videos/Fight").rename(tiny_data / "videos/fight")
    (tiny_data / "videos/NoFight").rename(tiny_data / "videos/nofight")
    (tiny_data / "videos/other").mkdir()
    (tiny_data / "videos/other/v_other_g01_c01.mp4").symlink_to(tiny_data / "videos/fight/v_Fight_g02_c01.mp4")
    with (tiny_data / "trainlist01.txt").open("a") as file:
        file.write("other/v_other_g01_c01.mp4 3\n")
    return tiny_data


def _evaluate(*arguments: Path | str) -> Any:
    return CliRunner().invoke(evaluate_command, [str(a) for a in arguments], standalone_mode=False)


def test_run_and_bundle_give_the_same_by_their_own_runtimes(
    run: Run, run_folder: Path, bundle_path: Path, three_classes: Path, tmp_path: Path
) -> None:
    tables = {}
    for name, what, options in (("run", run_folder, ()), ("onnx", bundle_path, ()), ("pte", bundle_path, ("--engine", "executorch"))):
        result = _evaluate(what, three_classes, "--out", tmp_path / name, *options)
        assert result.exception is None, result.output
        with (tmp_path / name / "predictions.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    paths = [three_classes / "videos" / line for line in (three_classes / "testlist01.txt").read_text().split()]
    for row, path in zip(tables["run"], paths, strict=True):
        expected = video_logits(run.network, read_subclips(path, 4, 32), run.info)[-1].softmax(dim=0)
        assert row["video"] == str(path) and row["class"] == path.parent.name
        np.testing.assert_allclose([float(row[name]) for name in run.info.labels], expected, atol=1e-6)
    for other in ("onnx", "pte"):
        for a, b in zip(tables["run"], tables[other], strict=True):
            np.testing.assert_allclose([float(a[name]) for name in run.info.labels], [float(b[name]) for name in run.info.labels], atol=1e-4)


@pytest.mark.parametrize(("rate", "taken"), [(50, range(0, 20, 2)), (12.5, [0, *(i for i in range(1, 10) for _ in range(2))])])
def test_evaluate_and_run_take_the_frames_of_the_models_rate(
    rate: float,
    taken: Sequence[int],
    run: Run,
    run_folder: Path,
    bundle_path: Path,
    three_classes: Path,
    clipstep: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The network is for 25 frames a second; one test video has another rate. After the last whole subclip all say the same."""
    path = three_classes / "videos" / (three_classes / "testlist01.txt").read_text().split()[0]
    frames = np.stack(list(islice(read_frames(path), 20 if rate > 25 else 10)))
    write_video(path, frames, Fraction(rate))
    stored = list(read_frames(path, size=32))
    subclips = torch.from_numpy(np.stack([stored[i] for i in taken[: len(taken) // 4 * 4]])).reshape(-1, 4, 32, 32, 3)
    expected = video_logits(run.network, subclips, run.info)[-1].softmax(dim=0)
    for name, what in (("run", run_folder), ("bundle", bundle_path)):
        assert _evaluate(what, three_classes, "--out", tmp_path / name).exception is None
        with (tmp_path / name / "predictions.csv").open() as file:
            row = next(row for row in csv.DictReader(file) if row["video"] == str(path))
        np.testing.assert_allclose([float(row[name]) for name in run.info.labels], expected, atol=1e-4)
    code, out, err = clipstep("run", bundle_path, path, "--json")
    said = {one["label"]: one["probability"] for one in json.loads(out.splitlines()[-1])["top"]}
    np.testing.assert_allclose([said[name] for name in run.info.labels], expected, atol=1e-4)
    assert code == 0 and err.endswith(f"{rate:g} frames a second, taken at 25\n") and len(out.splitlines()) == len(subclips)


def _say_of_the_output(bundle: Path, output: str) -> None:
    """In the manifest and in step.onnx."""
    file, values = bundle / "step.onnx", json.loads((bundle / "manifest.json").read_text())
    model = onnx.load(file)
    (facts,) = model.metadata_props
    facts.value = json.dumps({**json.loads(facts.value), "output_kind": output})
    onnx.save(model, file)
    (artifact,) = (artifact for artifact in values["artifacts"] if artifact["file"] == file.name)
    artifact.update(sha256=tree_sha256(file), size_bytes=tree_size(file))
    (bundle / "manifest.json").write_text(json.dumps({**values, "output_kind": output}))


@pytest.mark.parametrize(("output", "apply"), [("probabilities", lambda x: x), ("multilabel_logits", torch.sigmoid)])
def test_a_bundle_is_evaluated_by_the_output_kind_of_its_manifest(
    output: str, apply: Callable[[torch.Tensor], torch.Tensor], run: Run, bundle_path: Path, three_classes: Path, tmp_path: Path
) -> None:
    """Softmax is applied only to logits of exclusive classes, which are not averaged with other outputs."""
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "small.clipstep"))
    _say_of_the_output(bundle, output)
    assert _evaluate(bundle, three_classes, "--out", tmp_path / "out").exception is None
    with (tmp_path / "out/predictions.csv").open() as file:
        for row in csv.DictReader(file):
            expected = apply(video_logits(run.network, read_subclips(Path(row["video"]), 4, 32), run.info)[-1])
            np.testing.assert_allclose([float(row[name]) for name in run.info.labels], expected, atol=1e-4)
    both = _evaluate(bundle, three_classes, "--with", bundle_path).exception
    assert ("its classes exclude each other" in str(both)) == (output == "multilabel_logits")


def test_json_is_the_summary_and_nothing_else(bundle_path: Path, three_classes: Path, clipstep: Callable[..., Any], tmp_path: Path) -> None:
    code, out, err = clipstep("evaluate", bundle_path, three_classes, "--json", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    values, classes = json.loads(out), ("fight", "nofight", "other")
    assert values == json.loads((tmp_path / "out/summary.json").read_text())
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [max(classes, key=lambda name, row=row: float(row[name])) == row["class"] for row in rows]
    assert values["videos"] == len(rows) and values["top1"] == sum(right) / len(right)


def test_the_title_of_a_confusion_matrix_says_what_is_confused_most() -> None:
    labels = ("a", "b", "c")
    assert confusion_finding(np.array([[5, 1, 0], [0, 4, 0], [3, 0, 7]]), labels) == "16 of 20 right;\nc is taken for a 3 times"
    assert confusion_finding(np.diag([5, 4, 7]), labels) == "16 of 16 right"


def test_tables_and_pictures(run_folder: Path, three_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    assert _evaluate(run_folder, three_classes, "--out", out).exception is None
    summary = json.loads((out / "summary.json").read_text())
    with (out / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true class", "fight", "nofight", "other"] and [[int(c) for c in row[1:]] for row in rows[1:]] == summary["confusion"]
    with (out / "seen.csv").open() as file:
        assert {row["share_seen"]: float(row["top1"]) for row in csv.DictReader(file)} == summary["seen"]
    for name in ("confusion.png", "seen.png"):
        picture = np.asarray(Image.open(out / name).convert("L"))
        assert min(picture.shape) > 300 and picture.std() > 10
    again = _evaluate(run_folder, three_classes, "--out", out).exception
    assert "holds a finished evaluation (of " in str(again)
    assert _evaluate(run_folder, three_classes, "--out", out, "--force").exception is None


def test_without_memory_each_subclip_is_predicted_alone(run: Run, run_folder: Path, bundle_path: Path, three_classes: Path, tmp_path: Path) -> None:
    """The prediction after the last subclip is then that of this subclip alone; network and bundle agree."""
    for name, what in (("run", run_folder), ("bundle", bundle_path)):
        result = _evaluate(what, three_classes, "--reset-each-step", "--out", tmp_path / name)
        assert result.exception is None, result.output
        assert "accuracy without memory" in " ".join(result.output.split())
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        lines = (three_classes / "testlist01.txt").read_text().split()
        alone = [video_logits(run.network, read_subclips(three_classes / "videos" / line, 4, 32)[-1:], run.info)[0] for line in lines]
        right = [run.info.labels[int(logits.argmax())] == line.split("/")[0] for logits, line in zip(alone, lines, strict=True)]
        assert summary["reset_each_step"]["top1"] == sum(right) / len(right)


def test_artifacts_that_take_frames_of_float32_are_evaluated(run: Run, clip: Path, bundle_path: Path) -> None:
    """As those of an export with --input float32; frames are read as uint8."""
    subclips = read_subclips(clip, 4, 32)
    with StepModel.load(bundle_path) as model:
        interface = model.interface
        wide = interface.model_copy(update={"input": interface.input.model_copy(update={"dtype": "float32"})})
        expected = bundle_logits(model, subclips)

        class Takes:
            interface, initial_states, description = wide, model.initial_states, "a model of float32 frames"

            def step_outputs(self, frames: np.ndarray, states: tuple[np.ndarray, ...]) -> StepOutputs:
                assert frames.dtype == np.float32
                return model.step_outputs(frames.astype(np.uint8), states)

        assert torch.equal(bundle_logits(Takes(), subclips), expected)  # type: ignore[arg-type]


def test_resetting_changes_predictions(run: Run, clip: Path) -> None:
    subclips = read_subclips(clip, 4, 32)
    carried, reset = (video_logits(run.network, subclips, run.info, reset=flag) for flag in (False, True))
    assert torch.equal(carried[0], reset[0]) and (carried[1:] - reset[1:]).abs().amax(dim=1).min() > 1e-4


@pytest.mark.parametrize(("engine", "file", "other"), [("onnxruntime", "step.onnx", "step.pte"), ("executorch", "step.pte", "step.onnx")])
def test_the_accuracy_is_recorded_in_the_manifest(engine: str, file: str, other: str, bundle_path: Path, three_classes: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_path, tmp_path / "noted.clipstep"))
    result = _evaluate(copy, three_classes, "--record", "--engine", engine, "--crops", "5", "--out", tmp_path / "out")
    assert result.exception is None, result.output
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    noted = {artifact.file: artifact.accuracy for artifact in Bundle.open(copy).manifest.artifacts}
    assert noted[other] is None and noted[file] is not None
    assert noted[file].model_dump() == {
        "dataset": f"{three_classes}, testlist01",
        "engine": engine,
        "videos": 2,
        "crops": 5,
        "top1": summary["top1"],
        "top5": None,
        "skipped_videos": 0,
        "processor": this_machine(),
        "against_float32": None,
    }
    before, after = (json.loads((folder / "manifest.json").read_text()) for folder in (bundle_path, copy))
    for artifact in after["artifacts"]:
        artifact["accuracy"] = None
    assert after == before


@pytest.mark.parametrize("kind", ["classes", "nothing", "folder", "record a run", "record two"])
def test_mistakes(kind: str, run_folder: Path, tiny_data: Path, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1").touch()
    arguments, message = {
        "classes": (
            [run_folder, tiny_data],
            f"error: {tiny_data}: has other classes than {run_folder}; got Fight, NoFight; expected fight, nofight, other",
        ),
        "nothing": ([tmp_path / "no", tiny_data], f"error: {tmp_path}/no: is not a run; got no run.json"),
        "folder": ([run_folder, tiny_data, "--out", tmp_path / "thesis"], f"error: {tmp_path}/thesis: exists and is not an evaluation"),
        "record a run": ([run_folder, tiny_data, "--record"], f"error: --record notes what a bundle reaches; got {run_folder}"),
        "record two": (
            [run_folder, tiny_data, "--record", "--with", run_folder],
            "error: --with cannot be combined with --reset-each-step or --record",
        ),
    }[kind]
    code, _, err = clipstep("evaluate", *arguments)
    assert code == 2 and err.startswith(message)
