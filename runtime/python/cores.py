"""How many cores this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(system: Path = Path("/")) -> int:
    """Return how many cores this process may use: those of its affinity mask, at most its container's CPU quota, rounded up.

    More threads than that would only compete for the same cores. `system` is the root of the file system that the quota is read from.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(share) for share in _shares(system))]))


def _shares(system: Path) -> Iterator[float]:
    """Yield the CPU quotas of Linux control groups, in cores: version 2's `cpu.max` of this process's group and of those above it, and
    version 1's quota."""
    groups = system / "sys/fs/cgroup"
    inside = [line[3:].strip("/") for line in _text(system / "proc/self/cgroup").splitlines() if line.startswith("0::")]
    own = groups / (inside[0] if inside else "")
    for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(groups))):
        yield from _share(_text(folder / "cpu.max"))
    yield from _share(" ".join(_text(groups / f"cpu/cpu.cfs_{name}_us").strip() for name in ("quota", "period")))


def _share(text: str) -> list[float]:
    words = text.split()
    return [int(words[0]) / int(words[1])] if len(words) == 2 and all(word.isdecimal() for word in words) else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
