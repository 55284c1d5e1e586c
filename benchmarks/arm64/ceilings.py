"""Regression ceilings: the ARM64 instructions that a step of each artifact may take, recorded in a file, so that a test fails if they grow."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from clipstep.benchmarks.records import InstructionRecord
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.path_checks import check_file

MARGIN = 0.01
"""How far a recorded ceiling is above the count, as a share of it. Counts of one artifact hardly vary, but a new
export after a harmless change may have a slightly higher count."""

_CEILINGS: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, int])


def read_ceilings(path: Path) -> dict[str, int]:
    """Read the ceilings, instructions of a step by configuration, from a JSON object as `ceilings_text` writes it.

    Raises:
        ClipstepError: there is no such file, or it holds something else.
    """
    check_file(path, 'ceilings, as {"step.onnx": 120000000}')
    try:
        return _CEILINGS.validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValueError as error:
        raise ClipstepError(f"{path}: is not a file of ceilings", got=error_summary(error), expected='as {"step.onnx": 120000000}') from error


def ceilings_text(records: Sequence[InstructionRecord]) -> str:
    """Return the ceilings that these counts give as JSON: each count plus `MARGIN`, rounded up to the next hundred thousand."""
    values = {r.configuration.name: math.ceil(r.step.instructions * (1 + MARGIN) / 1e5) * 100_000 for r in records}
    return json.dumps(values, indent=2)


def check_ceilings(records: Sequence[InstructionRecord], ceilings: Mapping[str, int], path: Path) -> None:
    """Check every count against its ceiling.

    Raises:
        ClipstepError: a count is above its ceiling or has none, or a ceiling has no count.
    """
    counted = {record.configuration.name: record.step.instructions for record in records}
    if counted.keys() != ceilings.keys():
        raise ClipstepError(
            f"{path}: the ceilings are for other artifacts than those that were counted", got=_names(ceilings), expected=_names(counted)
        )
    above = [name for name, count in counted.items() if count > ceilings[name]]
    if above:
        got = ", ".join(f"{name} {counted[name]:,}" for name in above)
        expected = "at most " + ", ".join(f"{name} {ceilings[name]:,}" for name in above)
        raise ClipstepError(
            f"{path}: a step takes more ARM64 instructions than its ceiling",
            got=got,
            expected=expected,
            fix="make it cheaper, or record the ceilings printed above",
        )


def _names(values: Mapping[str, int]) -> str:
    return ", ".join(sorted(values)) or "none"
