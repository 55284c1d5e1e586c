"""Networks that return several values: the logits are found or chosen, others are kept as outputs of every artifact."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import ExportResult, export, verify
from clipstep.export.module import network_of_module
from clipstep.export.outputs import AskedOutputs, asked_outputs
from clipstep.export.step import NOTHING_ASKED, program_of
from clipstep.network.preprocess import normalise
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, ParityError, StepModel
from clipstep.runtime.synthetic_frames import synthetic_subclips

SETTINGS: dict[str, Any] = {
    "frames": 4,
    "size": 16,
    "labels": ("walk", "run"),
    "mean": (104.0, 101.0, 97.0),
    "std": (58.0, 57.0, 59.0),
    "fps": 25,
}


class Several(nn.Module):
    """A network that returns what `made` makes of its features `(1, 8)`, its logits and its states."""

    def __init__(self, made: Callable[..., Any], states: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.head, self.made = nn.Conv3d(3, 8, 3, padding=1), nn.Linear(8, 2), made
        self.starts = states or {}

    def initial_states(self) -> dict[str, Tensor]:
        return self.starts

    def forward(self, frames: Tensor, *states: Tensor) -> Any:
        features = self.conv(frames).relu().mean((2, 3, 4))
        return self.made(features, self.head(features + sum(state.mean((0, 1)) for state in states)), *states)


@dataclasses.dataclass
class Output(OrderedDict[str, Any]):
    """As Hugging Face's outputs: a dataclass and at once a dictionary of what is not None."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        self.update({one.name: value for one in dataclasses.fields(self) if (value := getattr(self, one.name)) is not None})


@dataclasses.dataclass
class Plain:
    scores: Tensor
    embedding: Tensor


class Named(NamedTuple):
    scores: Tensor
    embedding: Tensor


def chosen(network: nn.Module, asked: AskedOutputs = NOTHING_ASKED) -> tuple[list[str], tuple[Tensor, ...], tuple[str, ...]]:
    """The names and the values of a step's outputs, and what was left out."""
    program = program_of(network_of_module(network.eval(), **SETTINGS), asked=asked)
    with torch.no_grad():
        return program.output_names, program.step(*program.inputs), program.choice.unused


FOUND: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "a dictionary": (lambda f, y: {"embedding": f, "scores": y}, ("embedding (1, 8) torch.float32",)),
    "an output of Hugging Face": (lambda f, y: Output(logits=y, hidden_states=(f, f)), ("hidden_states.0 (1, 8) torch.float32",)),
    "a dataclass": (lambda f, y: Plain(y, f), ("embedding (1, 8) torch.float32",)),
    "a named tuple": (lambda f, y: Named(y, f), ("embedding (1, 8) torch.float32",)),
    "a list": (lambda f, y: [y], ()),
    "a tuple with an auxiliary head": (lambda f, y: (f, y), ("0 (1, 8) torch.float32",)),
    "the states of a recurrent layer beside it": (lambda f, y: (y, (f, f)), ("1.0 (1, 8) torch.float32",)),
    "something that is no tensor": (lambda f, y: {"y": y, "note": "text", "loss": None}, ("note a str",)),
}


@pytest.mark.parametrize("name", FOUND)
def test_logits_are_found_where_one_value_fits(name: str) -> None:
    made, left_out = FOUND[name]
    names, (logits,), unused = chosen(Several(made))
    _, (expected,), _ = chosen(Several(lambda f, y: y))
    assert names == ["logits"] and torch.equal(logits, expected) and unused[: len(left_out)] == left_out


@pytest.mark.parametrize("key", ["0", "-2", "scores"])
def test_logits_are_chosen_by_key_or_position(key: str) -> None:
    network = Several(lambda f, y: {"scores": y, "others": y * 2})
    _, (logits,), unused = chosen(network, asked_outputs(key, ()))
    _, (expected,), _ = chosen(Several(lambda f, y: y))
    assert torch.equal(logits, expected) and unused == ("others (1, 2) torch.float32",)


def zeros() -> dict[str, Tensor]:
    return {"memory": torch.zeros(1, 8)}


STATEFUL: dict[str, tuple[Callable[..., Any], AskedOutputs]] = {
    "a dictionary": (lambda f, y, m: {"embedding": f, "memory_out": m + 1, "y": y}, asked_outputs(None, ["embedding"])),
    "a dictionary with the state's own name": (lambda f, y, m: {"memory": m + 1, "y": y, "embedding": f}, asked_outputs(None, ["embedding"])),
    "a tuple": (lambda f, y, m: (y, f, m + 1), asked_outputs(0, {"embedding": 1})),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_next_states_are_found_beside_kept_outputs(name: str) -> None:
    made, asked = STATEFUL[name]
    names, (logits, memory, embedding), _ = chosen(Several(made, zeros()), asked)
    assert names == ["logits", "memory_out", "embedding"]
    assert logits.shape == (1, 2) and torch.equal(memory, torch.ones(1, 8)) and embedding.shape == (1, 8) and bool(embedding.any())


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, Any], str]] = {
    "two that fit": (
        lambda f, y: {"a": y, "b": y},
        (None, ()),
        r"several of the values .* can be the logits; got a \(1, 2\) torch.float32, b \(1, 2\) torch.float32;.*choose one: --output a",
    ),
    "none that fits": (
        lambda f, y: {"f": f},
        (None, ()),
        r"none of the values .* got f \(1, 8\) torch.float32; expected one of \(1, 2\)",
    ),
    "logits of another type": (lambda f, y: {"y": y.double()}, (None, ()), r"none of the values .* got y \(1, 2\) torch.float64"),
    "another key": (lambda f, y: {"y": y}, ("x", ()), r"--output x: is not among the values .* got y \(1, 2\) torch.float32"),
    "another position": (lambda f, y: (y, f), (2, ()), r"--output 2: is not among the values"),
    "another shape": (lambda f, y: {"y": y, "f": f}, ("f", ()), r"--output f: is not the logits; got \(1, 8\) torch.float32; expected \(1, 2\)"),
    "a group of values": (
        lambda f, y: {"y": y, "f": (f, f)},
        (None, ["f"]),
        r"outputs f: has several values; got f.0 \(1, 8\) .*, f.1 ",
    ),
    "one value alone": (lambda f, y: y, (None, ["f"]), "--keep-outputs f: the network returns one value, its logits"),
    "a value of rank 5": (lambda f, y: {"y": y, "f": f[None, None, None]}, (None, ["f"]), r"--keep-outputs f: cannot be kept; got \(1, 1, 1, 1, 8\)"),
    "a value of rank 0": (lambda f, y: {"y": y, "f": f.sum()}, (None, ["f"]), r"--keep-outputs f: cannot be kept; got \(\) torch.float32"),
    "a value of half precision": (
        lambda f, y: {"y": y, "f": f.half()},
        (None, ["f"]),
        r"cannot be kept; got \(1, 8\) torch.float16; expected",
    ),
    "a value that is no tensor": (lambda f, y: {"y": y, "f": "text"}, (None, ["f"]), "cannot be kept; got a str"),
    "the logits twice": (lambda f, y: {"y": y, "f": f}, (None, ["y"]), "--keep-outputs y: is the logits"),
    "a name that is taken": (lambda f, y: {"y": y, "frames": f}, (None, ["frames"]), "the step has another value called frames.*my_frames=frames"),
    "a value that is not finite": (lambda f, y: {"y": y, "f": f / 0}, (None, ["f"]), "f is not finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_chosen_or_kept_is_refused_with_what_there_is(name: str) -> None:
    made, (output, keep), message = REFUSED[name]
    with pytest.raises(ClipstepError, match=message):
        chosen(Several(made), asked_outputs(output, keep))


@pytest.mark.parametrize(
    ("output", "keep", "message"),
    [
        (1.5, (), "output names the logits; got 1.5"),
        (True, (), "output names the logits; got True"),
        (None, "embedding", "keep_outputs is a list of keys or positions; got 'embedding'"),
        (None, ["a", "b=a", "b"], "keep_outputs has a name twice; got b"),
        (None, ["my key"], "a kept output's name is not valid in every format; got my key=my key.*NAME=KEY"),
        (None, {"ö": 1}, "a kept output's name is not valid"),
        (None, [""], "a kept output's name is not valid"),
    ],
)
def test_options_that_name_nothing_are_refused(output: Any, keep: Any, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        asked_outputs(output, keep)


def test_a_state_that_a_dictionary_lacks_is_named() -> None:
    with pytest.raises(ClipstepError, match=r"does not return its next states; got a dict: y \(1, 2\) torch.float32; expected memory_out"):
        chosen(Several(lambda f, y, m: {"y": y}, zeros()))


def test_a_stream_keeps_outputs_of_all_frames_so_far(tmp_path: Path) -> None:
    network = Several(lambda f, y: {"y": y, "embedding": f, "head": f[:, :3].sigmoid()}).eval()
    keep = {"embedding": "embedding", "second": "head"}
    result = kept(network, tmp_path / "out.clipstep", stream=2, keep_outputs=keep)
    manifest = result.manifest
    assert manifest.outputs == ("logits", "past_out", "position_out", "ended_out", "embedding", "second") and manifest.delay_frames == 1
    frames = synthetic_subclips(1, 10, 16, 16)[0]
    for engine in ("onnxruntime", "executorch"):
        with StepModel.load(result.bundle, engine) as model, torch.no_grad():
            stream = model.stream()
            for frame in frames:
                stream.push(frame)
            ended = stream.flush()
            wanted = network(normalise(torch.from_numpy(frames)[None], SETTINGS["mean"], SETTINGS["std"]))
            assert ended is not None
            np.testing.assert_allclose(ended.logits, wanted["y"][0], atol=1e-5)
            for name, key in keep.items():
                np.testing.assert_allclose(ended.kept[name], wanted[key], atol=1e-5)
    assert verify(result.bundle, module=network).stream is not None


class PerFrame(Several):
    def forward(self, frames: Tensor, *states: Tensor) -> Any:
        features = self.conv(frames).relu()
        return {"y": self.head(features.mean((2, 3, 4))), "frames": features.mean((3, 4))}


@pytest.mark.parametrize(
    ("network", "keep", "message"),
    [
        (PerFrame(None), ["each=frames"], r"--keep-outputs each: is of single frames.*got \(1, 8, 2\), with the 2 frames of a step on axis 2"),  # type: ignore[arg-type]
        (Several(lambda f, y: {"y": y, "f": f}), ["past=f"], "the kept output past: the step has another value called past"),
        (Several(lambda f, y, m: (f, y, m), {"memory": torch.zeros(1, 8)}), ["0"], "is for clip networks; got one with the states memory"),
    ],
)
def test_what_a_stream_cannot_keep_is_refused(network: nn.Module, keep: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=message):
        export(network.eval(), tmp_path / "out.clipstep", stream=2, keep_outputs=keep, **SETTINGS)


def kept(network: nn.Module, path: Path, **more: Any) -> ExportResult:
    return export(network.eval(), path, keep_going=False, **SETTINGS | more)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network with a state, an embedding, a map of rank 4, and a head that is not kept."""
    made = lambda f, y, m: {"y": y, "memory_out": m * 0.5 + f, "embedding": f, "map": f.reshape(1, 2, 2, 2), "aux": y.repeat(1, 2)}  # noqa: E731
    return Several(made, zeros()).eval()


@pytest.fixture(scope="module")
def bundle(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle of all targets."""
    return kept(network, tmp_path_factory.mktemp("kept") / "kept.clipstep", keep_outputs=["map", "embedding"]).bundle


@pytest.mark.parametrize("engine", ["onnxruntime", "executorch"])
def test_kept_outputs_are_the_networks_in_each_step_of_a_stream(engine: str, network: nn.Module, bundle: Path) -> None:
    subclips = synthetic_subclips(3, 4, 16, 16)
    memory = torch.zeros(1, 8)
    with StepModel.load(bundle, engine) as model, torch.no_grad():
        states, stream = model.initial_states(), model.stream()
        for subclip in subclips:
            wanted = network(normalise(torch.from_numpy(subclip)[None], SETTINGS["mean"], SETTINGS["std"]), memory)
            memory = wanted["memory_out"]
            outputs = model.step_outputs(subclip, states)
            states = outputs.states
            (prediction,) = [given for frame in subclip if (given := stream.push(frame)) is not None]
            for got in (outputs, prediction):
                assert list(got.kept) == ["map", "embedding"]
                np.testing.assert_allclose(got.logits, wanted["y"][0], atol=1e-5)
                for name, value in got.kept.items():
                    assert value.dtype == np.float32
                    np.testing.assert_allclose(value, wanted[name], atol=1e-5)


def test_the_manifest_says_what_is_kept_and_where_it_was(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert manifest.outputs == ("logits", "memory_out", "map", "embedding")
    assert [(output.name, output.shape, output.dtype) for output in manifest.kept_outputs] == [
        ("map", (1, 2, 2, 2), "float32"),
        ("embedding", (1, 8), "float32"),
    ]
    assert manifest.export.network_outputs == {"logits": "y", "map": "map", "embedding": "embedding"}
    assert [artifact.file for artifact in manifest.artifacts] == ["step.onnx", "step.pte", "step-float32.mlpackage", "step-float16.mlpackage"]


def test_kept_outputs_are_verified_like_the_logits(bundle: Path, network: nn.Module, tmp_path: Path, rehash: Callable[..., Bundle]) -> None:
    assert len(verify(bundle, module=network).artifacts) == 4
    copy = tmp_path / "kept.clipstep"
    copy.mkdir()
    for file in bundle.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    model = onnx.load(copy / "step.onnx")  # The embedding alone is off: by a tenth of itself.
    (node,) = [node for node in model.graph.node if "embedding" in node.output]
    position = list(node.output).index("embedding")
    node.output[position] = "embedding_before"
    model.graph.initializer.append(onnx.helper.make_tensor("off", onnx.TensorProto.FLOAT, [], [1.1]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["embedding_before", "off"], ["embedding"]))
    onnx.save(model, copy / "step.onnx")
    rehash(copy, "step.onnx")
    with pytest.raises(ParityError, match=r"step\.onnx: embedding is off at step 0"):
        verify(copy)


def test_golden_steps_hold_the_kept_outputs(bundle: Path, network: nn.Module) -> None:
    golden = GoldenSteps.of(Bundle.open(bundle))
    assert {name: values.shape for name, values in golden.kept.items()} == {"map": (16, 1, 2, 2, 2), "embedding": (16, 1, 8)}
    np.testing.assert_array_equal(golden.kept["map"].reshape(16, 8), golden.kept["embedding"].reshape(16, 8))


def test_outputs_that_are_an_input_or_each_other_are_exported(tmp_path: Path) -> None:
    """States returned unchanged, exchanged, twice, or as the logits or a view of them; kept outputs that are an input, a state or each other."""
    starts = {
        **{name: torch.full((1, 8), 0.5) for name in ("unchanged", "first", "second", "copied", "next")},
        "same": torch.zeros(1, 2),
        "view": torch.zeros(2, 1),
    }

    def made(
        f: Tensor, y: Tensor, unchanged: Tensor, first: Tensor, second: Tensor, copied: Tensor, following: Tensor, *_: Tensor
    ) -> dict[str, Tensor]:
        states = {"unchanged": unchanged, "first": second + f, "second": first, "copied": f, "next": f, "same": y, "view": y.view(2, 1)}
        return {"y": y, **{f"{name}_out": value for name, value in states.items()}, "old": copied, "one": f, "two": f, "flat": y.view(2)}

    result = kept(Several(made, starts), tmp_path / "alias.clipstep", keep_outputs=["old", "one", "two", "flat"])
    assert [artifact.parity.max_relative_error < 2e-3 for artifact in result.manifest.artifacts] == [True] * 4


def test_a_bundle_without_kept_outputs_says_nothing_of_them(tmp_path: Path) -> None:
    manifest = kept(Several(lambda f, y: y), tmp_path / "plain.clipstep", targets=["onnx"]).manifest
    assert manifest.kept_outputs == () and manifest.export.network_outputs == {} and manifest.export.adapters == ()
