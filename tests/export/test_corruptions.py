"""Each corruption that `clipstep verify` is documented to catch, on written artifacts, with matching hashes.

A faulty artifact is written from a corrupted network with the metadata of the right one. A wrong manifest is beside the right artifacts,
or the wrong value is embedded in them too; then only a comparison with the network detects it.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.golden_steps import same_golden
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime.bundle import MANIFEST, Bundle, tree_sha256, tree_size
from clipstep.runtime.golden import GoldenSteps, ParityError
from clipstep.runtime.synthetic_frames import synthetic_subclips
from clipstep.training.run import Run, RunInfo

Cli = Callable[..., tuple[int, str, str]]
CLASSES = ("a", "b", "c")
FILES = {"onnx": "step.onnx", "executorch": "step.pte", "coreml": "step-float32.mlpackage"}


class Small(nn.Module):
    """Two states of one shape and different meaning, a relu, and a temporal kernel."""

    initial = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 6, (2, 3, 3), padding=(0, 1, 1))
        self.linear = nn.Linear(18, len(CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        return {"slow": torch.full((1, 6), self.initial), "fast": torch.full((1, 6), self.initial)}

    def forward(self, frames: Tensor, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.activation(self.conv(frames)).mean((2, 3, 4))
        slow, fast = 0.9 * slow + 0.1 * x, 0.3 * fast + 0.7 * x
        return self.linear(torch.cat([x, slow, fast], 1)), slow, fast

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Heavier(Small):
    """Its first weight is 1 % larger."""

    def forward(self, frames: Tensor, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = torch.ones(6, 1, 1, 1, 1).index_fill(0, torch.tensor([0]), 1.01)
        x = F.relu(F.conv3d(frames, self.conv.weight * scale, self.conv.bias, padding=(0, 1, 1))).mean((2, 3, 4))
        slow, fast = 0.9 * slow + 0.1 * x, 0.3 * fast + 0.7 * x
        return self.linear(torch.cat([x, slow, fast], 1)), slow, fast


class Linear(Small):
    """Without its relu."""

    def activation(self, x: Tensor) -> Tensor:
        return x


class Swapped(Small):
    """Its two states are exchanged."""

    def forward(self, frames: Tensor, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(frames, fast, slow)


class Turned(Small):
    """Its frames are changed first, by the dimensions or the axes named in `how`."""

    how: Callable[[Tensor], Tensor]

    def forward(self, frames: Tensor, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(self.how(frames), slow, fast)


def _run(network: nn.Module, info: RunInfo) -> Run:
    return Run(network.eval(), info, torch.from_numpy(synthetic_subclips(8, 3, 12, 12)), "synthetic")


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The right network's run and its bundle of all targets."""
    torch.manual_seed(3)
    run = _run(Small(), RunInfo("tests:small", {}, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64))
    out = tmp_path_factory.mktemp("right") / "small.clipstep"
    export_network(run.spec("small"), out)
    return run, out


def _as(kind: type[Small], network: nn.Module, **values: Any) -> Small:
    other = kind()
    other.load_state_dict(network.state_dict())
    for name, value in values.items():
        setattr(other, name, value)
    return other


CORRUPTED: dict[str, Callable[[Run], Run]] = {
    "a weight changed by 1 %": lambda run: replace(run, network=_as(Heavier, run.network).eval()),
    "states swapped": lambda run: replace(run, network=_as(Swapped, run.network).eval()),
    "relu dropped": lambda run: replace(run, network=_as(Linear, run.network).eval()),
    "another mean": lambda run: replace(run, info=replace(run.info, mean=(105.0, 101.0, 97.0))),
    "another std": lambda run: replace(run, info=replace(run.info, std=(58.0, 57.0, 60.0))),
    "BGR for RGB": lambda run: replace(run, network=_as(Turned, run.network, how=lambda x: x.flip(1)).eval()),
    "height and width exchanged": lambda run: replace(run, network=_as(Turned, run.network, how=lambda x: x.transpose(3, 4)).eval()),
    "time reversed": lambda run: replace(run, network=_as(Turned, run.network, how=lambda x: x.flip(2)).eval()),
}


ALONE = {"states swapped": tuple(FILES), "another mean": ("onnx", "executorch")}
"""The targets of what `make test` tries; all else is caught in ONNX there, in the others by `make test-heavy`."""


@pytest.mark.parametrize(
    ("name", "targets"),
    [(name, ALONE.get(name, ("onnx",))) for name in CORRUPTED]
    + [pytest.param(name, ("executorch", "coreml"), marks=pytest.mark.heavy) for name in CORRUPTED if name != "states swapped"],
    ids=lambda value: value if isinstance(value, str) else " and ".join(value),
)
def test_a_corrupted_artifact_of_each_target_is_caught_alone(
    name: str, targets: tuple[str, ...], right: tuple[Run, Path], tmp_path: Path, clipstep: Cli
) -> None:
    run, bundle = right
    other = tmp_path / "other.clipstep"
    export_network(CORRUPTED[name](run).spec("small"), other, ExportOptions(targets))
    for target in targets:
        file = FILES[target]
        copy = Path(shutil.copytree(bundle, tmp_path / target / "small.clipstep"))
        interface = Bundle.open(bundle).manifest.interface("float32" if target == "coreml" else "uint8")
        _take(copy, other, file, interface.model_dump_json())
        code, _, err = clipstep("verify", copy)
        assert code == 2 and f"error: {file}: " in err and " is off at step " in err, (name, target, err)


def _take(bundle: Path, other: Path, file: str, metadata: str) -> None:
    """Replace the artifacts by one of another bundle, with the right metadata embedded and a matching hash."""
    target, source = bundle / file, other / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    _embed(target, metadata)
    values = json.loads((bundle / MANIFEST).read_text())
    values["artifacts"] = [artifact for artifact in values["artifacts"] if artifact["file"] == file]
    values["artifacts"][0].update(sha256=tree_sha256(target), size_bytes=tree_size(target))
    (bundle / MANIFEST).write_text(json.dumps(values))


def _embed(file: Path, metadata: str) -> None:
    if file.suffix == ".onnx":
        model = onnx.load(file)
        next(entry for entry in model.metadata_props if entry.key == "clipstep").value = metadata
        onnx.save(model, file)
    elif file.suffix == ".mlpackage":
        import coremltools

        path = file / "Data/com.apple.CoreML/model.mlmodel"
        spec = coremltools.utils.load_spec(str(file))
        spec.description.metadata.userDefined["clipstep"] = metadata
        path.write_bytes(spec.SerializeToString())
    else:
        start = (data := file.read_bytes()).index(b'{"schema_version":')
        end = data.index(b"\0", start)
        assert len(metadata.encode()) <= end - start
        file.write_bytes(data[:start] + metadata.encode().ljust(end - start) + data[end:])  # JSON may end in spaces.


WRONG_VALUES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "initial value": (lambda values: values["states"][0].update(initial=0.6), "states.slow.initial"),
    "mean": (lambda values: values["input"].update(mean=[104, 101, 90]), "input.mean"),
    "std": (lambda values: values["input"].update(std=[58, 57, 60]), "input.std"),
    "labels permuted": (lambda values: values.update(labels=["b", "a", "c"]), "labels"),
    "fps": (lambda values: values["input"].update(fps=24), "input.fps"),
    "states renamed": (lambda values: values.update(states=values["states"][::-1], outputs=["logits", *values["outputs"][:0:-1]]), "states."),
    "delay": (lambda values: values.update(delay_frames=3), "delay_frames"),
    "output_kind": (lambda values: values.update(output_kind="multilabel_logits"), "output_kind"),
}


def _lie(bundle: Path, name: str) -> None:
    values = json.loads((bundle / MANIFEST).read_text())
    WRONG_VALUES[name][0](values)
    (bundle / MANIFEST).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param(name, file, marks=pytest.mark.heavy if file == "step.pte" and name not in ("mean", "states renamed") else ())
        for name in WRONG_VALUES
        for file in FILES.values()
    ],
)
def test_a_wrong_manifest_is_caught_by_the_metadata_in_the_artifacts(
    name: str, file: str, right: tuple[Run, Path], tmp_path: Path, clipstep: Cli
) -> None:
    copy = Path(shutil.copytree(right[1], tmp_path / "small.clipstep"))
    values = json.loads((copy / MANIFEST).read_text())
    values["artifacts"] = [artifact for artifact in values["artifacts"] if artifact["file"] == file]
    (copy / MANIFEST).write_text(json.dumps(values))
    _lie(copy, name)
    code, _, err = clipstep("verify", copy)
    assert code == 2 and f"error: {file}: the manifest's {WRONG_VALUES[name][1]}" in err and "is not the artifact's own" in err, err


@pytest.mark.parametrize("name", sorted(WRONG_VALUES.keys() - {"output_kind"}))  # A network does not tell whether classes exclude each other.
def test_a_wrong_value_in_the_manifest_and_the_artifacts_is_caught_with_the_network(
    name: str, right: tuple[Run, Path], tmp_path: Path, clipstep: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of these values golden steps detect the initial value alone; the others are detected if the network is given."""
    copy = Path(shutil.copytree(right[1], tmp_path / "small.clipstep"))
    _lie(copy, name)
    lying = Bundle.open(copy).manifest
    artifact = next(a for a in lying.artifacts if a.target == "onnx")
    _embed(copy / artifact.file, lying.interface("uint8").model_dump_json())
    values = json.loads((copy / MANIFEST).read_text())
    values["artifacts"] = [{**artifact.model_dump(), "sha256": tree_sha256(copy / artifact.file), "size_bytes": tree_size(copy / artifact.file)}]
    (copy / MANIFEST).write_text(json.dumps(values))
    alone = clipstep("verify", copy)
    assert alone[0] == (2 if name in ("initial value", "states renamed") else 0), alone
    monkeypatch.setattr("clipstep.export.reference.reference_network", lambda bundle, network: right[0].spec())
    code, _, err = clipstep("verify", copy, "--run", "RUN")
    assert code == 2 and ("is not the network's" in err or "metadata" in err), err


def test_the_right_bundle_passes_alone_and_with_its_network(right: tuple[Run, Path], clipstep: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipstep.export.reference.reference_network", lambda bundle, network: right[0].spec())
    for options in ((), ("--run", "RUN")):
        code, out, err = clipstep("verify", right[1], *options)
        assert code == 0 and out.count("equal") == 4, err


def test_an_artifact_without_metadata_is_caught(right: tuple[Run, Path], tmp_path: Path, clipstep: Cli) -> None:
    copy = Path(shutil.copytree(right[1], tmp_path / "small.clipstep"))
    model = onnx.load(copy / "step.onnx")
    del model.metadata_props[:]
    onnx.save(model, copy / "step.onnx")
    values = json.loads((copy / MANIFEST).read_text())
    for artifact in values["artifacts"]:
        artifact.update(sha256=tree_sha256(copy / artifact["file"]), size_bytes=tree_size(copy / artifact["file"]))
    (copy / MANIFEST).write_text(json.dumps(values))
    assert "step.onnx: carries no clipstep metadata" in clipstep("verify", copy)[2]


@pytest.mark.parametrize("output", ["probabilities", "multilabel_probabilities"])
def test_logits_that_are_called_probabilities_everywhere_are_caught_alone(
    output: str, right: tuple[Run, Path], tmp_path: Path, clipstep: Cli
) -> None:
    copy = Path(shutil.copytree(right[1], tmp_path / "small.clipstep"))
    values = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**values, "output_kind": output}))
    assert f"the manifest's output is {output}, which the golden steps are not" in clipstep("verify", copy)[2]


def test_states_may_be_recorded_for_the_last_steps_alone(right: tuple[Run, Path]) -> None:
    """As a pack has them; a wrong one among them is caught."""
    golden = GoldenSteps.of(Bundle.open(right[1]))
    few = replace(golden, states={name: values[-3:].copy() for name, values in golden.states.items()})
    same_golden(few, golden)
    few.states["fast"][1, 0, 2] += 1e-3
    with pytest.raises(ParityError, match="golden fast are not what the eager network computes"):
        same_golden(few, golden)
