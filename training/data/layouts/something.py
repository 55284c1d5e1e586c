"""Something-Something's JSON files: ``train.json`` and ``validation.json`` with items ``{"id": "1", "template": "Putting [something] ..."}``.

The class is the template without its brackets; ``labels.json`` gives the order of the classes. The videos ``ID.webm`` may lie anywhere in the data
folder. The test's JSON has no classes and is not read. Source: Goyal et al., "The 'Something Something' Video Database" (2017).
"""

import json
import re
from pathlib import Path
from typing import Any

from clipstep.network.text_files import nfc, read_text
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted, listed
from clipstep.training.data.layouts.files import TEST, VideoIndex, list_files, lists_of_split, roles_of_list
from clipstep.training.data.layouts.rows import Row, Rows, data_set
from clipstep.training.data.lists import DataSet

EXPECTED = '{"id": "1", "template": "Putting [something] on [something]"}'
LABELS = re.compile(r".*labels\.json", re.IGNORECASE)


def find(folder: Path) -> list[Path]:
    """Return the lists of this layout in the data folder."""
    return [file for file in list_files(folder) if file.suffix.lower() == ".json" and (roles_of_list(file) or LABELS.fullmatch(file.name))]


def read(folder: Path, split: int) -> DataSet:
    """Read the lists.

    Raises:
        ClipstepError: a file is not JSON, or holds other items; a class is not in ``labels.json``; a video is missing, or there several times.
    """
    lists = lists_of_split(folder, find(folder), split)
    lists.pop(TEST, None)
    labels, index = _labels(folder), VideoIndex(folder)
    roles = {role: Rows(str(file.relative_to(folder)), _rows(file, index, labels)) for role, file in lists.items()}
    return data_set(folder, "something", roles, split, labels=labels, chosen=True)


def _labels(folder: Path) -> tuple[str, ...]:
    files = [file for file in find(folder) if LABELS.fullmatch(file.name)]
    if len(files) > 1:
        raise ClipstepError(f"{folder}: has several lists of classes", got=listed([file.name for file in files]), expected="one")
    for file in files:
        numbers = _json(file)
        if not isinstance(numbers, dict) or sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
            raise ClipstepError(f"{file}: is no list of classes", expected='{"Putting something on something": "0", ...}, numbered from 0')
        return tuple(nfc(name) for name in sorted(numbers, key=lambda name: int(numbers[name])))
    return ()


def _rows(file: Path, index: VideoIndex, labels: tuple[str, ...]) -> list[Row]:
    items = _json(file)
    if not isinstance(items, list):
        raise ClipstepError(f"{file}: is no list", got=type(items).__name__, expected=f"[{EXPECTED}, ...]")
    rows, missing = [], []
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("template"), str) or not isinstance(item.get("id"), str | int):
            raise ClipstepError(f"{file}:{_line_of(file, place)}: malformed item", got=json.dumps(item), expected=EXPECTED)
        label, video = nfc(item["template"].replace("[", "").replace("]", "")).strip(), nfc(str(item["id"]))
        if labels and label not in labels:
            raise ClipstepError(f"{file}:{_line_of(file, place)}: unknown class", got=label, expected=f"one of {listed(labels)}")
        if path := index.find(video):
            rows.append(Row(path, label))
        else:
            missing.append(f"{video}.webm")
    if missing:
        raise ClipstepError(
            f"{file}: names {counted(len(missing), 'missing video')}, the first {missing[0]}", fix="correct the list or restore the videos"
        )
    return rows


def _json(file: Path) -> Any:
    try:
        return json.loads(read_text(file, expected="JSON"))
    except json.JSONDecodeError as error:
        raise ClipstepError(f"{file}:{error.lineno}: is not JSON", got=error.msg, expected="JSON", fix="correct the file") from error


def _line_of(file: Path, place: int) -> int:
    """Return the line, from 1, on which an item of a list in a JSON file begins."""
    text, decoder = read_text(file, expected="JSON"), json.JSONDecoder()
    at = text.index("[") + 1
    for _ in range(place + 1):
        while text[at] in " \t\r\n,":
            at += 1
        start = at
        _, at = decoder.raw_decode(text, at)
    return text.count("\n", 0, start) + 1
