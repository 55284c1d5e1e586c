"""Parse JSON strictly, so that all readers get the same values from it: no duplicate keys, no NaN, no control characters."""

import json
import math
import unicodedata
from typing import Any

from clipstep.runtime.errors import ClipstepError

LARGEST_BYTES = 16 << 20
DEEPEST = 32
LARGEST_INTEGER = 2**63 - 1
JOINERS = "\u200c\u200d"
"""The invisible characters that some scripts and emoji need. Other invisible ones are refused: they can reverse text, or hide in it."""


def parse_json(data: bytes) -> Any:
    """Parse a JSON document in UTF-8.

    Raises:
        ClipstepError: it is not JSON or not UTF-8; it is larger or nested deeper than a manifest ever is; a key occurs twice; a number is
            NaN, infinite or an integer of more than 64 bits; a string has control characters.
    """
    if len(data) > LARGEST_BYTES:
        raise ClipstepError("is too large", got=f"{len(data)} bytes", expected=f"at most {LARGEST_BYTES}")
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except RecursionError as error:
        raise ClipstepError("is nested too deep", expected=f"at most {DEEPEST} levels") from error
    except ValueError as error:
        raise ClipstepError("is not JSON", got=str(error)) from error
    _check(values, "", 0)
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ClipstepError("is ambiguous", got=f"the key {quoted(twice)} twice", expected="each key once")
    return values


def _constant(name: str) -> Any:
    raise ClipstepError("is not JSON", got=name, expected="finite numbers")


def _integer(text: str) -> int:
    if len(text) > 20 or not -LARGEST_INTEGER - 1 <= int(text) <= LARGEST_INTEGER:
        raise ClipstepError("has an integer of more than 64 bits", got=f"{text[:20]}…")
    return int(text)


def _check(value: Any, where: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ClipstepError("is nested too deep", expected=f"at most {DEEPEST} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(key, where, depth)
            _check(inner, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check(inner, f"{where}.{index}", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ClipstepError(f"has a number out of range at {where[1:]}", expected="finite numbers")
    elif isinstance(value, str) and not is_printable_line(value):
        raise ClipstepError(f"holds control characters at {where[1:] or 'its start'}", got=quoted(value), expected="text of one line")


def is_printable_line(text: str) -> bool:
    """Whether a terminal shows the text as it is, in one line: it has no control characters, line separators or lone surrogates."""
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in JOINERS for c in text)


def quoted(text: str) -> str:
    """Return a string in quotes, shortened, with non-printable characters escaped."""
    return ascii(text if len(text) <= 60 else f"{text[:60]}…")
