"""The network behind a bundle, given as a factory with its weights: `verify`, `bench` and `peers` take it, as commands and in Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstep.benchmarks import PeersResult, bench, bench_peers
from clipstep.export import verify
from clipstep.runtime import ClipstepError

Cli = Callable[..., tuple[int, str, str]]

OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.convolution, self.linear = nn.Conv3d(3, 8, (2, 3, 3)), nn.Linear(8, classes)

    def initial_states(self):
        return {"memory": torch.zeros(1, 8)}

    def forward(self, frames, memory):
        seen = self.convolution(frames).relu().mean((2, 3, 4))
        return self.linear(seen - memory), memory * 0.5 + seen

def wider():
    return Own(3)

torch.manual_seed(1)
torch.save(Own().state_dict(), "own.pt")
torch.save(Own().state_dict(), "other.pt")
"""
FACTORY = {"model": "own_behind_bundle:Own", "weights": "own.pt"}
SHORT: dict[str, Any] = {"threads": [1], "rounds": 1, "steps": 1}
PYTHON: dict[str, Callable[..., Any]] = {
    "verify": verify,
    "bench": lambda bundle, **network: bench(bundle, **SHORT, **network),
    "peers": lambda bundle, **network: bench_peers(bundle, peers=["openvino"], **SHORT, **network),
}
COMMANDS = {
    "verify": (),
    "bench": ("--threads", 1, "--rounds", 1, "--steps", 1),
    "peers": ("--peer", "openvino", "--threads", 1, "--rounds", 1, "--steps", 1),
}
BAD: dict[str, tuple[dict[str, str], str]] = {
    "no weights": (
        {"model": FACTORY["model"]},
        "is not the network that the bundle was exported from; give that one, with its --weights if it had any",
    ),
    "other weights": (FACTORY | {"weights": "other.pt"}, "is not the network that the bundle was exported from; give that one"),
    "another factory": (FACTORY | {"model": "own_behind_bundle:wider"}, r"linear.weight has another shape; got (2, 8); expected (3, 8)"),
    "no such name": (FACTORY | {"model": "own_behind_bundle:Missing"}, "no such name; got Missing; expected one of"),
    "no such module": (FACTORY | {"model": "no_such_module:Own"}, "cannot be imported; got No module named 'no_such_module'"),
    "no factory": (FACTORY | {"model": "own_behind_bundle"}, "does not name a factory; got own_behind_bundle; expected package.module:factory"),
    "no such file": (FACTORY | {"weights": "missing.pt"}, "missing.pt: no such file"),
    "weights alone": ({"weights": "own.pt"}, "--weights needs the network that they are for; add --model package.module:factory"),
    "a run, too": (FACTORY | {"run": "runs/own"}, "--run and --model both name the network; expected one of them"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module, its weights and the bundle that was exported from both."""
    from click.testing import CliRunner

    from clipstep.export.cli import export_command

    folder = tmp_path_factory.mktemp("own")
    (folder / "own_behind_bundle.py").write_text(OWN)
    (folder / "classes.txt").write_text("one\nother\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        words = ["--labels", "classes.txt", "--frames", "3", "--size", "16", "--target", "onnx", "--out", "own.clipstep"]
        exec(compile(OWN, "own_behind_bundle.py", "exec"), {"__name__": "own_behind_bundle"})  # It saves the weights.
        done = CliRunner().invoke(export_command, ["--model", FACTORY["model"], "--weights", FACTORY["weights"], *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("verb", ["verify", pytest.param("bench", marks=pytest.mark.heavy)])
def test_the_network_is_taken_by_its_factory_and_weights(verb: str, clipstep: Cli) -> None:
    code, said, error = clipstep(verb, "own.clipstep", "--model", FACTORY["model"], "--weights", FACTORY["weights"], *COMMANDS[verb])
    assert code == 0, error
    result = PYTHON[verb]("own.clipstep", **FACTORY)
    if verb == "verify":
        assert "eager network of own_behind_bundle:Own" in said and [artifact.file for artifact in result.artifacts] == ["step.onnx"]
    else:
        names = ["naive rank-5 ONNX", "PyTorch eager", "step.onnx"]
        assert all(name in said for name in names) and [record.configuration.name for record in result] == names


@pytest.mark.usefixtures("inside")
@pytest.mark.long
def test_other_runtimes_are_measured_in_python() -> None:
    result: PeersResult = PYTHON["peers"]("own.clipstep", **FACTORY)
    measured = {record.configuration.name for record in result.records} | result.not_measured.keys()
    assert measured == {"naive rank-5 ONNX", "torch.compile", "openvino", "PyTorch eager", "step.onnx"} and result.gemm_macs_per_s[1] > 0


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("verb", PYTHON)
def test_another_network_is_refused_in_a_sentence(verb: str, name: str, clipstep: Cli) -> None:
    given, message = BAD[name]
    options = [word for option, value in given.items() for word in (f"--{option}", value)]
    code, _, error = clipstep(verb, "own.clipstep", *options, *COMMANDS[verb])
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1
    with pytest.raises(ClipstepError) as refused:
        PYTHON[verb]("own.clipstep", **given)
    assert message in str(refused.value)
