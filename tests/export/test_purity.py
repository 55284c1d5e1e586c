"""The purity check: networks with memory of their own, random numbers or training mode are refused with the place and the line."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.export.purity.errors import _recipe
from clipstep.export.purity.reachable import snapshot
from clipstep.export.purity.snapshot import changed
from clipstep.export.step import program_of
from clipstep.runtime.errors import ClipstepError
from clipstep.training.run import Run, RunInfo

SAMPLE = torch.randint(256, (3, 4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
HEAD = """
import collections, functools, itertools, random, threading, time, types
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv3d(3, 8, 3, 2, padding=1)
        self.linear = nn.Linear(8, 2)
        self.start()
    def start(self): pass
    def features(self, frames):
        return self.conv(frames).mean((2, 3, 4))
    def forward(self, frames):
        return self.linear(self.use(self.features(frames)))
"""
MEMORIES: dict[str, tuple[str, str]] = {
    "a sum that starts as None": (
        "class Net(Base):\n def start(self): self.sum = None\n"
        " def use(self, f):\n  self.sum = f if self.sum is None else self.sum + f # HERE\n  return self.sum",
        "network.sum, which no artifact would have; got None before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a list": (
        "class Net(Base):\n def start(self): self.seen = []\n"
        " def use(self, f):\n  self.seen.append(f) # HERE\n  return sum(self.seen) / len(self.seen)",
        "network.seen, which no artifact would have; got a list of 0 before, a list of 1 after a step; written at {line}",
    ),
    "a dictionary": (
        "class Net(Base):\n def start(self): self.memory = {{}}\n"
        " def use(self, f):\n  f = f + self.memory.get('last', 0)\n  self.memory['last'] = f # HERE\n  return f",
        "network.memory['last'], which no artifact would have; got nothing before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a counter": (
        "class Net(Base):\n def start(self): self.count = 0\n def use(self, f):\n  self.count += 1 # HERE\n  return f * self.count",
        "network.count, which no artifact would have; got 0 before, 1 after a step; written at {line}",
    ),
    "a counter that decides much later": (
        "class Net(Base):\n def start(self): self.count = 0\n def use(self, f):\n  self.count += 1\n  return -f if self.count > 500 else f # HERE",
        "read at {line}, in use; expected the same outputs",
    ),
    "a parameter written through data": (
        "class Net(Base):\n def start(self): self.mean = nn.Parameter(torch.zeros(1, 8))\n"
        " def use(self, f):\n  self.mean.data = 0.9 * self.mean.data + 0.1 * f # HERE\n  return f - self.mean",
        "network.mean, which no artifact would have; got a tensor of (1, 8) before, other numbers after a step; written at {line}",
    ),
    "a buffer that starts as None": (
        "class Net(Base):\n def start(self): self.register_buffer('past', None)\n"
        " def use(self, f):\n  self.past = f if self.past is None else 0.5 * (self.past + f) # HERE\n  return self.past",
        "network.past, which no artifact would have; got None before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a buffer written in place": (
        "class Net(Base):\n def start(self): self.register_buffer('past', torch.zeros(1, 8), persistent=False)\n"
        " def use(self, f):\n  self.past.add_(f) # HERE\n  return self.past * 1.0",
        "network.past, which no artifact would have; got a tensor of (1, 8) before, other numbers after a step; written at {line}",
    ),
    "a buffer that nothing reads": (
        "class Net(Base):\n def start(self): self.register_buffer('past', torch.zeros(1, 8))\n"
        " def use(self, f):\n  self.past += f # HERE\n  return f",
        "network.past, which no artifact would have; got a tensor of (1, 8) before, other numbers after a step; written at {line}",
    ),
    "a constant tensor written in place": (
        "class Net(Base):\n def start(self): self.past = torch.zeros(1, 8)\n"
        " def use(self, f):\n  self.past[:] = self.past * 0.5 + f # HERE\n  return self.past * 1.0",
        "network.past, which no artifact would have",
    ),
    "only the first frames": (
        "class Net(Base):\n def start(self): self.first = None\n"
        " def use(self, f):\n  if self.first is None: self.first = f # HERE\n  return f - self.first",
        "network.first, which no artifact would have; got None before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a nested submodule": (
        "class Inner(nn.Module):\n def forward(self, f):\n  self.last, f = f, f + getattr(self, 'last', 0) # HERE\n  return f\n"
        "class Net(Base):\n def start(self): self.body = nn.Sequential(nn.Identity(), Inner())\n def use(self, f): return self.body(f)",
        "network.body.1.last, which no artifact would have; got nothing before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a plain object": (
        "class Memory:\n __slots__ = ('value',)\n def __init__(self): self.value = 0.0\n"
        " def update(self, f):\n  self.value = f.sum().item() * 0 + self.value + 1.0 # HERE\n  return self.value\n"
        "class Net(Base):\n def start(self): self.helper = Memory()\n def use(self, f): return f + self.helper.update(f)",
        "network.helper.value, which no artifact would have; got 0.0 before, 1.0 after a step; written at {line}",
    ),
    "a deque": (
        "class Net(Base):\n def start(self): self.ring = collections.deque([0.0] * 3, maxlen=3)\n"
        " def use(self, f):\n  self.ring.append(f) # HERE\n  return f + self.ring[0]",
        "network.ring[",
    ),
    "a global": (
        "LAST = None\nclass Net(Base):\n def use(self, f):\n  global LAST\n  LAST = f if LAST is None else LAST + f # HERE\n  return LAST",
        "{module}.LAST, which no artifact would have; got None before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a global list used by a function": (
        "HISTORY = []\ndef remember(f):\n HISTORY.append(f) # HERE\n return HISTORY[0]\nclass Net(Base):\n def use(self, f): return f + remember(f)",
        "{module}.HISTORY, which no artifact would have; got a list of 0 before, a list of 1 after a step; written at {line}",
    ),
    "a global that is not there yet": (
        "class Net(Base):\n def use(self, f):\n  global LATER\n  LATER = f + globals().get('LATER', 0) # HERE\n  return LATER",
        "{module}.LATER, which no artifact would have; got nothing before",
    ),
    "a closure": (
        "def make():\n last = [0]\n def use(self, f):\n  f = f + last[0]\n  last[0] = f # HERE\n  return f\n return use\n"
        "class Net(Base):\n use = make()",
        "last in {module}.make.<locals>.use[0], which no artifact would have; got 0 before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a variable of an enclosing function": (
        "def Net():\n count = 0\n class Inner(Base):\n  def use(self, f):\n   nonlocal count\n"
        "   count += 1 # HERE\n   return f * count\n return Inner()",
        "count in {module}.Net.<locals>.Inner.use, which no artifact would have; got 0 before, 1 after a step; written at {line}",
    ),
    "a default argument": (
        "class Net(Base):\n def use(self, f, past=[]):\n  past.append(f) # HERE\n  return f + past[0]",
        "past in {module}.Net.use, which no artifact would have; got a list of 0 before, a list of 1 after a step; written at {line}",
    ),
    "an attribute of the class": (
        "class Net(Base):\n last = 0\n def use(self, f):\n  f = f + Net.last\n  Net.last = f # HERE\n  return f",
        "{module}.Net.last, which no artifact would have; got 0 before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a hook": (
        "def hook(store):\n def keep(module, args, result):\n  store.append(result) # HERE\n  return store[0] + result\n return keep\n"
        "class Net(Base):\n def start(self): self.linear.register_forward_hook(hook([]))\n def use(self, f): return f",
        "store in {module}.hook.<locals>.keep, which no artifact would have",
    ),
    "an array of numpy's": (
        "class Net(Base):\n def start(self): self.past = np.zeros(8, np.float32)\n"
        " def use(self, f):\n  self.past += 1 # HERE\n  return f + torch.from_numpy(self.past.copy())",
        "network.past[:], which no artifact would have",
    ),
    "an iterator": (
        "class Net(Base):\n def start(self): self.clock = itertools.count(1)\n def use(self, f):\n  return f * next(self.clock) # HERE",
        "network.clock.<state>, which no artifact would have",
    ),
    "an iterator over a cycle": (  # Its period is the trial's number of steps, so that the outputs do not reveal it.
        "class Net(Base):\n def start(self): self.clock = itertools.cycle([1, 2, 3])\n def use(self, f):\n  return f * next(self.clock) # HERE",
        "network.clock.<state>",
    ),
    "bytes beside a constant array": (
        "class Net(Base):\n def start(self): self.past, self.scale = bytearray(), np.frombuffer(b'\\x02', np.uint8)\n"
        " def use(self, f):\n  self.past.append(1) # HERE\n  return f * len(self.past) * int(self.scale[0])",
        "network.past[:], which no artifact would have",
    ),
    "a generator": (
        "def clock():\n count = 0\n while True:\n  count += 1\n  yield count\n"
        "class Net(Base):\n def start(self): self.clock = clock()\n def use(self, f):\n  return f * next(self.clock) # HERE",
        "count in network.clock, which no artifact would have",
    ),
    "a module in a plain list": (
        "class Inner(nn.Module):\n last = 0\n def forward(self, f):\n  f = f + self.last\n  self.last = f # HERE\n  return f\n"
        "class Net(Base):\n def start(self): self.parts = [Inner()]\n def use(self, f): return self.parts[0](f)",
        "network.parts[0].last, which no artifact would have",
    ),
    "a variable of a thread": (
        "class Net(Base):\n def start(self): self.local = threading.local()\n"
        " def use(self, f):\n  f = f + getattr(self.local, 'last', 0)\n  self.local.last = f # HERE\n  return f",
        "network.local.last, which no artifact would have",
    ),
    "a shape that grows": (
        "class Net(Base):\n def start(self): self.past = torch.zeros(1, 0)\n"
        " def use(self, f):\n  self.past = torch.cat([self.past, f], 1) # HERE\n  return f + self.past[:, :8] + self.past.mean()",
        "network.past, which no artifact would have; got a tensor of (1, 0) before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "what breaks the second step": (
        "class Net(Base):\n def start(self): self.past = None\n def use(self, f):\n"
        "  if self.past is not None: f = f + torch.cat([self.past, f], 1)\n  self.past = f # HERE\n  return f",
        "network.past, which no artifact would have; got None before, a tensor of (1, 8) after a step; written at {line}",
    ),
    "a cache that cannot be walked": (
        "@functools.lru_cache\ndef store(): return []\nclass Net(Base):\n def use(self, f):\n  store().append(f)\n  return sum(store()) # HERE",
        "the network is not deterministic, or keeps memory outside of it: {line}",
    ),
    "the clock": (
        "class Net(Base):\n def use(self, f):\n  now = time.perf_counter() * 1000 % 7\n  return f * now # HERE",
        "the network is not deterministic, or keeps memory outside of it: {line}",
    ),
}
CHANCE: dict[str, tuple[str, str]] = {
    "random numbers": (
        "class Net(Base):\n def use(self, f):\n  noise = torch.rand(1, 8) # HERE\n  return f + noise",
        "the network is not deterministic: {line}, in use; got random numbers of aten.rand.default in forward",
    ),
    "random numbers like others": (
        "class Net(Base):\n def use(self, f): return f + 0.01 * torch.randn_like(f) # HERE",
        "the network is not deterministic: {line}",
    ),
    "a seeded constant": (
        "class Net(Base):\n def use(self, f):\n  torch.manual_seed(0)\n  return f + torch.rand(1, 8) # HERE",
        "the network is not deterministic: {line}",
    ),
    "a layer made in forward": (
        "class Net(Base):\n def start(self): self.extra = None\n def use(self, f):\n"
        "  if self.extra is None: self.extra = nn.Linear(8, 8) # HERE\n  return self.extra(f)",
        "the network is not deterministic: {line}",
    ),
    "functional dropout": (
        "class Net(Base):\n def use(self, f): return F.dropout(f, 0.5) # HERE",
        "the network is not deterministic, because dropout is in training mode: {line}",
    ),
    "a dropout that eval() does not reach": (
        "class Net(Base):\n def start(self): self.parts = [nn.Dropout(0.5)]\n def use(self, f): return self.parts[0](f) # HERE",
        "the network is not deterministic, because dropout is in training mode: {line}",
    ),
    "attention with dropout": (
        "class Net(Base):\n def use(self, f):\n  f = f.reshape(1, 2, 2, 2)\n"
        "  return F.scaled_dot_product_attention(f, f, f, dropout_p=0.5).reshape(1, 8) # HERE",
        "the network is not deterministic: {line}",
    ),
    "Python's random numbers": (
        "class Net(Base):\n def use(self, f):\n  if random.random() < 0.0001: return -f # HERE\n  return f",
        "the network is not deterministic: {line}, in use; got numbers from random",
    ),
    "numpy's random numbers": (
        "class Net(Base):\n def use(self, f):\n  scale = float(np.random.rand()) # HERE\n  return f * scale",
        "the network is not deterministic: {line}, in use; got numbers from numpy.random",
    ),
    "a random source of its own": (
        "class Net(Base):\n def start(self): self.dice = np.random.default_rng(1)\n def use(self, f):\n  return f * float(self.dice.random()) # HERE",
        "the network is not deterministic: {line}, in use; got numbers from network.dice",
    ),
    "a choice between functions": (
        "class Net(Base):\n def use(self, f): return torch.cond(f.sum() > 0, torch.sin, torch.cos, (f,)) # HERE",
        "no lowering for torch's cond, which takes functions; expected operators on tensors, such as torch.where in place of torch.cond; "
        "it comes from {line}",
    ),
    "training switched on in forward": (
        "class Net(Base):\n def start(self): self.norm = nn.BatchNorm1d(8)\n def use(self, f):\n  self.train() # HERE\n  return f",
        "the network is in training mode: {line}, in use; got forward switches network, network.conv, network.linear and 1 more to training",
    ),
    "a batch norm that stays in training": (
        "class Norm(nn.BatchNorm3d):\n def train(self, mode=True): return super().train(True)\n"
        "class Net(Base):\n def start(self): self.norm = Norm(8)\n def features(self, x):\n"
        "  return self.norm(self.conv(x)).mean((2, 3, 4)) ** 2 # HERE\n"
        " def use(self, f): return f",
        "the network is in training mode: {line}, in features; got network.norm changes its running_mean in each step",
    ),
    "functional batch norm in training": (
        "class Net(Base):\n def start(self): self.norm = nn.BatchNorm3d(8)\n def features(self, x):\n"
        "  x = F.batch_norm(self.conv(x), self.norm.running_mean, self.norm.running_var, training=True) # HERE\n  return x.amax((2, 3, 4))\n"
        " def use(self, f): return f",
        "the network is in training mode: {line}, in features; got network.norm changes its running_mean in each step",
    ),
}
HARMLESS: dict[str, str] = {
    "a mask made when it is needed": (
        "class Net(Base):\n def start(self): self.mask = None\n def use(self, f):\n"
        "  if self.mask is None: self.mask = torch.arange(8.0) / 8\n  return f * self.mask"
    ),
    "a table by shape": (
        "TABLES = {}\nclass Net(Base):\n def use(self, f):\n"
        "  if f.shape not in TABLES: TABLES[f.shape] = torch.linspace(0, 1, f.shape[1])\n  return f + TABLES[f.shape]"
    ),
    "an lru_cache": (
        "@functools.lru_cache\ndef table(n): return torch.linspace(0, 1, n)\nclass Net(Base):\n def use(self, f): return f + table(f.shape[1])"
    ),
    "features kept to look at": "class Net(Base):\n def use(self, f):\n  self.last = f\n  self.__dict__['n'] = f.shape\n  return f",
    "a list of features that nothing reads": (
        "class Net(Base):\n def start(self): self.all = []\n def use(self, f):\n  self.all.append(f)\n  return f"
    ),
    "a counter that nothing reads": "class Net(Base):\n def start(self): self.calls = 0\n def use(self, f):\n  self.calls += 1\n  return f",
    "a number in a numpy array": "class Net(Base):\n def start(self): self.scale = np.array(2.0)\n def use(self, f): return f * float(self.scale)",
    "random numbers of the system, not drawn": ("class Net(Base):\n def start(self): self.dice = random.SystemRandom()\n def use(self, f): return f"),
    "a parametrisation": "class Net(Base):\n def start(self): nn.utils.parametrizations.weight_norm(self.linear)\n def use(self, f): return f",
    "a spectral norm": "class Net(Base):\n def start(self): nn.utils.parametrizations.spectral_norm(self.linear)\n def use(self, f): return f",
    "random functions imported by name, for training": (
        "from random import randint, shuffle\nfrom numpy.random import rand\nclass Net(Base):\n def use(self, f):\n"
        "  if self.training: shuffle([randint(0, 1), rand(2)])\n  return f"
    ),
    "a random source of its own, for training": (
        "class Net(Base):\n def start(self): self.dice, self.more = random.Random(1), np.random.default_rng(1)\n"
        " def use(self, f): return f * self.dice.random() * self.more.random() if self.training else f"
    ),
    "a logger": (
        "import logging\nLOG = logging.getLogger('net')\nclass Net(Base):\n"
        " def use(self, f):\n  LOG.debug('features %s', f.shape)\n  LOG.warning('seen')\n  return f"
    ),
    "a warning": "import warnings\nclass Net(Base):\n def use(self, f):\n  warnings.warn('old', stacklevel=1)\n  return f",
    "seconds that nothing reads": (
        "class Net(Base):\n def start(self): self.seconds = 0.0\n"
        " def use(self, f):\n  begun = time.perf_counter()\n  f = f * 2\n  self.seconds += time.perf_counter() - begun\n  return f"
    ),
    "checkpointing": (
        "from torch.utils.checkpoint import checkpoint\nclass Net(Base):\n def use(self, f): return checkpoint(torch.relu, f, use_reentrant=False)"
    ),
    "a hook that looks": (
        "class Net(Base):\n def start(self):\n  self.seen = {}\n"
        "  self.conv.register_forward_hook(lambda module, given, out: self.seen.update(conv=out))\n def use(self, f): return f"
    ),
    "attention, whose kernel may drop out": (
        "class Net(Base):\n def use(self, f):\n  f = f.reshape(1, 2, 2, 2)\n  return F.scaled_dot_product_attention(f, f, f).reshape(1, 8)"
    ),
    "a transformer layer": (
        "class Net(Base):\n def start(self): self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()\n"
        " def use(self, f): return self.layer(f[None])[0]"
    ),
    "a recurrent layer": (
        "class Net(Base):\n def start(self): self.layer = nn.LSTM(8, 8, 2, dropout=0.5).eval()\n def use(self, f): return self.layer(f[None])[0][0]"
    ),
    "a dropout and a batch norm in eval": (
        "class Net(Base):\n def start(self): self.rest = nn.Sequential(nn.BatchNorm3d(3), nn.Dropout(0.5))\n"
        " def features(self, x): return super().features(self.rest(x))\n def use(self, f): return f"
    ),
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Run, dict[str, str]]]:
    """Return a run of the network `Net` in a source text, and the names of its module and of the line marked with HERE."""

    def make(source: str) -> tuple[Run, dict[str, str]]:
        module, text = f"net_{tmp_path.name}", HEAD + source.replace("{{}}", "{}")
        file = tmp_path / f"{module}.py"
        file.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        network = importlib.import_module(module).Net().eval()
        number = next((index for index, line in enumerate(text.splitlines(), 1) if "# HERE" in line), 0)
        run = Run(network, RunInfo("net", {}, ("yes", "no"), (0.0,) * 3, (255.0,) * 3, 25.0, "0" * 64), SAMPLE)
        return run, {"module": module, "line": f"{file}:{number}"}

    return make


@pytest.mark.parametrize("name", MEMORIES)
def test_memory_inside_the_network_is_named(name: str, load: Callable[[str], tuple[Run, dict[str, str]]], tmp_path: Path) -> None:
    source, message = MEMORIES[name]
    run, names = load(source)
    before = snapshot(run.network, "network")
    with pytest.raises(ClipstepError) as raised:
        export_network(run.spec("net"), tmp_path / "net.clipstep", ExportOptions(("onnx",)))
    assert message.format(**names) in str(raised.value)
    assert not (tmp_path / "net.clipstep").exists()
    if "cannot be walked" not in name and "the clock" not in name:
        assert "the network keeps memory in " in str(raised.value) and "make it a state: forward(frames, " in str(raised.value)
    if "iterator" not in name and "generator" not in name:
        assert changed(before, snapshot(run.network, "network")) == []  # The network was restored.


@pytest.mark.parametrize("name", CHANCE)
def test_random_numbers_and_training_mode_are_named(name: str, load: Callable[[str], tuple[Run, dict[str, str]]]) -> None:
    source, message = CHANCE[name]
    run, names = load(source)
    with pytest.raises(ClipstepError) as raised:
        program_of(run.spec())
    assert message.format(**names) in str(raised.value)


@pytest.mark.filterwarnings("ignore:The tensor attribute .* was assigned during export", "ignore:old:UserWarning")
@pytest.mark.parametrize("name", HARMLESS)
def test_changes_on_which_no_output_depends_are_allowed(name: str, load: Callable[[str], tuple[Run, dict[str, str]]], tmp_path: Path) -> None:
    run, _ = load(HARMLESS[name])
    manifest = export_network(run.spec("net"), tmp_path / "net.clipstep", ExportOptions(("onnx",))).manifest
    assert manifest.artifacts[0].parity.max_absolute_error < 1e-4


@pytest.mark.parametrize("stream", [None, 2])
def test_a_network_with_states_or_as_a_stream_is_checked_too(stream: int | None, load: Callable[[str], tuple[Run, dict[str, str]]]) -> None:
    run, names = load(
        "class Net(Base):\n def start(self): self.sum = None\n def initial_states(self): return {'past': torch.zeros(1, 8)}\n"
        " def forward(self, frames, past):\n  past = past + self.features(frames)\n"
        "  self.sum = past if self.sum is None else self.sum + past # HERE\n  return self.linear(self.sum), past"
    )
    with pytest.raises(
        ClipstepError, match=r"memory in network\.sum.*forward\(frames, \*states, sum\) returns \(logits, \*next states, next sum\)"
    ) as raised:
        program_of(run.spec(), stream)
    assert names["line"] in str(raised.value)


def test_a_clip_network_is_checked_before_it_becomes_a_stream(load: Callable[[str], tuple[Run, dict[str, str]]]) -> None:
    run, _ = load(MEMORIES["a sum that starts as None"][0])
    with pytest.raises(ClipstepError, match=r"memory in network\.sum"):
        program_of(run.spec(), 2)


def test_random_generators_are_restored(load: Callable[[str], tuple[Run, dict[str, str]]]) -> None:
    run, _ = load(HARMLESS["a dropout and a batch norm in eval"])
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    program_of(run.spec())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("network.past.get()", 'forward(frames, memory) returns (logits, next memory), and initial_states() has "memory", or a name of yours: '),
        ("network.count.<state>", "make it a state: forward(frames, memory) returns"),
        ("network.frames", "make it a state: forward(frames, memory) returns"),
        ("network.past[0]", 'make it a state: forward(frames, past) returns (logits, next past), and initial_states() has "past": '),
    ],
)
def test_the_advice_is_valid_python(path: str, expected: str) -> None:
    """A value that is no attribute has no name that Python accepts."""
    assert expected in _recipe(path, torch.zeros(1, 2), states=False)
