"""UCF101's lists: a good data set is read as it is; a bad line is named with its file and number."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import Clip, read_data_set, split_by_group


def test_the_real_lists(fight: Path) -> None:
    data = read_data_set(fight)
    assert data.classes == ("Fight", "NoFight")
    assert data.train[0] == Clip(fight / "videos/Fight/v_Fight_g02_c01.mp4", 0)
    assert data.test[-1] == Clip(fight / "videos/NoFight/v_NoFight_g29_c01.mp4", 1)
    assert Counter(clip.label for clip in data.train) == {0: 8, 1: 8}
    assert Counter(clip.label for clip in data.test) == {0: 4, 1: 4}


def test_no_source_video_is_in_both_lists(fight: Path) -> None:
    train, test = ({clip.path.stem.rpartition("_")[0] for clip in clips} for clips in (read_data_set(fight).train, read_data_set(fight).test))
    assert len(train) == 16 and len(test) == 8 and not train & test


def test_another_split_reads_its_own_lists(tiny_data: Path) -> None:
    shutil.copy(tiny_data / "testlist01.txt", tiny_data / "testlist03.txt")
    (tiny_data / "trainlist03.txt").write_text("NoFight/v_NoFight_g02_c01.mp4 2\nFight/v_Fight_g13_c01.mp4 1\n")
    data = read_data_set(tiny_data, split=3)
    assert [clip.label for clip in data.train] == [1, 0] and len(data.test) == 2


def test_blank_lines_and_windows_line_ends_do_not_matter(tiny_data: Path) -> None:
    plain = read_data_set(tiny_data)
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        text = (tiny_data / name).read_text()
        (tiny_data / name).write_bytes(("\n" + text).replace("\n", "\r\n").encode())
    assert read_data_set(tiny_data) == plain


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
class TestWholeList:
    def test_missing(self, tiny_data: Path, name: str) -> None:
        (tiny_data / name).unlink()
        with pytest.raises(ClipstepError, match=rf"{tiny_data}/{name}: no such file; expected a list in UCF101's layout"):
            read_data_set(tiny_data)

    @pytest.mark.parametrize("content", ["", "\n  \n"])
    def test_empty(self, tiny_data: Path, name: str, content: str) -> None:
        (tiny_data / name).write_text(content)
        with pytest.raises(ClipstepError, match=f"{name}: the list is empty; expected at least one line"):
            read_data_set(tiny_data)

    def test_not_text(self, tiny_data: Path, name: str) -> None:
        (tiny_data / name).write_bytes(b"\x89PNG\r\n\xff\xfe")
        with pytest.raises(ClipstepError, match=f"{name}: is not text"):
            read_data_set(tiny_data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classInd.txt", "1 Fight\nNoFight\n", r"classInd.txt:2: malformed class; got NoFight; expected '2 ClassName'"),
        ("classInd.txt", "1 Fight\n3 NoFight\n", r"classInd.txt:2: malformed class; got 3 NoFight; expected '2 ClassName'"),
        ("classInd.txt", "0 Fight\n1 NoFight\n", r"classInd.txt:1: malformed class; got 0 Fight; expected '1 ClassName'"),
        ("classInd.txt", "1 No Fight\n", r"classInd.txt:1: malformed class; got 1 No Fight; expected '1 ClassName'"),
        ("trainlist01.txt", "\n\nHug/v_Hug_g01_c01.mp4 1\n", r"trainlist01.txt:3: unknown class; got Hug; expected one of Fight, NoFight"),
        ("testlist01.txt", "v_Fight_g13_c01.mp4\n", r"testlist01.txt:1: unknown class; got v_Fight_g13_c01.mp4; expected one of Fight, NoFight"),
        ("trainlist01.txt", "Fight/v_Fight_g02_c01.mp4 2\n", r"trainlist01.txt:1: wrong label; got .*c01.mp4 2; expected .*c01.mp4 1$"),
        ("trainlist01.txt", "Fight/v_Fight_g02_c01.mp4\n", r"trainlist01.txt:1: wrong label; got .*c01.mp4; expected .*c01.mp4 1$"),
        ("trainlist01.txt", "Fight/v_Fight_g02_c01.mp4 one\n", r"trainlist01.txt:1: wrong label; got .*c01.mp4 one; expected .*c01.mp4 1$"),
        ("testlist01.txt", "Fight/v_Fight_g13_c01.mp4 1\n", r"testlist01.txt:1: wrong label; got .*c01.mp4 1; expected .*c01.mp4$"),
    ],
)
def test_a_bad_line_is_named(tiny_data: Path, name: str, content: str, message: str) -> None:
    (tiny_data / name).write_text(content)
    with pytest.raises(ClipstepError, match=message):
        read_data_set(tiny_data)


@pytest.mark.parametrize("content", ["1 Fight\n2 Fight\n", "1 Fight\n2 NoFight\n3 Fight\n"])
def test_a_class_named_twice_is_refused(tiny_data: Path, content: str) -> None:
    (tiny_data / "classInd.txt").write_text(content)
    (tiny_data / "trainlist01.txt").write_text(f"Fight/v_Fight_g02_c01.mp4 {len(content.splitlines())}\n")
    (tiny_data / "testlist01.txt").write_text("Fight/v_Fight_g13_c01.mp4\n")
    with pytest.raises(ClipstepError, match=r"classInd\.txt:\d: .*Fight"):
        read_data_set(tiny_data)


@pytest.mark.parametrize(("name", "label"), [("trainlist01.txt", " 1"), ("testlist01.txt", "")])
def test_missing_videos_are_counted_and_the_first_is_named(tiny_data: Path, name: str, label: str) -> None:
    with (tiny_data / name).open("a") as file:
        file.write(f"Fight/v_Fight_g98_c01.mp4{label}\nFight/v_Fight_g99_c01.mp4{label}\n")
    with pytest.raises(ClipstepError, match=rf"{name}: names 2 missing videos, the first .*videos/Fight/v_Fight_g98_c01\.mp4; correct the list"):
        read_data_set(tiny_data)


def test_a_class_without_training_clips_is_refused(tiny_data: Path) -> None:
    (tiny_data / "trainlist01.txt").write_text("NoFight/v_NoFight_g02_c01.mp4 2\n")
    with pytest.raises(ClipstepError, match=r"trainlist01\.txt: has no clip of Fight; expected clips of every class; correct the list"):
        read_data_set(tiny_data)


def _clips(groups: dict[int, int], per_group: int = 3) -> list[Clip]:
    return [Clip(Path(f"v_C{label}_g{g:02d}_c{c:02d}.avi"), label) for label, count in groups.items() for g in range(count) for c in range(per_group)]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_trained_and_validated_on(seed: int) -> None:
    """UCF101 numbers the groups of each class anew: g01 of one class and g01 of another are different source videos."""
    clips = _clips({0: 10, 1: 25, 2: 2, 3: 1})
    train, held = split_by_group(clips, 0.2, seed)
    assert sorted(map(str, (c.path for c in (*train, *held)))) == sorted(str(c.path) for c in clips)
    sides = [{(clip.label, clip.path.stem.split("_")[2]) for clip in side} for side in (train, held)]
    assert not sides[0] & sides[1]
    assert Counter(label for label, _ in sides[1]) == {0: 2, 1: 5, 2: 1}
    assert Counter(clip.label for clip in held) == {0: 6, 1: 15, 2: 3}


def test_the_seed_decides_which_groups() -> None:
    clips = _clips({0: 10, 1: 10})
    splits = [split_by_group(clips, 0.2, seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_no_validation_trains_on_all() -> None:
    clips = [Clip(Path("holiday.mp4"), 0)]
    assert split_by_group(clips, 0, 0) == (tuple(clips), ())


def test_a_name_without_a_group_cannot_be_split() -> None:
    with pytest.raises(
        ClipstepError, match=r"holiday\.mp4: does not tell its group; expected v_ClassName_gNN_cNN; rename it, or train with --validation 0"
    ):
        split_by_group([Clip(Path("holiday.mp4"), 0)], 0.2, 0)


def test_single_groups_cannot_be_split() -> None:
    with pytest.raises(ClipstepError, match="no class has two groups; expected videos of several sources; train with --validation 0"):
        split_by_group(_clips({0: 1, 1: 1}), 0.2, 0)
