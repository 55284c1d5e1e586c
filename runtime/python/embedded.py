"""The facts that an artifact carries, compared with those of the manifest beside it: at load, and by ``clipstep verify``."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.format_version import check_version, malformed_fix, validated
from clipstep.runtime.manifest import Interface
from clipstep.runtime.strict_json import parse_json

VERSION = {"schema_version"}
SHOWN = 8
"""Lists of more are told by their first element that differs."""


def interface_in(text: str, file: object) -> tuple[Interface, tuple[str, ...]]:
    """The facts in the text that an artifact carries, and the keys of a newer minor version that were ignored.

    Raises:
        ClipstepError: they are malformed, or of another major version of the format.
    """
    try:
        values = parse_json(text.encode("utf-8", "replace"))
    except ClipstepError as error:
        raise _malformed(file, "their start", str(error), "export it again") from error
    if not isinstance(values, dict):
        raise _malformed(file, "their start", f"a {type(values).__name__}", "export it again")
    version = check_version(values, f"{file}: what clipstep embedded in it")
    try:
        return validated(Interface, values, version)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "their start"
        raise _malformed(file, where, first["msg"].removeprefix("Value error, "), malformed_fix(version)) from error


def _malformed(file: object, where: str, got: str, fix: str) -> ClipstepError:
    return ClipstepError(f"{file}: the clipstep facts in it are malformed at {where}", got=got, fix=fix)


def check_embedded_facts(said: Interface, embedded: Interface, file: object) -> None:
    """Makes sure that the facts in an artifact are those that the manifest says for it.

    Raises:
        ClipstepError: one differs.
    """
    for key, got, expected in differences(said, embedded):
        raise ClipstepError(
            f"{file}: the manifest's {key} is not the artifact's own",
            got=_shown(got),
            expected=_shown(expected),
            fix="one of them was changed after the export: get the bundle again, or export it again",
        )


def differences(said: Interface, right: Interface) -> Iterator[tuple[str, object, object]]:
    """The keys that differ, with what each says; of states and of the input by their own keys. Their versions of the format may differ."""
    yield from _values("", said.model_dump(exclude=VERSION), right.model_dump(exclude=VERSION))


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
