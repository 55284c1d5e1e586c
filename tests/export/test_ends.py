"""The end of a video, and a camera that has none: what delayed and windowed bundles say, in every engine and command."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.export import Ask, export_run
from clipstep.export.mlprogram import MlProgram
from clipstep.export.step import program_of
from clipstep.export.stream.deaf import grows_deaf
from clipstep.export.verify import ParityError, check_steps
from clipstep.runtime import Bundle, ClipstepError, Prediction, StepModel
from clipstep.runtime.engines import load_engine
from clipstep.runtime.manifest import Flush
from clipstep.training.data.subclips import normalise, read_subclips
from clipstep.training.models import build
from clipstep.training.run import Run, RunInfo

CLASSES = ("fight", "nofight", "other")
MEAN, DEVIATION = (104.0, 101.0, 97.0), (58.0, 57.0, 59.0)
SIZE = 16


class Clip(nn.Module):
    """A clip network whose features can be asked for alone."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.features(frames).mean(dim=(2, 3, 4)))


def _run_of(network: nn.Module, clip: Path) -> Run:
    info = RunInfo("clip", {"frames": 4, "size": SIZE}, CLASSES, MEAN, DEVIATION, 25.0, "0" * 64)
    return Run(network.eval(), info, read_subclips(clip, 4, SIZE)[:8])


@torch.no_grad()
def _whole(run: Run, frames: np.ndarray) -> np.ndarray:
    """The eager clip network on all of a video, ``(n, H, W, 3)`` uint8."""
    return run.network(normalise(torch.from_numpy(frames)[None], MEAN, DEVIATION))[0].numpy()


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def late_run(clip: Path) -> Run:
    """Looks ahead by 1 frame, then by 2 of half the rate, then by 3: a delay of 12 frames; no video is too short for it."""
    torch.manual_seed(9)
    layers = (
        nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
        nn.Conv3d(8, 8, (5, 1, 1), 1, (2, 0, 0)), nn.Sigmoid(), nn.Conv3d(8, 8, (7, 1, 1), 1, (3, 0, 0)), nn.Tanh(),
    )  # fmt: skip
    return _run_of(Clip(*layers), clip)


@pytest.fixture(scope="module")
def late_bundle(late_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("late") / "late.clipstep"
    export_run(late_run, "late", out, Ask(stream=2))
    return out


@pytest.fixture
def earlier_bundle(late_bundle: Path, tmp_path: Path) -> Path:
    """As an earlier clipstep wrote it: with a delay, and without a word of how it ends."""
    path = Path(shutil.copytree(late_bundle, tmp_path / "earlier.clipstep"))
    values = json.loads((path / "manifest.json").read_text())
    del values["flush"], values["average"], values["window_frames"]
    (path / "manifest.json").write_text(json.dumps(values))
    return path


def _engines(bundle: Path) -> Iterator[StepModel]:
    for artifact in Bundle.open(bundle).manifest.artifacts:
        if artifact.precision == "float32":
            path = bundle / artifact.file
            coreml = artifact.target == "coreml"
            engine = MlProgram(path) if coreml else load_engine({"onnx": "onnxruntime"}.get(artifact.target, artifact.target), path, 1)
            yield StepModel(Bundle.open(bundle).manifest.interface(artifact.input_dtype), engine, artifact.file)


@pytest.mark.parametrize("frames", [2, 3, 8, 12, 15, 32])
def test_a_flushed_stream_gives_the_clip_network_on_the_whole_video(frames: int, late_bundle: Path, late_run: Run) -> None:
    """In every target, twice in one stream; a frame that fills no step is dropped. Videos shorter than the delay too."""
    video = _noise(frames)
    expected = _whole(late_run, video[: frames // 2 * 2])
    for model in _engines(late_bundle):
        stream = model.stream()
        for _ in range(2):
            pushed = [stream.push(frame) for frame in video]
            assert all(p is None for p in pushed[:13]) and all(p is not None for p in pushed[13::2])
            whole = stream.flush()
            assert whole is not None and (whole.step, whole.frames_seen) == (frames // 2 - 1, frames)
            np.testing.assert_allclose(whole.logits, expected, atol=1e-4, err_msg=model.description)
        model.close()


def test_nothing_is_flushed_where_all_was_said_or_nothing_was_seen(late_bundle: Path, windowed_bundle: Path, earlier_bundle: Path) -> None:
    for path, frames in ((late_bundle, 0), (late_bundle, 1), (windowed_bundle, 9), (earlier_bundle, 20)):
        with StepModel.load(path) as model:
            stream = model.stream()
            for frame in _noise(frames):
                stream.push(frame)
            assert stream.flush() is None


def test_a_flush_that_fails_leaves_the_stream_as_it_was(late_bundle: Path, late_run: Run) -> None:
    with StepModel.load(late_bundle) as model:
        stream, video = model.stream(), _noise(4)
        for frame in video:
            stream.push(frame)
        step, calls = model.step, []

        def failing(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise ClipstepError("the engine failed")
            return step(*arguments)

        model.step = failing  # type: ignore[method-assign]
        with pytest.raises(ClipstepError, match="the engine failed"):
            stream.flush()
        whole = stream.flush()
    assert whole is not None
    np.testing.assert_allclose(whole.logits, _whole(late_run, video), atol=1e-4)


def test_steps_that_end_wrongly_are_not_exported(late_run: Run) -> None:
    """One step too few after the end, and a mask that is off by a frame, are caught."""
    program = program_of(late_run, 2)
    subclips = program.subclips(late_run.sample.flatten(0, 1))
    check_steps(program, subclips)
    assert program.flush == Flush(state="ended", steps=6, min_frames=2)
    fewer = program.flush.model_copy(update={"steps": 5})
    object.__setattr__(program, "flush", fewer)
    with pytest.raises(ParityError, match="after 1 steps of 2 frames, flushed, the logits are not those of the network on all of them"):
        check_steps(program, subclips)


Command = Callable[..., tuple[int, str, str]]


def test_run_says_what_is_still_due_or_how_many_frames_are_missing(
    clipstep: Command, late_bundle: Path, earlier_bundle: Path, write_video: Callable[..., Path], late_run: Run
) -> None:
    short, single = write_video(6), write_video(1, "single.mp4")
    code, out, err = clipstep("run", late_bundle, short)
    with StepModel.load(late_bundle) as model:
        whole = _run_through(model, short)
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 2)
    assert lines[1].split() == ["end", *(word for label, p in whole.top(3) for word in (label, f"{p:.3f}"))]
    code, out, err = clipstep("run", late_bundle, single)
    assert code == 2 and err == f"error: {single}: too short; got 1 frames; expected at least 2; use a longer video\n"
    code, out, err = clipstep("run", earlier_bundle, short)
    assert code == 2 and err == f"error: {short}: too short; got 6 frames; expected at least 14; use a longer video\n"


def _run_through(model: StepModel, path: Path) -> Prediction:
    from clipstep.runtime import read_frames

    stream = model.stream()
    for frame in read_frames(path):
        stream.push(frame)
    whole = stream.flush()
    assert whole is not None
    return whole


@pytest.fixture
def videos(tmp_path: Path, write_video: Callable[..., Path], clip: Path) -> Path:
    """A data set whose test list has videos of 6, 8 and 20 frames and a real one."""
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    for name in CLASSES:
        (data / "videos" / name).mkdir()
    (data / "classInd.txt").write_text("1 fight\n2 nofight\n3 other\n")
    names = ["fight/v_fight_g01_c01.mp4", "nofight/v_nofight_g01_c01.mp4", "other/v_other_g01_c01.mp4", "fight/v_fight_g02_c01.mp4"]
    for name, count in zip(names[:3], (6, 8, 20), strict=True):
        write_video(count, "x.mp4").rename(data / "videos" / name)
    shutil.copy(clip, data / "videos" / names[3])
    for number, name in enumerate(CLASSES, 1):
        write_video(2 + number, "x.mp4").rename(data / "videos" / name / f"v_{name}_g09_c01.mp4")
    (data / "trainlist01.txt").write_text("".join(f"{name}/v_{name}_g09_c01.mp4 {number}\n" for number, name in enumerate(CLASSES, 1)))
    (data / "testlist01.txt").write_text("".join(f"{name}\n" for name in names))
    return data


def _rows(out: Path) -> dict[str, list[float]]:
    lines = [line.split(",") for line in (out / "predictions.csv").read_text().splitlines()[1:]]
    return {Path(path).name: [float(value) for value in values] for path, _, *values in lines}


def test_evaluate_says_of_every_video_what_the_clip_network_says(
    clipstep: Command, late_bundle: Path, late_run: Run, videos: Path, tmp_path: Path
) -> None:
    code, out, err = clipstep("evaluate", late_bundle, videos, "--out", tmp_path / "out", "--reset-each-step")
    assert (code, err) == (0, "") and "skipped" not in out
    found = _rows(tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    right = {"each": 0, "alone": 0}
    for line in (videos / "testlist01.txt").read_text().split():
        subclips = read_subclips(videos / "videos" / line, 2, SIZE)
        expected = _whole(late_run, subclips.flatten(0, 1).numpy())
        np.testing.assert_allclose(found[Path(line).name], torch.from_numpy(expected).softmax(0), atol=1e-5)
        right["each"] += CLASSES[expected.argmax()] == line.split("/")[0]
        right["alone"] += CLASSES[_whole(late_run, subclips[-1].numpy()).argmax()] == line.split("/")[0]
    assert summary["top1"] == right["each"] / 4 and summary["reset_each_step"]["top1"] == right["alone"] / 4
    # The real video is long; of 20 frames something is said after 7 of 10 steps, of 6 and 8 frames after the last of 3 and of 4.
    assert [summary["seen_videos"][seen] for seen in ("0.1", "0.6", "0.7", "0.8", "1.0")] == [0, 1, 3, 4, 4]
    assert summary["seen"]["0.1"] is None


def test_evaluate_names_and_counts_videos_that_are_too_short_for_a_delay(
    clipstep: Command, earlier_bundle: Path, late_bundle: Path, videos: Path, tmp_path: Path
) -> None:
    code, out, err = clipstep("evaluate", earlier_bundle, videos, "--record", "--out", tmp_path / "out")
    skipped = [f"{videos}/videos/{name}" for name in ("fight/v_fight_g01_c01.mp4", "nofight/v_nofight_g01_c01.mp4")]
    assert (code, err) == (0, "")
    for path, frames in zip(skipped, (6, 8), strict=True):
        assert f"skipped {path}: too short; got {frames} frames in whole steps of 2; expected at least 14" in out
    assert "2 of 4 videos were skipped" in out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["videos"] == 2 and list(summary["skipped_videos"]) == skipped
    accuracy = Bundle.open(earlier_bundle).artifact("onnx").accuracy
    assert accuracy is not None and accuracy.videos == 2
    code, out, err = clipstep("evaluate", late_bundle, videos, "--with", earlier_bundle, "--out", tmp_path / "both")
    assert (code, err) == (0, "") and "2 of 4 videos were skipped" in out
    fused = json.loads((tmp_path / "both/summary.json").read_text())
    assert [one["videos"] for one in (fused, *fused["each_alone"])] == [2, 2, 2]
    code, out, err = clipstep("evaluate", earlier_bundle, videos, "--reset-each-step")
    assert code == 2 and err.startswith("error: --reset-each-step: ") and "got steps of 2 frames; expected 14 frames" in err


def _scenes(seconds: float, then: float) -> np.ndarray:
    """One scene for so many seconds of 25 frames, with a little noise, then another."""
    count, rest = round(25 * seconds), round(25 * then)
    video = np.concatenate([np.full((count, SIZE, SIZE, 3), (200, 30, 30)), np.full((rest, SIZE, SIZE, 3), (20, 60, 220))])
    return (video + np.random.default_rng(1).integers(-20, 20, video.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def framewise_run(clip: Path) -> Run:
    """Each frame alone, then the mean over time: a window of it is exactly the clip network on the newest frames."""
    torch.manual_seed(10)
    return _run_of(Clip(nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU()), clip)


@pytest.fixture(scope="module")
def windowed_bundle(framewise_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("windowed") / "windowed.clipstep"
    export_run(framewise_run, "framewise", out, Ask(stream=2, window=2.0))
    return out


def _predictions(model: StepModel, video: np.ndarray) -> dict[int, np.ndarray]:
    stream = model.stream()
    return {p.frames_seen: p.logits for p in map(stream.push, video) if p is not None}


def test_a_window_sees_the_new_scene_and_the_mean_over_all_does_not(
    windowed_bundle: Path, framewise_run: Run, clipstep: Command, tmp_path: Path
) -> None:
    """After 30 s of one scene and 2 s of another, in every target: the window is the clip network on the newest 50 frames."""
    manifest = Bundle.open(windowed_bundle).manifest
    assert (manifest.average, manifest.window_frames, manifest.delay_frames, manifest.flush) == ("window", 50, 0, None)
    video = _scenes(30, 2)
    new = _whole(framewise_run, video[-50:])
    for model in _engines(windowed_bundle):
        found = _predictions(model, video)
        for seen in (2, 10, 50, 52, 700, 750, 752, 776, 800):  # The window fills, is full, and slides into the new scene.
            expected = _whole(framewise_run, video[max(0, seen - 50) : seen])
            np.testing.assert_allclose(found[seen], expected, atol=1e-4, err_msg=f"{model.description}, {seen} frames")
        model.close()
    export_run(framewise_run, "framewise", tmp_path / "all.clipstep", Ask(("onnx",), stream=2))
    assert Bundle.open(tmp_path / "all.clipstep").manifest.average == "all"
    with StepModel.load(tmp_path / "all.clipstep") as model:
        deaf = _predictions(model, video)
    moved, due = np.abs(deaf[800] - deaf[750]).max(), np.abs(new - deaf[750]).max()
    assert moved < 0.07 * due  # 50 of 800 frames.


def test_a_window_of_a_late_network_is_the_mean_of_its_newest_features(late_run: Run, tmp_path: Path) -> None:
    """Features see frames before the window, where the clip network on the window alone has padding; flushed, the last ones see the
    video's end. A stream of 3,000 steps is as exact as a short one."""
    export_run(late_run, "late", tmp_path / "late.clipstep", Ask(("onnx",), stream=2, window=0.8))
    manifest = Bundle.open(tmp_path / "late.clipstep").manifest
    assert manifest.window_frames == 20 and manifest.flush is not None
    video = _noise(120, seed=4)
    with torch.no_grad():
        features = late_run.network.features(normalise(torch.from_numpy(video)[None], MEAN, DEVIATION))

        def head(start: int, stop: int) -> np.ndarray:
            return late_run.network.head(features[:, :, max(0, start) : stop].mean(dim=(2, 3, 4)))[0].numpy()

        with StepModel.load(tmp_path / "late.clipstep") as model:
            stream = model.stream()
            for step in range(3000):
                stream.push(video[step % 2])
            stream.reset()
            found = {p.frames_seen: p.logits for p in map(stream.push, video) if p is not None}
            whole = stream.flush()
        for seen, logits in found.items():
            np.testing.assert_allclose(logits, head(seen // 2 - 6 - 10, seen // 2 - 6), atol=1e-4)
        assert whole is not None
        np.testing.assert_allclose(whole.logits, head(50, 60), atol=1e-4)


def test_the_causal_preset_takes_a_window(clip: Path, randomise: Callable[[nn.Module], nn.Module], tmp_path: Path, clipstep: Command) -> None:
    """Against the features of all frames at once, kernel after kernel, of which the newest are averaged."""
    torch.manual_seed(6)
    config = {"classes": 3, "frames": 8, "size": 32, "alpha": 2, "beta": 1, "causal": True}
    network = randomise(build("slowfast_causal_shufflenet", config))
    run = Run(network, RunInfo("slowfast_causal_shufflenet", config, CLASSES, MEAN, DEVIATION, 25.0, "0" * 64), read_subclips(clip, 8, 32)[:5])
    manifest = export_run(run, "causal", tmp_path / "c.clipstep", Ask(("onnx",), stream=2, window=0.4))
    assert (manifest.average, manifest.window_frames) == ("window", 10)
    frames = run.sample.flatten(0, 1)
    with StepModel.load(tmp_path / "c.clipstep") as model:
        found = _predictions(model, frames.numpy())
    video = normalise(frames[None], MEAN, DEVIATION)
    with torch.no_grad():
        means = [network(video[:, :, :seen], *network.initial_states().values())[1] for seen in range(2, len(frames) + 1, 2)]
        size = network.classifier.in_features
        totals = [torch.zeros(1, size), *(past[:, -size - 1 : -1] * past[:, -1:] for past in means)]  # Sums over all frames so far.
        for step in range(1, len(totals)):
            back = max(0, step - 5)
            expected = network.classifier((totals[step] - totals[back]) / (2 * (step - back)))[0]
            np.testing.assert_allclose(found[2 * step], expected, atol=1e-4)
    assert program_of(run, 2).average == "all"


class Remembers(nn.Module):
    """A network with a state of its own: ``weight(steps so far)`` is the share that the newest step has in it."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.head = weight, nn.Linear(3, len(CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        return {"memory": torch.zeros(1, 3), "steps": torch.zeros(1, 1)}

    def forward(self, frames: Tensor, memory: Tensor, steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = steps + 1
        memory = memory + (frames.mean(dim=(2, 3, 4)) - memory) * self.weight(steps)
        return self.head(memory), memory, steps


@pytest.mark.parametrize(
    ("name", "weight", "deaf"),
    [
        ("the mean over everything", lambda steps: 1 / steps, True),
        ("a mean that starts late", lambda steps: 1 / (steps + 3), True),
        ("a decay", lambda steps: torch.ones_like(steps) * 0.1, False),
        ("a mean, then a decay over ten steps", lambda steps: 1 / steps.clamp(max=10), False),
        ("the newest step alone", lambda steps: torch.ones_like(steps), False),
    ],
)
def test_a_network_that_remembers_everything_for_ever_is_told_by_trying_it(
    name: str, weight: Callable[[Tensor], Tensor], deaf: bool, clip: Path
) -> None:
    torch.manual_seed(11)
    assert grows_deaf(program_of(_run_of(Remembers(weight), clip))) is deaf


def test_the_command_line_warns_and_refuses(clipstep: Command, run_folder: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "framewise.py").write_text(
        "from torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Conv3d(3, 8, (1, 3, 3)), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3))\n"
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    monkeypatch.chdir(tmp_path)
    own = ("--model", "framewise:make", "--random-weights", "--classes", "names.txt", "--frames", 4, "--size", 16, "--target", "onnx")
    code, out, err = clipstep("export", *own, "--out", "all.clipstep", "--stream", 2)
    assert (code, err) == (0, "") and "a warning: predictions are a mean over all frames so far" in out and "--window SECONDS" in out
    code, out, err = clipstep("export", *own, "--out", "new.clipstep", "--stream", 2, "--window", 1)
    assert (code, err) == (0, "") and "predictions are the mean over the newest 24 frames, 0.96 s" in out and "all frames so far" not in out
    code, out, _ = clipstep("inspect", "new.clipstep")
    assert code == 0 and "the newest 24 frames" in out
    refused = {
        ("--window", 1): "--window is for a stream; got no --stream; add --stream K",
        ("--window", 0.01, "--stream", 2): "the window is shorter than a step; got 0.01 s; expected at least 0.08 s, 2 frames at 25 a second",
    }
    for options, message in refused.items():
        code, _, err = clipstep("export", *own, "--out", "no.clipstep", *options)
        assert code == 2 and err.startswith(f"error: {message}")
    code, _, err = clipstep("export", *own, "--out", "no.clipstep", "--stream", 25, "--window", 1)
    assert code == 2 and err.startswith("error: a window of one step leaves nothing to remember; got 25 frames; expected a longer window")
    code, _, err = clipstep("export", run_folder, "--out", "no.clipstep", "--stream", 4, "--window", 2)
    assert code == 2 and err.startswith("error: the network has states of its own, among which a window would have to be; got slow_buffer")
    assert not Path("no.clipstep").exists()
