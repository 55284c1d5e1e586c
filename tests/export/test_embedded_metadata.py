"""The metadata embedded in an artifact is compared with the manifest when it is loaded. Here the manifest is changed, and all hashes match."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime import Bundle, ClipstepError, StepModel
from clipstep.runtime.bundle import MANIFEST
from clipstep.runtime.bundle.embedded_metadata import differences
from clipstep.runtime.synthetic_frames import synthetic_subclips
from clipstep.training.run import Run, RunInfo

Cli = Callable[..., tuple[int, str, str]]
Rehash = Callable[..., Bundle]
CLASSES = tuple("abcdefghij")
ENGINES = {"onnxruntime": "step.onnx", "executorch": "step.pte"}


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, len(CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        return {"slow": torch.full((1, 3), 0.5)}

    def forward(self, frames: Tensor, slow: Tensor) -> tuple[Tensor, Tensor]:
        slow = 0.5 * slow + frames.mean((2, 3, 4))
        return self.head(slow), slow


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    info = RunInfo("tests:remembers", {}, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    out = tmp_path_factory.mktemp("right") / "small.clipstep"
    export_network(
        Run(Remembers().eval(), info, torch.from_numpy(synthetic_subclips(8, 3, 8, 8)), "synthetic").spec("small"),
        out,
        ExportOptions(("onnx", "executorch")),
    )
    return out


@pytest.fixture
def copy(right: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(right, tmp_path / "copy.clipstep"))


def _edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((bundle / MANIFEST).read_text())
    change(values)
    (bundle / MANIFEST).write_text(json.dumps(values))


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "labels permuted": (lambda values: values.update(labels=["a", "c", "b", *values["labels"][3:]]), "labels[1]; got c; expected b"),
    "fps": (lambda values: values["input"].update(fps=30), "input.fps; got 30.0; expected 25.0"),
    "stride": (lambda values: values["input"].update(frame_stride=2), "input.frame_stride; got 2; expected 1"),
    "mean": (lambda values: values["input"].update(mean=[0, 0, 0]), "input.mean; got (0.0, 0.0, 0.0); expected (104.0, 101.0, 97.0)"),
    "std": (lambda values: values["input"].update(std=[58, 57, 60]), "input.std; got (58.0, 57.0, 60.0)"),
    "initial value": (lambda values: values["states"][0].update(initial=0), "states.slow.initial; got 0.0; expected 0.5"),
    "output kind": (lambda values: values.update(output_kind="probabilities"), "output_kind; got probabilities; expected logits"),
    "delay": (lambda values: values.update(delay_frames=3), "delay_frames; got 3; expected 0"),
    "flush": (lambda values: values.update(flush={"state": "slow", "steps": 1, "min_frames": 1}), "flush; got {'state': 'slow'"),
    "window": (
        lambda values: values.update(temporal_average="sliding_window", window_frames=30),
        "temporal_average; got sliding_window; expected nothing",
    ),
    "name": (lambda values: values.update(name="other"), "name; got other; expected small"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LIES)
def test_a_manifest_that_differs_from_the_metadata_is_refused_at_load(name: str, engine: str, copy: Path) -> None:
    change, message = LIES[name]
    _edit(copy, change)
    with pytest.raises(ClipstepError, match=r"get the bundle again, or export it again$") as error:
        StepModel.load(copy, engine)
    key, values = message.split("; ", 1)
    said = f"{ENGINES[engine]} (lowered, for any) in {engine}, 1 thread: the manifest's {key} is not the artifact's own; {values}"
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("engine", ENGINES)
def test_commands_refuse_it_too(engine: str, copy: Path, clip: Path, clipstep: Cli) -> None:
    """Those load the artifact in a process of its own."""
    _edit(copy, LIES["labels permuted"][0])
    code, out, err = clipstep("run", copy, clip, "--engine", engine)
    assert (code, out) == (2, "") and "the manifest's labels[1] is not the artifact's own; got c; expected b" in err and err.count("\n") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_export_wrote_loads(engine: str, right: Path) -> None:
    with StepModel.load(right, engine) as model:
        assert model.labels == CLASSES


def _metadata(bundle: Path, text: str | None) -> None:
    model = onnx.load(bundle / "step.onnx")
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key="clipstep", value=text)
    onnx.save(model, bundle / "step.onnx")


def test_an_artifact_without_metadata_loads(copy: Path, rehash: Rehash) -> None:
    """Earlier versions embedded none."""
    _metadata(copy, None)
    rehash(copy)
    StepModel.load(copy).close()


def test_metadata_without_a_newer_key_has_its_default(copy: Path, rehash: Rehash) -> None:
    metadata = Bundle.open(copy).manifest.interface("uint8").model_dump(mode="json")
    for key in ("flush", "temporal_average", "window_frames", "output_kind", "delay_frames"):
        del metadata[key]
    _metadata(copy, json.dumps(metadata))
    rehash(copy)
    StepModel.load(copy).close()


def _with_metadata_of(copy: Path, version: str, rehash: Rehash) -> Path:
    """Write a lone file with metadata of that format version, and with a key that this clipstep does not know."""
    metadata = Bundle.open(copy).manifest.interface("uint8").model_dump(mode="json")
    _metadata(copy, json.dumps({**metadata, "schema_version": version, "input": {**metadata["input"], "gamma": 2.2}}))
    rehash(copy, "step.onnx")
    return copy / "step.onnx"


def test_metadata_of_a_newer_minor_version_is_read_without_its_new_keys(copy: Path, rehash: Rehash, clipstep: Cli) -> None:
    file = _with_metadata_of(copy, "2.1", rehash)
    code, out, err = clipstep("inspect", file)
    assert (code, err) == (0, "") and "format        2.1, newer than this clipstep's 2.0; not read: input.gamma\n" in out
    code, out, _ = clipstep("inspect", file, "--json")
    assert code == 0 and json.loads(out)["ignored_keys"] == ["input.gamma"]
    code, _, err = clipstep("verify", copy)
    assert code == 0, err
    StepModel.load(copy).close()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2.0", "the clipstep metadata in it is malformed at input.gamma; got Extra inputs are not permitted; export it again"),
        ("1.3", "what clipstep embedded in it was written by an older clipstep; got schema_version 1.3; expected 2.x; export the network again"),
        ("3.0", "what clipstep embedded in it was written by a newer clipstep; got schema_version 3.0; expected 2.x; install a newer clipstep"),
    ],
)
def test_metadata_of_another_major_version_is_refused_by_every_command(
    version: str, said: str, copy: Path, clip: Path, rehash: Rehash, clipstep: Cli
) -> None:
    file = _with_metadata_of(copy, version, rehash)
    for command in (("inspect", file), ("verify", copy), ("run", copy, clip)):
        code, out, err = clipstep(*command)
        assert code == 2 and said in " ".join(err.split()), (command, out, err)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "the clipstep metadata in it is malformed at its start; got is not JSON"),
        ("{}", "what clipstep embedded in it was written by an older clipstep; got no schema_version; expected 2.x"),
        ('{"schema_version": "2.0"}', "the clipstep metadata in it is malformed at name; got Field required"),
        ("[]", "the clipstep metadata in it is malformed at its start; got a list"),
        ('{"name": 1, "name": 2}', "is ambiguous; got the key 'name' twice"),
    ],
)
def test_malformed_metadata_is_refused(text: str, message: str, copy: Path, rehash: Rehash) -> None:
    _metadata(copy, text)
    rehash(copy)
    with pytest.raises(ClipstepError) as error:
        StepModel.load(copy)
    assert message in str(error.value) and "step.onnx" in str(error.value)


def test_differences_are_named_by_their_keys(right: Path) -> None:
    interface = Bundle.open(right).manifest.interface("uint8")
    assert list(differences(interface, interface)) == []
    other = interface.model_copy(update={"labels": CLASSES[:9]})
    assert list(differences(other, interface)) == [("labels", CLASSES[:9], CLASSES)]
    swapped = interface.model_copy(update={"labels": (*CLASSES[:8], "j", "i")})
    assert list(differences(swapped, interface)) == [("labels[8]", "j", "i"), ("labels[9]", "i", "j")]
