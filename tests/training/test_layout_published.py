"""HMDB51's split files and Something-Something's JSON files, as they are published; a malformed line is refused with file and number."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import Clip, find_group, read_data_set

Make = Callable[..., Path]
HAIR = ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "April_09_brush_hair_u_nm_np1_ba_goo_1.avi", "#20_brush_hair_h_nm_np1_le_goo_0.avi")
WAVE = ("wave 1 (x).avi", "wave_2.avi")


def _hmdb51(make: Make, hair: str, wave: str = f"{WAVE[0]} 1\n{WAVE[1]} 2\n", place: str = "testTrainMulti_7030_splits/") -> Path:
    lists = {f"{place}brush_hair_test_split1.txt": hair, f"{place}wave_test_split1.txt": wave}
    return make(*(f"brush_hair/{name}" for name in HAIR), *(f"hmdb51_org/wave/{name}" for name in WAVE), lists=lists)


@pytest.mark.parametrize("line", ["{} {} \n", "{} {}\r\n", '"{}" {}\n', "brush_hair\\{}\t{}\n"])
def test_hmdb51(fake_videos: Make, line: str) -> None:
    folder = _hmdb51(fake_videos, "\ufeff" + line.format(HAIR[0], 1) + line.format(HAIR[1], 0) + line.format(HAIR[2], 2))
    data = read_data_set(folder)
    assert data.labels == ("brush_hair", "wave") and data.layout == "hmdb51"
    assert data.train == (
        Clip(folder / f"brush_hair/{HAIR[0]}", 0, group="brush_hair/April_09"),
        Clip(folder / "hmdb51_org/wave/wave 1 (x).avi", 1),
    )
    assert [clip.path.name for clip in data.test] == [HAIR[2], WAVE[1]]
    assert data.test_list == "testTrainMulti_7030_splits/*_test_split1.txt"


def test_clips_of_one_film_on_both_sides_are_said(fake_videos: Make) -> None:
    data = read_data_set(_hmdb51(fake_videos, f"{HAIR[0]} 1\n{HAIR[1]} 2\n", place=""))
    assert find_group(data.train[0]) == find_group(data.test[0]) == "brush_hair/April_09"
    assert any(
        f"clips of 1 source video (by their names) are in both lists, so the test is easier than new videos are: {HAIR[0]} and" in warning
        for warning in data.warnings
    )


@pytest.mark.parametrize(
    ("hair", "split", "message"),
    [
        (f"{HAIR[0]} 1\n{HAIR[1]} 3\n", 1, rf"brush_hair_test_split1\.txt:2: malformed line; got {HAIR[1]} 3; expected 'video\.avi 1', or 2, or 0"),
        (f"{HAIR[0]}\n", 1, r"brush_hair_test_split1\.txt:1: malformed line"),
        ("none.avi 1\nnor.avi 2\n", 1, r"brush_hair_test_split1\.txt: names 2 missing videos, the first none\.avi; correct the list"),
        (f"{HAIR[0]} 1\n", 2, r"data: has no split 2; expected --split 1"),
    ],
)
def test_a_bad_line_of_hmdb51_is_named(fake_videos: Make, hair: str, split: int, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        read_data_set(_hmdb51(fake_videos, hair), split)


def test_a_split_must_have_a_list_for_every_class(fake_videos: Make) -> None:
    folder = _hmdb51(fake_videos, f"{HAIR[0]} 1\n", place="")
    (folder / "wave_test_split3.txt").write_text("")
    with pytest.raises(ClipstepError, match=r"lists of some classes are missing; got no brush_hair_test_split3\.txt; expected one for every class"):
        read_data_set(folder, 3)


PUT, HOLD = "Putting [something] on [something]", "Holding [something]"
LABELS = {"Putting something on something": "0", "Holding something": "1"}


def _items(*items: tuple[str, str]) -> str:
    return "[\n" + ",\n".join(json.dumps({"id": number, "label": "any", "template": template}) for number, template in items) + "\n]"


def _something(make: Make, train: str, labels: object = LABELS, videos: tuple[str, ...] = ("v/1.webm", "v/20.webm", "v/3.mp4")) -> Path:
    lists = {"labels/something-something-v2-train.json": train, "labels/validation.json": _items(("3", HOLD)), "labels/test.json": '[{"id": "4"}]'}
    return make(*videos, lists=lists if labels is None else {**lists, "labels/something-something-v2-labels.json": json.dumps(labels)})


@pytest.mark.parametrize("labels", [LABELS, None])
def test_something(fake_videos: Make, labels: object) -> None:
    folder = _something(fake_videos, "\ufeff" + _items(("1", PUT), ("20", HOLD)).replace("\n", "\r\n"), labels)
    data = read_data_set(folder)
    names = tuple(LABELS) if labels else ("Holding something", "Putting something on something")
    assert data.labels == names and data.layout == "something" and data.test_list == "labels/validation.json"
    assert [(clip.path.name, names[clip.label]) for clip in (*data.train, *data.test)] == [
        ("1.webm", "Putting something on something"),
        ("20.webm", "Holding something"),
        ("3.mp4", "Holding something"),
    ]


def test_names_in_json_are_composed_as_everywhere(fake_videos: Make) -> None:
    form = unicodedata.normalize("NFD", "Überholen von [etwas]")
    data = read_data_set(_something(fake_videos, _items(("1", form), ("20", HOLD)), None))
    assert unicodedata.normalize("NFC", "Überholen von etwas") in data.labels


@pytest.mark.parametrize(
    ("train", "labels", "message"),
    [
        ('[\n{"id": "1"}\n]', LABELS, r"train\.json:2: malformed item; got {\"id\": \"1\"}; expected {\"id\": \"1\", \"template\""),
        (_items(("1", PUT), ("20", "Eating [something]")), LABELS, r"train\.json:3: unknown class; got Eating something; expected one of Putting"),
        ('[\n{"id": "1", }\n]', LABELS, r"train\.json:2: is not JSON; got .*; correct the file"),
        ("{}", LABELS, r"train\.json: is no list; got dict"),
        (_items(("1", PUT), ("8", PUT)), LABELS, r"train\.json: names 1 missing video, the first 8\.webm; correct the list or restore the videos"),
        (_items(("1", PUT)), {"A": "1", "B": "2"}, r"labels\.json: is no list of classes; expected .*numbered from 0"),
        (_items(("1", PUT)), ["A"], r"labels\.json: is no list of classes"),
    ],
)
def test_a_bad_item_of_something_is_named(fake_videos: Make, train: str, labels: object, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        read_data_set(_something(fake_videos, train, labels))


def test_two_videos_of_one_name_are_refused(fake_videos: Make) -> None:
    folder = _something(fake_videos, _items(("1", PUT)), videos=("v/1.webm", "v/3.webm", "mp4/1.mp4"))
    with pytest.raises(ClipstepError, match=r"several videos are called 1; got mp4/1\.mp4, v/1\.webm; expected one"):
        read_data_set(folder)


def test_a_folder_that_links_to_itself_is_walked_once(fake_videos: Make) -> None:
    folder = _something(fake_videos, _items(("1", PUT), ("20", HOLD)))
    (folder / "v/again").symlink_to(folder)
    assert len(read_data_set(folder).train) == 2
