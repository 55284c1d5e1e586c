"""The facts that an artifact carries, compared with those of the manifest beside it: at load, and by ``clipstep verify``."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import Interface
from clipstep.runtime.strict_json import parse_json

SHOWN = 8
"""Lists of more are told by their first element that differs."""


def interface_in(text: str, file: object) -> Interface:
    """The facts in the text that an artifact carries.

    Raises:
        ClipstepError: they are malformed.
    """
    try:
        return Interface.model_validate_json(json.dumps(parse_json(text.encode("utf-8", "replace"))), strict=True)
    except (ValidationError, ClipstepError) as error:
        where, reason = "their start", str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where, reason = ".".join(map(str, first["loc"])) or where, first["msg"]
        raise ClipstepError(
            f"{file}: the clipstep facts in it are malformed at {where}", got=reason.removeprefix("Value error, "),
            fix="export it again with this version",
        ) from error  # fmt: skip


def check_embedded_facts(said: Interface, embedded: Interface, file: object) -> None:
    """Makes sure that the facts in an artifact are those that the manifest says for it.

    Raises:
        ClipstepError: one differs.
    """
    for key, got, expected in differences(said, embedded):
        raise ClipstepError(
            f"{file}: the manifest's {key} is not the artifact's own", got=_shown(got), expected=_shown(expected),
            fix="one of them was changed after the export: get the bundle again, or export it again",
        )  # fmt: skip


def differences(said: Interface, right: Interface) -> Iterator[tuple[str, object, object]]:
    """The keys that differ, with what each says; of states and of the input by their own keys."""
    yield from _values("", said.model_dump(), right.model_dump())


def _shown(value: object) -> object:
    return "nothing" if value is None else value


def _values(path: str, said: Any, right: Any) -> Iterator[tuple[str, object, object]]:
    if isinstance(said, dict) and isinstance(right, dict):
        for key in {**said, **right}:
            yield from _values(f"{path}.{key}".removeprefix("."), said.get(key), right.get(key))
    elif said and right and isinstance(said[0] if isinstance(said, tuple) else None, dict) and len(said) == len(right):
        for one, other in zip(said, right, strict=True):
            yield from _values(f"{path}.{other['name']}", one, other)
    elif isinstance(said, tuple) and isinstance(right, tuple) and len(said) == len(right) > SHOWN:
        for index, (one, other) in enumerate(zip(said, right, strict=True)):
            yield from _values(f"{path}[{index}]", one, other)
    elif said != right:
        yield path, said, right
