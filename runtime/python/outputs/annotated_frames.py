"""The frames of a video with the prediction that is known at each of them drawn over it."""

import math

from PIL import Image

from clipstep.runtime.outputs.output import VideoPrediction
from clipstep.runtime.outputs.overlay import Overlay
from clipstep.runtime.video import Picture

ROUNDING = 1e-3
"""Seconds: Matroska's times are whole milliseconds."""


class AnnotatedFrames:
    """Scales frames down to the room that they have, and draws a panel over them. All have the same, even number of rows and columns."""

    def __init__(self, shape: tuple[int, int], top: int, room: tuple[float, float], *, quick: bool = False) -> None:
        """Take what all frames have in common.

        Args:
            shape: the height and width of the first frame.
            top: how many classes the panel has at most.
            room: the height and width that a frame may have at most.
            quick: scale down to a half, a third and so on, which takes a fifth of the time.
        """
        shrink = max(1.0, shape[0] / room[0], shape[1] / room[1])
        self._factor = math.ceil(shrink) if quick else 1
        height, width = (max(2, math.ceil(side / self._factor) if quick else round(side / shrink)) for side in shape)
        self._scaled = (width, height)
        self.width, self.height = (side // 2 * 2 for side in self._scaled)
        self._overlay = Overlay(self.width, self.height, top)
        self._known: list[VideoPrediction] = []

    def add(self, said: VideoPrediction) -> None:
        """Take the next prediction. It appears on the first frame after its subclip."""
        self._known.append(said)

    def draw(self, picture: Picture) -> Image.Image:
        """Return a frame with its panel, RGB. Frames are given in the order of time; some may be left out."""
        ready = [said for said in self._known if said.end <= picture.seconds + ROUNDING]
        if ready:
            self._known = self._known[len(ready) :]
            self._overlay.say(ready[-1].prediction.top(self._overlay.top))
        image = Image.fromarray(picture.image)
        if self._factor > 1:
            image = image.reduce(self._factor)
        if image.size != self._scaled:
            image = image.resize(self._scaled, Image.Resampling.BILINEAR, reducing_gap=3)
        image = image.crop((0, 0, self.width, self.height))
        self._overlay.draw(image, picture.seconds)
        return image
