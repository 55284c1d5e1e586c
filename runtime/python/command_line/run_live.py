"""`clipstep run BUNDLE camera:0` and `clipstep run BUNDLE --url ADDRESS`: live video, which Ctrl-C ends."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clipstep.runtime.command_line.run_lines import note, print_prediction
from clipstep.runtime.command_line.run_progress import progress_bar
from clipstep.runtime.live import LiveVideo
from clipstep.runtime.live.live_predictions import live_predictions
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.output import Output, Source
from clipstep.runtime.outputs.saving import saving


def run_live(
    model: StepModel, video: LiveVideo, source: Source, files: Sequence[tuple[Path, str]], windows: Sequence[Output], *, force: bool, as_json: bool
) -> None:
    """Print the predictions for a live video until it ends or the user ends it, and write the files.

    Raises:
        DamagedVideoError: it was lost. The files have what it gave before.
    """
    with saving(files, source, force=force) as outputs, progress_bar(None, "s", shown=not as_json) as advance, _ended_by_signals(video):
        read = live_predictions(model, video, [*outputs, *windows], note=note, watch=lambda seconds: advance(seconds, seconds))
        while True:
            try:
                said = next(read)
            except StopIteration as end:
                lost = end.value
                break
            print_prediction(said, source.top, as_json=as_json)
    if lost is not None:
        raise lost


@contextmanager
def _ended_by_signals(video: LiveVideo) -> Iterator[None]:
    """Let Ctrl-C, or the signal by which systems end a program, end the video; a second one ends the command."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, _: object) -> None:
        video.stop()
        signal.signal(number, usual[signal.Signals(number)])

    try:
        for number in usual:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
