"""The version of the manifest's format, MAJOR.MINOR, and how other versions are read; docs/versions.md states the policy.

A minor version only adds keys that a reader may ignore; any other change is a major version.
"""

import json
import re
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel

from clipstep.runtime.bundle.strict_json import quoted
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed


class FormatVersion(NamedTuple):
    """A version, ordered by its numbers: 2.10 is newer than 2.9."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OWN = FormatVersion(2, 0)
"""The version that this clipstep writes."""
SCHEMA_VERSION = str(OWN)
OF_THIS_MAJOR = rf"^{OWN.major}\.(0|[1-9][0-9]{{0,5}})$"
VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
ModelT = TypeVar("ModelT", bound=BaseModel)


def check_version(values: object, what: object, error: type[ClipstepError] = ClipstepError) -> FormatVersion:
    """Return the version of a manifest or of the metadata in an artifact.

    Args:
        values: the parsed JSON.
        what: what it is, for messages.
        error: the type of the error.

    Raises:
        ClipstepError: it has no version, or another major version.
    """
    said = values.get("schema_version") if isinstance(values, dict) else None
    known = f"{OWN.major}.x"
    if said is None or (said == 1 and isinstance(said, int) and not isinstance(said, bool)):
        got = "no schema_version" if said is None else "schema_version 1"
        raise error(f"{what} was written by an older clipstep", got=got, expected=known, fix="export the network again with this version")
    match = VERSION.fullmatch(said) if isinstance(said, str) else None
    if match is None:
        got = quoted(said) if isinstance(said, str) else str(said)[:60]
        raise error(f"{what} has a malformed schema_version", got=got, expected=f'a text such as "{SCHEMA_VERSION}"', fix="export it again")
    version = FormatVersion(*map(int, match.groups()))
    if version.major > OWN.major:
        raise error(f"{what} was written by a newer clipstep", got=f"schema_version {version}", expected=known, fix="install a newer clipstep")
    if version.major < OWN.major:
        fix = "export the network again with this version"
        raise error(f"{what} was written by an older clipstep", got=f"schema_version {version}", expected=known, fix=fix)
    return version


def validated(kind: type[ModelT], values: Any, version: FormatVersion) -> tuple[ModelT, tuple[str, ...]]:
    """Validate `values` of that version.

    Returns:
        The model, and the keys that were ignored because a newer minor version added them, such as `input.gamma`.

    Raises:
        ValidationError: they are malformed, or have an unknown key although the version is not newer than this clipstep's.
    """
    ignored: list[str] = []
    if version > OWN:
        values = _known(kind, values, "", ignored)
    return kind.model_validate_json(json.dumps(values), strict=True), tuple(ignored)


def version_text(version: str, ignored: tuple[str, ...]) -> str:
    """Return a version as text; if it is newer than this clipstep's, the text also lists the keys that were not read."""
    if FormatVersion(*map(int, version.split("."))) <= OWN:
        return version
    return f"{version}, newer than this clipstep's {OWN}; not read: {listed(ignored) if ignored else 'nothing'}"


def malformed_fix(version: FormatVersion) -> str:
    """Return what the user can do about malformed values of that version."""
    return f"install a newer clipstep: it is of format {version}, and this one knows {OWN}" if version > OWN else "export it again"


def _known(kind: type[BaseModel], values: Any, path: str, ignored: list[str]) -> Any:
    """Return `values` without the keys that the model does not have, at any depth; these are appended to `ignored`."""
    if not isinstance(values, dict):
        return values
    ignored += [f"{path}{key}" for key in values if key not in kind.model_fields]
    kept = {key: value for key, value in values.items() if key in kind.model_fields}
    for key, value in kept.items():
        models = _models(kind.model_fields[key].annotation)
        if isinstance(value, list):
            kept[key] = [_known(_chosen(models, item), item, f"{path}{key}.{i}.", ignored) if models else item for i, item in enumerate(value)]
        elif models:
            kept[key] = _known(_chosen(models, value), value, f"{path}{key}.", ignored)
    return kept


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models in a field's type: none, one, or those of a union, which the key `kind` tells apart."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _chosen(models: list[type[BaseModel]], value: Any) -> type[BaseModel]:
    tag = value.get("kind") if isinstance(value, dict) else None
    return next((model for model in models if len(models) > 1 and tag in get_args(model.model_fields["kind"].annotation)), models[0])
