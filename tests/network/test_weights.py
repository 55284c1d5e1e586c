"""Checkpoints as other programs write them: weights are found whatever their names, and other objects are refused and never run."""

import argparse
import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from clipstep.network.weights import load_checkpoint_weights, read_checkpoint, read_state
from clipstep.runtime.errors import ClipstepError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(collections.OrderedDict(conv=nn.Conv3d(3, 4, 1), norm=nn.BatchNorm3d(4), model=nn.Sequential(nn.Linear(4, 2))))


TRAINED = network(1).state_dict()
OTHER = network(2).state_dict()


def prefixed(prefix: str, weights: Any = TRAINED) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def inside(wrapper: str) -> dict[str, Tensor]:
    return {name.replace("conv.", f"conv.{wrapper}.").replace("model.", f"model.{wrapper}."): value for name, value in TRAINED.items()}


class Averaged:
    """The state dict that torch's own averaging saves."""

    state = torch.optim.swa_utils.AveragedModel(network(1)).state_dict()


FORMS: dict[str, tuple[Any, str]] = {
    "bare": (TRAINED, ""),
    "with other things beside": ({**TRAINED, "epoch": 3, "classes": ["a", "b"]}, ""),
    **{key: ({key: TRAINED, "epoch": 3}, key) for key in ("state_dict", "model", "model_state", "model_state_dict", "net", "network", "ema")},
    "nested": ({"model": {"state_dict": TRAINED}, "optimizer": {"state": {0: {"momentum": torch.ones(3)}}}}, "model.state_dict"),
    "beside an optimizer": ({"optimizer": torch.optim.SGD(network().parameters(), 0.1, 0.9).state_dict(), "model": TRAINED}, "model"),
    "DataParallel": (prefixed("module."), ""),
    "compiled": (prefixed("_orig_mod."), ""),
    "Lightning": ({"state_dict": prefixed("model."), "pytorch-lightning_version": "2"}, "state_dict"),
    "compiled in DataParallel in Lightning": ({"state_dict": prefixed("model.module._orig_mod.")}, "state_dict"),
    "the same the other way round": (prefixed("_orig_mod.module.model."), ""),
    "averaged by torch": (Averaged.state, ""),
    "a compiled part": (inside("_orig_mod"), ""),
    "a part in DataParallel": (inside("module"), ""),
    "averaged and equal": ({"model": TRAINED, "model_ema": prefixed("module.")}, "model"),
    "another network beside": ({"model": {"teacher": torch.ones(2)}, "ema": TRAINED}, "ema"),
    "before there were counters": ({name: value for name, value in TRAINED.items() if "num_batches" not in name}, ""),
    "half precision": ({name: value.half() if value.is_floating_point() else value for name, value in TRAINED.items()}, ""),
    "numpy's scalars, options, a default dictionary": (
        {"state_dict": TRAINED, "best_prec1": np.float64(62.5), "epoch": np.int64(4), "history": np.arange(3.0), "args": argparse.Namespace(lr=0.1)},
        "state_dict",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_are_found_in_every_container_and_under_every_prefix(name: str, tmp_path: Path) -> None:
    content, where = FORMS[name]
    torch.save(content, tmp_path / "c.pth")
    filled = network()
    assert load_checkpoint_weights(filled, read_checkpoint(tmp_path / "c.pth"), "") == where
    for key, value in filled.state_dict().items():
        torch.testing.assert_close(value, TRAINED[key], rtol=1e-3, atol=1e-3) if name == "half precision" else torch.testing.assert_close(
            value, TRAINED[key]
        )


def test_other_containers(tmp_path: Path) -> None:
    """torch's format before 1.6, and safetensors whatever they are called."""
    torch.save({"state_dict": prefixed("module.")}, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(TRAINED, tmp_path / "a.bin")
    for file in ("old.pth.tar", "a.bin"):
        filled = network()
        load_checkpoint_weights(filled, read_checkpoint(tmp_path / file), "")
        assert all(torch.equal(value, TRAINED[key]) for key, value in filled.state_dict().items())


def test_prefixes_that_belong_to_the_network_are_kept(tmp_path: Path) -> None:
    """A part called model is no prefix: only some of the names begin with it."""
    torch.save(TRAINED, tmp_path / "c.pth")
    assert read_state(tmp_path / "c.pth").keys() == TRAINED.keys()


def test_a_checkpoint_describes_itself(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": TRAINED, "arch": "slowfast", "epoch": 30, "best_prec1": np.float64(62.5), "best_acc": torch.tensor(0.5)}, tmp_path / "c.pth"
    )
    assert str(read_checkpoint(tmp_path / "c.pth")) == "arch slowfast, epoch 30, best_prec1 62.5, best_acc 0.5"


class Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('executed')",))


REFUSED: dict[str, tuple[Any, str]] = {
    "a pickled network": (network(), "because it holds more than tensors; got the Python object torch.nn.modules.container.Sequential"),
    "a pickled network under a key": ({"model": network()}, "because it holds more than tensors; got the Python object"),
    "a pickle that runs something": ({"state_dict": TRAINED, "x": Evil()}, "because it holds more than tensors; got the Python object exec"),
    "a missing tensor": ({k: v for k, v in TRAINED.items() if k != "conv.bias"}, "is of another architecture; got 1 missing: conv.bias; expected"),
    "an extra tensor": ({**TRAINED, "head.weight": torch.ones(1)}, "is of another architecture; got 1 extra: head.weight; expected"),
    "both, wrapped": (
        {"state_dict": {**prefixed("module.", {k: v for k, v in TRAINED.items() if k != "conv.bias"}), "module.head": torch.ones(1)}},
        "got 1 missing: conv.bias; 1 extra: head; expected the 9 tensors of Sequential",
    ),
    "another shape": ({**TRAINED, "model.0.bias": torch.ones(5)}, "model.0.bias has another shape; got (5,); expected (2,); the fix"),
    "complex numbers": ({**TRAINED, "model.0.bias": torch.ones(2, dtype=torch.complex64)}, "model.0.bias is of another type; got torch.complex64"),
    "whole numbers": ({**TRAINED, "model.0.bias": torch.ones(2, dtype=torch.int64)}, "model.0.bias is of another type; got torch.int64"),
    "two that fit": ({"model": TRAINED, "model_ema": OTHER}, "several weights that fit; got model, model_ema; expected one; choose it by"),
    "no tensors": ({"epoch": 3, "weights": None}, "no state dict; got the keys epoch, weights; expected tensors by name, bare or under "),
    "a list": ([1, 2], "holds no state dict; got list; expected tensors by name"),
    "one tensor": (torch.ones(1), "holds no state dict; got Tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    torch.save(content, tmp_path / "c.pth")
    _refused(tmp_path / "c.pth", message)


@pytest.mark.filterwarnings("ignore:.*received a zip file that looks like a TorchScript archive")  # Before torch refuses it.
def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(network().eval()[:2], torch.zeros(1, 3, 1, 2, 2)), tmp_path / "c.pt")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "c.safetensors").write_bytes(b"no header")
    (tmp_path / "empty.pth").touch()
    torch.save(TRAINED, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:900])
    _refused(tmp_path / "c.pt", "cannot be read; got a TorchScript archive; expected a state dict of tensors")
    for file in ("c.pkl", "c.safetensors", "empty.pth", "half.pth"):
        _refused(tmp_path / file, "cannot be read")


def _refused(path: Path, message: str) -> None:
    with pytest.raises(ClipstepError) as raised:
        load_checkpoint_weights(network(), read_checkpoint(path), "the fix")
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and message in text and len(text.splitlines()) == 1, text
    assert "weights_only" not in text and "trusted source" not in text and "unsafe" not in text.lower(), text


def test_a_key_chooses_between_several_weights(tmp_path: Path) -> None:
    torch.save({"model": TRAINED, "model_ema": OTHER}, tmp_path / "c.pth")
    filled = network()
    assert load_checkpoint_weights(filled, read_checkpoint(tmp_path / "c.pth"), "", "model_ema") == "model_ema"
    assert torch.equal(filled.conv.weight, OTHER["conv.weight"])
    with pytest.raises(ClipstepError, match="no weights under that key; got ema; expected one of model, model_ema"):
        load_checkpoint_weights(network(), read_checkpoint(tmp_path / "c.pth"), "", "ema")
