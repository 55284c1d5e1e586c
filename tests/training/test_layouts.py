"""Which layout a data folder is in: told by its files, or by --layout; a folder that could be several or none is refused with what lies in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training import choices
from clipstep.training.data.layouts import LAYOUTS, recognise
from clipstep.training.data.lists import read_data_set

Make = Callable[..., Path]
CSV = {"train.csv": "A/1.mp4,A\nB/1.mp4,B\n", "val.csv": "A/2.mp4,A\n"}
VIDEOS = ("A/1.mp4", "A/2.mp4", "B/1.mp4")


def test_the_command_line_has_the_names_of_all_layouts() -> None:
    assert tuple(LAYOUTS) == choices.LAYOUTS


@pytest.mark.parametrize(
    ("lists", "name"),
    [
        ({}, "folders"),
        ({"README.txt": "Hello", "notes.json": "{}"}, "folders"),
        (CSV, "csv"),
        ({"annotations/train.csv": "", "labels.csv": "id,name\n"}, "csv"),
        ({"kinetics400_train_list_videos.txt": "A/1.mp4 0\n"}, "csv"),
        ({"train.csv": "label,youtube_id,time_start,time_end,split\n"}, "kinetics"),
        ({"classInd.txt": "1 A\n"}, "ucf101"),
        ({"ucfTrainTestlist/testlist02.txt": "A/1.mp4\n"}, "ucf101"),
        ({"testTrainMulti_7030_splits/brush_hair_test_split1.txt": "1.mp4 1\n"}, "hmdb51"),
        ({"something-something-v2-train.json": "[]"}, "something"),
    ],
)
def test_a_layout_is_recognised_by_its_lists(fake_videos: Make, lists: dict[str, str], name: str) -> None:
    assert recognise(fake_videos(*VIDEOS, lists=lists)) == name


def test_lists_of_two_layouts_are_refused_until_one_is_named(fake_videos: Make) -> None:
    ucf101 = {"classInd.txt": "1 A\n2 B\n", "trainlist01.txt": "A/1.mp4 1\nB/1.mp4 2\n", "testlist01.txt": "A/2.mp4\n"}
    folder = fake_videos(*VIDEOS, lists={**CSV, **ucf101})
    with pytest.raises(ClipstepError) as error:
        read_data_set(folder)
    assert "holds lists of several layouts; got classInd.txt, testlist01.txt, trainlist01.txt (--layout ucf101) and " in str(error.value)
    assert "train.csv, val.csv (--layout csv); expected one; say by --layout which one is meant" in str(error.value)
    for name in ("csv", "ucf101", "folders"):
        assert read_data_set(folder, layout=name).layout == name
    with pytest.raises(ClipstepError, match=r"data: holds nothing of the layout hmdb51; got A/, B/, .*expected ClassName_test_split1\.txt"):
        read_data_set(folder, layout="hmdb51")


@pytest.mark.parametrize(("names", "found"), [((), "an empty folder"), (("1.mp4", "2.avi"), "2 videos"), (("docs/a/b.txt", "x.md"), "docs/, x.md")])
def test_an_unknown_folder_is_refused_with_what_lies_in_it(fake_videos: Make, tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    folder = fake_videos(*names) if names else tmp_path
    with pytest.raises(
        ClipstepError, match=rf"is no data set of a known layout; got {found}; expected classInd\.txt, .*folders ClassName/ of videos"
    ):
        read_data_set(folder)


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, what in (("file", "is a file"), ("nothing", "no such folder")):
        with pytest.raises(ClipstepError, match=f"{name}: {what}; expected the folder of a data set"):
            read_data_set(tmp_path / name)


def test_videos_outside_of_the_data_folder_are_read_and_said(fake_videos: Make, tmp_path: Path) -> None:
    """By the paths in the lists: absolute ones, and those with two dots. A link in the data folder is the user's own way to put videos there."""
    folder = fake_videos("A/1.mp4", "../b.mp4", "../linked/c.mp4", "B/3.mp4")
    (folder / "C").symlink_to(tmp_path / "linked")
    (folder / "train.csv").write_text(f"{folder}/A/1.mp4,A\n{tmp_path}/b.mp4,B\nC/c.mp4,C\n")
    (folder / "val.csv").write_text("B/../../b.mp4,B\nB/3.mp4,B\n")
    data = read_data_set(folder, allow_leakage=True)
    assert [os.path.relpath(clip.path, folder) for clip in data.train] == ["A/1.mp4", "../b.mp4", "C/c.mp4"]
    assert f"2 videos of the lists lie outside of {folder}: {tmp_path}/b.mp4 and 1 more" in data.warnings
    assert any("in both lists" in warning or "the same content in both lists" in warning for warning in data.warnings)


def test_ucf101_as_it_is_downloaded(fake_videos: Make) -> None:
    """The lists and the videos come in two archives with a folder each."""
    lists = {"classInd.txt": "1 Archery\r\n2 Biking\r\n", "trainlist02.txt": "Archery/1.avi 1\nBiking/1.avi 2\n", "testlist02.txt": "Biking/2.avi\n"}
    names = ("UCF-101/Archery/1.avi", "UCF-101/Biking/1.avi", "UCF-101/Biking/2.avi")
    folder = fake_videos(*names, lists={f"ucfTrainTestlist/{name}": text for name, text in lists.items()})
    data = read_data_set(folder, 2)
    assert [str(clip.path.relative_to(folder)) for clip in (*data.train, *data.test)] == list(names)
    assert (data.labels, data.train_list, data.test_list) == (("Archery", "Biking"), "ucfTrainTestlist/trainlist02.txt", "testlist02")
