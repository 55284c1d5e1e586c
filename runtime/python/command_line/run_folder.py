"""`clipstep run BUNDLE FOLDER`: every video of a folder, in several processes."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipstep.runtime.command_line.exit_codes import one_line
from clipstep.runtime.command_line.run_lines import note, ranked, say
from clipstep.runtime.command_line.run_progress import progress_bar
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.cores import available_cores
from clipstep.runtime.errors import ClipstepError, EngineError
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.folder_files import FolderFiles, values_with_video
from clipstep.runtime.outputs.output import Source, VideoPrediction
from clipstep.runtime.video_folder import videos_in
from clipstep.runtime.video_predictions import predictions
from clipstep.runtime.wording import counted


@dataclass(frozen=True)
class Job:
    """What is done with each video."""

    bundle: Path
    engine: str
    threads: int
    precision: str | None
    signer: Path | None
    every_frame: bool
    partial: bool

    def load(self) -> StepModel:
        """Load the model, with its engine in a process of its own, which a file may crash."""
        return StepModel.load(self.bundle, self.engine, self.threads, isolated=True, signer=self.signer, precision=self.precision)


@dataclass
class Result:
    """What came of a video."""

    video: Path
    said: list[VideoPrediction] = field(default_factory=list)
    """All predictions; none if the video is broken."""
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0
    """How much of the video was read."""


class _Stopped(Exception):
    pass


class _Worker:
    """Runs the model on one video after the other. A model whose engine failed is loaded again for the next one."""

    def __init__(self, job: Job, stopped: Callable[[], bool]) -> None:
        self._job, self._stopped = job, stopped
        self._model: StepModel | None = None

    def run(self, video: Path) -> Result:
        result = Result(video)

        def watch(seconds: float) -> None:
            result.seconds = seconds
            if self._stopped():
                raise _Stopped

        try:
            self._model = self._model or self._job.load()
            kind = {"every_frame": self._job.every_frame, "partial": self._job.partial}
            result.said = list(predictions(self._model, video, [], note=result.notes.append, watch=watch, decoders=1, **kind))
        except ClipstepError as error:
            result.error = str(error)
            if isinstance(error, EngineError):
                self.close()
        return result

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None


def results(job: Job, videos: Sequence[Path], workers: int) -> Generator[Result, None, None]:
    """Yield what comes of each video, in their order.

    Raises:
        ClipstepError: a process was ended, as systems do that have too little memory.
    """
    if workers == 1:
        with ExitStack() as closed:
            worker = _Worker(job, lambda: False)
            closed.callback(worker.close)
            yield from map(worker.run, videos)
        return
    context = multiprocessing.get_context("spawn")  # Engines have threads, which a fork would lose.
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _start, (job, stop)) as pool:
        try:
            with _not_interrupted():  # All processes are started here.
                outcomes = pool.map(_run, videos)
            yield from outcomes
        except BrokenProcessPool as error:
            raise ClipstepError("a process that ran videos was ended by the system", fix="choose fewer --workers: memory may be short") from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Ignore Ctrl-C, and let processes that are started meanwhile always ignore it: this one, which the user sees, tells them to stop."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


_worker: _Worker
"""The worker of this process, if it is one of the pool."""


def _start(job: Job, stop: Any) -> None:
    global _worker
    _worker = _Worker(job, stop.is_set)


def _run(video: Path) -> Result:
    return _worker.run(video)


def run_folder(job: Job, folder: Path, source: Source, files: Sequence[tuple[Path, str]], workers: int | None, *, as_json: bool) -> None:
    """Run all videos of a folder, print the last prediction for each, and write the files.

    Raises:
        ClipstepError: some of the videos could not be run, after all others were; or none could, and then nothing is written.
    """
    videos = videos_in(folder)
    workers = min(workers or max(1, available_cores() // job.threads), len(videos))
    seconds, broken = 0.0, 0
    with ExitStack() as stack:
        written = FolderFiles(stack, files, source)
        advance = stack.enter_context(progress_bar(len(videos), "videos", shown=not as_json))
        outcomes = stack.enter_context(closing(results(job, videos, workers)))  # So that its processes stop after any error.
        for done, result in enumerate(outcomes, 1):
            for text in result.notes:
                note(text)
            if result.error is not None:
                print(f"failed: {one_line(result.error)}", file=sys.stderr)
                broken += 1
            else:
                written.add(result.video, result.said)
                _print_last(result, source.top, as_json=as_json)
            seconds += result.seconds
            advance(done, seconds)
        if broken == len(videos):
            raise ClipstepError(f"{folder}: none of {counted(broken, 'video')} could be run", fix="see the reason of each above")
    if broken:
        raise ClipstepError(f"{folder}: {broken} of {counted(len(videos), 'video')} could not be run", fix="see the reason of each above")


def _print_last(result: Result, top: int, *, as_json: bool) -> None:
    if as_json:
        print_json(values_with_video(result.video, result.said[-1], top), indent=None)
    else:
        say(f"{one_line(str(result.video))}  {ranked(result.said[-1], top)}")
