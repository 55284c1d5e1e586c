"""What an artifact says of its inputs and outputs, and the facts that it carries."""

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

Tensor = tuple[str | None, str, list[int]]
"""Name, where the format has names; type; shape, in which -1 is a dimension that is not fixed."""


METADATA = "clipstep"
"""The key of the facts in ONNX and Core ML metadata, and the name of ExecuTorch's constant method."""


class Declared(TypedDict):
    """A file's inputs and outputs, in order, and the text of the clipstep facts in it."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    facts: NotRequired[str | None]
    """None or absent where it carries none, or its reader does not look for them."""


@runtime_checkable
class Declares(Protocol):
    """An engine that knows what its file declares; it is compared with the manifest before the first step."""

    def declared(self) -> Declared | None:
        """The file's inputs, outputs and facts; None where its reader does not know them."""
