"""A user's own network: whatever ``nn.Module`` a factory gives, with not a word of clipstep in it."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from clipstep.export.contract import check_weights
from clipstep.export.purity.random_generators import seeded
from clipstep.export.purity.reachable import snapshot
from clipstep.export.purity.snapshot import same
from clipstep.export.sample import sample_frames
from clipstep.export.source_lines import describe_error, line_of_error
from clipstep.network.spec import NetworkSpec, weights_sha256
from clipstep.network.text import read_lines, unquoted
from clipstep.network.weights import Checkpoint, fill_from, read_checkpoint
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import FactoryProvenance
from clipstep.runtime.wording import listed

SHOWN = 3
FACTORY_SEED = 67280421310721
"""torch's own seed of a fresh process: random weights are the same whenever they are made again."""


def network_of_factory(
    factory: str,
    *,
    frames: int,
    size: int,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    weights: Path | None = None,
    weights_key: str | None = None,
    video: Path | None = None,
    random_weights: bool = False,
) -> NetworkSpec:
    """The network that the factory ``package.module:name`` gives, in eval mode.

    Its golden steps will be on the subclips of ``video``, or on synthetic ones. ``weights_key`` chooses one of several sets of weights
    in a file; ``random_weights`` says that weights which nobody trained are meant.

    Raises:
        ClipstepError: the factory cannot be imported, fails, or gives no module; the weights do not fit, or are random; the video
            cannot be used; a value cannot be that of a network.
    """
    checkpoint = None if weights is None else read_checkpoint(weights)
    network = load_network(factory)
    key = _fill(network, checkpoint, weights_key)
    check_weights(network)
    chance = _random_tensors(factory, network, checkpoint, weights_key)
    if chance and not random_weights:
        raise _random(factory, chance, weights)
    provenance = FactoryProvenance(
        kind="factory",
        source=factory,
        weights_sha256=weights_sha256(network.state_dict()),
        config={"frames": frames, "size": size},
        weights="random" if chance else "factory" if weights is None else weights.name,
        weights_key=key or None,
    )
    sample, content = sample_frames(frames, size, video)
    return NetworkSpec(network.eval(), frames, size, tuple(labels), tuple(mean), tuple(std), fps, sample, provenance, content)


def _fill(network: nn.Module, checkpoint: Checkpoint | None, key: str | None) -> str:
    return "" if checkpoint is None else fill_from(network, checkpoint, "give the factory of the network that was trained", key)


def _random_tensors(spec: str, network: nn.Module, checkpoint: Checkpoint | None, key: str | None) -> list[str]:
    """The tensors, by path, that are others when the network is made again under another seed: nobody trained them."""
    try:
        second = load_network(spec, FACTORY_SEED + 1)
        if second is network:  # The module keeps it, so that it is made when the module is run.
            second = load_network(spec, FACTORY_SEED + 1, anew=True)
        if second is network:
            return []
        _fill(second, checkpoint, key)
    except Exception:  # A factory that works once only: nothing can be said.
        return []
    ours, others = snapshot(network, "network").places, snapshot(second, "network").places
    tensors = {path: found.value for path, found in ours.items() if path.startswith("network") and isinstance(found.value, Tensor)}
    return [path.removeprefix("network.") for path, value in tensors.items() if path not in others or not same(value, others[path].value)]


def _random(spec: str, names: Sequence[str], weights: Path | None) -> ClipstepError:
    some = listed(names, SHOWN)
    if weights is None:
        return ClipstepError(
            f"--model {spec}: its weights are random, each call gives others",
            got=some,
            expected="--weights FILE",
            fix="or say by --random-weights that they are meant",
        )
    return ClipstepError(
        f"--model {spec}: some of its weights are not in {weights} and random",
        got=some,
        expected="all of them in the network's state_dict()",
        fix="register what is in plain lists by nn.ModuleList, or say by --random-weights that they are meant",
    )


def load_network(spec: str, seed: int = FACTORY_SEED, *, anew: bool = False) -> nn.Module:
    """What the factory gives: a function or a class that takes nothing, or a module itself.

    It runs with random sources of that ``seed``, which are then put back; ``anew`` runs its file once more.

    Raises:
        ClipstepError: it cannot be imported, fails, or gives no module.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ClipstepError("--model names no factory", got=spec, expected="package.module:factory")
    try:
        with seeded(seed):
            found: Any = _run_again(importlib.import_module(module)) if anew else importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module == error.name or module.startswith(f"{error.name}."):
            raise ClipstepError(
                f"--model {spec}: cannot be imported", got=str(error), expected="a module that is installed, or lies in this folder"
            ) from error
        raise _failed(spec, error) from error
    except Exception as error:  # Whatever a user's file raises.
        raise _failed(spec, error) from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(n for n, value in vars(found).items() if callable(value) and not n.startswith("_")))
            raise ClipstepError(f"--model {spec}: no such name", got=part, expected=f"one of {names or 'nothing: it is empty'}")
        found = getattr(found, part)
    try:
        with seeded(seed):
            network = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # Whatever a user's factory raises.
        raise _failed(spec, error) from error
    if not isinstance(network, nn.Module):
        raise ClipstepError(f"--model {spec}: gives no network", got=type(network).__name__, expected="a torch.nn.Module")
    return network


def _run_again(module: ModuleType) -> ModuleType:
    """A module's file run once more, beside the module that everybody has."""
    if module.__spec__ is None or module.__spec__.loader is None:
        return module
    again = importlib.util.module_from_spec(module.__spec__)
    module.__spec__.loader.exec_module(again)
    return again


def read_labels(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line.

    Raises:
        ClipstepError: it cannot be read, is empty, or names a class twice.
    """
    lines = [(number, unquoted(line)) for number, line in read_lines(path, expected="a text file with a class a line")]
    first: dict[str, int] = {}
    for number, label in lines:
        if first.setdefault(label, number) != number:
            raise ClipstepError(f"{path}:{number}: the class is named twice", got=f"{label}, as in line {first[label]}", expected="each class once")
    labels = tuple(first)
    return labels


def _failed(spec: str, error: Exception) -> ClipstepError:
    return ClipstepError(f"--model {spec}: fails", got=describe_error(error), fix=f"it comes from {line_of_error(error)}")
