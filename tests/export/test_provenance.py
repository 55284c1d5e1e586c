"""The provenance of a network; its weights have the same hash in a run, a file and a module."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load_file, save_file
from torch import nn

from clipstep.export.factory import load_network, network_of_factory
from clipstep.export.module import network_of_module
from clipstep.network.spec import weights_sha256
from clipstep.runtime.bundle.manifest import FactoryProvenance, ModuleProvenance, Provenance, RunProvenance
from clipstep.training.run import Run, RunInfo


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network with weights and buffers, of float32 and int64."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.Linear(4, 2)).eval()


def by_hand(path: Path) -> str:
    """Compute the hash of the weights in a safetensors file as docs/versions.md defines it, without torch."""
    names = {np.dtype(np.float32): "torch.float32", np.dtype(np.int64): "torch.int64"}
    weights = load_file(path)
    return hashlib.sha256(b"".join(f"{name} {names[w.dtype]} {w.shape}".encode() + w.tobytes() for name, w in sorted(weights.items()))).hexdigest()


def test_the_hash_is_the_documented_one_whatever_the_file(network: nn.Module, tmp_path: Path) -> None:
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    save_file(dict(reversed(weights.items())), tmp_path / "b.safetensors", {"written": "by another program"})
    assert (tmp_path / "a.safetensors").read_bytes() != (tmp_path / "b.safetensors").read_bytes()
    assert {by_hand(tmp_path / "a.safetensors"), by_hand(tmp_path / "b.safetensors")} == {weights_sha256(network.state_dict())}


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "1.num_batches_tracked", "2.bias"])
def test_every_tensor_counts(network: nn.Module, name: str) -> None:
    other = copy.deepcopy(network)
    other.state_dict()[name].flatten()[-1] += 1
    assert weights_sha256(other.state_dict()) != weights_sha256(network.state_dict())
    assert weights_sha256(copy.deepcopy(network).double().state_dict()) != weights_sha256(network.state_dict())


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.Linear(4, 2)
    def forward(self, frames):
        return self.linear(self.norm(self.conv(frames)).mean((2, 3, 4)))
"""
FACTS: dict[str, Any] = {"frames": 4, "size": 16, "labels": ("a", "b"), "mean": (0.0,) * 3, "std": (255.0,) * 3, "fps": 25.0}


def test_a_run_a_factory_and_a_module_of_one_network_have_one_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = load_network("one_net:Net").eval()
    torch.save(module.state_dict(), tmp_path / "net.pth")
    info = RunInfo("net", {"classes": 2}, ("a", "b"), (0.0,) * 3, (255.0,) * 3, 25.0, "1" * 64, training={"epochs": 2})
    sample = torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8)
    run = Run(module, info, sample).spec(tmp_path / "run").provenance
    factory = network_of_factory("one_net:Net", weights=tmp_path / "net.pth", **FACTS).provenance
    memory = network_of_module(module, sample=sample, **FACTS).provenance
    assert isinstance(run, RunProvenance) and isinstance(factory, FactoryProvenance) and isinstance(memory, ModuleProvenance)
    assert run.weights_sha256 == factory.weights_sha256 == memory.weights_sha256 == weights_sha256(module.state_dict())
    assert (run.kind, run.source, run.architecture, run.training) == ("run", str(tmp_path / "run"), "net", {"epochs": 2})
    assert (factory.kind, factory.source, factory.weights_source) == ("factory", "one_net:Net", "net.pth")
    assert (memory.kind, memory.source) == ("module", "one_net.Net")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "run"}, "provenance.run.architecture|architecture"),
        ({"kind": "factory", "training": {}}, "training"),
        ({"kind": "module", "architecture": "i3d"}, "architecture"),
        ({"kind": "checkpoint"}, "'run', 'factory', 'module'"),
        ({}, "Unable to extract tag"),
    ],
)
def test_each_kind_has_its_own_keys(values: dict[str, object], message: str) -> None:
    adapter: TypeAdapter[Provenance] = TypeAdapter(Provenance)
    with pytest.raises(ValidationError, match=message):
        adapter.validate_python({"source": "x", "weights_sha256": "0" * 64, "config": {}, **values})
