"""The one error type that users see."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager


class ClipstepError(Exception):
    """Something the user can put right: one line that says what, what was got, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if fix is not None:
            parts.append(fix)
        super().__init__(_one_line("; ".join(parts)))


def _one_line(text: str) -> str:
    """The text with control characters as escapes: what it quotes may come from a file, and terminals obey them."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Zl", "Zp") else c.encode("unicode_escape").decode() for c in text)


class EngineError(ClipstepError):
    """An engine that does not load an artifact, or fails in a step of it."""


@contextmanager
def in_step(number: int) -> Iterator[None]:
    """Names the step of a stream, counted from 0, in an error of the engine that runs it."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"step {number}: {error}") from error


def first_line(error: BaseException) -> str:
    """What an error says in its first line that says anything; the name of its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
