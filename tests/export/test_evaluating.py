"""What artifacts of each precision reach on labelled videos: in evaluate, at export, in the manifest; and exports that refuse what is lost."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.benchmarks import Record, html_report
from clipstep.export import EvaluationData, ExportOptions, ExportResult, export, export_network, network_of_module
from clipstep.export.evaluating import check_accuracy_drop, evaluation_of
from clipstep.export.evaluation_tables import evaluation_lines
from clipstep.export.mlprogram import load_mlprogram
from clipstep.network import Joints
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle, ClipstepError, StepModel, StepOutputs, VideoError, isolated_engine
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.command_line.terminal import new_console, no_progress, print_table
from clipstep.training import evaluate, read_data_set
from clipstep.training.artifact_accuracy import exact_for
from clipstep.training.data.encode import write_video
from clipstep.training.data.trained_on import KEY, TrainedOn
from clipstep.training.drift import measure_drift
from clipstep.training.run import Run

Cli = Callable[..., tuple[int, str, str]]
CLASSES = ("fight", "nofight", "other")
VIDEOS = {"a": (9, "fight"), "b": (12, "nofight"), "c": (6, "nofight"), "d": (3, "other"), "e": (15, "fight"), "short": (2, "other")}
"""The test videos: how many frames each has, of which a step takes three, and its class."""
USABLE = ["a", "b", "c", "d", "e"]
STEPS = 37
COREML = ("step-float32.mlpackage", "step-float16.mlpackage")


def labelled(folder: Path, videos: Mapping[str, tuple[int, str]], classes: Sequence[str]) -> Path:
    """Write a data set of noise: a training video of each class, and the test videos."""
    random = np.random.default_rng(5)
    (folder / "videos").mkdir()
    train = {f"train{index}": (3, name) for index, name in enumerate(classes)}
    for list_name, listed in (("train.csv", train), ("val.csv", videos)):
        (folder / list_name).write_text("".join(f"videos/{name}.mp4,{label}\n" for name, (_, label) in listed.items()))
        for name, (frames, _) in listed.items():
            write_video(folder / f"videos/{name}.mp4", list(random.integers(0, 256, (frames, 32, 32, 3), np.uint8)), 25)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("data"), VIDEOS, CLASSES)


@pytest.fixture(scope="module")
def exported(pooled_run: Run, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The pooled network in every target, with ExecuTorch and Core ML in both precisions, evaluated at export."""
    options = ExportOptions(precisions=("float32", "executorch=float16", "coreml=float16"), evaluate=EvaluationData(data, drift_steps=STEPS))
    return export_network(pooled_run.spec(), str(tmp_path_factory.mktemp("evaluated") / "small.clipstep"), options)


@pytest.fixture(scope="module")
def predicted(exported: ExportResult, data: Path) -> dict[str, dict[str, Tensor]]:
    """The logits after each step of each usable test video, by the artifact's file, stepped by hand. Core ML's files run in our own evaluator."""
    runtimes = {"step.onnx": ("onnxruntime", "float32"), "step.pte": ("executorch", "float32"), "step-float16.pte": ("executorch", "float16")}
    found = {file: stepped(StepModel.load(exported.bundle, engine, precision=precision), data) for file, (engine, precision) in runtimes.items()}
    for file in COREML:
        found[file] = stepped(StepModel(exported.manifest.interface("float32"), load_mlprogram(exported.bundle / file, None), file), data)
    return found


def stepped(opened: StepModel, data: Path) -> dict[str, Tensor]:
    with opened as model:
        return {name: torch.stack(list(steps(model, data / f"videos/{name}.mp4"))) for name in USABLE}


def steps(model: StepModel, video: Path) -> Iterator[Tensor]:
    states = model.initial_states()
    for subclip in read_subclips(video, 3, 16, fps=25):
        logits, states = model.step(subclip.numpy().astype(model.interface.input.dtype), states)
        yield torch.from_numpy(logits)


def accuracy_of(bundle: Path, file: str) -> Accuracy | None:
    return next(artifact.accuracy for artifact in Bundle.open(bundle).manifest.artifacts if artifact.file == file)


def test_a_precision_is_evaluated_in_its_own_runtime(exported: ExportResult, data: Path, predicted: dict[str, dict[str, Tensor]]) -> None:
    """Also what an export of another precision reaches."""
    found = evaluate(exported.bundle, data, engine="executorch", precision="float16")
    assert "step-float16.pte (lowered, float16, for any) in executorch" in found.description
    assert [one.path.stem for one in found.predictions] == USABLE and found.labels == CLASSES
    by_hand = predicted["step-float16.pte"]
    for one in found.predictions:
        torch.testing.assert_close(one.probabilities, by_hand[one.path.stem].softmax(dim=1))
        assert not torch.equal(one.probabilities, predicted["step.pte"][one.path.stem].softmax(dim=1))
    right = [int(by_hand[name][-1].argmax()) == CLASSES.index(VIDEOS[name][1]) for name in USABLE]
    assert (found.top1, found.top5) == (sum(right) / len(right), None) and found.top1_interval[0] < found.top1 < found.top1_interval[1]
    (reason,) = found.skipped.values()
    assert "2 frames" in reason


def test_the_command_records_the_precision_that_it_ran(exported: ExportResult, data: Path, tmp_path: Path, clipstep: Cli) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "copy.clipstep"))
    values = json.loads((bundle / "manifest.json").read_text())
    for artifact in values["artifacts"]:
        artifact["accuracy"] = None
    (bundle / "manifest.json").write_text(json.dumps(values))
    code, out, _ = clipstep("evaluate", bundle, data, "--engine", "executorch", "--precision", "float16", "--record")
    assert code == 0 and "step-float16.pte (lowered, float16, for any)" in out and "1 of 6 videos were skipped" in out
    noted = accuracy_of(bundle, "step-float16.pte")
    assert noted is not None and (noted.engine, noted.videos, noted.skipped_videos) == ("executorch", 5, 1)
    assert (accuracy_of(bundle, "step.pte"), accuracy_of(bundle, "step.onnx")) == (None, None)


def test_what_a_bundle_or_processor_has_not_is_not_evaluated(
    exported: ExportResult, data: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch, clipstep: Cli
) -> None:
    """A runtime takes float32 in place of float16 on such a processor; an evaluation must not."""
    code, _, error = clipstep("evaluate", exported.bundle, data, "--precision", "float16")
    assert code == 2 and "has no float16 onnx artifact for this processor; got " in error and "float16 executorch for any" in error
    code, _, error = clipstep("evaluate", exported.bundle, data, "--precision", "float8")
    assert code == 2 and "unknown precision; got float8" in error
    code, _, error = clipstep("evaluate", run_folder, data, "--precision", "float16")
    assert code == 2 and error.startswith("error: --precision is for a bundle; a run is evaluated in PyTorch")
    with pytest.raises(ClipstepError, match="no such number of crops; got 3; expected 1 or 5"):
        evaluate(exported.bundle, data, crops=3)
    monkeypatch.setattr(isolated_engine, "computes_float16", lambda machine: False)
    with pytest.raises(ClipstepError, match="its float16 artifact cannot be evaluated here, because this processor does not compute in float16"):
        evaluate(exported.bundle, data, engine="executorch", precision="float16")


def test_an_export_notes_what_each_artifact_reaches(exported: ExportResult, data: Path, predicted: dict[str, dict[str, Tensor]]) -> None:
    labels = [CLASSES.index(VIDEOS[name][1]) for name in USABLE]
    for file, logits in predicted.items():
        accuracy = accuracy_of(exported.bundle, file)
        right = [int(logits[name][-1].argmax()) == label for name, label in zip(USABLE, labels, strict=True)]
        assert accuracy is not None and accuracy.top1 == sum(right) / 5 and accuracy.videos == 5 and accuracy.skipped_videos == 1
        assert (accuracy.dataset, accuracy.crops, accuracy.top5, accuracy.processor) == (f"{data}, val.csv", 1, None, this_machine())
        assert (accuracy.against_float32 is None) == ("float16" not in file)
    assert exported.evaluated is not None and exported.evaluated.not_evaluated == {}
    assert [Path(path).stem for path in exported.evaluated.skipped_videos] == ["short"]
    assert Bundle.open(exported.bundle).manifest == exported.manifest


OF_FLOAT16 = {"step-float16.pte": ("step.pte", "executorch"), "step-float16.mlpackage": ("step-float32.mlpackage", "own evaluator")}


@pytest.mark.parametrize("file", OF_FLOAT16)
def test_lower_precision_is_compared_with_float32_of_its_own_target(
    file: str, exported: ExportResult, predicted: dict[str, dict[str, Tensor]]
) -> None:
    accuracy = accuracy_of(exported.bundle, file)
    assert accuracy is not None and accuracy.against_float32 is not None
    against = accuracy.against_float32
    assert (against.file, against.engine) == OF_FLOAT16[file] and accuracy.engine == against.engine
    own, exact = (torch.cat(list(predicted[one].values())).argmax(dim=1) for one in (file, against.file))
    assert (against.steps, against.agreeing_steps) == (len(own), int((own == exact).sum())) == (15, against.agreeing_steps)
    assert against.top1_change == accuracy.top1 - against.top1 == (against.gained_videos - against.lost_videos) / 5


def test_drift_is_that_of_one_long_stream_of_the_videos_again_and_again(exported: ExportResult, data: Path) -> None:
    frames = np.concatenate([read_subclips(data / f"videos/{name}.mp4", 3, 16, fps=25).numpy() for name in USABLE])
    outputs = []
    for precision in ("float32", "float16"):
        with StepModel.load(exported.bundle, "executorch", precision=precision) as model:
            states, every = model.initial_states(), []
            for step in range(STEPS):
                logits, states = model.step(frames[step % len(frames)], states)
                every.append((logits, *states))
        outputs.append([np.stack(values) for values in zip(*every, strict=True)])
    accuracy = accuracy_of(exported.bundle, "step-float16.pte")
    assert accuracy is not None and accuracy.against_float32 is not None
    against = accuracy.against_float32
    assert against.drift_steps == STEPS
    assert [drift.output for drift in against.drift] == ["logits", "first", "newest"]
    for drift, exact, rounded in zip(against.drift, *outputs, strict=True):
        shares = [np.abs(a.astype(float) - b).max() / np.ptp(exact) for a, b in zip(exact, rounded, strict=True)]
        assert (drift.first_tenth, drift.last_tenth) == pytest.approx((max(shares[:3]), max(shares[-3:])))
        assert 1e-6 < drift.first_tenth < 2e-2


class Walks:
    """Stands for a model of one state whose error grows by a hundredth each step, or whose logits become infinite."""

    def __init__(self, model: StepModel, error: float, ends_at: int = 1000) -> None:
        self.interface, self.description, self.error, self.ends_at = model.interface, "walking", error, ends_at
        self.initial_states = model.initial_states

    def step_outputs(self, subclip: np.ndarray, states: tuple[np.ndarray, ...]) -> StepOutputs:
        count = float(states[1].flat[0])
        logits = np.array([0, 1, np.inf if count >= self.ends_at else (count % 10) / 10], np.float32)
        return StepOutputs(logits, (states[0] * 0 + count * self.error, states[1] + 1), {})


def test_errors_that_add_up_show_in_the_last_tenth(exported: ExportResult) -> None:
    with StepModel.load(exported.bundle) as model:
        exact, rounded, frames = Walks(model, 1), Walks(model, 1.01), [np.zeros((3, 16, 16, 3), np.uint8)] * 100
        drift = {one.output: one for one in measure_drift(exact, rounded, frames, 100)}  # type: ignore[arg-type]
        assert (drift["logits"].first_tenth, drift["logits"].last_tenth) == (0, 0)
        assert (drift["first"].first_tenth, drift["first"].last_tenth) == pytest.approx((0.01 * 9 / 99, 0.01 * 99 / 99), rel=1e-4)
        with pytest.raises(ClipstepError, match="walking: logits is not finite at step 7; got inf"):
            measure_drift(exact, Walks(model, 1, ends_at=7), frames, 100)  # type: ignore[arg-type]


class Near(nn.Module):
    """Says the second class always, by a ten-thousandth of its logit, which float16 cannot tell."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean((2, 3, 4))[:, :1] * torch.tensor([1.0, 1.0001])


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four test videos, all of them of the second of two classes."""
    folder = tmp_path_factory.mktemp("seconds")
    return labelled(folder, {f"v{index}": (3, "b") for index in range(4)}, ("a", "b"))


KNOWN = {"frames": 3, "size": 16, "labels": ("a", "b"), "mean": (0.0,) * 3, "std": (255.0,) * 3, "fps": 25.0, "targets": ("executorch",)}


def test_an_artifact_that_loses_too_much_is_refused(seconds: Path, tmp_path: Path) -> None:
    """Nothing is written, and what was there stays."""
    out = tmp_path / "near.clipstep"
    known = {**KNOWN, "precisions": ("float32", "float16"), "evaluate": EvaluationData(seconds, drift_steps=5)}
    result = export(Near().eval(), out, max_accuracy_drop=100, **known)  # type: ignore[arg-type]
    (accuracy,) = (artifact.accuracy for artifact in result.manifest.artifacts if artifact.precision == "float16")
    assert accuracy is not None and accuracy.against_float32 is not None
    against = accuracy.against_float32
    assert (against.top1, against.top1_change, against.lost_videos, against.agreeing_steps) == (1, -1, 4, 0)
    before = (out / "manifest.json").read_bytes()
    message = (
        r"step-float16\.pte: its top-1 falls by 100\.0 points, from 100\.0% of step\.pte to 0\.0% of 4 videos "
        r"\(95% interval of the fall 30\.7 to 100\.0 points\); expected a fall of at most 99 points"
    )
    with pytest.raises(ClipstepError, match=message):
        export(Near().eval(), out, max_accuracy_drop=99, force=True, **known)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [out] and (out / "manifest.json").read_bytes() == before


def test_a_fall_is_held_to_the_limit_in_points(exported: ExportResult) -> None:
    """Three videos of 60 are exactly five points."""
    artifact = next(artifact for artifact in exported.manifest.artifacts if artifact.precision == "float16" and artifact.accuracy)
    assert artifact.accuracy is not None and artifact.accuracy.against_float32 is not None
    against = artifact.accuracy.against_float32.model_copy(update={"lost_videos": 4, "gained_videos": 1})
    changed = artifact.model_copy(update={"accuracy": artifact.accuracy.model_copy(update={"videos": 60, "against_float32": against})})
    check_accuracy_drop((changed,), 5)
    with pytest.raises(ClipstepError, match=r"falls by 5\.0 points"):
        check_accuracy_drop((changed,), 4.99)
    alone = artifact.model_copy(update={"accuracy": artifact.accuracy.model_copy(update={"against_float32": None})})
    with pytest.raises(ClipstepError, match=r"step-float16\.pte: --max-accuracy-drop needs a float32 artifact to compare with; got none"):
        check_accuracy_drop((alone,), 5)


def test_the_float32_artifact_to_compare_with(exported: ExportResult) -> None:
    onnx, exact, half = exported.manifest.artifacts[:3]
    for_arm64, half_for_arm64 = (artifact.model_copy(update={"platform": "arm64"}) for artifact in (exact, half))
    assert exact_for(half, [onnx, for_arm64, exact, half]) is exact
    assert exact_for(half_for_arm64, [onnx, exact, for_arm64, half]) is for_arm64
    assert exact_for(half, [onnx, half]) is onnx and exact_for(half, [half]) is None


def test_an_artifact_of_another_processor_is_not_evaluated(exported: ExportResult, data: Path, pooled_run: Run, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "copy.clipstep"))
    values = json.loads((bundle / "manifest.json").read_text())
    other = "arm64" if this_machine() == "x86_64" else "x86_64"
    values["artifacts"] = values["artifacts"][:3]
    values["artifacts"][1]["platform"] = values["artifacts"][2]["platform"] = other
    (bundle / "manifest.json").write_text(json.dumps(values))
    run = evaluation_of(EvaluationData(data, drift_steps=3), pooled_run.spec())
    found = run(bundle, no_progress)
    assert found.not_evaluated == dict.fromkeys(("step.pte", "step-float16.pte"), f"it is for {other}") and list(found.accuracies) == ["step.onnx"]


BAD = {
    "no data": ((), "--max-accuracy-drop needs labelled videos to measure the accuracy on; got no --evaluate; add --evaluate DATA"),
    "float32 alone": (
        ("--evaluate", "DATA", "--target", "onnx"),
        "for artifacts of lower precision, and none is written that can be evaluated on this computer; got float32",
    ),
    "no float32": (("--evaluate", "DATA", "--target", "executorch", "--precision", "float16"), "needs a float32 artifact to compare with; got none"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_limit_without_anything_to_measure_is_an_error(case: str, data: Path, run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    options, message = BAD[case]
    given = [str(data) if word == "DATA" else word for word in options]
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "a.clipstep", "--max-accuracy-drop", "1", *given)
    assert code == 2 and message in error and list(tmp_path.iterdir()) == []


def test_bad_labelled_data_is_refused_before_the_work(
    exported: ExportResult, seconds: Path, data: Path, run_folder: Path, tmp_path: Path, clipstep: Cli
) -> None:
    def refused(given: Path, *options: object) -> str:
        code, printed, error = clipstep("export", run_folder, "--out", tmp_path / "a.clipstep", "--evaluate", given, *options)
        assert code == 2 and printed == "" and not (tmp_path / "a.clipstep").exists()
        return str(error)

    assert f"{seconds}: has other classes than {run_folder}; got a, b; expected fight, nofight, other" in refused(seconds)
    assert "unknown layout; got hmdb; expected one of auto, ucf101" in refused(data, "--layout", "hmdb")
    assert "no such folder" in refused(tmp_path / "nothing")
    unknown = Path(shutil.copytree(data, tmp_path / "unknown"))
    (unknown / "val.csv").write_text("videos/a.mp4,sleeping\n")
    assert "sleeping" in refused(unknown)
    unlabelled = Path(shutil.copytree(data / "videos", tmp_path / "unlabelled"))
    assert "is no data set of a known layout; got 9 videos" in refused(unlabelled)
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "a.clipstep", "--split", "2")
    assert code == 2 and "--split does nothing without --evaluate" in error


def test_videos_that_the_network_was_trained_on_are_refused(exported: ExportResult, data: Path, pooled_run: Run) -> None:
    tested = read_data_set(data).test
    spec = replace(pooled_run, info=replace(pooled_run.info, training={KEY: TrainedOn.of(tested[:2]).values()})).spec("runs/pooled")
    with pytest.raises(ClipstepError, match=r"runs/pooled: data leakage; got runs/pooled was trained on 2 of the 6 test videos: a\.mp4, b\.mp4"):
        evaluation_of(EvaluationData(data), spec)
    found = evaluation_of(EvaluationData(data, drift_steps=3, allow_leakage=True), spec)(exported.bundle, no_progress)
    assert "was trained on 2 of the 6 test videos" in found.warnings[-1]
    assert {a.dataset for a in found.accuracies.values()} == {f"{data}, val.csv, some of whose videos it was trained on or counts twice"}


def test_what_an_evaluation_needs(seconds: Path, pooled_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of videos, and the libraries of training."""
    joints = network_of_module(nn.Identity().eval(), frames=3, labels=("a", "b"), mean=(0.0,) * 3, std=(1.0,) * 3, fps=25, input=Joints(5))
    with pytest.raises(ClipstepError, match="--evaluate is for networks that take videos; got a network of joints"):
        evaluation_of(EvaluationData(seconds), joints)
    with pytest.raises(ClipstepError, match=r"evaluate is a value of EvaluationData; got 'fight'; expected such as EvaluationData\('fight'\)"):
        ExportOptions(evaluate="fight")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "clipstep.training.artifact_accuracy", None)
    with pytest.raises(ClipstepError, match=r"--evaluate needs .*, which is not installed; pip install .*\[training\]"):
        evaluation_of(EvaluationData(seconds), pooled_run.spec())


def test_videos_that_are_all_too_short_are_an_error(data: Path, pooled_run: Run, tmp_path: Path) -> None:
    shorts = Path(shutil.copytree(data, tmp_path / "shorts"))
    (shorts / "val.csv").write_text("videos/short.mp4,other\n")
    options = ExportOptions(("onnx",), evaluate=EvaluationData(shorts))
    with pytest.raises(VideoError, match=r"no usable video: .*short\.mp4"):
        export_network(pooled_run.spec(), tmp_path / "out/a.clipstep", options)
    assert not list((tmp_path / "out").glob("*"))
    with pytest.raises(ClipstepError, match="drift_steps is out of range; got 0; expected a whole number of at least 1"):
        EvaluationData(shorts, drift_steps=0)


def test_the_command_prints_what_was_found_and_what_was_not_evaluated(exported: ExportResult) -> None:
    console = new_console(text := io.StringIO())
    assert exported.evaluated is not None
    lower = [artifact.model_copy(update={"precision": "float16"}) for artifact in exported.manifest.artifacts]
    for line in evaluation_lines(exported.evaluated, lower, 1.0):
        console.print(line, soft_wrap=True) if isinstance(line, str) else print_table(console, line)
    printed = text.getvalue()
    accuracy = accuracy_of(exported.bundle, "step-float16.pte")
    assert accuracy is not None and accuracy.against_float32 is not None
    against = accuracy.against_float32
    low, high = (100 * end for end in against.top1_change_interval)
    assert f"accuracy on 5 videos of {accuracy.dataset}, 1 more skipped, measured on {this_machine()}" in printed
    assert low < 0 < high and f"{100 * against.top1_change:+.1f}  {low:+.1f} to {high:+.1f}" in printed
    said = f"may be from {-low:.1f} points below to {high:.1f} points above that of step.pte (95% interval)"
    assert f"5 videos tell no more than this: step-float16.pte's top-1 {said}" in printed
    assert f"finds the same class as step.pte after {against.agreeing_steps} of 15 steps" in printed
    assert f"largest errors against float32 in {STEPS} steps in a row" in printed and f"{against.drift[1].last_tenth:.2%}" in printed
    assert "a note: Core ML itself runs on Apple devices only" in printed
    unknown = replace(exported.evaluated, not_evaluated={"step.onnx": "it is for arm64"})
    for line in evaluation_lines(unknown, lower, 1.0):
        console.print(line, soft_wrap=True) if isinstance(line, str) else print_table(console, line)
    assert "step.onnx: not evaluated, and not held to --max-accuracy-drop: it is for arm64" in text.getvalue()


def test_inspect_and_report_show_the_comparison(exported: ExportResult, record: Record, tmp_path: Path, clipstep: Cli) -> None:
    accuracy = accuracy_of(exported.bundle, "step-float16.pte")
    assert accuracy is not None and accuracy.against_float32 is not None
    against = accuracy.against_float32
    said = f"against step.pte: top-1 {100 * against.top1_change:+.1f} points"
    drift = f"first {against.drift[1].first_tenth:.2%}, {against.drift[1].last_tenth:.2%}"
    _, out, _ = clipstep("inspect", exported.bundle)
    assert said in out and f"the same class after {against.agreeing_steps} of 15 steps" in out and drift in out
    assert out.count(f"val.csv, in own evaluator on {this_machine()}") == len(COREML)
    own = record.model_copy(update={"artifact_sha256": exported.manifest.artifacts[0].sha256})
    (tmp_path / "records.jsonl").write_text(own.model_dump_json() + "\n")
    _, out, _ = clipstep("report", exported.bundle, tmp_path / "records.jsonl")
    assert f"step-float16.pte {said}" in out and drift in out
    page = html_report(exported.bundle, [own])
    assert "Lower precision against float32, on the same videos" in page and f"{against.drift[1].last_tenth:.2%}" in page


@pytest.mark.parametrize("where", [("accuracy",), ("accuracy", "against_float32"), ("accuracy", "against_float32", "drift", 0)])
def test_unknown_keys_of_an_accuracy_are_refused(where: tuple[str | int, ...], exported: ExportResult, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "copy.clipstep"))
    values = json.loads((bundle / "manifest.json").read_text())
    place = next(artifact for artifact in values["artifacts"] if artifact["file"] == "step-float16.pte")
    for key in where:
        place = place[key]
    place["mood"] = 1
    (bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ClipstepError, match=r"is malformed at artifacts\.2\..*mood"):
        Bundle.open(bundle)
