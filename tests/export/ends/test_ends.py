"""The end of a video in bundles with a delay, in every engine and command."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from clipstep.export.golden_steps import check_steps
from clipstep.export.step import program_of
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, Prediction, StepModel
from clipstep.runtime.bundle.manifest import Flush
from clipstep.runtime.golden import ParityError
from clipstep.training.run import Run

CLASSES = ("fight", "nofight", "other")
SIZE = 16
Eager = Callable[[Run, np.ndarray], np.ndarray]
Noise = Callable[..., np.ndarray]
Engines = Callable[[Path], Iterator[StepModel]]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def earlier_bundle(delayed_bundle: Path, tmp_path: Path, rehash: Callable[..., Bundle]) -> Path:
    """A bundle as an earlier clipstep wrote it: with a delay, and without `flush` in the manifest and in the artifact."""
    path = Path(shutil.copytree(delayed_bundle, tmp_path / "earlier.clipstep"))
    values, model = json.loads((path / "manifest.json").read_text()), onnx.load(path / "step.onnx")
    (entry,) = model.metadata_props
    metadata = json.loads(entry.value)
    for said in (values, metadata):
        del said["flush"], said["temporal_average"], said["window_frames"]
    entry.value = json.dumps(metadata)
    onnx.save(model, path / "step.onnx")
    replace(GoldenSteps.of(Bundle.open(delayed_bundle)), flushed={}).save(path / "golden.safetensors")
    (path / "manifest.json").write_text(json.dumps(values))
    rehash(path, "step.onnx")
    return path


@pytest.mark.parametrize("frames", [2, 3, 8, 12, 15, 32])
def test_a_flushed_stream_predicts_as_the_clip_network_on_the_whole_video(
    frames: int, delayed_bundle: Path, delayed_run: Run, eager: Eager, noise: Noise, engines: Engines
) -> None:
    """In every target, twice in one stream, also for videos shorter than the delay; frames that do not fill a step are dropped."""
    video = noise(frames)
    expected = eager(delayed_run, video[: frames // 2 * 2])
    for model in engines(delayed_bundle):
        stream = model.stream()
        for _ in range(2):
            pushed = [stream.push(frame) for frame in video]
            assert all(p is None for p in pushed[:13]) and all(p is not None for p in pushed[13::2])
            whole = stream.flush()
            assert whole is not None and (whole.step, whole.frames_seen) == (frames // 2 - 1, frames)
            np.testing.assert_allclose(whole.logits, expected, atol=1e-4, err_msg=model.description)
        model.close()


def test_a_flush_without_pending_frames_returns_none(delayed_bundle: Path, windowed_bundle: Path, earlier_bundle: Path, noise: Noise) -> None:
    for path, frames in ((delayed_bundle, 0), (delayed_bundle, 1), (windowed_bundle, 9), (earlier_bundle, 20)):
        with StepModel.load(path) as model:
            stream = model.stream()
            for frame in noise(frames):
                stream.push(frame)
            assert stream.flush() is None


def test_a_flush_that_fails_leaves_the_stream_as_it_was(delayed_bundle: Path, delayed_run: Run, eager: Eager, noise: Noise) -> None:
    with StepModel.load(delayed_bundle) as model:
        stream, video = model.stream(), noise(4)
        for frame in video:
            stream.push(frame)
        step, calls = model.step_outputs, []

        def failing(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise ClipstepError("the engine failed")
            return step(*arguments)

        model.step_outputs = failing  # type: ignore[method-assign]
        with pytest.raises(ClipstepError, match="the engine failed"):
            stream.flush()
        whole = stream.flush()
    assert whole is not None
    np.testing.assert_allclose(whole.logits, eager(delayed_run, video), atol=1e-4)


def test_a_flush_whose_logits_are_not_finite_is_an_error_and_leaves_the_stream_as_it_was(
    delayed_bundle: Path, delayed_run: Run, eager: Eager, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StepModel.load(delayed_bundle) as model:
        stream, video = model.stream(), noise(4)
        for frame in video:
            stream.push(frame)
        step = model.step_outputs
        monkeypatch.setattr(StepModel, "step_outputs", lambda _, *given: replace(outputs := step(*given), logits=outputs.logits + np.float32(np.nan)))
        with pytest.raises(ClipstepError, match=r"step 2: .*gave logits that are not finite"):
            stream.flush()
        monkeypatch.undo()
        whole = stream.flush()
    assert whole is not None
    np.testing.assert_allclose(whole.logits, eager(delayed_run, video), atol=1e-4)


def test_steps_that_end_wrongly_are_not_exported(delayed_run: Run) -> None:
    """One step too few after the end, and a mask that is off by a frame, are caught."""
    program = program_of(delayed_run.spec(), 2)
    subclips = program.subclips(delayed_run.sample.flatten(0, 1))
    check_steps(program, subclips)
    assert program.flush == Flush(state="ended", steps=6, min_frames=2)
    fewer = program.flush.model_copy(update={"steps": 5})
    object.__setattr__(program, "flush", fewer)
    with pytest.raises(ParityError, match="after 1 steps of 2 frames, flushed, the logits are not those of the network on all of them"):
        check_steps(program, subclips)


def test_run_prints_the_flushed_prediction_or_how_many_frames_are_missing(
    clipstep: Command, delayed_bundle: Path, earlier_bundle: Path, write_video: Callable[..., Path], delayed_run: Run
) -> None:
    short, single = write_video(6), write_video(1, "single.mp4")
    code, out, err = clipstep("run", delayed_bundle, short)
    with StepModel.load(delayed_bundle) as model:
        whole = _run_through(model, short)
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 2)
    assert lines[1].split() == ["end", *(word for label, p in whole.top(3) for word in (label, f"{p:.3f}"))]
    code, out, err = clipstep("run", delayed_bundle, single)
    assert code == 2 and err == f"error: {single}: too short; got 1 frame; expected at least 2; use a longer video\n"
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


def test_evaluate_predicts_as_the_clip_network_for_every_video(
    clipstep: Command, delayed_bundle: Path, delayed_run: Run, videos: Path, tmp_path: Path, eager: Eager
) -> None:
    code, out, err = clipstep("evaluate", delayed_bundle, videos, "--out", tmp_path / "out", "--reset-each-step")
    assert (code, err) == (0, "") and "skipped" not in out
    found = _rows(tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    right = {"each": 0, "alone": 0}
    for line in (videos / "testlist01.txt").read_text().split():
        subclips = read_subclips(videos / "videos" / line, 2, SIZE, fps=delayed_run.info.fps)
        expected = eager(delayed_run, subclips.flatten(0, 1).numpy())
        np.testing.assert_allclose(found[Path(line).name], torch.from_numpy(expected).softmax(0), atol=1e-5)
        right["each"] += CLASSES[expected.argmax()] == line.split("/")[0]
        right["alone"] += CLASSES[eager(delayed_run, subclips[-1].numpy()).argmax()] == line.split("/")[0]
    assert summary["top1"] == right["each"] / 4 and summary["reset_each_step"]["top1"] == right["alone"] / 4
    # The real video is long. One of 20 frames has a prediction after 7 of 10 steps; those of 6 and 8 frames have one after their last step.
    assert [summary["seen_videos"][seen] for seen in ("0.1", "0.6", "0.7", "0.8", "1.0")] == [0, 1, 3, 4, 4]
    assert summary["seen"]["0.1"] is None


def test_evaluate_names_and_counts_videos_that_are_too_short_for_a_delay(
    clipstep: Command, earlier_bundle: Path, delayed_bundle: Path, videos: Path, tmp_path: Path
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
    code, out, err = clipstep("evaluate", delayed_bundle, videos, "--with", earlier_bundle, "--out", tmp_path / "both")
    assert (code, err) == (0, "") and "2 of 4 videos were skipped" in out
    fused = json.loads((tmp_path / "both/summary.json").read_text())
    assert [one["videos"] for one in (fused, *fused["each_alone"])] == [2, 2, 2]
    code, out, err = clipstep("evaluate", earlier_bundle, videos, "--reset-each-step")
    assert code == 2 and err.startswith("error: --reset-each-step: ") and "got steps of 2 frames; expected 14 frames" in err
