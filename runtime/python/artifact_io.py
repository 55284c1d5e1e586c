"""The inputs, outputs and embedded metadata that an artifact's file declares."""

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

Tensor = tuple[str | None, str, list[int]]
"""An input or an output: its name (None in a format without names), its type, and its shape, in which -1 stands for a dimension that is not
fixed."""


METADATA = "clipstep"
"""The key of clipstep's metadata in ONNX and Core ML files, and the name of the constant method that returns it in ExecuTorch files."""


class ArtifactIO(TypedDict):
    """The inputs and outputs of a file, in order, and the text of the clipstep metadata in it."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    metadata: NotRequired[str | None]
    """None or absent if the file carries none, or if its reader does not look for it."""


@runtime_checkable
class DescribesIO(Protocol):
    """An engine that can say what its file declares, which is compared with the manifest before the first step."""

    def describe_io(self) -> ArtifactIO | None:
        """Return the file's inputs, outputs and metadata, or None if its reader does not know them."""
