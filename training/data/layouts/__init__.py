"""The layouts in which people have data sets, each with a reader in a file of its own, and which of them a folder is in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed
from clipstep.training.choices import AUTO
from clipstep.training.data.layouts import csv_lists, folders, hmdb51, kinetics, something, ucf101
from clipstep.training.data.layouts.files import is_video, visible
from clipstep.training.data.lists import DataSet


class Layout(NamedTuple):
    """A layout: what of it lies in a data folder, its reader, and what it consists of in a few words."""

    find: Callable[[Path], Sequence[Path]]
    read: Callable[[Path, int], DataSet]
    consists_of: str


LAYOUTS = {
    "ucf101": Layout(ucf101.find, ucf101.read, "classInd.txt, trainlist01.txt and testlist01.txt"),
    "hmdb51": Layout(hmdb51.find, hmdb51.read, "ClassName_test_split1.txt"),
    "kinetics": Layout(kinetics.find, kinetics.read, f"train.csv and val.csv of {kinetics.EXPECTED}"),
    "csv": Layout(csv_lists.find, csv_lists.read, "train.csv and val.csv of path,label"),
    "something": Layout(something.find, something.read, "train.json and validation.json"),
    "folders": Layout(folders.find, folders.read, "folders ClassName/ of videos"),
}
"""The layouts by name; a new one is a line here, and its name in ``training/choices.py``."""


def read_layout(folder: Path, split: int, layout: str) -> DataSet:
    """Read the data set in ``folder``, in the layout of that name, or, with ``auto``, in the only one of which something lies there.

    Raises:
        ClipstepError: there is no such folder or layout, or nothing of the layout in it; or `recognise` cannot tell the layout, or the reader refuses
            the data.
    """
    if layout not in (AUTO, *LAYOUTS):
        raise ClipstepError("unknown layout", got=layout, expected=f"one of {', '.join((AUTO, *LAYOUTS))}")
    if not folder.is_dir():
        raise ClipstepError(
            f"{folder}: {'is a file' if folder.exists() else 'no such folder'}", expected="the folder of a data set", fix="check the path"
        )
    name = recognise(folder) if layout == AUTO else layout
    if not LAYOUTS[name].find(folder):
        raise ClipstepError(
            f"{folder}: holds nothing of the layout {name}", got=_contents(folder), expected=LAYOUTS[name].consists_of, fix="check DATA and --layout"
        )
    return LAYOUTS[name].read(folder, split)


def recognise(folder: Path) -> str:
    """Return the name of the layout that a data folder is in. Lists count for more than folders of videos, which may be those that they name.

    Raises:
        ClipstepError: nothing in it is of a known layout, or there are lists of several.
    """
    found = {name: files for name, layout in LAYOUTS.items() if name != "folders" and (files := layout.find(folder))}
    if not found and LAYOUTS["folders"].find(folder):
        return "folders"
    if not found:
        ways = "; or ".join(layout.consists_of for layout in LAYOUTS.values())
        raise ClipstepError(f"{folder}: is no data set of a known layout", got=_contents(folder), expected=ways, fix="see docs/training.md")
    if len(found) > 1:
        what = " and ".join(f"{listed([file.name for file in files], 3)} (--layout {name})" for name, files in found.items())
        raise ClipstepError(f"{folder}: holds lists of several layouts", got=what, expected="one", fix="say by --layout which one is meant")
    return next(iter(found))


def _contents(folder: Path) -> str:
    """Return in a few words what lies in a folder."""
    entries = visible(folder)
    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if not is_video(entry)]
    videos = sum(map(is_video, entries))
    return ", ".join(filter(None, [listed(names), counted(videos, "video") if videos else ""])) or "an empty folder"
