"""Counts and lists of names in messages."""

from collections.abc import Sequence

SHOWN = 5


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """Return the first `shown` names and how many more there are, such as `a, b and 3 more`.

    Names with control characters, on which a terminal would act, are quoted: file names can contain anything.
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:shown]) + more


def either(names: Sequence[str]) -> str:
    """Return the names as alternatives, such as `a`, `a or b` or `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, such as `1 state` or `2 states`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def without_secrets(url: str) -> str:
    """Return an address without a user's name and password before the host, and without what follows a `?`."""
    scheme, _, rest = url.partition("://")
    server, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{server.rpartition('@')[2]}{slash}{path}" if rest else url
