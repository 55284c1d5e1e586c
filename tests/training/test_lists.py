"""UCF101's lists: a good data set is read as it is; a bad line is named with its file and number."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import Clip, read_data_set, split_by_group


def test_the_real_lists(fight: Path) -> None:
    data = read_data_set(fight)
    assert data.labels == ("Fight", "NoFight")
    assert data.train[0] == Clip(fight / "videos/Fight/v_Fight_g02_c01.mp4", 0)
    assert data.test[-1] == Clip(fight / "videos/NoFight/v_NoFight_g29_c01.mp4", 1)
    assert Counter(clip.label for clip in data.train) == {0: 8, 1: 8}
    assert Counter(clip.label for clip in data.test) == {0: 4, 1: 4}


def test_no_source_video_is_in_both_lists(fight: Path) -> None:
    train, test = ({clip.path.stem.rpartition("_")[0] for clip in clips} for clips in (read_data_set(fight).train, read_data_set(fight).test))
    assert len(train) == 16 and len(test) == 8 and not train & test


def test_another_split_reads_its_own_lists(tiny_data: Path) -> None:
    shutil.copy(tiny_data / "testlist01.txt", tiny_data / "testlist03.txt")
    (tiny_data / "trainlist03.txt").write_text("NoFight/v_NoFight_g02_c01.mp4 2\nFight/v_Fight_g02_c01.mp4 1\n")
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
        ("classInd.txt", "1,Fight\n2,NoFight\n", r"classInd.txt:1: malformed class; got 1,Fight; expected '1 ClassName'"),
        ("classInd.txt", "1 \n2 NoFight\n", r"classInd.txt:1: malformed class; got 1; expected '1 ClassName'"),
        ("classInd.txt", "1 Fi\x00ght\n", r"classInd.txt:1: holds a control character; got '1 Fi.x00ght'"),
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


def test_a_file_whose_name_tells_no_group_is_a_group_of_its_own() -> None:
    clips = [Clip(Path(f"{name}.mp4"), 0) for name in "abcde"]
    train, held = split_by_group(clips, 0.4, 0)
    assert len(held) == 2 and sorted((*train, *held), key=str) == clips


def test_parts_of_one_file_stay_together_also_if_they_are_of_several_classes() -> None:
    clips = [Clip(Path(f"{file}.mp4"), label, (start, start + 5.0)) for file in range(10) for label in (0, 1) for start in (10 * label, 40 + label)]
    train, held = split_by_group(clips, 0.2, 1)
    assert len(held) == 8 and {clip.path for clip in held}.isdisjoint(clip.path for clip in train)
    assert {clip.label for clip in held} == {0, 1}


def test_every_class_keeps_a_source_video_to_train_on() -> None:
    """Class 0 and class 1 have the same two source videos: holding one out for each class could leave class 1 none."""
    clips = [Clip(Path(name), label, group=group) for label, name, group in ((0, "a", "g"), (0, "b", "h"), (1, "c", "g"), (1, "d", "h"))]
    for seed in range(5):
        train, held = split_by_group(clips, 0.5, seed)
        assert len(held) == 2 and {clip.label for clip in train} == {0, 1}


def test_single_groups_cannot_be_split() -> None:
    with pytest.raises(ClipstepError, match="no class has two groups; expected videos of several sources; train with --validation 0"):
        split_by_group(_clips({0: 1, 1: 1}), 0.2, 0)


def _data(folder: Path, classes: bytes, train: bytes, test: bytes, videos: list[str]) -> Path:
    """A data set of such lists, each of whose videos has a content of its own."""
    for index, name in enumerate(videos):
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / name).write_bytes(b"%03d" % index)
    for name, text in (("classInd.txt", classes), ("trainlist01.txt", train), ("testlist01.txt", test)):
        (folder / name).write_bytes(text)
    return folder


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("classes", "train", "test", "videos", "names"),
    [
        pytest.param(
            BOM + b"1 A\n2 B\n",
            BOM + b"A/1.avi 1\nB/1.avi 2\n",
            BOM + b"A/2.avi\n",
            ["A/1.avi", "B/1.avi", "A/2.avi"],
            ("A", "B"),
            id="bom",
        ),
        pytest.param(
            b"1 Apply Eye Makeup\r\n2\tB \r\n",
            b"Apply Eye Makeup/my clip 1.avi 1\r\nB/b 2.avi\t2\r\n",
            b"Apply Eye Makeup/my clip 2.avi\r\n",
            ["Apply Eye Makeup/my clip 1.avi", "B/b 2.avi", "Apply Eye Makeup/my clip 2.avi"],
            ("Apply Eye Makeup", "B"),
            id="spaces",
        ),
        pytest.param(
            b"1 \"A B\"\n2 'C'\n",
            b"\"A B/x y.avi\" 1\n'C/z.avi' 2\n",
            b'"A B/t.avi"\n',
            ["A B/x y.avi", "C/z.avi", "A B/t.avi"],
            ("A B", "C"),
            id="quotes",
        ),
        pytest.param(b"1 A\n2 B\n", b"A\\1.avi 1\nB\\1.avi 2\n", b"A\\2.avi\n", ["A/1.avi", "B/1.avi", "A/2.avi"], ("A", "B"), id="backslashes"),
        pytest.param(b"1 A\r2 B\r", b"A/1.avi 1\rB/1.avi 2", b"A/2.avi", ["A/1.avi", "B/1.avi", "A/2.avi"], ("A", "B"), id="old mac"),
        pytest.param(
            "1 Café\n2 B\n".encode(),
            "Cafe\u0301/1.avi 1\nB/1.avi 2\n".encode(),
            "Café/2.avi\n".encode(),
            ["Cafe\u0301/1.avi", "B/1.avi", "Cafe\u0301/2.avi"],
            ("Café", "B"),
            id="decomposed",
        ),
        pytest.param(
            b"1 ApplyEyeMakeup\n2 brush_hair\n",
            b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nbrush_hair/#20_hair(x)_u_nm_np1_ba_goo_0.avi 2\n",
            b"brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi\n",
            [
                "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
                "brush_hair/#20_hair(x)_u_nm_np1_ba_goo_0.avi",
                "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
            ],
            ("ApplyEyeMakeup", "brush_hair"),
            id="UCF101 and HMDB51",
        ),
    ],
)
def test_lists_from_any_editor_and_system(
    tmp_path: Path, classes: bytes, train: bytes, test: bytes, videos: list[str], names: tuple[str, ...]
) -> None:
    data = read_data_set(_data(tmp_path, classes, train, test, videos))
    assert data.labels == names
    assert [clip.label for clip in data.train] == [0, 1]
    assert [clip.path for clip in (*data.train, *data.test)] == [tmp_path / "videos" / name for name in videos]


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    _data(tmp_path, "1 Caf\u00e9\n".encode("latin-1"), b"A/1.avi 1\n", b"A/2.avi\n", [])
    with pytest.raises(ClipstepError, match=r"classInd\.txt: is not text in UTF-8; got byte 6; .*save it as UTF-8"):
        read_data_set(tmp_path)


LEAKS = [
    pytest.param("A/v_A_g01_c01.avi", "error", "1 video is in both lists: v_A_g01_c01.avi", id="same"),
    pytest.param("./A/v_A_g01_c01.avi", "error", "1 video is in both lists: v_A_g01_c01.avi", id="same, written otherwise"),
    pytest.param("A/copy.avi", "error", "the same content in both lists under two names: v_A_g01_c01.avi and copy.avi", id="copy"),
    pytest.param("A/link.avi", "error", "the same content in both lists under two names: v_A_g01_c01.avi and link.avi", id="link"),
    pytest.param("A/t.avi\nA/t.avi", "error", "named twice in the test list, and counted twice: t.avi", id="twice in test"),
    pytest.param("A/t.avi\nA/t2.avi", "warning", "the same content twice in the test list: t.avi and t2.avi", id="copy in test"),
    pytest.param(
        "A/v_A_g01_c02.avi",
        "warning",
        "clips of 1 source video (by their names) are in both lists, so the test is easier than new videos are: v_A_g01_c01.avi and v_A_g01_c02.avi",
        id="group",
    ),
    pytest.param("B/v_B_g01_c01.avi", "nothing", "", id="groups are numbered by class"),
]


@pytest.mark.parametrize(("test", "kind", "message"), LEAKS)
def test_leakage_between_the_lists_is_named(tmp_path: Path, test: str, kind: str, message: str) -> None:
    train = b"A/v_A_g01_c01.avi 1\nA/v_A_g02_c01.avi 1\nB/b.avi 2\nB/b2.avi 2\n"
    names = ["A/v_A_g01_c01.avi", "A/v_A_g02_c01.avi", "A/t.avi", "A/v_A_g01_c02.avi", "B/b.avi", "B/b2.avi", "B/v_B_g01_c01.avi"]
    folder = _data(tmp_path, b"1 A\n2 B\n", train, test.encode(), names)
    shutil.copy(folder / "videos/A/v_A_g01_c01.avi", folder / "videos/A/copy.avi")
    shutil.copy(folder / "videos/A/t.avi", folder / "videos/A/t2.avi")
    (folder / "videos/A/link.avi").symlink_to(folder / "videos/A/v_A_g01_c01.avi")
    if kind == "error":
        with pytest.raises(ClipstepError) as error:
            read_data_set(folder)
        assert f"data leakage; got {message}; expected" in str(error.value) and "--allow-leakage" in str(error.value)
    assert read_data_set(folder, allow_leakage=True).warnings == ((message,) if message else ())


def test_warnings_about_the_training_list(tmp_path: Path) -> None:
    folder = _data(tmp_path, b"1 A\n2 B\n", b"A/1.avi 1\nA/1.avi 1\nA/2.avi 1\nB/b.avi 2\n", b"A/t.avi\n", ["A/1.avi", "B/b.avi", "A/t.avi"])
    shutil.copy(folder / "videos/A/1.avi", folder / "videos/A/2.avi")
    assert read_data_set(folder).warnings == (
        "the same content twice in the training list: 1.avi and 2.avi",
        "named twice in the training list, and trained on twice an epoch: 1.avi",
        "there is only one video to train on of B",
    )
