"""Clips whose order of motion alone decides the class: the two of a pair have the same frames but for their order, and
the same last subclip."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from clipstep.runtime import ClipstepError, read_frames
from clipstep.training.cli import generate_command
from clipstep.training.data.doors import Doors, background, draw_doors, gaps, random_doors
from clipstep.training.data.lists import find_group, read_data_set, split_by_group

DOORS = Doors(top=0.25, left=0.1, height=0.5, width=0.8, colour=(10, 200, 30), moving=1)


@pytest.mark.parametrize("moving", [1, 2])
def test_the_order_alone_differs_and_the_last_subclip_does_not(moving: int) -> None:
    opening, closing = (gaps(label, moving, 16) for label in (0, 1))
    assert len(opening) == len(closing) == 16 * (moving + 1)
    np.testing.assert_array_equal(np.sort(opening), np.sort(closing))
    np.testing.assert_array_equal(opening[-16:], closing[-16:])
    assert (np.diff(opening[:-16]) > 0).all() and (np.diff(closing[:-16]) < 0).all()
    assert opening[-17] > opening[-1] > closing[-17]


def test_doors_by_hand() -> None:
    """In a frame of 100 pixels the doorway goes from 10 to 90; at a gap of a half each leaf is 20 pixels wide."""
    frame = np.zeros((100, 100, 3), np.uint8)
    drawn = draw_doors(frame, DOORS, 0.5)
    is_door = (drawn == (10, 200, 30)).all(axis=2)
    expected = np.zeros((100, 100), bool)
    expected[25:75, 10:30] = expected[25:75, 70:90] = True
    np.testing.assert_array_equal(is_door, expected)
    assert not frame.any()


def test_random_doors_stay_inside_the_frame() -> None:
    for seed in range(50):
        doors = random_doors(np.random.default_rng(seed))
        assert doors.top >= 0 and doors.left >= 0 and doors.top + doors.height <= 1 and doors.left + doors.width <= 1
    assert {random_doors(np.random.default_rng(seed)).moving for seed in range(20)} == {1, 2}


def test_a_short_background_goes_forth_and_back(clip: Path) -> None:
    count = sum(1 for _ in read_frames(clip))
    long = background(clip, 32, 2 * count)
    np.testing.assert_array_equal(long[count], long[count - 2])
    np.testing.assert_array_equal(long[2 * count - 2], long[0])
    assert len(background(clip, 32, 7)) == 7


def _generate(*arguments: Any) -> Any:
    return CliRunner().invoke(generate_command, [str(a) for a in arguments], standalone_mode=False)


def test_what_is_written_is_a_data_set_in_pairs(fight: Path, tmp_path: Path) -> None:
    result = _generate(fight, "--out", tmp_path / "doors", "--pairs", 5, "--size", 64, "--frames", 8)
    assert result.exception is None, result.output
    data = read_data_set(tmp_path / "doors")
    assert data.labels == ("Opening", "Closing") and (len(data.train), len(data.test)) == (8, 2)
    assert not {find_group(clip) for clip in data.train} & {find_group(clip) for clip in data.test}
    assert len(split_by_group(data.train, 0.25, 0)[1]) == 2
    for one, other in zip(data.train[::2], data.train[1::2], strict=True):
        opening, closing = (np.stack(list(read_frames(clip.path))).astype(int) for clip in (one, other))
        assert find_group(one) == find_group(other) is not None and (one.label, other.label) == (0, 1)
        assert opening.shape == closing.shape and opening.shape[1:] == (64, 64, 3) and len(opening) in (16, 24)
        assert np.abs(opening[-7:] - closing[-7:]).mean() < 4 < np.abs(opening[-9] - closing[-9]).mean()


def test_the_seed_decides(fight: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert _generate(fight, "--out", tmp_path / name, "--pairs", 4, "--size", 32, "--frames", 2, "--seed", seed).exception is None
    videos = [(tmp_path / name / "videos/Opening/v_Opening_g001_c01.mp4") for name in "abc"]
    frames = [np.stack(list(read_frames(video)))[:4] for video in videos]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).any()


def test_mistakes(fight: Path, tmp_path: Path) -> None:
    result = _generate(fight, "--out", tmp_path)
    assert isinstance(result.exception, ClipstepError) and f"{tmp_path}: exists; expected a new folder" in str(result.exception)
    result = _generate(fight, "--out", tmp_path / "new", "--size", 63)
    assert isinstance(result.exception, ClipstepError) and "H.264 needs an even size; got 63; take 64" in str(result.exception)
