"""What most layouts come to: for each role (train, validation, test) rows of a video and the name of its class, of which a data set is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.training.data.layouts.files import TEST, TRAIN, VALIDATION, no_split
from clipstep.training.data.lists import Clip, DataSet, split_by_group, untold_sources

TEST_SHARE = 0.2
"""The share of each class's source videos that are for the test if nothing says which are."""


@dataclass(frozen=True)
class Row:
    """A video with the name of its class; ``cut`` and ``group`` are those of a `Clip`."""

    path: Path
    label: str
    cut: tuple[float, float] | None = None
    group: str | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of one role, and the file or folder, in the data folder, that they are from."""

    source: str
    rows: Sequence[Row]


def data_set(
    folder: Path,
    layout: str,
    roles: Mapping[str, Rows],
    split: int,
    *,
    labels: Sequence[str] = (),
    chosen: bool = False,
    warnings: Sequence[str] = (),
) -> DataSet:
    """Return the data set of these rows.

    If there is no test, the test is done with what is for validation; if there is neither, with a random fifth of what is for training, of which
    ``split`` is the seed.

    Args:
        folder: The data folder, for messages.
        layout: The name of the layout.
        roles: The rows of each role.
        split: Which split is asked for.
        labels: The class names in their order; by default those of the rows, sorted.
        chosen: Whether the rows are of this split alone; otherwise there is only split 1.
        warnings: About the data.

    Raises:
        ClipstepError: there is nothing to train on, only one class, or no such split.
    """
    if not roles.get(TRAIN) or not roles[TRAIN].rows:
        raise ClipstepError(
            f"{folder}: nothing says what to train on",
            got=f"only {', '.join(rows.source for rows in roles.values()) or 'names of classes'}",
            expected="train, and val or test",
        )
    names = tuple(labels) or _sorted({row.label for rows in roles.values() for row in rows.rows})
    if len(names) < 2:
        raise ClipstepError(f"{folder}: has one class", got=names[0], expected="at least two classes")
    index = {name: label for label, name in enumerate(names)}
    clips = {role: tuple(Clip(row.path, index[row.label], row.cut, row.group) for row in rows.rows) for role, rows in roles.items()}
    tested = next((role for role in (TEST, VALIDATION) if clips.get(role)), None)
    train_list = roles[TRAIN].source
    if tested is None:
        train, test = split_by_group(clips[TRAIN], TEST_SHARE, split, fix="add videos, or say what is for the test")
        about = (*warnings, *untold_sources(clips[TRAIN]))
        return DataSet(names, train, test, about, layout=layout, train_list=train_list, test_list=f"a fifth of its videos, of seed {split}")
    if split != 1 and not chosen:
        raise no_split(folder, split, [1])
    validation = clips.get(VALIDATION, ()) if tested == TEST else ()
    return DataSet(names, clips[TRAIN], clips[tested], tuple(warnings), (), validation, layout, train_list, roles[tested].source)


def _sorted(names: set[str]) -> tuple[str, ...]:
    """Return the names in alphabetical order; numbers by their value."""
    return tuple(sorted(names, key=int if all(name.isdecimal() for name in names) else None))
