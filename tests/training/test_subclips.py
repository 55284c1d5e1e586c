"""Subclips, crops and normalisation against numpy; a broken video is returned as a value, not raised."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bt601 import decoded

from clipstep.network.preprocess import normalise
from clipstep.network.videos import read_subclips
from clipstep.runtime import VideoError, read_frames
from clipstep.runtime.resize import Box, center_box, crop_resize
from clipstep.training.data.lists import Clip, read_data_set
from clipstep.training.data.subclips import BrokenVideo, TestVideos, TrainingVideos, Video, channel_statistics, corner_box

WriteVideo = Callable[..., Path]


def _smooth(count: int) -> np.ndarray:
    """Frames of 48x64 that differ, and whose colours survive an encoding."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([np.stack([60 + 2 * rows, 200 - 2 * columns, 50 + 9 * n + 0 * rows], axis=-1) for n in range(count)]).astype(np.uint8)


@pytest.mark.parametrize(("count", "frames", "subclips"), [(11, 4, 2), (12, 4, 3), (4, 4, 1), (7, 1, 7)])
def test_whole_subclips_in_order_and_no_tail(write_video: WriteVideo, count: int, frames: int, subclips: int) -> None:
    path = write_video(_smooth(count))
    got = read_subclips(path, frames, 16)
    assert got.shape == (subclips, frames, 16, 16, 3) and got.dtype == torch.uint8
    expected = [crop_resize(frame, Box(0, 8, 48), 16) for frame in decoded(path)[: subclips * frames]]
    assert np.abs(got.flatten(0, 1).numpy() - np.stack(expected).astype(int)).max() <= 1


def test_the_box_is_chosen_once_a_video_and_given_its_height_and_width(write_video: WriteVideo) -> None:
    asked = []

    def box(height: int, width: int) -> Box:
        asked.append((height, width))
        return Box(5, 7, 16)

    path = write_video(4)
    got = read_subclips(path, 4, 16, box=box)
    assert asked == [(48, 64)]
    np.testing.assert_array_equal(got[0].numpy(), [frame[5:21, 7:23] for frame in decoded(path)])


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (100, 100), (17, 31)])
def test_corner_boxes_are_at_the_four_corners_in_three_scales(height: int, width: int) -> None:
    random = np.random.default_rng(0)
    boxes = [corner_box(height, width, random) for _ in range(300)]
    for box in boxes:
        assert box.top in (0, height - box.side) and box.left in (0, width - box.side)
        assert 0 < box.side <= min(height, width)
    assert {box.side for box in boxes} == {round(scale * min(height, width)) for scale in (1.0, 0.84, 0.71)}
    smallest = [box for box in boxes if box.side == round(0.71 * min(height, width))]
    assert {(box.top > 0, box.left > 0) for box in smallest} == {(False, False), (False, True), (True, False), (True, True)}


def test_testing_takes_the_centre(write_video: WriteVideo) -> None:
    clip = Clip(write_video(4), 1)
    centre = TestVideos([clip], 4, 16)[0]
    assert isinstance(centre, Video) and (centre.path, centre.label) == (clip.path, 1)
    assert torch.equal(centre.subclips, read_subclips(clip.path, 4, 16, box=center_box))


@pytest.mark.parametrize("flip", [False, True])
def test_training_takes_a_corner_that_seed_epoch_and_index_decide(write_video: WriteVideo, flip: bool) -> None:
    """Frames of 48x64 are scaled to a short side of 23 pixels (16 / 0.71); numpy crops them once more here."""
    clips = [Clip(write_video(9, f"{index}.mp4"), index) for index in range(3)]
    videos = TrainingVideos(clips, 4, 16, seed=7, flip=flip)
    seen = set()
    for epoch in range(12):
        video = videos[epoch, 1]
        assert isinstance(video, Video) and (video.path, video.label) == (clips[1].path, 1)
        random = np.random.default_rng((7, epoch, 1))
        small = list(read_frames(clips[1].path, short_side=23))
        assert small[0].shape == (23, 31, 3)
        box = corner_box(23, 31, random)
        expected = np.stack([crop_resize(frame, box, 16) for frame in small[:8]]).reshape(2, 4, 16, 16, 3)
        mirrored = flip and random.random() < 0.5
        np.testing.assert_array_equal(video.subclips.numpy(), expected[..., ::-1, :] if mirrored else expected)
        seen.add((box, mirrored))
    assert len(seen) > 3 and (len({mirrored for _, mirrored in seen}) == 2) == flip


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (2, 4, 6, 5, 3), (1, 1, 1, 1, 3)])
def test_normalise_is_minus_mean_by_std_with_channels_first(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    mean, std = (104.5, 101.0, 97.25), (58.0, 57.5, 59.0)
    expected = np.moveaxis((values.astype(np.float64) - mean) / std, -1, -4)
    got = normalise(torch.from_numpy(values), mean, std)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_channel_statistics_are_numpys_over_the_decoded_frames(tiny_data: Path) -> None:
    clips = read_data_set(tiny_data).train
    frames = []
    for clip in clips:
        every = decoded(clip.path)
        frames += [crop_resize(frame, center_box(*frame.shape[:2]), 32) for frame in every[: len(every) // 8 * 8]]
    pixels = np.stack(frames).reshape(-1, 3).astype(np.float64)
    mean, std = channel_statistics(clips, 8, 32)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(std, pixels.std(axis=0), atol=0.05)


def test_normalised_training_frames_have_mean_0_and_std_1(tiny_data: Path) -> None:
    clips = read_data_set(tiny_data).train
    mean, std = channel_statistics(clips, 8, 32)
    channels = torch.cat([normalise(read_subclips(clip.path, 8, 32), mean, std).movedim(1, 0).flatten(1) for clip in clips], dim=1)
    np.testing.assert_allclose(channels.mean(dim=1), 0, atol=1e-4)
    np.testing.assert_allclose(channels.std(dim=1), 1, atol=1e-4)


@pytest.fixture
def broken(tmp_path: Path, write_video: WriteVideo, sound_only: Path) -> dict[str, Clip]:
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    return {"text": Clip(text, 0), "short": Clip(write_video(3, "short.mp4"), 0), "sound": Clip(sound_only, 0)}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "text.mp4: cannot be decoded; got "),
        ("short", "short.mp4: too short; got 3 frames; expected at least 4; use a longer video"),
        ("sound", "sound.mp4: has no video stream; got audio"),
    ],
)
def test_a_broken_video_comes_with_its_reason(broken: dict[str, Clip], kind: str, reason: str) -> None:
    for item in (TestVideos([broken[kind]], 4, 16)[0], TrainingVideos([broken[kind]], 4, 16)[0, 0]):
        assert isinstance(item, BrokenVideo) and item.path == broken[kind].path
        assert reason in item.reason


def test_statistics_pass_over_broken_videos(broken: dict[str, Clip], write_video: WriteVideo) -> None:
    good = Clip(write_video(8), 0)
    assert channel_statistics([broken["text"], good, broken["short"]], 4, 16) == channel_statistics([good], 4, 16)


def test_statistics_of_broken_videos_alone_are_an_error(broken: dict[str, Clip]) -> None:
    with pytest.raises(VideoError, match=r"no usable video in the training list: .*short\.mp4: too short"):
        channel_statistics([broken["text"], broken["short"]], 4, 16)


def test_statistics_find_the_usable_videos_of_a_long_list(broken: dict[str, Clip], write_video: WriteVideo) -> None:
    good = Clip(write_video(8), 0)
    assert channel_statistics([broken["short"], good] * 2, 4, 16, videos=2) == channel_statistics([good], 4, 16)
