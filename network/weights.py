"""Loads weights from a file that another program saved, and puts them into a network, or says what does not fit.

A checkpoint is never unpickled: only tensors, numbers, text and NumPy's scalars and arrays are read, so that no code in the file runs.
"""

import argparse
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file
from clipstep.runtime.wording import listed

DEEPEST = 4
"""How deep weights may be nested under the keys below."""
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema_model",
    "ema",
    "shadow",
)
"""Keys under which programs save a network's weights, those of averaged weights last."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that wrappers add to names: DataParallel and AveragedModel, torch.compile, Lightning."""
INNER_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that may also appear inside a name, where a part of the network is wrapped."""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""Counters of torch's batch norms and AveragedModel, which may be missing: they have no effect in eval mode."""
DESCRIPTIONS = ("arch", "epoch", "best_prec1", "best_acc1", "best_acc", "num_classes", "n_classes")
"""Keys whose values describe a checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file, which may hold several state dicts.

    ``sets`` maps the key that each was found under, such as ``"model.state_dict"`` (``""`` for the whole file), to its tensors by name.
    """

    path: Path
    sets: Mapping[str, Mapping[str, Tensor]]
    described: Mapping[str, object] = field(default_factory=dict)
    """What else the file says about them, such as ``arch`` and ``epoch``."""

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in self.described.items())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in a safetensors file, or in one that ``torch.save`` wrote: a state dict, or several under the usual keys, also nested.

    Raises:
        ClipstepError: there is no such file, it holds no state dict, or it holds other Python objects, which are never loaded.
    """
    check_file(path, "a checkpoint: safetensors, or what torch.save wrote")
    loaded = _load(path)
    found = dict(_tensor_sets(loaded))
    if not found:
        got = f"the keys {listed(list(map(str, loaded)))}" if isinstance(loaded, Mapping) and loaded else type(loaded).__name__
        raise ClipstepError(f"{path}: holds no state dict", got=got, expected=f"tensors by name, bare or under {', '.join(WRAPPERS)}")
    described = {key: _plain(loaded[key]) for key in DESCRIPTIONS if key in loaded and not isinstance(loaded[key], Mapping)}
    return Checkpoint(path, found, described)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the first state dict in a file that `read_checkpoint` takes, without the prefixes that wrappers added to names, such as ``module.``.

    Raises:
        ClipstepError: as `read_checkpoint`.
    """
    return without_prefixes(next(iter(read_checkpoint(path).sets.values())))


def without_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under names without the prefixes that wrappers added."""
    return min(_renamings(weights), key=lambda renamed: sum(map(len, renamed)))


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], source: Path, fix: str) -> None:
    """Load the weights of the file ``source`` into the network; ``fix`` is what an error advises where a shape differs.

    Raises:
        ClipstepError: a tensor is missing or unexpected, or has another shape or type, for example because the weights are of
            another architecture or another number of classes.
    """
    wanted = _tensors(network)
    missing, extra = _missing(wanted, weights), _extra(wanted, weights)
    if missing or extra:
        got = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in (("missing", missing), ("extra", extra)) if names)
        raise ClipstepError(f"{source}: is of another architecture", got=got, expected=f"the {len(wanted)} tensors of {type(network).__name__}")
    for name in (name for name in wanted if name in weights):
        value, given = wanted[name], weights[name]
        if nn.parameter.is_lazy(value):
            continue
        if value.shape != given.shape:
            raise ClipstepError(f"{source}: {name} has another shape", got=tuple(given.shape), expected=tuple(value.shape), fix=fix)
        if value.is_floating_point() != given.is_floating_point() or given.is_complex() != value.is_complex() or given.is_quantized:
            raise ClipstepError(f"{source}: {name} is of another type", got=given.dtype, expected=value.dtype, fix="save the weights in float32")
    _load_into(network, {name: value for name, value in weights.items() if name in wanted}, source)


def load_checkpoint_weights(network: nn.Module, checkpoint: Checkpoint, fix: str, key: str | None = None) -> str:
    """Load the state dict of a checkpoint that fits the network, whatever prefixes wrappers added, and return the key that it was found under.

    ``key`` chooses one where several fit; ``fix`` is what an error advises where a shape differs.

    Raises:
        ClipstepError: no state dict fits (the error names what is missing and unexpected), or several different ones fit.
    """
    sets = checkpoint.sets
    if key is not None:
        if key not in sets:
            raise ClipstepError(
                f"{checkpoint.path}: no weights under that key", got=key, expected=f"one of {', '.join(filter(None, sets)) or 'none'}"
            )
        sets = {key: sets[key]}
    named = {where: best_renaming(network, weights) for where, weights in sets.items()}
    fits = [where for where, weights in named.items() if not _mismatches(network, weights)]
    if len(fits) > 1 and not all(_equal(named[fits[0]], named[where]) for where in fits[1:]):
        raise ClipstepError(
            f"{checkpoint.path}: holds several weights that fit", got=", ".join(fits), expected="one", fix="choose it by --weights-key"
        )
    chosen = fits[0] if fits else min(named, key=lambda where: _mismatches(network, named[where]))
    load_weights(network, named[chosen], checkpoint.path, fix)
    return chosen


def best_renaming(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without those prefixes whose removal makes their names fit the network best."""
    return min(_renamings(weights), key=lambda renamed: _mismatches(network, renamed))


def _renamings(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the weights as they are, then with one more prefix removed each time that most names have one, then without the inner prefixes."""
    yield dict(weights)
    while prefix := next((prefix for prefix in PREFIXES if _prefix_share(weights, prefix) > 0.5), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
        yield dict(weights)
    inside = {re.sub(rf"(^|(?<=\.))({'|'.join(map(re.escape, INNER_PREFIXES))})+", "", name): value for name, value in weights.items()}
    if len(inside) == len(weights) and inside.keys() != weights.keys():
        yield inside


def _prefix_share(weights: Mapping[str, Tensor], prefix: str) -> float:
    """Return the share of names that have the prefix; 0 if two names would become the same without it."""
    stripped = Counter(name.removeprefix(prefix) for name in weights)
    return 0.0 if max(stripped.values(), default=0) > 1 else sum(name.startswith(prefix) for name in weights) / max(1, len(weights))


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if path.suffix == ".safetensors" or start[8:9] == b"{":  # A safetensors file: eight bytes of length, then JSON.
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(_safe_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise _refused(path, error) from error
    except Exception as error:  # Unpickling another kind of file may raise anything.
        raise ClipstepError(f"{path}: cannot be read", got="another kind of file", expected="a state dict of tensors") from error


def _safe_types() -> list[Any]:
    """Return types that checkpoints hold beside tensors and that run no code when they are loaded: NumPy's scalars and arrays, and parsed options."""
    makers: Any = (np.float64().__reduce__()[0], np.zeros(()).__reduce__()[0])  # What pickle calls to make a scalar and an array.
    named: list[Any] = [(maker, f"{module}.multiarray.{maker.__name__}") for maker in makers for module in ("numpy.core", "numpy._core")]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if name not in ("ObjectDType", "StringDType")]
    return [*named, np.dtype, np.ndarray, *kinds, argparse.Namespace]


SAVE = "where it was made, save the weights alone: torch.save(network.state_dict(), FILE)"
ARCHIVES = {"TorchScript": "a TorchScript archive", "constants.pkl": "a TorchScript archive", "legacy .tar": "the tar format of torch before 0.4"}
"""Words in torch's errors about files that it cannot read without unpickling, and what kind of file that is."""


def _refused(path: Path, error: Exception) -> ClipstepError:
    """Return an error that says what the file holds, without torch's advice to unpickle it nevertheless."""
    archive = next((name for word, name in ARCHIVES.items() if word in str(error)), None)
    if archive is not None:
        return ClipstepError(f"{path}: cannot be read", got=archive, expected="a state dict of tensors", fix=SAVE)
    found = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"(?:class|type|function) '?([\w.]+\.[\w.]+)'?", str(error))
    if found is None:
        return ClipstepError(f"{path}: cannot be read", got=_first_sentence(error), expected="a state dict of tensors")
    return ClipstepError(
        f"{path}: cannot be read, because it holds more than tensors",
        got=f"the Python object {found[1]}",
        expected="a state dict of tensors",
        fix=SAVE,
    )


def _first_sentence(error: Exception) -> str:
    """Return the first line of an error, without torch's advice."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return re.split(r"(?<=\w)[.;] |weights_only|This file can still be loaded", text)[0].strip()[:200] or type(error).__name__


def _tensor_sets(loaded: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the state dicts in what was loaded: those under the known keys, or if there are none, the loaded mapping itself."""
    if not isinstance(loaded, Mapping) or depth > DEEPEST:
        return
    inside = [found for key in WRAPPERS if key in loaded for found in _tensor_sets(loaded[key], f"{where}.{key}".lstrip("."), depth + 1)]
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if inside:
        yield from inside
    elif tensors and (depth or not any(isinstance(value, Mapping) for value in loaded.values())):
        yield where, tensors


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def _missing(wanted: Iterable[str], given: Mapping[str, Tensor]) -> list[str]:
    missing = sorted(set(wanted) - given.keys())
    return [] if all(name.endswith(COUNTERS) for name in missing) else missing


def _extra(wanted: Iterable[str], given: Mapping[str, Tensor]) -> list[str]:
    extra = sorted(given.keys() - set(wanted))
    return [] if all(name.endswith(COUNTERS) for name in extra) else extra


def _mismatches(network: nn.Module, given: Mapping[str, Tensor]) -> int:
    """Count the names and shapes that do not fit the network."""
    wanted = _tensors(network)
    shapes = sum(not nn.parameter.is_lazy(wanted[name]) and wanted[name].shape != given[name].shape for name in wanted.keys() & given.keys())
    return len(_missing(wanted, given)) + len(_extra(wanted, given)) + shapes


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _load_into(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    try:
        network.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise ClipstepError(f"{source}: the weights do not fit", got=str(error).strip().splitlines()[-1].strip()) from error


def _plain(value: Any) -> object:
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1) else value
