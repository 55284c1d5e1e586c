"""The errors that users see."""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

NOT_SAID = object()
"""Stands for a `got` that is not given."""


class ClipstepError(Exception):
    """An error that the user can put right. Its message is one line that says what is wrong, what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.

    Args:
        what: what is wrong, and of which file, option or value.
        got: what was found; it may be None.
        expected: what was expected in its place.
        fix: what the user can do.

    Example:
        ```python
        raise ClipstepError("wrong number of states", got=1, expected=2, fix="pass model.initial_states()")
        # wrong number of states; got 1; expected 2; pass model.initial_states()
        ```
    """

    def __init__(self, what: str, *, got: object = NOT_SAID, expected: object = None, fix: str | None = None) -> None:
        parts = [what]
        if got is not NOT_SAID:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if fix is not None:
            parts.append(fix)
        super().__init__(_one_line("; ".join(parts)))


def _one_line(text: str) -> str:
    """Return the text with control characters escaped: it may quote a file, and terminals act on them."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Zl", "Zp") else c.encode("unicode_escape").decode() for c in text)


class EngineError(ClipstepError):
    """An engine cannot load an artifact, or fails in a step."""


@contextmanager
def step_error_context(number: int) -> Iterator[None]:
    """Add the number of a stream's step, counted from 0, to an `EngineError` that is raised inside."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"step {number}: {error}") from error


def error_summary(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, without codes of terminals, or the name of its type if there is none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return next((line.strip() for line in plain.splitlines() if line.strip()), type(error).__name__)
