"""Loads a user's own network from a factory: any function or class that returns an `nn.Module`."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from clipstep.export.adapters import adapted
from clipstep.export.contract import check_weights
from clipstep.export.module import size_of
from clipstep.export.purity.random_generators import seeded
from clipstep.export.purity.reachable import snapshot
from clipstep.export.purity.snapshot import same
from clipstep.export.sample import sample_frames
from clipstep.export.source_lines import describe_error, line_of_error
from clipstep.export.turns import one_at_a_time
from clipstep.network.inputs import VIDEO, Images, Joints, NetworkInput
from clipstep.network.spec import NetworkSpec, check_normalisation, weights_sha256
from clipstep.network.text_files import read_lines, unquoted
from clipstep.network.weights import Checkpoint, load_checkpoint_weights, read_checkpoint
from clipstep.runtime.bundle.manifest import FactoryProvenance
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

SHOWN = 3
FACTORY_SEED = 67280421310721
"""The seed for factories, which is torch's own in a fresh process: random weights are the same each time that they are made."""


@one_at_a_time()
def network_of_factory(
    factory: str,
    *,
    frames: int,
    size: int | None = None,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    weights: Path | None = None,
    weights_key: str | None = None,
    video: Path | None = None,
    random_weights: bool = False,
    adapters: Sequence[str] = (),
    input: Images | Joints | None = None,
) -> NetworkSpec:
    """Return the network that the factory `package.module:name` makes, in eval mode.

    Args:
        factory: a function or class without arguments, or a module, by name.
        frames: T, the frames of a subclip.
        size: height and width of a frame, in pixels; None for joints.
        labels: the class names.
        mean: what is subtracted from each channel, R G B, in 0..255; of another input on its own scale.
        std: what each channel is then divided by, on the same scale.
        fps: frames per second of the videos that the network was trained on.
        weights: a file with its state dict; None for the weights that the factory gives it.
        weights_key: which of several state dicts in the file.
        video: the frames of the golden steps, a video or a `.npy` file of frames; None for synthetic ones.
        random_weights: allow weights that were not trained.
        adapters: the adapters that the network is wrapped in, the innermost first, as `--adapter` takes them; see `clipstep.export.adapters`.
        input: what a frame is, if not RGB.

    Raises:
        ClipstepError: the factory cannot be imported, fails, or returns no module; the weights do not fit, or are random; the video
            cannot be used; a value is not possible for a network.
    """
    given: NetworkInput = VIDEO if input is None else input
    size = size_of(input, size)
    check_normalisation(mean, std, given)
    checkpoint = None if weights is None else read_checkpoint(weights)
    network = load_network(factory)
    key = _fill(network, checkpoint, weights_key)
    check_weights(network)
    random = _random_tensors(factory, network, checkpoint, weights_key)
    if random and not random_weights:
        raise _random_weights_error(factory, random, weights)
    provenance = FactoryProvenance(
        kind="factory",
        source=factory,
        weights_sha256=weights_sha256(network.state_dict()),
        config={"frames": frames, "joints" if isinstance(given, Joints) else "size": size},
        weights_source="random" if random else "factory" if weights is None else weights.name,
        weights_key=key or None,
    )
    sample, content = sample_frames(given, frames, size, video, mean, std)
    network = adapted(_in_eval_mode(network), adapters, frames, size)
    names, means, deviations = tuple(labels), tuple(mean), tuple(std)
    return NetworkSpec(network, frames, size, names, means, deviations, fps, sample, provenance, content, tuple(adapters), given)


def _in_eval_mode(network: nn.Module) -> nn.Module:
    try:
        return network.eval()
    except Exception as error:  # Of a module that torch.export made, and of the user's own method.
        raise ClipstepError(
            "--model: its network cannot be put into eval mode", got=describe_error(error), fix="give the module that was trained"
        ) from error


def _fill(network: nn.Module, checkpoint: Checkpoint | None, key: str | None) -> str:
    return "" if checkpoint is None else load_checkpoint_weights(network, checkpoint, "give the factory of the network that was trained", key)


def _random_tensors(factory: str, network: nn.Module, checkpoint: Checkpoint | None, key: str | None) -> list[str]:
    """Return the paths of the tensors that change when the network is made again with another seed: these were not trained."""
    try:
        second = load_network(factory, FACTORY_SEED + 1)
        if second is network:  # A variable of the factory's Python module holds it: running that file again makes another one.
            second = load_network(factory, FACTORY_SEED + 1, reimport=True)
        if second is network:
            return []
        _fill(second, checkpoint, key)
    except Exception:  # The factory works only once, so that its weights cannot be compared.
        return []
    ours, others = snapshot(network, "network").entries, snapshot(second, "network").entries
    tensors = {path: found.value for path, found in ours.items() if path.startswith("network") and isinstance(found.value, Tensor)}
    return [path.removeprefix("network.") for path, value in tensors.items() if path not in others or not same(value, others[path].value)]


def _random_weights_error(factory: str, names: Sequence[str], weights: Path | None) -> ClipstepError:
    some = listed(names, SHOWN)
    if weights is None:
        return ClipstepError(
            f"--model {factory}: its weights are random, and differ from call to call",
            got=some,
            expected="--weights FILE",
            fix="or allow them with --random-weights",
        )
    return ClipstepError(
        f"--model {factory}: some of its weights are not in {weights}, and are random",
        got=some,
        expected="all of them in the network's state_dict()",
        fix="register what is in plain lists by nn.ModuleList, or allow them with --random-weights",
    )


def load_network(factory: str, seed: int = FACTORY_SEED, *, reimport: bool = False) -> nn.Module:
    """Call the factory `package.module:name`, a function or class without arguments; the name may also be that of a module.

    The random number generators are seeded with `seed` meanwhile, and restored; `reimport` runs the factory's file once more.

    Raises:
        ClipstepError: the factory cannot be imported, fails, or returns no module.
    """
    module, _, name = factory.partition(":")
    if not module or not name:
        raise ClipstepError("--model does not name a factory", got=factory, expected="package.module:factory")
    try:
        with seeded(seed):
            found: Any = _reimported(importlib.import_module(module)) if reimport else importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module == error.name or module.startswith(f"{error.name}."):
            raise ClipstepError(
                f"--model {factory}: cannot be imported", got=str(error), expected="a module that is installed, or is in this folder"
            ) from error
        raise _failed(factory, error) from error
    except Exception as error:  # User code may raise anything.
        raise _failed(factory, error) from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = ", ".join(sorted(n for n, value in vars(found).items() if callable(value) and not n.startswith("_")))
            raise ClipstepError(f"--model {factory}: no such name", got=part, expected=f"one of {names or 'nothing: it is empty'}")
        found = getattr(found, part)
    try:
        with seeded(seed):
            network = found if isinstance(found, nn.Module) else found()
    except Exception as error:  # User code may raise anything.
        raise _failed(factory, error) from error
    if not isinstance(network, nn.Module):
        raise ClipstepError(f"--model {factory}: does not return a module", got=type(network).__name__, expected="a torch.nn.Module")
    return network


def _reimported(module: ModuleType) -> ModuleType:
    """Run the file of a module once more, as a module that is not in `sys.modules`."""
    if module.__spec__ is None or module.__spec__.loader is None:
        return module
    again = importlib.util.module_from_spec(module.__spec__)
    module.__spec__.loader.exec_module(again)
    return again


def read_labels(path: Path) -> tuple[str, ...]:
    """Read the class names in a text file, one a line.

    Raises:
        ClipstepError: the file cannot be read, is empty, or names a class twice.
    """
    lines = [(number, unquoted(line)) for number, line in read_lines(path, expected="a text file with a class a line")]
    first: dict[str, int] = {}
    for number, label in lines:
        if first.setdefault(label, number) != number:
            raise ClipstepError(f"{path}:{number}: the class is named twice", got=f"{label}, as in line {first[label]}", expected="each class once")
    return tuple(first)


def _failed(factory: str, error: Exception) -> ClipstepError:
    return ClipstepError(f"--model {factory}: fails", got=describe_error(error), fix=f"it comes from {line_of_error(error)}")
