"""The metadata that is embedded in an artifact, and its comparison with the manifest: at load, and by `clipstep verify`."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from clipstep.runtime.bundle.format_version import check_version, malformed_fix, validated
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.bundle.strict_json import parse_json
from clipstep.runtime.errors import ClipstepError

VERSION = {"schema_version"}
SHOWN = 8
"""If a list is longer than this, a message shows only the first element that differs, not the whole list."""


def parse_interface(text: str, file: object) -> tuple[Interface, tuple[str, ...]]:
    """Parse the text that is embedded in an artifact.

    Returns:
        The interface, and the keys that were ignored because a newer minor version added them.

    Raises:
        ClipstepError: it is malformed, or its format has another major version.
    """
    try:
        values = parse_json(text.encode("utf-8", "replace"))
    except ClipstepError as error:
        raise _malformed(file, "its start", str(error), "export it again") from error
    if not isinstance(values, dict):
        raise _malformed(file, "its start", f"a {type(values).__name__}", "export it again")
    version = check_version(values, f"{file}: what clipstep embedded in it")
    try:
        return validated(Interface, values, version)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its start"
        raise _malformed(file, where, first["msg"].removeprefix("Value error, "), malformed_fix(version)) from error


def _malformed(file: object, where: str, got: str, fix: str) -> ClipstepError:
    return ClipstepError(f"{file}: the clipstep metadata in it is malformed at {where}", got=got, fix=fix)


def check_embedded_metadata(said: Interface, embedded: Interface, file: object) -> None:
    """Check that the metadata in an artifact is what the manifest says.

    Raises:
        ClipstepError: a value differs.
    """
    for key, got, expected in differences(said, embedded):
        raise ClipstepError(
            f"{file}: the manifest's {key} is not the artifact's own",
            got=_shown(got),
            expected=_shown(expected),
            fix="one of them was changed after the export: get the bundle again, or export it again",
        )


def differences(said: Interface, right: Interface) -> Iterator[tuple[str, object, object]]:
    """Yield the keys that differ, with both values. States and the input are compared key by key; `schema_version` is not compared."""
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
