"""CSV lists, and Kinetics' own: what separates the cells, headers, roles, cuts, classes; a malformed line is refused with file and number."""

import math
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.training.data.lists import Clip, read_data_set

Make = Callable[..., Path]
VIDEOS = ("a b/1.mp4", "b/2.avi", "b/3.mp4", "c,d.mp4")
VAL = "b/3.mp4,B\n"


@pytest.mark.parametrize(
    "train",
    [
        pytest.param("a b/1.mp4,A\nb/2.avi,B\n", id="plain"),
        pytest.param("path,label\na b/1.mp4,A\nb/2.avi,B\n", id="header"),
        pytest.param("Label,Frames,Path\nA,10,a b/1.mp4\nB,20,b/2.avi\n", id="header in another order with another column"),
        pytest.param('"a b/1.mp4" , "A"\r\n\'b/2.avi\',B\r\n', id="quotes, spaces, CRLF"),
        pytest.param("\ufeffpath;label\na b/1.mp4;A\nb/2.avi;B\n", id="a spreadsheet's BOM and semicolons"),
        pytest.param("a b/1.mp4\tA\nb/2.avi\tB\n", id="tabs"),
        pytest.param("a b\\1.mp4,A\nb\\2.avi,B\n", id="backslashes"),
        pytest.param("a b/1.mp4 A\n\nb/2.avi   B\n", id="spaces"),
        pytest.param("'a b/1.mp4' A\n\"b/2.avi\" B\n", id="spaces and quotes"),
        pytest.param("path,label,start,end\na b/1.mp4,A,,\nb/2.avi,B,,\n", id="no cuts"),
        pytest.param("/a b/1.mp4,A\n/b/2.avi,B\n", id="absolute in the data folder"),
    ],
)
def test_the_same_list_in_many_hands(fake_videos: Make, train: str) -> None:
    folder = fake_videos(*VIDEOS, lists={"train.csv": train, "val.csv": VAL})
    data = read_data_set(folder)
    assert data.labels == ("A", "B") and (data.train_list, data.test_list) == ("train.csv", "val.csv")
    assert data.train == (Clip(folder / "a b/1.mp4", 0), Clip(folder / "b/2.avi", 1)) and data.test == (Clip(folder / "b/3.mp4", 1),)


def test_seconds_cut_clips_out_of_videos(fake_videos: Make) -> None:
    lists = {"train.csv": "video,start,end,action\nb/2.avi,0,1.5,A\nb/2.avi,1.5,4,B\nb/3.mp4,10,,A\n", "test.csv": '"c,d.mp4",A,,0.5\na b/1.mp4,B\n'}
    data = read_data_set(fake_videos(*VIDEOS, lists=lists))
    assert [clip.cut for clip in data.train] == [(0.0, 1.5), (1.5, 4.0), (10.0, math.inf)] and [clip.label for clip in data.train] == [0, 1, 0]
    assert [clip.cut for clip in data.test] == [(0.0, 0.5), None]
    assert [clip.shown_path.name for clip in (*data.train, *data.test)] == [
        "2.avi#t=0,1.5",
        "2.avi#t=1.5,4",
        "3.mp4#t=10",
        "c,d.mp4#t=0,0.5",
        "1.mp4",
    ]


@pytest.mark.parametrize(
    ("tested", "message", "refused"),
    [
        ("b/2.avi,A,3,5", "2 videos are in both lists: 2.avi#t=0,4, 2.avi#t=3,5", True),
        ("b/2.avi,A", "2 videos are in both lists: 2.avi, 2.avi#t=0,4", True),
        ("b/2.avi,A,4,5", "clips of 1 source video (by their names) are in both lists", False),
        ("b/3.mp4,A,4,5", "there is only one video to train on of A, B", False),
    ],
)
def test_parts_of_one_video_leak_if_they_overlap(fake_videos: Make, tested: str, message: str, refused: bool) -> None:
    folder = fake_videos(*VIDEOS, lists={"train.csv": "b/2.avi,A,0,4\na b/1.mp4,B\n", "test.csv": f"{tested}\n"})
    if refused:
        with pytest.raises(ClipstepError, match="data leakage"):
            read_data_set(folder)
    assert any(message in warning for warning in read_data_set(folder, allow_leakage=refused).warnings)


def test_the_lists_of_mmaction(fake_videos: Make) -> None:
    """Labels are numbers from 0, paths begin in a folder of their own for each list, and names are in a file of their own."""
    lists = {
        "k_train_list_videos.txt": "jump/1.mp4 1\nrun fast/2.mp4 0\n",
        "k_val_list_videos.txt": "jump/1.mp4 1\n",
        "label_map_k.txt": "run fast\njump\n",
    }
    folder = fake_videos("videos_train/jump/1.mp4", "videos_train/run fast/2.mp4", "videos_val/jump/1.mp4", lists=lists)
    data = read_data_set(folder)
    assert data.labels == ("run fast", "jump")
    assert data.train == (Clip(folder / "videos_train/jump/1.mp4", 1), Clip(folder / "videos_train/run fast/2.mp4", 0))
    assert data.test == (Clip(folder / "videos_val/jump/1.mp4", 1),)
    (folder / "label_map_k.txt").unlink()
    assert read_data_set(folder).labels == ("0", "1")


def test_numbers_are_in_the_order_of_their_values(fake_videos: Make) -> None:
    names = [f"{number}.mp4" for number in range(12)]
    data = read_data_set(fake_videos(*names, "t.mp4", lists={"train.txt": "".join(f"{n}.mp4 {n}\n" for n in range(12)), "val.txt": "t.mp4 11\n"}))
    assert data.labels == tuple(map(str, range(12))) and [clip.label for clip in data.test] == [11]


def test_numbered_lists_are_splits(fake_videos: Make) -> None:
    lists = {f"ucf_{role}_split_{n}_videos.txt": f"{one} 0\n{other} 1\n" for n, role, one, other in SPLITS}
    folder = fake_videos("1.mp4", "2.mp4", "3.mp4", "4.mp4", lists=lists)
    assert [clip.path.name for clip in read_data_set(folder, 1).train] == ["1.mp4", "2.mp4"]
    assert [clip.path.name for clip in read_data_set(folder, 2).train] == ["3.mp4", "4.mp4"]
    with pytest.raises(ClipstepError, match="has no split 3; expected --split 1 or 2"):
        read_data_set(folder, 3)


SPLITS = [
    (1, "train", "1.mp4", "2.mp4"),
    (1, "val", "3.mp4", "4.mp4"),
    (2, "train", "3.mp4", "4.mp4"),
    (2, "val", "1.mp4", "2.mp4"),
]


def test_one_list_with_a_column_for_the_split(fake_videos: Make) -> None:
    text = "split,path,label\ntrain,1.mp4,A\ntrain,2.mp4,B\nval,3.mp4,A\ntest,4.mp4,B\n"
    data = read_data_set(fake_videos("1.mp4", "2.mp4", "3.mp4", "4.mp4", lists={"all.csv": text}))
    assert [[clip.path.stem for clip in clips] for clips in (data.train, data.validation, data.test)] == [["1", "2"], ["3"], ["4"]]


@pytest.mark.parametrize("name", ["videos.csv", "train.csv"])
def test_one_list_alone_is_split_at_random(fake_videos: Make, name: str) -> None:
    names = [f"{number}.mp4" for number in range(20)]
    folder = fake_videos(*names, lists={name: "".join(f"{file},{'AB'[index % 2]}\n" for index, file in enumerate(names))})
    splits = [read_data_set(folder, split).test for split in (1, 2, 1)]
    assert splits[0] == splits[2] != splits[1] and len(splits[0]) == 4 and {clip.label for clip in splits[0]} == {0, 1}


def test_parts_of_one_file_are_not_parted_by_a_random_split(fake_videos: Make) -> None:
    lines = [f"{video}.mp4,{label},{start},{start + 2}\n" for video in range(10) for label, start in (("A", 0), ("B", 5), ("A", 10))]
    data = read_data_set(fake_videos(*(f"{n}.mp4" for n in range(10)), lists={"all.csv": "".join(lines)}))
    assert not {clip.path for clip in data.train} & {clip.path for clip in data.test} and len(data.test) == 6
    assert not data.warnings


def test_accents_are_found_however_the_disk_and_the_list_write_them(fake_videos: Make) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Café/Öl 1.mp4") for form in ("NFC", "NFD"))
    folder = fake_videos(composed, unicodedata.normalize("NFC", "É/") + unicodedata.normalize("NFD", "é.mp4"), "x.mp4")
    (folder / "train.csv").write_text(f"{decomposed},A\n{unicodedata.normalize('NFD', 'É/é.mp4')},B\n")
    (folder / "val.csv").write_text("x.mp4,A\n")
    assert all(clip.path.is_file() for clip in read_data_set(folder).train)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.csv", "b/2.avi,A\nb/3.mp4\n", r"train\.csv:2: malformed line; got b/3\.mp4; expected 'path,label'"),
        ("train.csv", "b/2.avi,A\n\nb/3.mp4,\n", r"train\.csv:3: malformed line; got b/3\.mp4,; expected"),
        ("train.csv", "b/2.avi,A,3\n", r"train\.csv:1: malformed line; got b/2\.avi,A,3; expected"),
        ("train.csv", "name,kind\nb/2.avi,A\n", r"train\.csv:1: malformed line; got name,kind; expected 'path,label'.* or a header"),
        ("train.csv", 'b/2.avi,A\n"b/3.mp4,B\n', r"train\.csv:2: malformed quotes; got \"b/3\.mp4,B"),
        ("train.csv", "path,label\nb/2.avi,A,x\n", r"train\.csv:2: malformed line; got b/2\.avi,A,x; expected 2 columns"),
        ("train.csv", "b/2.avi,A,3,1\n", r"train\.csv:1: malformed line; got .*; expected a start of at least 0 seconds, and an end after it"),
        ("train.csv", "b/2.avi,A,-1,1\n", r"train\.csv:1: malformed line; got .*; expected a start of at least 0 seconds"),
        ("train.csv", "b/2.avi,A,0,nan\n", r"train\.csv:1: malformed line; got .*; expected a start of at least 0 seconds"),
        ("train.csv", "b/2.avi,A,0,inf\n", r"train\.csv:1: malformed line; got .*; expected a start of at least 0 seconds"),
        ("train.csv", "b/2.avi,A,0:10,0:20\n", r"train\.csv:1: malformed line; got .*; expected the start and the end in seconds"),
        ("train.csv", "path,label,split\nb/2.avi,A,some\n", None),
        ("all.csv", "path,label,split\nb/2.avi,A,some\n", r"all\.csv:2: malformed line; got b/2\.avi,A,some; expected train, val or test as split"),
        ("train.txt", "some/frames 163 1\n", r"train\.txt:1: malformed line; got some/frames 163 1; expected"),
        ("train.csv", "b/2.avi,A\nno.mp4,B\nnot.mp4,B\n", r"train\.csv: names 2 missing videos, the first .*data/no\.mp4; correct the list"),
        ("train.csv", b"\xff\xfeb", r"train\.csv: is not text in UTF-8"),
        ("train.csv", "", r"train\.csv: the list is empty"),
    ],
)
def test_a_bad_line_is_named(fake_videos: Make, name: str, text: str | bytes, message: str | None) -> None:
    folder = fake_videos(*VIDEOS, lists={name: text, **({} if name == "all.csv" else {"val.csv": "b/3.mp4,B\n"})})
    if message is None:  # The name of the list says what it is for, whatever is in that column.
        message = r"train\.csv: has no clip of B"
    with pytest.raises(ClipstepError, match=message):
        read_data_set(folder)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"one.csv": "", "two.csv": ""}, r"the names of several lists do not say what they are for; got one\.csv, two\.csv; expected train\.csv"),
        ({"train.csv": "", "train_all.csv": ""}, r"has two lists for train; got train\.csv and train_all\.csv; expected one"),
        ({"train_val.csv": ""}, r"train_val\.csv: its name says two things; got train and validation; expected one of them; rename it"),
        ({"val.csv": "1.mp4,A\n"}, r"nothing says what to train on; got only val\.csv"),
        ({"train.csv": "1.mp4,C\n", "classes.txt": "A\nB\n"}, r"train\.csv:1: unknown class; got C; expected one of A, B, or a number from 0 to 1"),
        ({"train.csv": "1.mp4,2\n", "classes.txt": "A\nB\n"}, r"train\.csv:1: unknown class; got 2"),
        ({"train.csv": "1.mp4,A\n", "classes.txt": "A\nB\nA\n"}, r"classes\.txt: names classes twice; got A"),
        ({"train.csv": "1.mp4,A\n", "classes.txt": "A\n", "labels.txt": "A\n"}, r"several lists of classes; got classes\.txt, labels\.txt"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(fake_videos: Make, lists: dict[str, str], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        read_data_set(fake_videos("1.mp4", lists=lists))


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_videos_are_found_anywhere_trimmed_or_whole(fake_videos: Make) -> None:
    train = f'{KINETICS}"making tea, hot",-_abcdefghi,10,20,train\r\nrun,AAAAAAAAAAA,5,15,train\r\nrun,gone0000000,1,11,train\r\n'
    folder = fake_videos(
        "train/making tea/-_abcdefghi_000010_000020.mp4",
        "more/AAAAAAAAAAA.mkv",
        "val/B_1.mp4",
        lists={"annotations/train.csv": train, "annotations/validate.csv": f"{KINETICS}run,B_1,0.0,10.0,val\n"},
    )
    data = read_data_set(folder)
    assert data.labels == ("making tea, hot", "run") and data.layout == "kinetics"
    assert data.train == (
        Clip(folder / "train/making tea/-_abcdefghi_000010_000020.mp4", 0, None, "-_abcdefghi"),
        Clip(folder / "more/AAAAAAAAAAA.mkv", 1, (5.0, 15.0), "AAAAAAAAAAA"),
    )
    assert data.test == (Clip(folder / "val/B_1.mp4", 1, (0.0, 10.0), "B_1"),)
    assert "left out, because missing: 1 of the 3 videos of train.csv, the first gone0000000_000001_000011.mp4" in data.warnings


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("youtube_id,time_start,time_end,split\na,1,2,train\n", r"train\.csv:1: malformed line; got .*; expected label,.*; label is missing"),
        (f"{KINETICS}run,a,1,2\n", r"train\.csv:2: malformed line; got run,a,1,2; expected 5 columns"),
        (f"{KINETICS}run,a,1,,train\n", r"train\.csv:2: malformed line; got run,a,1,,train; expected label,youtube_id"),
        (f"{KINETICS},a,1,2,train\n", r"train\.csv:2: malformed line; got ,a,1,2,train; expected label,youtube_id"),
        (f"{KINETICS}run,x,1,2,train\n", r"train\.csv: none of its videos is in .*data; expected x_000001_000002\.mp4 and others"),
        (f"{KINETICS}run,twice,1,2,train\n", r"several videos are called twice; got a/twice\.mp4, b/twice\.mp4; expected one; move the others out"),
    ],
)
def test_a_bad_line_of_kinetics_is_named(fake_videos: Make, train: str, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        read_data_set(fake_videos("a.mp4", "a/twice.mp4", "b/twice.mp4", lists={"train.csv": train}))
