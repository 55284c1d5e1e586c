"""Open the outputs of a video: the formats by suffix, and files that are written whole or not at all."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.overwrite import check_overwrite
from clipstep.runtime.install_hints import install_extra
from clipstep.runtime.outputs.output import Output, Source
from clipstep.runtime.wording import either

FORMATS = {
    ".csv": "csv_table:CsvTable",
    ".jsonl": "json_lines:JsonLines",
    ".srt": "subtitles:Subtitles",
    ".mp4": "annotated_video:AnnotatedVideo",
    ".mkv": "annotated_video:AnnotatedVideo",
    ".png": "plot:Plot",
}
"""The module and class of each suffix. They are imported when they are used, because some need matplotlib and Pillow."""
EXTRA = "pictures"
WINDOW = "window:Window"
TKINTER = ("tkinter", "_tkinter")
TKINTER_FIX = "on Debian: apt-get install python3-tk; a Python that was built without Tk has no windows"


def format_of(path: Path) -> str:
    """Return the suffix that stands for a file's format.

    Raises:
        ClipstepError: it is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ClipstepError(f"{path}: unknown format", got=suffix or "no suffix", expected=f"a name that ends in {either(list(FORMATS))}")
    return suffix


def check_files(files: Sequence[tuple[Path, str]], video: Path | None, *, force: bool) -> None:
    """Check that files, each given with its suffix in `FORMATS`, may be written.

    Raises:
        ClipstepError: one exists and `force` is false, cannot be written, is given twice, or is the video itself.
    """
    places = [path.resolve() for path, _ in files]
    for (path, _), place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise ClipstepError(f"{path}: given for two outputs", fix="give each a name of its own")
        if video is not None and place == video.resolve():
            raise ClipstepError(f"{path}: is the video that is read", fix="choose another name")
        check_overwrite(path, force=force, option="name")


@contextmanager
def saving(files: Sequence[tuple[Path, str]], source: Source, *, force: bool) -> Iterator[list[Output]]:
    """Yield the outputs for files, each given with its suffix in `FORMATS`.

    All of them are moved to their places at the end, or none after an error; older files stay until then.

    Raises:
        ClipstepError: see `check_files`; or a library is missing.
    """
    check_files(files, source.video, force=force)
    kinds = [_load(FORMATS[kind], kind) for _, kind in files]
    with ExitStack() as in_place:
        new = [in_place.enter_context(atomic_file(path)) for path, _ in files]
        with ExitStack() as closed:
            outputs = []
            for kind, path in zip(kinds, new, strict=True):
                outputs.append(kind(path, source))
                closed.callback(outputs[-1].close)
            yield outputs


@contextmanager
def window(title: str, top: int, *, live: bool = False) -> Iterator[Output]:
    """Yield a window with that title, which shows the `top` likeliest classes, and close it at the end.

    `live`: each frame comes when it is time for it.

    Raises:
        ClipstepError: there is no screen; or a library is missing.
    """
    opened = _load(WINDOW, "--show")(title, top, live=live)
    try:
        yield opened
    finally:
        opened.close()


def _load(place: str, what: str) -> Any:
    """Return a class by its module and name; `what` needs it."""
    module, name = place.split(":")
    try:
        return getattr(importlib.import_module(f"clipstep.runtime.outputs.{module}"), name)
    except ImportError as error:
        missing = error.name or ""
        if missing.startswith("clipstep"):
            raise
        fix = TKINTER_FIX if missing in TKINTER else install_extra(EXTRA)
        raise ClipstepError(f"{what} needs {missing}, which is not installed", fix=fix) from error
