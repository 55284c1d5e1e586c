"""What a target is to a runtime: how its file is recognised, read and checked before an engine gets it, and where it runs."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

DestinationName = Literal["android", "ios", "python"]
"""Where a target may run: what a pack can be made for."""
DESTINATIONS: dict[DestinationName, str] = {"android": "Android", "ios": "Apple devices", "python": "computers"}
"""What messages call these destinations."""


class Tensor(BaseModel):
    """An input or an output; ExecuTorch's have no names."""

    model_config = ConfigDict(frozen=True)
    name: str | None
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """What can be read from a lone artifact file."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    operations: dict[str, int]
    """How many nodes of each type its graph has; those of an ExecuTorch delegate count as one."""
    weights_bytes: int | None
    """None where the format does not say."""
    written_by: str
    metadata: str | None
    """The text of the metadata that clipstep embedded; None if there is none."""


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """A target, as an entry of `clipstep.runtime.targets.TARGETS`."""

    name: str
    display_name: str
    suffix: str
    """How the names of its files end."""
    read: Callable[[Path], FileContent]
    """Reads a lone file with the format's own tools, and may raise whatever they raise."""
    imports: tuple[str, ...]
    """The modules that `read` imports."""
    destinations: tuple[DestinationName, ...]
    """Where it can be run. A pack for one of these destinations includes this target's artifacts."""
    check: Callable[[Path], None] | None = None
    """Checks a file before an engine loads it. None if it is enough that the file is there and not empty, which is checked for every target."""
    nodes: str = "operations"
    """What the nodes of its graph are called."""


def counted_by_type(names: Iterable[str]) -> dict[str, int]:
    """Count each name, the most frequent first."""
    return dict(Counter(names).most_common())
