"""Predictions as SubRip subtitles: `--save out.srt`."""

from bisect import bisect_right
from pathlib import Path

from clipstep.runtime.command_line.exit_codes import one_line
from clipstep.runtime.outputs.output import Output, Source, VideoPrediction

LOOKALIKES = str.maketrans("<>{}", "()()")
"""Players take the characters on the left for formatting, or for the arrow between two times."""


class Subtitles(Output):
    """A cue for each prediction with its likeliest classes, from when it is known until the next one is.

    The last one is shown for the length of a subclip. Two that are known at the same time, the last one and that for the whole video, are shown
    together.
    """

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(path, source)
        self._said: list[VideoPrediction] = []

    def add(self, said: VideoPrediction) -> None:
        self._said.append(said)

    def finish(self, end: float) -> list[str]:
        times = [said.end for said in self._said]
        times.append(times[-1] + self.source.subclip)
        cues = []
        for number, said in enumerate(self._said, 1):
            until = times[bisect_right(times, said.end)]
            lines = [f"{one_line(label).translate(LOOKALIKES)} {share:.3f}" for label, share in said.prediction.top(self.source.top)]
            cues.append("\n".join((str(number), f"{timecode(said.end)} --> {timecode(until)}", *lines)))
        self.path.write_text("\n\n".join(cues) + "\n", encoding="utf-8")
        return []


def timecode(seconds: float) -> str:
    """Return a time as SubRip writes it, such as `01:02:03,456`."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02},{milliseconds:03}"
