"""Chooses the logits, the next states and the outputs to keep among the values that a network returns.

By the step contract a network returns its logits, or a tuple of them and the next states. Other networks return several values: a dictionary,
a dataclass (as Hugging Face's do), a list, or a tuple with the outputs of auxiliary heads. Each tensor in what they return has a path: its key
or its position, joined by dots in nested values, such as `logits`, `1` or `hidden_states.3`.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clipstep.network.states import outputs_of
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed

RANKS = range(1, 5)
SHOWN = 12


@dataclass(frozen=True)
class OutputChoice:
    """What is taken from the value that a network returns. Called with that value, it returns `(logits, *next_states, *kept)`."""

    logits: str | None = None
    """The path of the logits; None for a network that returns them, or a tuple of them and the next states."""
    states: tuple[str, ...] = ()
    """The paths of the next states."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The paths of the outputs that are kept, by the names that they have in artifacts."""
    unused: tuple[str, ...] = ()
    """The paths and shapes of the values that are left out."""

    def __call__(self, result: Any) -> tuple[Any, ...]:
        if self.logits is None:
            return outputs_of(result)
        leaves = leaves_of(result)
        return tuple(leaves.get(path) for path in (self.logits, *self.states, *self.kept.values()))

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the logits and of the kept outputs by name, as the manifest records them; empty for the contract's own outputs."""
        return {} if self.logits is None else {"logits": self.logits, **self.kept}


CONTRACT = OutputChoice()
"""The choice for a network that returns its logits, or a tuple of them and the next states."""


@dataclass(frozen=True)
class AskedOutputs:
    """Which outputs the user asks for."""

    logits: str | None = None
    """The path, or the position among the returned values, of the logits; None to find them."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The paths, or positions, of further outputs to keep, by the names that they shall have."""


def asked_outputs(output: str | int | None, keep: Sequence[str | int] | Mapping[str, str | int]) -> AskedOutputs:
    """Return what is asked for by `output` and by `keep`: paths or positions, or a dictionary of them by name.

    A path that is no name in artifacts, such as `1` or `hidden_states.3`, is kept as `output_1` or `hidden_states_3`. In a list, `NAME=PATH` gives
    another name.

    Raises:
        ClipstepError: a value is of another type, or two outputs would have one name.
    """
    if output is not None and not _is_path(output):
        raise ClipstepError("output names the logits", got=repr(output)[:80], expected="a key or a position, such as 'logits' or 0")
    if isinstance(keep, str) or not isinstance(keep, Mapping | Sequence):
        raise ClipstepError("keep_outputs is a list of keys or positions", got=repr(keep)[:80], expected="such as ['embedding']")
    pairs = list(keep.items()) if isinstance(keep, Mapping) else [_named(path) for path in keep]
    for name, path in pairs:
        if not _is_path(path) or not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise ClipstepError(
                "a kept output's name is not valid in every format",
                got=f"{name}={path}",
                expected="letters, digits and _",
                fix="give it another name: NAME=KEY",
            )
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ClipstepError("keep_outputs has a name twice", got=listed(twice), expected="each name once", fix="give one another name: NAME=KEY")
    return AskedOutputs(None if output is None else str(output), {name: str(path) for name, path in pairs})


def _is_path(value: Any) -> bool:
    return (isinstance(value, str) and bool(value)) or (isinstance(value, int) and not isinstance(value, bool))


def _named(path: Any) -> tuple[Any, Any]:
    name, given, rest = path.partition("=") if isinstance(path, str) else ("", "", "")
    if given:
        return name, rest
    name = str(path).replace(".", "_").replace("-", "last_")
    return (f"output_{name}" if name[:1].isdigit() or name.startswith("last_") else name), path


def leaves_of(result: Any) -> dict[str, Any]:
    """Return what a network returns by path: the tensors, and whatever else is no container; None is left out."""
    return dict(_leaves(result, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items = _items(value)
    if items is None:
        if value is not None:
            yield path, value
        return
    for name, item in items:
        yield from _leaves(item, f"{path}.{name}" if path else name)


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """Return the parts of a container with their keys or positions; None for anything else."""
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, tuple) and hasattr(value, "__match_args__"):
        return list(zip(value.__match_args__, value, strict=True))
    if isinstance(value, list | tuple):
        return [(str(index), item) for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
    return None


def choose_outputs(result: Any, states: Mapping[str, Tensor], classes: int, asked: AskedOutputs) -> OutputChoice:
    """Return what to take from the value that a network with those initial states returned.

    Raises:
        ClipstepError: it is not clear which value is the logits, or what was asked for is not there or cannot be kept; the message lists what
            there is.
    """
    if asked == AskedOutputs() and _keeps_contract(result, states):
        return CONTRACT
    following = _state_paths(result, states)
    leaves = {path: value for path, value in leaves_of(result).items() if path not in following}
    if asked.logits is not None:
        logits = _resolved("--output", asked.logits, result, leaves)
        if not _is_logits(leaves[logits], classes):
            raise ClipstepError(
                f"--output {asked.logits}: is not the logits", got=kind_of(leaves[logits]), expected=_logits_text(classes), fix=_overview(leaves)
            )
    else:
        logits = _only_logits(leaves, classes)
    kept = {name: _resolved("--keep-outputs", path, result, leaves) for name, path in asked.kept.items()}
    _check_kept(kept, leaves, logits, list(states))
    unused = tuple(f"{path} {kind_of(value)}" for path, value in leaves.items() if path not in (logits, *kept.values()))
    return OutputChoice(logits, tuple(following), kept, unused)


def _keeps_contract(result: Any, states: Mapping[str, Tensor]) -> bool:
    """Whether a network returned what the contract asks for, or, if it has states, another number of values: then a state may be missing."""
    if isinstance(result, Tensor) or result is None:
        return True
    if not isinstance(result, tuple) or hasattr(result, "__match_args__"):
        return False
    first = result[0] if result else None
    return (isinstance(first, Tensor) or first is None) and (bool(states) or len(result) <= 1)


def _state_paths(result: Any, states: Mapping[str, Tensor]) -> list[str]:
    """Return the paths of the next states: `NAME_out` or `NAME` among names, the last values of a list or tuple."""
    items = dict(_items(result) or {})
    if isinstance(result, list | tuple) and not hasattr(result, "__match_args__"):
        found = list(items)[len(items) - len(states) :] if len(items) > len(states) else []
    else:
        found = [next((key for key in (f"{name}_out", name) if key in items), "") for name in states]
    if len(found) != len(states) or "" in found:
        raise ClipstepError(
            "the network does not return its next states",
            got=f"{kind_of(result)}: {_overview(leaves_of(result))}",
            expected=", ".join(f"{name}_out" for name in states),
            fix="return a dictionary with these keys, or a tuple whose last values they are",
        )
    return found


def _only_logits(leaves: Mapping[str, Any], classes: int) -> str:
    fitting = [path for path, value in leaves.items() if _is_logits(value, classes)]
    if len(fitting) == 1:
        return fitting[0]
    raise ClipstepError(
        f"{'several of the values' if fitting else 'none of the values'} that the network returns can be the logits",
        got=_overview(leaves),
        expected=f"one of {_logits_text(classes)}",
        fix=f"choose one: --output {fitting[0]} (or output={fitting[0]!r})"
        if fitting
        else "return them, or give as many labels as there are classes",
    )


def _resolved(option: str, asked: str, result: Any, leaves: Mapping[str, Any]) -> str:
    """Return the path of a value that is asked for by its path, or by its position among the returned values."""
    if asked in leaves:
        return asked
    items = _items(result)
    if items is not None and asked.lstrip("-").isdecimal() and -len(items) <= int(asked) < len(items) and items[int(asked)][0] in leaves:
        return items[int(asked)][0]
    if items is None:
        raise ClipstepError(f"{option} {asked}: the network returns one value, its logits", got=kind_of(result), fix=f"leave {option} out")
    inside = [path for path in leaves if path.startswith(f"{asked}.")]
    raise ClipstepError(
        f"{option} {asked}: {'has several values' if inside else 'is not among the values that the network returns'}",
        got=_overview({path: leaves[path] for path in inside} if inside else leaves),
        expected="the key or the position of one of them",
    )


def _check_kept(kept: Mapping[str, str], leaves: Mapping[str, Any], logits: str, states: Sequence[str]) -> None:
    taken = {"frames", "logits", *states, *(f"{name}_out" for name in states)}
    for name, path in kept.items():
        value = leaves[path]
        if name in taken:
            raise ClipstepError(
                f"--keep-outputs {path}: the step has another value called {name}",
                expected="each name once",
                fix=f"give it another: my_{name}={path}",
            )
        if path == logits:
            raise ClipstepError(f"--keep-outputs {path}: is the logits, which every bundle has", fix="leave it out")
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim not in RANKS or not value.numel():
            raise ClipstepError(
                f"--keep-outputs {path}: cannot be kept",
                got=kind_of(value),
                expected="a float32 tensor of rank 1 to 4, and no axis of length 0",
                fix="convert or reshape it in the network, or leave it out",
            )


def _is_logits(value: Any, classes: int) -> bool:
    return isinstance(value, Tensor) and value.shape == (1, classes) and value.dtype == torch.float32


def _logits_text(classes: int) -> str:
    return f"{(1, classes)} {torch.float32}"


def _overview(leaves: Mapping[str, Any]) -> str:
    return listed([f"{path} {kind_of(value)}" for path, value in leaves.items()], SHOWN) if leaves else "nothing"


def kind_of(value: Any) -> str:
    """Return what a value is, for messages: a tensor's shape and type, or a type's name."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
