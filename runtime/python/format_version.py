"""The version of the manifest's format, MAJOR.MINOR, and what this clipstep does with another: docs/versions.md states the policy.

A minor version adds keys that a reader may ignore; everything else is a major one.
"""

import json
import re
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.strict_json import shown
from clipstep.runtime.wording import listed


class FormatVersion(NamedTuple):
    """Ordered as versions are: 2.10 is newer than 2.9."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OWN = FormatVersion(2, 0)
"""What this clipstep writes."""
SCHEMA_VERSION = str(OWN)
OF_THIS_MAJOR = rf"^{OWN.major}\.(0|[1-9][0-9]{{0,5}})$"
VERSION = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
ModelT = TypeVar("ModelT", bound=BaseModel)


def check_version(values: object, what: object, error: type[ClipstepError] = ClipstepError) -> FormatVersion:
    """The version that a manifest, or the facts in an artifact, ``what``, say they have.

    Raises:
        ClipstepError: of the type ``error``: they have none, or one of another major version.
    """
    said = values.get("schema_version") if isinstance(values, dict) else None
    known = f"{OWN.major}.x"
    if said is None or (said == 1 and isinstance(said, int) and not isinstance(said, bool)):
        got = "no schema_version" if said is None else "schema_version 1"
        raise error(f"{what} was written by an older clipstep", got=got, expected=known, fix="export the network again with this version")
    match = VERSION.fullmatch(said) if isinstance(said, str) else None
    if match is None:
        got = shown(said) if isinstance(said, str) else str(said)[:60]
        raise error(f"{what} has a malformed schema_version", got=got, expected=f'a text such as "{SCHEMA_VERSION}"', fix="export it again")
    version = FormatVersion(*map(int, match.groups()))
    if version.major > OWN.major:
        raise error(f"{what} was written by a newer clipstep", got=f"schema_version {version}", expected=known, fix="install a newer clipstep")
    if version.major < OWN.major:
        fix = "export the network again with this version"
        raise error(f"{what} was written by an older clipstep", got=f"schema_version {version}", expected=known, fix=fix)
    return version


def validated(kind: type[ModelT], values: Any, version: FormatVersion) -> tuple[ModelT, tuple[str, ...]]:
    """``values`` of that version as a model, and the keys of a newer minor version that were ignored, such as ``input.gamma``.

    Raises:
        ValidationError: they are malformed; so is an unknown key, unless the version is newer than this clipstep's.
    """
    ignored: list[str] = []
    if version > OWN:
        values = _known(kind, values, "", ignored)
    return kind.model_validate_json(json.dumps(values), strict=True), tuple(ignored)


def version_text(version: str, ignored: tuple[str, ...]) -> str:
    """The version and, of a newer one, the keys that were not read."""
    if FormatVersion(*map(int, version.split("."))) <= OWN:
        return version
    return f"{version}, newer than this clipstep's {OWN}; not read: {listed(ignored) if ignored else 'nothing'}"


def malformed_fix(version: FormatVersion) -> str:
    """What to do about values that do not fit."""
    return f"install a newer clipstep: it is of format {version}, and this one knows {OWN}" if version > OWN else "export it again"


def _known(kind: type[BaseModel], values: Any, path: str, ignored: list[str]) -> Any:
    """``values`` with only the keys that the model has, at every depth; the others are added to ``ignored``."""
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
    """The models in a field's type: one, several in a union that ``kind`` tells apart, or none."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _chosen(models: list[type[BaseModel]], value: Any) -> type[BaseModel]:
    tag = value.get("kind") if isinstance(value, dict) else None
    return next((model for model in models if len(models) > 1 and tag in get_args(model.model_fields["kind"].annotation)), models[0])
