"""A folder for each class: split by its own train/, val/ and test/, or at random without parting what was cut from one video."""

import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import find_group, read_data_set

Make = Callable[..., Path]


def _names(label: str, groups: int) -> list[str]:
    return [f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi" for group in range(groups) for clip in range(3)]


def test_without_lists_a_fifth_of_each_classes_groups_is_for_the_test(fake_videos: Make) -> None:
    folder = fake_videos(*_names("Jump", 10), *_names("Run", 5))
    data = read_data_set(folder)
    assert data.labels == ("Jump", "Run") and data.layout == "folders" and not data.warnings
    assert Counter(clip.label for clip in data.test) == {0: 6, 1: 3}
    sides = [{(clip.label, find_group(clip)) for clip in clips} for clips in (data.train, data.test)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 15
    assert {str(clip.path.relative_to(folder)) for clip in (*data.train, *data.test)} == {*_names("Jump", 10), *_names("Run", 5)}


def test_the_split_is_the_seed_and_adding_a_video_to_one_class_changes_no_other(fake_videos: Make) -> None:
    folder = fake_videos(*_names("A", 20), *_names("B", 20))
    first, again, second = (read_data_set(folder, split).test for split in (1, 1, 2))
    assert first == again != second
    fake_videos("B/v_B_g20_c01.avi")
    assert [clip for clip in read_data_set(folder).test if clip.label == 0] == [clip for clip in first if clip.label == 0]


def test_names_that_tell_no_group_are_split_file_by_file_and_that_is_said(fake_videos: Make) -> None:
    data = read_data_set(fake_videos(*(f"{label}/holiday {number}.mp4" for label in "AB" for number in range(5))))
    assert Counter(clip.label for clip in data.test) == {0: 1, 1: 1} and len(data.train) == 8
    assert data.warnings == (
        "10 of 10 names do not tell the source video (as v_ClassName_gNN_cNN does): "
        "a random split may put clips that were cut from one video on both sides",
    )


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "validation", "Testing")])
def test_folders_say_what_is_for_what(fake_videos: Make, words: tuple[str, str, str]) -> None:
    train, validation, test = words
    data = read_data_set(fake_videos(f"{train}/A/1.mp4", f"{train}/A/2.mp4", f"{train}/B/1.mp4", f"{validation}/B/2.mp4", f"{test}/A/3.MP4"))
    found = [[(clip.path.name, clip.label) for clip in clips] for clips in (data.train, data.validation, data.test)]
    assert found == [[("1.mp4", 0), ("2.mp4", 0), ("1.mp4", 1)], [("2.mp4", 1)], [("3.MP4", 0)]]
    assert (data.train_list, data.test_list) == (f"{train}/", f"{test}/")


def test_validation_is_the_test_if_there_is_no_other(fake_videos: Make) -> None:
    data = read_data_set(fake_videos("train/A/1.mp4", "train/B/1.mp4", "val/B/2.mp4"))
    assert [clip.path.name for clip in data.test] == ["2.mp4"] and data.validation == () and data.test_list == "val/"


def test_a_video_for_validation_that_is_trained_on_is_said_and_one_that_is_tested_with_is_refused(fake_videos: Make) -> None:
    folder = fake_videos("train/A/1.mp4", "train/B/1.mp4", "val/A/2.mp4", "test/B/2.mp4")
    (folder / "val/A/2.mp4").write_text("the video train/A/1.mp4")
    expected = "training and validation: the same content in both lists under two names: 1.mp4 and 2.mp4"
    assert expected in read_data_set(folder).warnings
    (folder / "val/A/2.mp4").write_text("the video test/B/2.mp4")
    with pytest.raises(ClipstepError, match=r"data leakage; got the same content in both lists under two names: 2\.mp4 and 2\.mp4"):
        read_data_set(folder)


def test_hidden_files_are_none_and_other_files_are_said(fake_videos: Make) -> None:
    names = [*_names("A", 2), *_names("B", 2)]
    data = read_data_set(fake_videos(*names, "A/._v_A_g00_c00.avi", ".git/x/y.mp4", ".DS_Store", "README.md", "A/notes.txt", "B/frames.zip"))
    assert len(data.train) + len(data.test) == 12
    assert data.warnings == ("ignored, because their names are not those of videos: 2 files, A/notes.txt, B/frames.zip",)


def test_names_of_any_alphabet_and_composition(fake_videos: Make) -> None:
    """The same class may be composed in one folder and decomposed in another, as when they come from two systems."""
    composed, decomposed = (unicodedata.normalize(form, "Café crème") for form in ("NFC", "NFD"))
    data = read_data_set(fake_videos(f"train/{composed}/un été.mp4", "train/走る/1.mp4", f"test/{decomposed}/deux.mp4"))
    assert data.labels == (composed, "走る") and [clip.label for clip in data.test] == [0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("A/1.mp4", "B/1.mp4", "c.mp4"), r"data: holds videos that are in no folder of a class; got c\.mp4; expected ClassName/video\.mp4"),
        (("train/1.mp4", "test/2.mp4"), r"data/test: holds videos that are in no folder of a class; got 2\.mp4"),
        (("train/A/1.mp4", "test/A/1.mp4", "C/1.mp4"), r"data: holds C beside test, train; expected ClassName/video\.mp4, or the same in train/"),
        (
            ("A/1.mp4", "A/more/2.mp4", "B/1.mp4"),
            r"data/A/more: is a folder of videos in the folder of a class, A; .*or give .*data/A if",
        ),
        (("test/A/1.mp4", "test/B/1.mp4"), r"data: nothing says what to train on; got only test/; expected train, and val or test"),
        (("A/1.mp4", "A/2.mp4"), r"data: has one class; got A; expected at least two classes"),
        (("A/1.mp4", "B/1.mp4"), r"no class has two groups; expected videos of several sources; add videos, or say what is for the test"),
        (("train/A/1.mp4", "train/B/1.mp4", "test/C/1.mp4"), r"data/train: has no clip of C; expected clips of every class"),
    ],
)
def test_a_folder_that_is_not_as_expected_is_refused(fake_videos: Make, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        read_data_set(fake_videos(*names))


def test_folders_of_their_own_roles_have_one_split(fake_videos: Make) -> None:
    with pytest.raises(ClipstepError, match="data: has no split 2; expected --split 1"):
        read_data_set(fake_videos("train/A/1.mp4", "train/B/1.mp4", "val/B/2.mp4"), 2)
