"""Data sets: the classes, and the clips to train on, to validate on and to test with; and how clips are split without parting a source video.

The files that say so are in one of several layouts, each of which has a reader in ``layouts/``.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clipstep.network.text_files import nfc
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed
from clipstep.training.choices import AUTO


@dataclass(frozen=True)
class Clip:
    """A video of a list, or a part of one: its file, and the index of its class."""

    path: Path
    label: int
    cut: tuple[float, float] | None = None
    """The part that is meant: the frames from the first of these seconds to before the second, which may be infinite; None for the whole video."""
    group: str | None = None
    """The source video, if the data set names it; a file name of the form ``v_ClassName_gNN_cNN`` tells it by itself."""

    @property
    def shown_path(self) -> Path:
        """The path for messages and tables; of a part of a video with its seconds as in the fragment of a URL, such as ``match.mp4#t=3,7.5``."""
        if self.cut is None:
            return self.path
        start, end = self.cut
        return self.path.with_name(f"{self.path.name}#t={start:g}{'' if math.isinf(end) else f',{end:g}'}")


@dataclass(frozen=True)
class DataSet:
    """A data set: class names in the order of the labels, the clips of one split, and warnings about them."""

    labels: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    warnings: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    """The warnings about data leakage that make a test result wrong, but were allowed."""
    validation: tuple[Clip, ...] = ()
    """The clips to validate on, if the data set names them; otherwise a part of ``train`` is held out."""
    layout: str = "ucf101"
    train_list: str = ""
    """The file or folder, in the folder of the data set, that says what is trained on."""
    test_list: str = ""
    """The same of the test, or in words how the test clips were chosen."""


def read_data_set(folder: Path, split: int = 1, *, layout: str = AUTO, allow_leakage: bool = False) -> DataSet:
    """Read the data set in ``folder``, which holds videos, and lists of them unless they lie in a folder for each class.

    docs/training.md has the layouts.

    Example:
        ```python
        data = read_data_set(Path("UCF101"), split=1)
        print(len(data.labels), len(data.train), len(data.test))
        ```

    Args:
        folder: The folder of the data set.
        split: Which split, if there are several lists: N of ``trainlist0N.txt``. The seed of a random one, if nothing says what is for the test.
        layout: The name of the layout; ``auto`` recognises it by the files in the folder.
        allow_leakage: Turn leakage between the lists into warnings of the data set.

    Raises:
        ClipstepError: The layout is not known, or could be several. A list is missing, empty or malformed; it names an unknown class, a wrong label
            or a video that does not exist; a class has no training clip; a video is in both lists, under whatever name, or twice in the test list.
    """
    from clipstep.training.data.layouts import read_layout
    from clipstep.training.data.leakage import find_leaks

    data = read_layout(folder, split, layout)
    trained = {clip.label for clip in data.train}
    untrained = [name for label, name in enumerate(data.labels) if label not in trained]
    if untrained:
        raise ClipstepError(
            f"{folder / data.train_list}: has no clip of {listed(untrained)}", expected="clips of every class", fix="correct the list"
        )
    leaks = find_leaks((*data.train, *data.validation), data.test, data.labels)
    if leaks.errors and not allow_leakage:
        raise ClipstepError(
            f"{folder}: data leakage",
            got="; ".join(leaks.errors),
            expected="no video in both lists, or twice in the test list",
            fix="correct the lists, or allow it with --allow-leakage",
        )
    validated = [f"training and validation: {found}" for found in find_leaks(data.train, data.validation, data.labels).errors]
    warnings = (*data.warnings, *_outside(folder, data), *leaks.errors, *leaks.warnings, *validated)
    return replace(data, leaks=leaks.errors, warnings=warnings)


def _outside(folder: Path, data: DataSet) -> list[str]:
    """Say how many videos lie outside of the data folder, by their paths as the lists write them; links are not followed."""
    root = os.path.abspath(folder) + os.sep  # noqa: PTH100  Path.resolve follows links.
    outside = [str(clip.path) for clip in (*data.train, *data.validation, *data.test) if not os.path.abspath(clip.path).startswith(root)]  # noqa: PTH100
    return [f"{counted(len(outside), 'video')} of the lists lie outside of {folder}: {listed(outside, 1)}"] if outside else []


def split_by_group(
    clips: Sequence[Clip], share: float, seed: int, *, fix: str = "train with --validation 0"
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those to train on and those to hold out, about ``share`` of each class's source videos; the seed decides which.

    No source video is on both sides, see `source_of`. Of every class a source video is left to train on. Source: the paper's 80:20 split, done by
    group as in UCF101's own lists.

    Raises:
        ClipstepError: no class has two source videos; ``fix`` says what to do then.
    """
    if share == 0:
        return tuple(clips), ()
    sources = [source_of(clip) for clip in clips]
    of_label: dict[int, set[str]] = {}
    labels_of: dict[str, set[int]] = {}
    for clip, source in zip(clips, sources, strict=True):
        of_label.setdefault(clip.label, set()).add(source)
        labels_of.setdefault(source, set()).add(clip.label)
    random = np.random.default_rng(seed)
    held: set[str] = set()
    count: Counter[int] = Counter()
    for label, names in sorted(of_label.items()):
        for name in random.permutation(sorted(names)):
            if count[label] >= max(1, round(share * len(names))):
                break
            if name not in held and all(count[other] + 1 < len(of_label[other]) for other in labels_of[name]):
                held.add(str(name))
                count.update(labels_of[name])
    if not held:
        raise ClipstepError("no class has two groups", expected="videos of several sources", fix=fix)
    return (
        tuple(clip for clip, source in zip(clips, sources, strict=True) if source not in held),
        tuple(clip for clip, source in zip(clips, sources, strict=True) if source in held),
    )


def source_of(clip: Clip) -> str:
    """Return which source video a clip was cut from, the same text for all clips of one: its group, or its file if nothing tells the group.

    UCF101 numbers the groups of each class anew: g01 of one class and g01 of another are different source videos.
    """
    group = find_group(clip)
    if group is None:
        return nfc(str(clip.path))
    return group if group == clip.group else f"{clip.label}/{group}"


def find_group(clip: Clip) -> str | None:
    """Return the source video that a clip was cut from, ``g07`` for ``v_Fight_g07_c02.mp4``, or None if nothing tells it."""
    match = re.search(r"_(g\d+)_c\d+$", clip.path.stem)
    return clip.group or (match[1] if match else None)


def untold_sources(clips: Sequence[Clip]) -> list[str]:
    """Return a warning if a split cannot keep clips of one source video together, because names do not tell it; otherwise nothing."""
    untold = sum(find_group(clip) is None and clip.cut is None for clip in clips)
    if not untold:
        return []
    return [
        f"{untold} of {len(clips)} names do not tell the source video (as v_ClassName_gNN_cNN does): "
        "a random split may put clips that were cut from one video on both sides"
    ]
