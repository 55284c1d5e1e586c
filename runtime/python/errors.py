"""The one error type that users see."""


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
        super().__init__("; ".join(parts))
