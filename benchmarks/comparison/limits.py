"""The largest ratios that a comparison allows, by patterns of configurations."""

import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.path_checks import check_file
from clipstep.runtime.wording import listed

EXAMPLE = '{"onnxruntime, 1 thread": 1.05, "*": 1.1}'


def read_limits(path: Path) -> dict[str, float]:
    """Read limits from a file with a JSON object, such as `EXAMPLE`.

    Raises:
        ClipstepError: there is no such file, or it holds something else.
    """
    expected = f"limits, as {EXAMPLE}"
    check_file(path, expected)
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise ClipstepError(f"{path}: is not a file of limits", got=error_summary(error), expected=expected) from error
    return checked_limits(values, str(path))


def checked_limits(values: Any, source: str) -> dict[str, float]:
    """Return the limits after checking that they are ratios by patterns.

    Raises:
        ClipstepError: they are not.
    """
    if not isinstance(values, Mapping) or not values:
        raise ClipstepError(f"{source}: holds no limits", got=_short(values), expected=EXAMPLE)
    for pattern, limit in values.items():
        if not isinstance(pattern, str) or not pattern.strip():
            raise ClipstepError(f"{source}: a pattern of limits is a text", got=_short(pattern), expected=EXAMPLE)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
            raise ClipstepError(f'{source}: the limit of "{pattern}" is no ratio', got=_short(limit), expected="a number above 0, such as 1.05")
    return {pattern: float(limit) for pattern, limit in values.items()}


def limits_by_name(limits: Mapping[str, float], names: Sequence[str], source: str) -> dict[str, float]:
    """Return the limit of each configuration that a pattern is for: that of the first pattern that matches.

    Each part of a pattern, between commas, matches a part of the configuration's name; `*` and `?` stand for any characters.

    Raises:
        ClipstepError: a pattern has no effect, because it matches no configuration, or only those of the patterns before it.
    """
    found: dict[str, float] = {}
    for pattern, limit in limits.items():
        matched = [name for name in names if _matches(pattern, name)]
        new = [name for name in matched if name not in found]
        if not new:
            raise ClipstepError(
                f'{source}: the limit of "{pattern}" is for no configuration that both files hold',
                got="only those of the patterns before it" if matched else listed(names),
                fix="put the more general pattern last" if matched else "correct the pattern, or leave it out",
            )
        found.update(dict.fromkeys(new, limit))
    return found


def _matches(pattern: str, name: str) -> bool:
    parts = [part.strip() for part in name.split(",")]
    return all(any(fnmatchcase(part, wanted.strip()) for part in parts) for wanted in pattern.split(","))


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f'"{repeated}" is there twice')
    return dict(pairs)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
