"""Adapters: networks that take something else than clips, or that remember in buffers, become networks of the step contract."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import adapters, export
from clipstep.export.adapters import adapted, buffers_as_states, spread
from clipstep.export.choices import ADAPTERS
from clipstep.network.preprocess import normalise
from clipstep.runtime import Bundle, ClipstepError, StepModel
from clipstep.runtime.synthetic_frames import synthetic_subclips

SETTINGS: dict[str, Any] = {
    "frames": 4,
    "size": 16,
    "labels": ("walk", "run"),
    "mean": (104.0, 104.0, 104.0),
    "std": (58.0, 58.0, 58.0),
    "fps": 25,
}
Cli = Callable[..., tuple[int, str, str]]


class Takes(nn.Module):
    """A network whose logits are a linear layer on what `features` makes of its input."""

    def __init__(self, features: Callable[..., Tensor], layer: nn.Module, channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.features, self.layer, self.head = features, layer, nn.Linear(channels, 2)

    def forward(self, given: Any) -> Tensor:
        return self.head(self.features(self.layer, given))


def clips(channels: int = 3) -> nn.Module:
    return nn.Conv3d(channels, 8, 3, padding=1)


def images(channels: int = 3) -> nn.Module:
    return nn.Conv2d(channels, 8, 3, padding=1)


def pooled(layer: nn.Module, given: Tensor) -> Tensor:
    return layer(given).relu().mean(tuple(range(2, given.ndim)))


def both(layer: nn.Module, given: list[Tensor]) -> Tensor:
    slow, fast = given
    if fast.shape[2] != 4 * slow.shape[2]:
        raise ValueError("the fast pathway has 4 times the frames")
    return pooled(layer, slow) + 2 * pooled(layer, fast)


def each(layer: nn.Module, given: Tensor) -> Tensor:
    n, t, c, h, w = given.shape
    return pooled(layer, given.reshape(n * t, c, h, w)).reshape(n, t, -1).mean(1)


GIVEN: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], Callable[[Tensor], Any]]] = {
    "pathways:4": (lambda: Takes(both, clips()), lambda n: adapters.pathways(n, 4), lambda x: [x[:, :, ::4], x]),
    "pathways:4:evenly": (
        lambda: Takes(both, clips()),
        lambda n: adapters.pathways(n, 4, evenly=True),
        lambda x: [x.index_select(2, torch.linspace(0, 3, 1).long()), x],
    ),
    "time-first": (lambda: Takes(each, images()), adapters.time_first, lambda x: x.permute(0, 2, 1, 3, 4)),
    "frames-as-channels": (
        lambda: Takes(pooled, images(12)),
        adapters.frames_as_channels,
        lambda x: torch.cat([x[:, :, index] for index in range(4)], 1),
    ),
    "frames-as-batch:mean": (lambda: Takes(pooled, images()), lambda n: adapters.frames_as_batch(n, mean=True), lambda x: x[0].transpose(0, 1)),
    "frames-as-batch": (
        lambda: Takes(lambda layer, x: pooled(layer, x).mean(0, keepdim=True), images()),
        adapters.frames_as_batch,
        lambda x: x[0].transpose(0, 1),
    ),
    "grey": (lambda: Takes(pooled, clips(1)), adapters.grey, lambda x: (0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])[:, None]),
    "dictionary:video": (
        lambda: Takes(lambda layer, x: pooled(layer, x["video"]), clips()),
        lambda n: adapters.dictionary(n, "video"),
        lambda x: {"video": x},
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_an_artifact_gives_the_network_what_it_takes(name: str, tmp_path: Path) -> None:
    make, adapter, given = GIVEN[name]
    network = make().eval()
    result = export(adapter(network), tmp_path / "out.clipstep", targets=["onnx"], **SETTINGS)
    (subclip,) = synthetic_subclips(1, 4, 16, 16)
    with StepModel.load(result.bundle) as model, torch.no_grad():
        logits, _ = model.step(subclip, ())
        expected = network(given(normalise(torch.from_numpy(subclip)[None], SETTINGS["mean"], SETTINGS["std"])))
    np.testing.assert_allclose(logits, expected.mean(0), atol=1e-5)
    by_name = adapted(network, [name], 4, 16)
    clip = torch.rand(1, 3, 4, 16, 16)
    assert torch.equal(by_name(clip), adapter(network)(clip)) and not by_name.training


@pytest.mark.parametrize("name", [name for name in GIVEN if name != "pathways:4:evenly"])
def test_a_network_that_fails_is_told_which_adapter_helps(name: str, tmp_path: Path) -> None:
    make, _, _ = GIVEN[name]
    with pytest.raises(ClipstepError, match=f"the network cannot run a step; got .*; it runs with --adapter {name}: it takes .*docs/adapters.md"):
        export(make().eval(), tmp_path / "out.clipstep", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_no_adapter_helps_is_told_its_line_alone(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError) as error:
        export(Takes(pooled, clips(5)).eval(), tmp_path / "out.clipstep", **SETTINGS)
    assert "to have 5 channels" in str(error.value) and "test_adapters.py" in str(error.value) and "--adapter" not in str(error.value)


def test_frames_are_spread_as_pytorch_spreads_them() -> None:
    """As PySlowFast does it, whose weights expect these frames; exact arithmetic gives others for some lengths."""
    exact = 0
    for count in range(1, 300):
        for number in range(1, count + 1, max(1, count // 7)):
            expected = torch.linspace(0, count - 1, number).long().tolist()
            assert spread(count, number) == expected
            exact += number > 1 and [index * (count - 1) // (number - 1) for index in range(number)] != expected
    assert exact > 0


def test_grey_needs_one_normalisation(tmp_path: Path) -> None:
    network = adapters.grey(Takes(pooled, clips(1)).eval())
    with pytest.raises(ClipstepError, match=r"grey needs one mean and one std.*got mean \(1.0, 2.0, 3.0\)"):
        export(network, tmp_path / "out.clipstep", **SETTINGS | {"mean": (1.0, 2.0, 3.0)})


def test_states_pass_through_an_adapter() -> None:
    class Stateful(nn.Module):
        def initial_states(self) -> dict[str, Tensor]:
            return {"memory": torch.zeros(1, 3)}

        def forward(self, frames: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
            return frames.mean((1, 3, 4)), memory + 1

    network = adapters.time_first(Stateful().eval())
    logits, memory = network(torch.ones(1, 3, 4, 2, 2), *network.initial_states().values())
    assert logits.shape == (1, 3) and torch.equal(memory, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slowfast", "unknown adapter; got slowfast; expected one of pathways, time-first"),
        ("pathways", "--adapter pathways takes the temporal strides; got pathways:; expected such as pathways:4"),
        ("pathways:0", "pathways take the temporal stride of each"),
        ("pathways:4:odd", "--adapter pathways takes the temporal strides"),
        ("dictionary", "--adapter dictionary takes the key of the clip"),
        ("grey:1", "--adapter grey has no setting; got grey:1"),
        ("frames-as-batch:max", "--adapter frames-as-batch has one setting"),
    ],
)
def test_adapters_that_mean_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        adapted(nn.Identity(), [name], 4, 16)


def test_each_adapter_of_the_command_line_can_be_made() -> None:
    assert set(ADAPTERS) == adapters._MAKE.keys()


class Remembers(nn.Module):
    """Buffers written in place and replaced, a counter of rank 0, a buffer of rank 5, one that never changes, and one of a part of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.register_buffer("past", torch.zeros(1, 4, 2, 16, 16))
        self.register_buffer("total", torch.full((1, 4), 0.5), persistent=False)
        self.register_buffer("scale", torch.arange(4.0))
        self.part = nn.Module()
        self.part.register_buffer("steps", torch.tensor(0))

    def forward(self, frames: Tensor) -> Any:
        both = torch.cat([self.past, self.conv(frames)], 2)
        self.past = both[:, :, -2:]
        self.total += both.relu().mean((2, 3, 4))
        self.part.steps += 1
        return self.head(self.total / self.part.steps * self.scale)


def test_buffers_that_change_become_states_and_the_artifact_remembers_as_the_network_does(tmp_path: Path) -> None:
    network, subclips = Remembers().eval(), synthetic_subclips(5, 4, 16, 16)
    made = buffers_as_states(network, frames=4, size=16)
    assert {name: value.shape for name, value in made.initial_states().items()} == {"past": (1, 8, 16, 16), "total": (1, 4), "part_steps": (1,)}
    result = export(made, tmp_path / "out.clipstep", keep_going=False, **SETTINGS)
    assert [(state.name, state.initial) for state in result.manifest.states] == [("past", 0), ("total", 0.5), ("part_steps", 0)]
    assert not network.past.any() and network.part.steps == 0  # The network itself has not moved.
    for engine in ("onnxruntime", "executorch"):
        with StepModel.load(result.bundle, engine) as model, torch.no_grad():
            for _ in range(2):  # The second time after a reset.
                native, states = Remembers().eval(), model.initial_states()
                for subclip in subclips:
                    logits, states = model.step(subclip, states)
                    expected = native(normalise(torch.from_numpy(subclip)[None], SETTINGS["mean"], SETTINGS["std"]))
                    np.testing.assert_allclose(logits, expected[0], atol=2e-5)


class Ring(Remembers):
    """A ring of features, indexed by its counter, which has to stay a whole number; it returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ring", torch.zeros(1, 3, 4))

    def forward(self, frames: Tensor) -> Any:
        place = (self.part.steps % 3).reshape(1)
        self.ring = self.ring.index_copy(1, place, self.conv(frames).mean((2, 3, 4))[:, None])
        self.part.steps = self.part.steps + 1
        return {"y": self.head(self.ring.mean(1)), "ring_now": self.ring}


def test_a_counter_that_is_an_index_stays_whole_inside() -> None:
    network, native = buffers_as_states(Ring().eval(), frames=4, size=16), Ring().eval()
    states = list(network.initial_states().values())
    with torch.no_grad():
        for clip in torch.rand(5, 1, 3, 4, 16, 16):
            outputs, expected = network(clip, *states), native(clip)
            states = [outputs[f"{name}_out"] for name in network.initial_states()]
            assert torch.equal(outputs["y"], expected["y"]) and outputs["part_steps_out"].dtype == torch.float32


class Grows(Remembers):
    def forward(self, frames: Tensor) -> Any:
        self.past = torch.cat([self.past, self.conv(frames)], 2)
        return self.head(self.past.mean((2, 3, 4)))


class StartsEmpty(Remembers):
    def __init__(self) -> None:
        super().__init__()
        self.part.register_buffer("first", None)

    def forward(self, frames: Tensor) -> Any:
        features = self.conv(frames).mean((2, 3, 4))
        self.part.first = features if self.part.first is None else self.part.first + features
        return self.head(self.part.first)


class AlsoElsewhere(Remembers):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = 0.0

    def forward(self, frames: Tensor) -> Any:
        self.hidden += 1.0
        return super().forward(frames) + self.hidden


class Normalises(Remembers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(4)

    def forward(self, frames: Tensor) -> Any:
        return self.head(self.norm.train()(self.conv(frames)).mean((2, 3, 4)))


def filled() -> Remembers:
    network = Remembers()
    network(torch.rand(1, 3, 4, 16, 16))
    return network


UNFIT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "one that grows": (Grows, r"the shape of past changes from step to step; got \(1, 4, 2, 16, 16\), then \(1, 4, 6, 16, 16\); expected one shape"),
    "one that starts as None": (StartsEmpty, r"part\.first starts as None, which no state can; .*register_buffer\(\"first\", torch\.zeros"),
    "memory elsewhere, too": (AlsoElsewhere, "with its buffers as states the network gives other outputs; got the states past, total, part.steps"),
    "statistics": (Normalises, "norm.running_mean is a running statistic, which changes in training mode only"),
    "one that was used before": (filled, "past starts with numbers that differ from element to element.*reset the network's buffers"),
    "none that changes": (lambda: Takes(pooled, clips()), "no buffer of the network changes in forward; got 3 steps on noise"),
    "a network that fails": (lambda: Takes(pooled, images()), "--adapter buffers: the network cannot run a step; got RuntimeError"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_buffers_that_cannot_be_states_are_refused_with_the_reason(name: str) -> None:
    make, message = UNFIT[name]
    network = make().eval()
    with pytest.raises(ClipstepError, match=message):
        buffers_as_states(network, frames=4, size=16)
    if isinstance(network, StartsEmpty):
        assert network.part.first is None


def test_memory_in_a_buffer_is_refused_with_the_adapter(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"keeps memory in network\.past .*or, as it is a registered buffer, let --adapter buffers make"):
        export(Remembers().eval(), tmp_path / "out.clipstep", **SETTINGS)


def test_a_buffer_that_is_none_and_stays_so_is_no_obstacle(tmp_path: Path) -> None:
    network = Takes(pooled, clips())
    network.register_buffer("unused", None)
    assert export(network.eval(), tmp_path / "out.clipstep", targets=["onnx"], **SETTINGS).failed == {}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipstep: Cli) -> Cli:
    """Runs clipstep in a folder with a module of networks and a file of labels."""
    text = Path(__file__).read_text().split("def test_buffers_that_change")[0]
    (tmp_path / "adapted_networks.py").write_text(text)
    (tmp_path / "labels.txt").write_text("walk\nrun\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return clipstep


def test_adapters_and_outputs_on_the_command_line(own: Cli) -> None:
    model = ("--model", "adapted_networks:Remembers", "--random-weights", "--labels", "labels.txt", "--frames", 4, "--size", 16)
    code, _, err = own("export", *model, "--target", "onnx", "--out", "raw.clipstep")
    assert code == 2 and "let --adapter buffers make it a state" in err
    code, out, err = own("export", *model, "--target", "onnx", "--adapter", "buffers", "--out", "own.clipstep")
    assert code == 0, err
    manifest = Bundle.open(Path("own.clipstep")).manifest
    assert manifest.export.adapters == ("buffers",) and [state.name for state in manifest.states] == ["past", "total", "part_steps"]
    code, out, err = own("verify", "own.clipstep", "--model", "adapted_networks:Remembers")
    assert code == 0 and "equal" in out, err
    code, _, err = own("export", "--adapter", "buffers", "--out", "x.clipstep")
    assert code == 2 and "--adapter does nothing without --model" in err
