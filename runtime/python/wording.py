"""How messages count things and list names."""

from collections.abc import Sequence

SHOWN = 5


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """The first ``shown`` names, and how many more there are: ``a, b and 3 more``. Names of files that nobody checked can hold
    anything, so that those with characters which a terminal would obey are quoted."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:shown]) + more


def either(names: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def counted(number: int, thing: str) -> str:
    """``1 state``, ``2 states``."""
    return f"{number} {thing}{'s' * (number != 1)}"
