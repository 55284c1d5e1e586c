"""The panel that is drawn over the frames of an annotated video: the time, and the likeliest classes with a bar and their probability each."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from clipstep.runtime.outputs.fitting import fitting
from clipstep.runtime.outputs.fonts import drawable, font_for

LINES = 24
"""How many lines of text would fill the height of a frame."""
SMALLEST = 10
"""The height of a character in pixels that can still be read."""
PANEL, TEXT, TRACK, BARS = (0, 0, 0, 150), (255, 255, 255, 255), (255, 255, 255, 60), ((240, 160, 30, 255), (130, 180, 230, 255))
"""Red, green, blue and opacity; the first of two bars is that of the likeliest class."""
WAITING = "no prediction yet"


class Overlay:
    """Draws the panel for frames of one size. What does not change from frame to frame is drawn once."""

    def __init__(self, width: int, height: int, top: int) -> None:
        """`width`, `height`: of the frames in pixels; `top`: how many classes a panel has at most."""
        self._size = max(SMALLEST, round(height / LINES / 1.35))
        self._row = round(self._size * 1.35)
        self._margin = max(2, self._size // 2)
        room = max(1, (height - 2 * self._margin) // self._row - 1)
        self.top = min(top, room)
        self._width = min(width, max(round(width * 0.45), 20 * self._size))
        self._panel = self._drawn(())

    def say(self, ranked: Sequence[tuple[str, float]]) -> None:
        """Show other classes from now on, the likeliest first."""
        self._panel = self._drawn(ranked[: self.top])

    def draw(self, image: Image.Image, seconds: float) -> None:
        """Draw the panel over the lower left corner of an RGB image."""
        panel = self._panel.copy()
        time = f"{seconds:.2f} s"
        font = font_for(time, self._size)
        ImageDraw.Draw(panel).text((self._width - self._margin, self._margin), time, TEXT, font, anchor="ra")
        image.paste(panel, (0, image.height - panel.height), panel)

    def _drawn(self, ranked: Sequence[tuple[str, float]]) -> Image.Image:
        panel = Image.new("RGBA", (self._width, 2 * self._margin + (1 + max(len(ranked), 1)) * self._row), PANEL)
        draw = ImageDraw.Draw(panel)
        if not ranked:
            draw.text((self._margin, self._margin + self._row), WAITING, TEXT, font_for(WAITING, self._size))
        for place, (label, share) in enumerate(ranked):
            self._draw_row(draw, self._margin + (1 + place) * self._row, drawable(label), share, BARS[place > 0])
        return panel

    def _draw_row(self, draw: ImageDraw.ImageDraw, y: int, label: str, share: float, colour: tuple[int, int, int, int]) -> None:
        """Draw a label at the left, a bar in the middle, a probability at the right."""
        number = f"{share:.2f}"
        digits = font_for(number, self._size)
        right = self._width - self._margin
        bar_end = right - draw.textlength("0.00 ", digits)
        bar_start = bar_end - 0.3 * self._width
        room = bar_start - 2 * self._margin
        font = font_for(label, self._size)
        draw.text((self._margin, y), fitting(label, lambda text: draw.textlength(text, font) <= room), TEXT, font)
        draw.text((right, y), number, TEXT, digits, anchor="ra")
        if bar_end > bar_start > 0:
            top, bottom = y + round(0.2 * self._size), y + self._size
            draw.rectangle((bar_start, top, bar_end, bottom), TRACK)
            draw.rectangle((bar_start, top, bar_start + (bar_end - bar_start) * min(max(share, 0.0), 1.0), bottom), colour)
