"""What an artifact says of its inputs and outputs."""

from typing import Protocol, TypedDict, runtime_checkable

Tensor = tuple[str | None, str, list[int]]
"""Name, where the format has names; type; shape, in which -1 is a dimension that is not fixed."""


class Declared(TypedDict):
    """A file's inputs and outputs, in order."""

    inputs: list[Tensor]
    outputs: list[Tensor]


@runtime_checkable
class Declares(Protocol):
    """An engine that knows what its file declares; it is compared with the manifest before the first step."""

    def declared(self) -> Declared | None:
        """The file's inputs and outputs; None where its reader does not know them."""
