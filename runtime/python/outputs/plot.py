"""Predictions as a plot: `--plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from clipstep.runtime.outputs.finding import finding
from clipstep.runtime.outputs.fitting import fitting
from clipstep.runtime.outputs.fonts import drawable, font_file
from clipstep.runtime.outputs.lines import Line, lines_of, spread
from clipstep.runtime.outputs.output import Output, Source, VideoPrediction
from clipstep.runtime.outputs.thumbnails import HEIGHT, Thumbnails
from clipstep.runtime.video import Picture

PLOT_WIDTH, PLOT_HEIGHT, STRIP_HEIGHT, LEFT, TOP, BETWEEN, BOTTOM = 6.0, 3.4, 0.75, 0.75, 0.75, 0.55, 0.15
"""Inches: of the plot, of the row of pictures below it, and of the margins."""
GAP, CHARACTER = 0.25, 0.088
"""Inches: between the plot and the names of the lines, and of a character of them."""
DPI = 110
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#8C6D31", "#333333")
"""Told apart by colour-blind people, too (Okabe and Ito), but for the last three."""
GREY = "#888888"
MARKED = 60
"""Up to so many predictions are marked with a point each."""
LABEL_CHARACTERS, TITLE_CHARACTERS = 28, 40
FONT_SIZE, LINE_SPACING = 9, 1.4


class Plot(Output):
    """The probabilities of the likeliest classes over time, each line with its name at its end, above pictures of the video."""

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(path, source)
        self._said: list[VideoPrediction] = []
        self._pictures = Thumbnails()

    def show(self, picture: Picture) -> None:
        self._pictures.show(picture)

    def add(self, said: VideoPrediction) -> None:
        self._said.append(said)

    def finish(self, end: float) -> list[str]:
        times = [said.end for said in self._said]
        probabilities = np.stack([said.prediction.probabilities for said in self._said])
        exclusive = not self._said[0].prediction.output_kind.startswith("multilabel")
        lines = lines_of(probabilities, self.source.labels, exclusive=exclusive)
        names = [f"{_shortened(line.label, LABEL_CHARACTERS)} {line.values[-1]:.2f}" for line in lines]
        labels = [_shortened(label, TITLE_CHARACTERS) for label in self.source.labels]
        size = (LEFT + PLOT_WIDTH + GAP + CHARACTER * max(map(len, names)), TOP + PLOT_HEIGHT + BETWEEN + STRIP_HEIGHT + BOTTOM)
        figure = Figure(size)
        self._draw_title(figure, size, finding(times, probabilities, labels))
        axes = _axes(figure, size, BOTTOM + STRIP_HEIGHT + BETWEEN, PLOT_HEIGHT)
        axes.set(xlabel="time in the video (s)", ylabel="probability", xlim=(0, max(end, times[-1])), ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5")
        _draw_lines(axes, times, lines, names)
        self._draw_pictures(_axes(figure, size, BOTTOM, STRIP_HEIGHT), max(end, times[-1]))
        figure.savefig(self.path, dpi=DPI, format="png")
        return []

    def _draw_title(self, figure: Figure, size: tuple[float, float], title: str) -> None:
        name = _shortened(Path(self.source.name).name, 2 * TITLE_CHARACTERS)
        for text, down, points, colour in ((title, 0.18, 13, "black"), (name, 0.45, FONT_SIZE, GREY)):
            figure.text(LEFT / size[0], 1 - down / size[1], text, color=colour, va="top", parse_math=False, font=_font(text, points))

    def _draw_pictures(self, axes: Any, end: float) -> None:
        """Draw as many pictures as fit beside each other, each in the middle of its share of the time."""
        aspect = self._pictures.nearest(0.0).width / HEIGHT
        count = max(1, int(PLOT_WIDTH / (STRIP_HEIGHT * aspect)))
        share = end / count
        width = min(STRIP_HEIGHT * aspect / PLOT_WIDTH * end, share)
        for middle in (share * (index + 0.5) for index in range(count)):
            axes.imshow(self._pictures.nearest(middle), extent=(middle - width / 2, middle + width / 2, 0, 1), aspect="auto")
        axes.set(xlim=(0, end), ylim=(0, 1))
        axes.set_axis_off()


def _axes(figure: Figure, size: tuple[float, float], bottom: float, height: float) -> Any:
    """Return axes of the width of the plot; `bottom` and `height` in inches."""
    return figure.add_axes((LEFT / size[0], bottom / size[1], PLOT_WIDTH / size[0], height / size[1]))


def _draw_lines(axes: Any, times: Sequence[float], lines: Sequence[Line], names: Sequence[str]) -> None:
    """Draw each line, and its name beside its end, joined to it by a thin line."""
    places = spread([float(line.values[-1]) for line in lines], FONT_SIZE * LINE_SPACING / 72 / PLOT_HEIGHT, 0, 1)
    for order, (line, name, place) in enumerate(zip(lines, names, places, strict=True)):
        colour, style = (COLOURS[order], "-") if line.is_class else (GREY, "--")
        marker = "o" if len(times) <= MARKED else None
        width = 1.4 if order else 2.2
        axes.plot(times, line.values, style, color=colour, linewidth=width, marker=marker, markersize=4, clip_on=False, zorder=3 - 0.1 * order)
        axes.annotate(
            name,
            (times[-1], float(line.values[-1])),
            xytext=(1 + GAP / PLOT_WIDTH, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=colour,
            parse_math=False,
            font=_font(name, FONT_SIZE),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 3},
        )


def _shortened(text: str, characters: int) -> str:
    return fitting(drawable(text), lambda part: len(part) <= characters)


def _font(text: str, points: int) -> FontProperties:
    return FontProperties(fname=font_file(text), size=points)
