"""The interface of all outputs. An output is shown the frames of a video and gets its predictions, in the order of time, and writes one file
or shows them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The list of formats imports this module, and must be there at once.
    from clipstep.runtime.stream import Prediction
    from clipstep.runtime.video import Picture


@dataclass(frozen=True)
class VideoPrediction:
    """A prediction, and the part of the video that it is made from."""

    start: float
    """When the first frame of the subclip is shown, in seconds since the first frame of the video; 0 for the prediction at the end."""
    end: float
    """When the last frame ends that the prediction is made from, in seconds: it is known from then on."""
    at_end: bool
    """Whether it is the prediction for the whole video, which `Stream.flush` returns."""
    prediction: "Prediction"


@dataclass(frozen=True)
class Source:
    """What an output needs to know before the first frame."""

    name: str
    """What the video is called: its path, or the name of a live video."""
    video: Path | None
    """Its file; None for a live video."""
    labels: tuple[str, ...]
    top: int
    """How many of the likeliest classes are shown."""
    subclip: float
    """The length of a subclip in seconds."""


class WindowClosed(Exception):
    """The user closed the window that shows the video: it ends with the frames that were read."""


class Output:
    """One file that is written of a video, or a window.

    The methods are called in this order: `show` and `add` as the video goes on, `finish`, `close`.
    """

    def __init__(self, path: Path, source: Source) -> None:
        """`path`: a new file, which is moved to its place after `close`, or deleted after an error."""
        self.path, self.source = path, source

    def show(self, picture: "Picture") -> None:
        """Take the next frame of the video, before the prediction that it completes."""

    def add(self, said: VideoPrediction) -> None:
        """Take the next prediction."""

    def finish(self, end: float) -> list[str]:
        """Write the rest of the file, and return what the user should know of it. `end`: when the last frame ends, in seconds."""
        return []

    def close(self) -> None:
        """Close all files, also after an error."""
