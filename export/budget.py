"""Reads a budget as users write it, such as `latency=20ms,memory=14MB`."""

import re

from clipstep.runtime.bundle.choice import Budget
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import either

BYTES: dict[str, float] = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
QUANTITIES: dict[str, tuple[str, dict[str, float]]] = {
    "latency": ("latency_ms", {"ms": 1, "s": 1000}),
    "memory": ("memory_bytes", BYTES),
    "size": ("size_bytes", BYTES),
    "instructions": ("instructions", {"k": 10**3, "M": 10**6, "G": 10**9}),
}
"""By quantity, the field of `Budget`, and what a unit is worth in the field's own."""
LEAST = {"memory_bytes": "1B", "size_bytes": "1B", "instructions": "one instruction"}
"""The least of what is counted in whole numbers."""
EXAMPLE = "such as size=1.3MB,instructions=60M"
PART = re.compile(r"\s*(?P<name>\w+)\s*=\s*(?P<number>[-+]?(?:nan|inf|[0-9.]*(?:e[-+]?[0-9]+)?))\s*(?P<unit>[A-Za-z]*)\s*", re.IGNORECASE)


def parse_budget(text: str) -> Budget:
    """Read a budget: quantities out of `latency`, `memory`, `size` and `instructions`, each with a number and its unit, joined by commas.

    Raises:
        ClipstepError: a quantity or a unit is unknown, a quantity is given twice, or a number is not finite and above 0, or is below one byte or one
            instruction.
    """
    if not isinstance(text, str):
        raise ClipstepError("a budget is a text", got=repr(text)[:80], expected=EXAMPLE)
    limits: dict[str, float] = {}
    for part in text.split(","):
        found = PART.fullmatch(part)
        if found is None:
            raise ClipstepError("a budget is quantities with numbers and units", got=repr(part), expected=EXAMPLE)
        name, number, unit = found["name"], found["number"], found["unit"]
        if name not in QUANTITIES:
            raise ClipstepError("unknown quantity of a budget", got=name, expected=either(tuple(QUANTITIES)))
        field, units = QUANTITIES[name]
        if unit not in units:
            raise ClipstepError(
                f"the budget's {name} needs a unit" if not unit else f"unknown unit of the budget's {name}",
                got=part.strip(),
                expected=either(tuple(units)),
            )
        if field in limits:
            raise ClipstepError(f"the budget has {name} twice", got=text, expected=EXAMPLE)
        try:
            limits[field] = float(number) * units[unit]
        except ValueError:
            limits[field] = 0
        if not 0 < limits[field] < float("inf"):
            raise ClipstepError(f"the budget's {name} must be a number above 0", got=part.strip(), expected=EXAMPLE)
        if field in LEAST and limits[field] < 1:
            raise ClipstepError(f"the budget's {name} must be at least {LEAST[field]}", got=part.strip(), expected=EXAMPLE)
    return Budget.model_validate({field: limit if field == "latency_ms" else int(limit) for field, limit in limits.items()})
