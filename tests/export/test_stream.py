"""Clip networks as steps: with the stated delay, the steps compute the clip network on all frames so far."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.golden_steps import check_steps
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.step import program_of
from clipstep.export.stream.interpreter import StreamError
from clipstep.export.stream.network import StreamedNetwork
from clipstep.network.videos import read_subclips
from clipstep.runtime import Manifest, StepModel
from clipstep.runtime.bundle.manifest import Flush
from clipstep.runtime.golden import ParityError
from clipstep.training.models import build, slowfast_causal_shufflenet
from clipstep.training.run import Run, RunInfo, save_run

CLASSES = ("fight", "nofight", "other")
CHANNELS = 3


class Clip(nn.Module):
    """Features `(1, C, T', H', W')`, their mean, a linear layer: a clip network whose parts can be called alone."""

    def __init__(self, features: nn.Module, channels: int = CHANNELS) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(channels, len(CLASSES))

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.features(frames).mean(dim=(2, 3, 4)))


class Apply(nn.Module):
    """A function as a module, with modules that it uses."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


@torch.no_grad()
def _check(network: Clip, frames: int, delay: int, steps: int = 10, size: int = 6) -> None:
    """Compare the steps, and `clip`, with the mean over the eager features that need no later frames."""
    streamed = StreamedNetwork(network.eval(), torch.zeros(1, CHANNELS, 16, size, size), frames)
    assert streamed.delay == delay
    video = torch.randn(1, CHANNELS, frames * steps, size, size)
    states = list(streamed.initial_states().values())
    stride = round(video.shape[2] / network.features(video).shape[2])
    compared = 0
    for step in range(1, steps + 1):
        logits, *states = streamed(video[:, :, (step - 1) * frames : step * frames], *states)
        kept = (step * frames - delay) // stride
        if kept <= 0:
            assert streamed.clip(video[:, :, : step * frames]) is None
            continue
        features = network.features(video[:, :, : step * frames])
        expected = network.head(features[:, :, :kept].mean(dim=(2, 3, 4)))
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(streamed.clip(video[:, :, : step * frames]), expected, atol=2e-5, rtol=1e-4)
        compared += 1
        _check_the_end(streamed, network, states, video[:, :, : step * frames])
    assert compared > 2


def _check_the_end(streamed: StreamedNetwork, network: nn.Module, states: list[Tensor], video: Tensor) -> None:
    """After the video has ended, steps on arbitrary frames compute the clip network on the whole video, its padding included."""
    named = dict(zip(streamed.initial_states(), states, strict=True))
    if not streamed.flush_steps:
        assert "ended" not in named
        torch.testing.assert_close(streamed.clip(video), network(video), atol=2e-5, rtol=1e-4)
        return
    states = [torch.ones(1, 1) if name == "ended" else value for name, value in named.items()]
    for _ in range(streamed.flush_steps):
        logits, *states = streamed(torch.full_like(video[:, :, : streamed.frames], 7.0), *states)
    torch.testing.assert_close(logits, network(video), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(streamed.clip(video, ended=True), network(video), atol=2e-5, rtol=1e-4)


def _ahead(x: Tensor, count: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, count, 0))


def _conv(kernel: tuple[int, int, int], stride: int = 1, padding: int = 0, dilation: int = 1) -> nn.Conv3d:
    return nn.Conv3d(CHANNELS, CHANNELS, kernel, (stride, 1, 1), (padding, kernel[1] // 2, kernel[2] // 2), (dilation, 1, 1))


def _shifted(x: Tensor) -> Tensor:
    """The temporal shift of TSM, as its authors write it."""
    out = torch.zeros_like(x)
    out[:, :1, :-1] = x[:, :1, 1:]
    out[:, 1:2, 1:] = x[:, 1:2, :-1]
    out[:, 2:] = x[:, 2:]
    return out


def _kept(x: Tensor) -> Tensor:
    """The first two frames, and the last one of some channels, stay as they were before the assignments."""
    out = torch.full_like(x, 0.5)
    out[:, :, 2:] = x[:, :, :-2]
    out[:, :1, :-1] += x[:, :1, 1:] * 2
    return out


ASSIGNING = (
    "a shift of channels, written by assignments",
    "two of them, with convolutions",
    "assignments that keep the ends",
    "and look ahead after a kernel",
)
"""They are traced anew for each number of frames, and look at few: fewer steps show all that they do."""


@pytest.mark.parametrize(
    ("name", "features", "frames", "delay"),
    [
        ("two kernels of 3 look one frame ahead each", nn.Sequential(_conv((3, 3, 3), 1, 1), nn.Sigmoid(), _conv((3, 1, 1), 1, 1)), 1, 2),
        ("so do steps of three frames", nn.Sequential(_conv((3, 3, 3), 1, 1), nn.Sigmoid(), _conv((3, 1, 1), 1, 1)), 3, 2),
        ("with a stride of 2 the window ends in the step", _conv((3, 1, 1), 2, 1), 2, 0),
        ("half the frames, then a kernel of 5 at half the rate", nn.Sequential(_conv((3, 1, 1), 2, 1), _conv((5, 1, 1), 1, 2)), 4, 4),
        ("a dilated kernel", _conv((3, 1, 1), 1, 2, 2), 1, 2),
        ("no padding: the first outputs come later", _conv((4, 1, 1)), 1, 3),
        ("padded in front alone it is causal", Apply(lambda x, c: c(_ahead(x, 2)), _conv((3, 1, 1))), 1, 0),
        ("causal after a delayed kernel", Apply(lambda x, a, b: b(_ahead(a(x), 2)), _conv((3, 1, 1), 1, 1), _conv((3, 1, 1))), 2, 1),
        ("padding that an activation has made nonzero", Apply(lambda x, c: c(torch.sigmoid(_ahead(x, 2))), _conv((3, 1, 1))), 1, 2),
        ("a residual waits", Apply(lambda x, c: x + c(x), _conv((3, 1, 1), 1, 1)), 2, 1),
        ("branches wait for the later one", Apply(lambda x, a, b: F.relu(a(x) * 0.5 + b(x)), _conv((3, 1, 1), 1, 1), _conv((7, 1, 1), 1, 3)), 1, 3),
        ("a maximum of 3, below zero too", nn.Sequential(_conv((3, 1, 1), 1, 1), nn.MaxPool3d(3, 1, 1)), 1, 2),
        ("a maximum of 3 from the first frame", Apply(lambda x: F.max_pool3d(x - 9, (3, 1, 1), (2, 1, 1), (1, 0, 0))), 2, 0),
        ("a mean of 3, its padding counted", nn.Sequential(_conv((3, 1, 1), 1, 1), nn.AvgPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0))), 4, 2),
        ("every second frame", Apply(lambda x, c: c(x[:, :, ::2]), _conv((3, 1, 1), 1, 1)), 2, 2),
        ("from the second frame on", Apply(lambda x, c: c(x[:, :, 1:]), _conv((3, 1, 1), 1, 1)), 1, 2),
        ("differences of frames", Apply(lambda x: x[:, :, 1:] - x[:, :, :-1]), 2, 1),
        ("a third of the channels a frame later", Apply(lambda x: torch.cat([_ahead(x[:, :1, :-1], 1), x[:, 1:]], dim=1)), 1, 0),
        ("a shift of channels, written by assignments", Apply(_shifted), 1, 1),
        ("two of them, with convolutions", Apply(lambda x, a, b: b(_shifted(F.relu(a(_shifted(x))))), _conv((1, 3, 3)), _conv((1, 1, 1))), 2, 2),
        ("assignments that keep the ends", Apply(_kept), 3, 1),
        ("and look ahead after a kernel", Apply(lambda x, c: _kept(c(x)), _conv((3, 1, 1), 1, 1)), 3, 2),
        ("a frame cut off at the end", Apply(lambda x: F.pad(x, (0, 0, 0, 0, 0, -1))), 2, 1),
        ("a frame cut off at both ends", Apply(lambda x: F.pad(x, (0, 0, 0, 0, -1, -1))), 2, 2),
        ("a frame later, and the last one cut off", Apply(lambda x: F.pad(x, (0, 0, 0, 0, 1, -1))), 1, 0),
        ("a mean over rows and columns", Apply(lambda x, c: c(x) * c(x).mean((3, 4), keepdim=True).sigmoid(), _conv((3, 1, 1), 1, 1)), 1, 1),
    ],
)
def test_steps_are_the_clip_network(name: str, features: nn.Module, frames: int, delay: int) -> None:
    torch.manual_seed(0)
    _check(Clip(features), frames, delay, 6 if name in ASSIGNING else 10)


STACKS = given(
    layers=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=3),
    multiple=st.integers(1, 2),
    residual=st.booleans(),
)


@STACKS
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(layers=[(3, 2, 0, 2), (4, 2, 0, 2), (4, 1, 0, 2)], multiple=1, residual=False)  # Reaches over more than 40 frames.
def test_random_stacks_of_temporal_kernels(layers: list[tuple[int, int, int, int]], multiple: int, residual: bool) -> None:
    _check_stack(layers, multiple, residual)


@pytest.mark.heavy
@STACKS
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_many_random_stacks_of_temporal_kernels(layers: list[tuple[int, int, int, int]], multiple: int, residual: bool) -> None:
    _check_stack(layers, multiple, residual)


@torch.no_grad()
def _check_stack(layers: list[tuple[int, int, int, int]], multiple: int, residual: bool) -> None:
    torch.manual_seed(1)
    convs = [_conv((kernel, 1, 1), stride, min(padding, dilation * (kernel - 1)), dilation) for kernel, stride, padding, dilation in layers]
    if residual:
        convs.append(Apply(lambda x, c: x + F.relu(c(x)), _conv((3, 1, 1), 1, 1)))
    network = Clip(nn.Sequential(*[part for conv in convs for part in (conv, nn.Tanh())]))
    frames = multiple * int(np.prod([stride for _, stride, _, _ in layers]))
    streamed = StreamedNetwork(network.eval(), torch.zeros(1, CHANNELS, 80, 2, 2), frames)
    video = torch.randn(1, CHANNELS, frames * (streamed.delay // frames + 6), 2, 2)
    states = list(streamed.initial_states().values())
    features = network.features(video)  # The first ones do not depend on later frames.
    given = frames // int(np.prod([stride for _, stride, _, _ in layers]))
    for step, subclip in enumerate(video.split(frames, 2), 1):
        logits, *states = streamed(subclip, *states)
        kept = step * given - streamed.delay * given // frames
        if kept > 0:
            torch.testing.assert_close(logits, network.head(features[:, :, :kept].mean(dim=(2, 3, 4))), atol=2e-5, rtol=1e-4)
        if step * frames in (streamed.min_frames, video.shape[2]):
            _check_the_end(streamed, network, states, video[:, :, : step * frames])
        elif step * frames < streamed.min_frames:
            with pytest.raises(RuntimeError, match=r"size can't be greater than|expected"):
                network(video[:, :, : step * frames])


@pytest.mark.parametrize(
    ("name", "features", "frames", "shortest"),
    [
        ("the clip network alone has an output of one frame", nn.Sequential(_conv((3, 1, 1), 1, 1), nn.Tanh(), _conv((5, 1, 1), 1, 2)), 1, 1),
        ("a kernel without padding needs its frames", nn.Sequential(_conv((3, 1, 1), 1, 1), nn.Tanh(), _conv((4, 1, 1))), 1, 4),
        ("in whole steps", nn.Sequential(_conv((3, 1, 1), 1, 1), nn.Tanh(), _conv((4, 1, 1))), 3, 6),
        ("padding after the last frame alone", Apply(lambda x, c: c(F.pad(x, (0, 0, 0, 0, 0, 2))).tanh(), _conv((3, 1, 1))), 2, 2),
        ("a kernel of even length pads after the last frame alone", nn.Conv3d(3, 3, (4, 1, 1), padding="same"), 1, 1),
        ("a maximum at the end", nn.Sequential(_conv((3, 1, 1), 1, 1), Apply(lambda x: F.max_pool3d(x - 9, (3, 1, 1), 1, (1, 0, 0)))), 2, 2),
        ("more padding in front than the kernel is long", Apply(lambda x, c: c(_ahead(x, 5)).tanh(), _conv((3, 1, 1))), 2, 2),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@torch.no_grad()
def test_the_shortest_videos_end_as_the_clip_network_does(name: str, features: nn.Module, frames: int, shortest: int) -> None:
    torch.manual_seed(3)
    network = Clip(features).eval()
    streamed = StreamedNetwork(network, torch.zeros(1, CHANNELS, 16, 6, 6), frames)
    assert streamed.min_frames == shortest
    states, video = list(streamed.initial_states().values()), torch.randn(1, CHANNELS, 8 * frames, 6, 6)
    for step, subclip in enumerate(video.split(frames, 2), 1):
        _, *states = streamed(subclip, *states)
        if step * frames >= shortest:
            _check_the_end(streamed, network, states, video[:, :, : step * frames])


@pytest.mark.parametrize(
    ("network", "frames", "message"),
    [
        (Clip(_conv((3, 1, 1), 2, 1)), 3, "aten.conv3d.default has a temporal stride of 2, which does not divide the 3 frames"),
        (Clip(Apply(lambda x: x.flip(2))), 1, "aten.flip.default has no rule"),
        (Clip(Apply(lambda x: torch.cat([x, x], dim=2))), 1, "concatenates along time"),
        (Clip(Apply(lambda x: x * x.mean(dim=2, keepdim=True))), 1, "joins a mean over all of time, or the last frame, with single frames"),
        (Clip(Apply(lambda x: x * torch.arange(16.0).reshape(16, 1, 1))), 1, "has an operand that differs from frame to frame"),
        (Clip(Apply(lambda x: F.max_pool3d(x, 3, 2, 1, ceil_mode=True))), 2, "may run over the end of the video"),
        (Clip(Apply(lambda x: F.avg_pool3d(x, 3, 1, 1, count_include_pad=False))), 1, "divides by the number of frames in the window"),
        (nn.Sequential(nn.Conv3d(3, 3, (16, 6, 6)), nn.Flatten()), 1, "aten.view.default joins or splits the axis of time"),
    ],
)
def test_an_operation_that_cannot_become_steps_is_named_with_its_line(network: nn.Module, frames: int, message: str) -> None:
    with pytest.raises(StreamError, match=message) as raised:
        StreamedNetwork(network.eval(), torch.zeros(1, CHANNELS, 16, 6, 6), frames)
    assert "it comes from" in str(raised.value)


def test_a_network_without_a_mean_over_time_is_refused() -> None:
    with pytest.raises(StreamError, match="no mean over time, or several of different frames; got 0"):
        StreamedNetwork(Apply(lambda x: x), torch.zeros(1, CHANNELS, 16, 6, 6), 1)


OF_TABLE_2 = [pytest.param(*case, marks=pytest.mark.heavy) for case in (("shufflenet3d_0.5x", 128), ("i3d", 48), ("r2plus1d_18", 48))]


@pytest.mark.parametrize(("name", "delay"), [("mobilenet3d", 128), *OF_TABLE_2])
@torch.no_grad()
def test_networks_of_table_2(name: str, delay: int, randomise: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(2)
    frames = 16 if delay == 128 else 8
    network = randomise(build(name, {"classes": 3, "frames": 16, "size": 16}))
    streamed = StreamedNetwork(network, torch.zeros(1, 3, 16, 16, 16), frames)
    assert streamed.delay == delay
    states, video = list(streamed.initial_states().values()), torch.randn(1, 3, delay + 2 * frames, 16, 16)
    for subclip in video.split(frames, 2):
        logits, *states = streamed(subclip, *states)
    expected = streamed.clip(video)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert (expected - network(video)).abs().max() > 1e-3  # Its last outputs depend on the padding at the end of the clip.
    _check_the_end(streamed, network, states, video)


@pytest.fixture(scope="module")
def clip_run(clip: Path) -> Run:
    torch.manual_seed(5)
    network = Clip(nn.Sequential(nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, 3, 2, 1)), 8)
    info = RunInfo("clip", {"frames": 4, "size": 16}, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    return Run(network.eval(), info, read_subclips(clip, 4, 16)[:8])


@pytest.fixture(scope="module")
def streamed_bundle(clip_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("streamed") / "streamed.clipstep"
    export_network(clip_run.spec("clip"), out, ExportOptions(stream=2))
    return out


def test_a_bundle_of_steps_has_its_delay_and_predicts_after_it(streamed_bundle: Path, clip_run: Run) -> None:
    """Delay 1 of the first kernel, made up to 2 by the second one's stride; against the eager network on the whole video."""
    manifest = Manifest.model_validate_json((streamed_bundle / "manifest.json").read_text())
    assert (manifest.input.shape, manifest.delay_frames, manifest.export.stream_frames) == ((2, 16, 16, 3), 2, 2)
    assert [(state.name, state.initial) for state in manifest.states] == [("past", 0.0), ("position", 0.0), ("ended", 0.0)]
    assert manifest.flush == Flush(state="ended", steps=1, min_frames=2)
    assert (manifest.temporal_average, manifest.window_frames, manifest.frames_needed) == ("cumulative", None, 2)
    assert [artifact.target for artifact in manifest.artifacts] == ["onnx", "executorch", "coreml", "coreml"]
    frames = clip_run.sample.flatten(0, 1)
    with StepModel.load(streamed_bundle) as model, torch.no_grad():
        stream = model.stream()
        predictions = [stream.push(frame.numpy()) for frame in frames]
    given = [(index + 1, prediction) for index, prediction in enumerate(predictions) if prediction]
    assert [seen for seen, _ in given] == list(range(4, 33, 2))
    mean, std = (torch.tensor(values).reshape(3, 1, 1, 1) for values in (clip_run.info.mean, clip_run.info.std))
    video = ((frames.permute(3, 0, 1, 2).float() - mean) / std)[None]
    with torch.no_grad():
        for seen, prediction in given:
            features = clip_run.network.features(video[:, :, :seen])[:, :, : (seen - 2) // 2]
            expected = clip_run.network.head(features.mean(dim=(2, 3, 4)))
            torch.testing.assert_close(torch.from_numpy(prediction.logits)[None], expected, atol=1e-5, rtol=1e-4)


@pytest.fixture
def shallow_run(clip: Path, randomise: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The paper's network with a unit for each stage."""
    monkeypatch.setattr(slowfast_causal_shufflenet, "STAGE_UNITS", (1, 1, 1))
    torch.manual_seed(7)
    config = {"classes": 3, "frames": 4, "size": 32}
    info = RunInfo("slowfast_causal_shufflenet", config, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0)
    return Run(randomise(build("slowfast_causal_shufflenet", config)), info, read_subclips(clip, 4, 32)[:5])


def test_steps_that_are_not_the_clip_network_are_not_exported(shallow_run: Run, tmp_path: Path) -> None:
    """The paper's network looks ahead within its subclip: shorter steps compute something else."""
    with pytest.raises(ParityError, match="after 2 steps of 2 frames the logits are not those of the network on all of them"):
        export_network(shallow_run.spec("run"), tmp_path / "out.clipstep", ExportOptions(("onnx",), stream=2))
    assert list(tmp_path.iterdir()) == []


def test_the_fully_causal_network_takes_fewer_frames_at_a_time(clip: Path, randomise: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(6)
    config = {"classes": 3, "frames": 8, "size": 32, "alpha": 2, "beta": 1, "causal": True}
    info = RunInfo("slowfast_causal_shufflenet", config, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    run = Run(randomise(build("slowfast_causal_shufflenet", config)), info, read_subclips(clip, 8, 32)[:5])
    program = program_of(run.spec(), 2)
    assert (program.frames.shape[0], program.delay) == (2, 0)
    steps, error = check_steps(program, program.subclips(run.sample.flatten(0, 1)))
    assert steps == 20 and error < 1e-5


def test_the_command_line(clipstep: Callable[..., tuple[int, str, str]], shallow_run: Run, tmp_path: Path) -> None:
    save_run(run_folder := tmp_path / "run", shallow_run)
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--stream", 2)
    assert code == 2 and "are not those of the network on all of them" in error and "without --stream" in error
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--stream", 0)
    assert code == 2 and "--stream" in error
    assert not (tmp_path / "x.clipstep").exists()
