"""Small pictures of a video, spread evenly over a time that is not known in advance."""

from PIL import Image

from clipstep.runtime.video import Picture

HEIGHT = 90
"""Rows of a small picture."""
MOST = 64
"""More are thinned out."""


class Thumbnails:
    """Keeps a picture about every `period` seconds. When there are too many, every second one is dropped, and the period doubled."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, Image.Image]] = []
        self._period = 0.02

    def show(self, picture: Picture) -> None:
        """Take the next frame of the video."""
        if self._kept and picture.seconds < self._kept[-1][0] + self._period:
            return
        image = Image.fromarray(picture.image)
        self._kept.append((picture.seconds, image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT), Image.Resampling.BILINEAR)))
        if len(self._kept) > MOST:
            self._kept, self._period = self._kept[::2], 2 * self._period

    def nearest(self, seconds: float) -> Image.Image:
        """Return the kept picture that is shown closest to that time."""
        return min(self._kept, key=lambda kept: abs(kept[0] - seconds))[1]
