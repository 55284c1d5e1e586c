"""A user's own network: the page in the docs and the first screen of the README as they are, and mistakes."""

import contextlib
import hashlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clipstep.export import verify
from clipstep.network.videos import read_subclips
from clipstep.runtime import Manifest, StepModel
from clipstep.runtime.command_line.cli import main

PAGE = Path(__file__).parents[2] / "docs/your-own-network.md"
README = Path(__file__).parents[2] / "README.md"
Command = Callable[..., tuple[int, str, str]]


def _masked(text: str) -> list[str]:
    """Its lines without what differs from run to run: errors, seconds of work, and the predictions of random weights."""
    text = re.sub(r"\d\.\de-\d\d|[\d.]+ s(?=[,)]|$)", "#", text, flags=re.M)
    return [re.sub(r"(wave|point|nothing) 0\.\d{3}", "#", line).strip() for line in text.splitlines() if line.strip()]


def _blocks(page: Path) -> list[tuple[str, str]]:
    """The page's blocks of code, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)


def _walk(block: str, folder: Path) -> None:
    """Runs the commands of a block in `folder`; each must print what the block shows, up to its `...`, if it shows anything."""
    for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, shown = step.partition("\n")
        code, out, err = _clipstep(shlex.split(command)[1:], folder) if command.startswith("clipstep ") else _bash(command, folder)
        assert (code, err) == (0, ""), (command, err)
        expected, found = _masked(shown), _masked(out)
        if expected:
            end = expected.index("...") if "..." in expected else None
            assert found[:end] == expected[:end], out


def _bash(command: str, folder: Path) -> tuple[int, str, str]:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


def _clipstep(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Run the command line in this process, which has imported what it needs already."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["clipstep", *arguments])
        patch.setattr(sys, "path", [*sys.path])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.modules.pop("gestures", None)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, clip_at_25: Path) -> Path:
    """The folder in which the page's commands were run, each with the output that the page shows, if it shows one."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(clip_at_25, folder / "video.mp4")
    (folder / "gestures.py").write_text(next(block for kind, block in _blocks(PAGE) if kind == "python"))
    blocks = [block for _, block in _blocks(PAGE) if block.startswith("$ ")]
    assert len(blocks) == 2
    for block in blocks:
        _walk(block, folder)
    return folder


def test_the_first_screen_of_the_readme(walked: Path, tmp_path: Path) -> None:
    """The same network, exported without its normalisation and on synthetic frames."""
    for name in ("gestures.py", "gestures.pth", "labels.txt", "video.mp4"):
        shutil.copy(walked / name, tmp_path)
    (block,) = [block for _, block in _blocks(README) if block.startswith("$ clipstep export --model gestures")]
    _walk(block, tmp_path)


def test_the_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    """Its blocks as they are, one after the other: the second one runs the bundle that the first one wrote, which is what the module computes."""
    exporting, running = (block for kind, block in _blocks(README) if kind == "python")
    shown, predicted = (block.splitlines() for kind, block in _blocks(README) if not kind and block.startswith(("step.onnx: ", "[(")))
    shutil.copy(clip, tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(exporting, names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [line.partition(":")[0] for line in shown]
    assert all(float(line.split()[-1]) < (1e-3 if "float16" in line else 1e-5) for line in lines)
    assert verify(tmp_path / "gestures.clipstep", module=names["network"]).steps == 16  # type: ignore[arg-type]
    exec(running, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > len(predicted) and all(re.fullmatch(r"\[\('(wave|point|nothing)', 0\.\d+\)\]", line) for line in lines)


def test_the_page_in_the_docs(walked: Path) -> None:
    """What the bundle computes, by a runtime and without clipstep: the class itself, normalised by hand."""
    manifest = Manifest.model_validate_json((walked / "gestures.clipstep/manifest.json").read_text())
    assert [(state.name, state.shape, state.initial) for state in manifest.states] == [("memory", (1, 32), 0.0)]
    assert manifest.labels == ("wave", "point", "nothing")
    code: dict[str, type[torch.nn.Module]] = {}
    exec((walked / "gestures.py").read_text(), code)
    network = code["Gestures"]().eval()
    network.load_state_dict(torch.load(walked / "gestures.pth", weights_only=True))
    memory = torch.zeros(1, 32)
    with StepModel.load(walked / "gestures.clipstep") as model, torch.no_grad():
        states = model.initial_states()
        for subclip in read_subclips(walked / "video.mp4", 8, 64):
            expected, memory = network((subclip[None].permute(0, 4, 1, 2, 3).float() - 114) / 58, memory)
            logits, states = model.step(subclip.numpy(), states)
            np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-4)


def test_another_network_has_another_hash(walked: Path) -> None:
    manifest = Manifest.model_validate_json((walked / "gestures.clipstep/manifest.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", manifest.provenance.weights_sha256)
    assert manifest.provenance.weights_sha256 != hashlib.sha256(b"").hexdigest()
    assert manifest.provenance.kind == "factory"
    assert manifest.provenance.source == manifest.architecture == "gestures:Gestures"


NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv3d(3, 4, 3)
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(1))
    def forward(self, frames):
        return self.linear(F.relu(self.conv(frames)).mean((2, 3, 4)))

class Dead(Plain):
    def forward(self, frames):
        return F.relu(super().forward(frames) - 1000)

class Writes(Plain):
    def forward(self, frames):
        self.seen += 1
        return super().forward(frames)

class Spoils(Plain):
    def initial_states(self):
        return {"past": torch.zeros(1, 4)}
    def forward(self, frames, past):
        return super().forward(frames), past.add_(1)

class Decides(Plain):
    def forward(self, frames):
        if frames.mean() > 0:
            frames = -frames
        return super().forward(frames)

class Breaks(Plain):
    def forward(self, frames):
        return super().forward(frames[:, :2])

class Other(Plain):
    def forward(self, frames):
        return F.max_pool3d(frames, 2, return_indices=True, ceil_mode=True)[1].float().mean((2, 3, 4))[:, :2]

class Grows(Plain):
    def initial_states(self):
        return {"past": torch.zeros(1, 4)}
    def forward(self, frames, past):
        return super().forward(frames), torch.cat([past, past], 1)

class Swapped(Grows):
    def forward(self, frames, past):
        return past, Plain.forward(self, frames)

class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv3d(3, 4, 3), nn.Linear(4, 2)
    def forward(self, frames):
        return self.linear(F.relu(self.conv(frames)).mean((2, 3, 4)))

class Unregistered(Random):
    def __init__(self):
        super().__init__()
        self.parts = [nn.Linear(4, 4)]
    def forward(self, frames):
        return self.linear(self.parts[0](F.relu(self.conv(frames)).mean((2, 3, 4))))

kept = Random()

def always_the_same():
    return kept

def loads_its_weights():
    network = Random()
    network.load_state_dict(torch.load("random.pth"))
    return network

def double():
    return Plain().double()

def fails():
    raise ValueError("no such backbone")

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipstep: Command) -> Command:
    """`own(factory, *options)`: exports to ONNX from a folder with these networks and two classes."""
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "raises.py").write_text("import torch\n\n1 / 0\n")
    (tmp_path / "needs.py").write_text("import not_installed_anywhere\n")
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3, 3), "conv.bias": torch.zeros(4), "head": torch.zeros(1)}, tmp_path / "some.pth")
    network = torch.nn.ModuleDict({"conv": torch.nn.Conv3d(3, 4, 3), "linear": torch.nn.Linear(4, 2)})
    torch.save(network.state_dict(), tmp_path / "random.pth")
    torch.save({"model": network.state_dict(), "ema": {name: value * 0.5 for name, value in network.state_dict().items()}}, tmp_path / "two.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("nets", "raises", "needs"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def call(factory: str, *options: object) -> tuple[int, str, str]:
        fixed = ("--labels", "labels.txt", "--frames", 4, "--size", 16, "--target", "onnx", "--out", "own.clipstep")
        return clipstep("export", "--model", factory, *fixed, *options)

    return call


def test_a_network_without_states(own: Command) -> None:
    code, out, err = own("nets:Plain")
    assert code == 0 and "wrote own.clipstep: 1 artifact, verified over 16 steps" in out, err


def test_an_output_that_is_always_the_same_is_said_plainly(own: Command) -> None:
    said = "a warning: the network's output is the same whatever the frames are"
    assert said in own("nets:Dead")[1] and said not in own("nets:Plain", "--force")[1]


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("nets", (), "--model does not name a factory; got nets; expected package.module:factory"),
        ("nowhere:Plain", (), "--model nowhere:Plain: cannot be imported; got No module named 'nowhere'"),
        ("raises:Plain", (), '--model raises:Plain: fails; got ZeroDivisionError: division by zero; it comes from File "{folder}/raises.py", line 3'),
        ("needs:Plain", (), "--model needs:Plain: fails; got ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        ("nets:Nothing", (), "--model nets:Nothing: no such name; got Nothing; expected one of Breaks, Dead, Decides, Grows, Other, Plain"),
        ("nets:fails", (), '--model nets:fails: fails; got ValueError: no such backbone; it comes from File "{folder}/nets.py", line'),
        ("nets:number", (), "--model nets:number: fails; got TypeError"),
        ("nets:F.relu", (), "--model nets:F.relu: fails; got TypeError"),
        (
            "nets:Plain",
            ("--weights", "some.pth"),
            "some.pth: is of another architecture; got 3 missing: linear.bias, linear.weight, seen; 1 extra: head",
        ),
        ("nets:Plain", ("--weights", "none.pth"), "none.pth: no such file"),
        (
            "nets:Random",
            (),
            "--model nets:Random: its weights are random, and differ from call to call; got conv.weight, conv.bias, linear.weight and 1 more; "
            "expected --weights FILE; or allow them with --random-weights",
        ),
        ("nets:kept", (), "--model nets:kept: its weights are random, and differ from call to call; got conv.weight"),
        ("nets:always_the_same", (), "--model nets:always_the_same: its weights are random, and differ from call to call"),
        (
            "nets:Unregistered",
            ("--weights", "random.pth"),
            "--model nets:Unregistered: some of its weights are not in random.pth, and are random; got parts[0].weight, parts[0].bias",
        ),
        (
            "nets:Random",
            ("--weights", "two.pth"),
            "two.pth: holds several weights that fit; got model, ema; expected one; choose it by --weights-key",
        ),
        ("nets:Random", ("--weights", "two.pth", "--weights-key", "b"), "two.pth: no weights under that key; got b; expected one of model, ema"),
        ("nets:Random", ("--weights-key", "ema"), "--weights-key chooses from a file; got no --weights; expected --weights FILE, too"),
        ("nets:Plain", ("--labels", "none.txt"), "none.txt: no such file; expected a text file with a class a line"),
        ("nets:Plain", ("--std", 1, 0, 1), "--std must be above 0, because frames are divided by it"),
        (
            "nets:Writes",
            (),
            "the network keeps memory in network.seen, which no artifact would have; got a tensor of (1,) before, other numbers after",
        ),
        ("nets:Spoils", (), "the network writes into its input past; expected a pure function"),
        ("nets:Decides", (), "torch.export cannot capture the network"),
        ("nets:Breaks", (), "the network cannot run a step; got RuntimeError: Given groups=1"),
        (
            "nets:Other",
            (),
            "no lowering for aten.max_pool3d_with_indices.default: a max pool with places and a kernel of more than 64 entries",
        ),
        ("nets:Grows", (), "state past does not fit the contract; got (1, 4) torch.float32 in, (1, 8) torch.float32 out"),
        ("nets:Swapped", (), "the first output is not the logits; got (1, 4) torch.float32; expected (1, 2) torch.float32"),
        ("nets:double", (), "seen has the wrong dtype; got torch.float64; expected torch.float32"),
    ],
)
def test_mistakes(factory: str, options: tuple[object, ...], message: str, own: Command, tmp_path: Path) -> None:
    code, _, err = own(factory, *options)
    assert code == 2 and err.startswith(f"error: {message.format(folder=tmp_path)}"), err
    assert len(err.splitlines()) == 1 and not (tmp_path / "own.clipstep").exists()


def test_neither_or_both(clipstep: Command, run_folder: Path) -> None:
    assert clipstep("export", "--out", "x.clipstep")[2].startswith(
        "error: which network to export?; got neither RUN nor --model; expected one of them"
    )
    assert clipstep("export", run_folder, "--model", "a:b", "--out", "x.clipstep")[2].startswith(
        "error: which network to export?; got RUN and --model"
    )
    assert clipstep("export", "--model", "a:b", "--out", "x.clipstep")[2].startswith("error: --model needs --labels, --frames and --size")


@pytest.mark.parametrize(
    ("factory", "options", "weights", "key"),
    [
        ("nets:Random", ("--random-weights",), "random", None),
        ("nets:Random", ("--weights", "random.pth"), "random.pth", None),
        ("nets:Random", ("--weights", "two.pth", "--weights-key", "ema"), "two.pth", "ema"),
        ("nets:kept", ("--weights", "random.pth"), "random.pth", None),
        ("nets:loads_its_weights", (), "factory", None),
    ],
)
def test_where_the_weights_are_from_is_said(
    factory: str, options: tuple[str, ...], weights: str, key: str | None, own: Command, tmp_path: Path
) -> None:
    code, out, err = own(factory, *options)
    assert code == 0, err
    assert ("the weights are random" in out) == (weights == "random")
    provenance = Manifest.model_validate_json((tmp_path / "own.clipstep/manifest.json").read_text()).provenance
    assert (provenance.weights_source, provenance.weights_key) == (weights, key)


def test_random_weights_are_the_same_whenever_they_are_made(own: Command, tmp_path: Path) -> None:
    """So that a bundle of them can be compared with its network later; whatever was drawn in between."""
    hashes = set()
    for index in range(2):
        torch.rand(index + 1)
        assert own("nets:Random", "--random-weights", *(("--force",) if index else ()))[0] == 0
        hashes.add(Manifest.model_validate_json((tmp_path / "own.clipstep/manifest.json").read_text()).provenance.weights_sha256)
    assert len(hashes) == 1
