"""What a target is to a runtime: how its file is known, read and checked before an engine sees it, and where it runs."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

PlaceName = Literal["android", "ios", "python"]


class Tensor(BaseModel):
    """An input or an output; ExecuTorch's have no names."""

    model_config = ConfigDict(frozen=True)
    name: str | None
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class TargetInfo:
    """A target, as an entry of ``clipstep.runtime.targets.TARGETS``."""

    display_name: str
    suffix: str
    """How the names of its files end."""
    read: Callable[[Path], dict[str, Any]]
    """Reads a lone file by the format's own tools: the keys of ``clipstep.runtime.files.FileFacts``, and under ``metadata`` the text of
    the facts that clipstep embedded, or None."""
    imports: tuple[str, ...]
    """The modules that ``read`` imports."""
    places: tuple[PlaceName, ...]
    """Where an engine runs it: a pack for such a place takes it along."""
    check: Callable[[Path], None] | None = None
    """What is checked of a file before an engine sees it, beside that it is there."""
    operations: str = "operations"
    """What the nodes of its graph are called."""


def counted_by_type(names: Iterable[str]) -> dict[str, int]:
    """How many there are of each, the most first."""
    return dict(Counter(names).most_common())
