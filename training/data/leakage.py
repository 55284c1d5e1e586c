"""Find data leakage, which makes an accuracy look better than it is: videos in both lists, or counted twice in the test list."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.runtime.wording import counted, listed
from clipstep.training.data.lists import Clip, find_group, source_of

WHOLE = (0.0, math.inf)
"""The whole of a video, in seconds."""


@dataclass(frozen=True)
class Leaks:
    """What was found, in sentences that name the videos: ``errors`` make a test result wrong, ``warnings`` may do so."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def find_leaks(train: Sequence[Clip], test: Sequence[Clip], labels: Sequence[str]) -> Leaks:
    """Find what the training list and the test list have in common, and what each of them names twice; ``labels`` are the names of the classes.

    Files are compared by content; a file is hashed only if another one has the same size. Two parts of one file are the same video if they overlap.
    """
    errors, warnings = [], []
    both = sorted(_in_both(train, test))
    if both:
        errors.append(f"{_count(both)} in both lists: {listed([path.name for path in both])}")
    same = same_content(clip.path for clip in (*train, *test))
    trained, tested = ({clip.path for clip in clips} for clips in (train, test))
    across = [(a, b) for files in same for a in files if a in trained for b in files if b in tested and a != b]
    if across:
        errors.append(f"the same content in both lists under two names: {listed([f'{a.name} and {b.name}' for a, b in across])}")
    twice_tested = _twice(test)
    if twice_tested:
        errors.append(f"named twice in the test list, and counted twice: {listed(twice_tested)}")
    for name, clips, paths in (("training", train, trained), ("test", test, tested)):
        alike = [files for files in ([file for file in files if file in paths] for files in same) if len(files) > 1]
        if alike:
            warnings.append(f"the same content twice in the {name} list: {listed([' and '.join(file.name for file in files) for files in alike])}")
        if name == "training" and (twice := _twice(clips)):
            warnings.append(f"named twice in the training list, and trained on twice an epoch: {listed(twice)}")
    apart = [[clip for clip in clips if clip.shown_path not in both] for clips in (train, test)]
    told = [{source_of(clip): clip.shown_path.name for clip in clips if clip.cut or find_group(clip) is not None} for clips in apart]
    shared = sorted(told[0].keys() & told[1].keys())
    if shared:
        pairs = [f"{told[0][key]} and {told[1][key]}" for key in shared]
        warnings.append(
            f"clips of {counted(len(shared), 'source video')} (by their names) are in both lists, "
            f"so the test is easier than new videos are: {listed(pairs)}"
        )
    counts = Counter(clip.label for clip in train)
    if single := [labels[clip.label] for clip in train if counts[clip.label] == 1]:
        warnings.append(f"there is only one video to train on of {listed(single)}")
    return Leaks(tuple(errors), tuple(warnings))


def _in_both(train: Sequence[Clip], test: Sequence[Clip]) -> set[Path]:
    """Return the clips that are in both lists, or overlap with a part of the same file in the other one, as their shown paths."""
    trained: dict[Path, list[Clip]] = defaultdict(list)
    for clip in train:
        trained[clip.path].append(clip)
    pairs = [(one, other) for other in test for one in trained.get(other.path, ()) if _overlap(one.cut or WHOLE, other.cut or WHOLE)]
    return {clip.shown_path for pair in pairs for clip in pair}


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _twice(clips: Sequence[Clip]) -> list[str]:
    return [path.name for path, count in Counter(clip.shown_path for clip in clips).items() if count > 1]


def same_content(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the files that have the same content, without those that are alone with theirs. A path that is given twice counts once."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        sizes[path.stat().st_size].append(path)
    contents: dict[str, list[Path]] = defaultdict(list)
    for alike in sizes.values():
        for path in alike if len(alike) > 1 else ():
            with path.open("rb") as file:
                contents[hashlib.file_digest(file, "sha256").hexdigest()].append(path)
    return [files for files in contents.values() if len(files) > 1]


def _count(paths: Sequence[Path]) -> str:
    return "1 video is" if len(paths) == 1 else f"{len(paths)} videos are"
