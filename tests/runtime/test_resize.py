"""Crop and resize against hand-computed numbers and a formula written pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipstep.runtime.resize import Box, center_box, crop_resize


def _grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(plane, np.uint8)[..., None], 3, axis=2)


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _by_definition(frame: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Every output pixel a triangle-weighted mean of the crop in float64, not rounded."""
    step = box.side / size
    width = max(step, 1.0)
    out = np.zeros((size, size, 3))
    for y in range(size):
        for x in range(size):
            total = 0.0
            for v in range(box.side):
                for u in range(box.side):
                    weight = max(0.0, 1 - abs(v + 0.5 - (y + 0.5) * step) / width) * max(0.0, 1 - abs(u + 0.5 - (x + 0.5) * step) / width)
                    out[y, x] += weight * frame[box.top + v, box.left + u]
                    total += weight
            out[y, x] /= total
    return out


@pytest.mark.parametrize(("side", "size"), [(9, 4), (8, 4), (5, 8), (7, 6), (3, 9), (6, 1)])
def test_each_pixel_is_the_triangle_weighted_mean(side: int, size: int) -> None:
    frame, box = _noise(12, 15), Box(2, 5, side)
    assert np.abs(crop_resize(frame, box, size) - _by_definition(frame, box, size)).max() <= 0.501


@pytest.mark.parametrize(("side", "size"), [(1080, 112), (113, 112), (100, 112), (240, 19), (17, 1)])
def test_sizes_of_videos_give_the_same_mean(side: int, size: int) -> None:
    """The same formula for both axes one after the other, in float64."""
    frame, box = _noise(side + 3, side + 9), Box(2, 7, side)
    centers = (np.arange(size)[:, None] + 0.5) * (side / size)
    weights = np.maximum(0, 1 - np.abs(np.arange(side) + 0.5 - centers) / max(side / size, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("yv,vuc,xu->yxc", weights, frame[2:, 7 : 7 + side][:side].astype(float), weights, optimize=True)
    assert np.abs(crop_resize(frame, box, size) - expected).max() <= 0.501


def test_same_size_is_the_crop_itself() -> None:
    frame = _noise(10, 12)
    np.testing.assert_array_equal(crop_resize(frame, Box(1, 3, 8), 8), frame[1:9, 3:11])


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize(("side", "size"), [(40, 7), (7, 40), (31, 32)])
def test_a_constant_image_stays_constant(value: int, side: int, size: int) -> None:
    np.testing.assert_array_equal(crop_resize(np.full((40, 40, 3), value, np.uint8), Box(0, 0, side), size), value)


def test_half_size_of_a_ramp_by_hand() -> None:
    """Inner pixels weigh 1 3 3 1 (of 8), so a ramp keeps its values at the centres: 5 + 20 x. At the edges one weight
    falls away: (3 * 0 + 3 * 10 + 20) / 7 = 7.14 and (50 + 3 * 60 + 3 * 70) / 7 = 62.86 for 0 10 20 30 40 50 60 70.
    """
    ramp = _grey(np.tile(np.arange(0, 80, 10), (8, 1)))
    expected = [7, 25, 45, 63]
    assert crop_resize(ramp, Box(0, 0, 8), 4)[..., 0].tolist() == [expected] * 4
    assert crop_resize(ramp.transpose(1, 0, 2), Box(0, 0, 8), 4)[..., 1].T.tolist() == [expected] * 4


def test_twice_the_size_by_hand() -> None:
    """Centres at -0.25, 0.25, 0.75, 1.25: the edge pixels alone outside, a quarter and three quarters inside."""
    frame = _grey([[0, 100], [0, 100]])
    assert crop_resize(frame, Box(0, 0, 2), 4)[..., 2].tolist() == [[0, 25, 75, 100]] * 4


def test_a_half_is_rounded_up() -> None:
    assert crop_resize(_grey([[0, 1], [0, 1]]), Box(0, 0, 2), 1).tolist() == [[[1, 1, 1]]]


@settings(deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 20), st.integers(0, 10**6), st.integers(0, 254), st.integers(1, 255), st.data())
def test_no_pixel_leaves_the_range_of_the_crop(height: int, width: int, size: int, seed: int, low: int, spread: int, data: st.DataObject) -> None:
    frame = np.random.default_rng(seed).integers(low, min(low + spread, 255) + 1, (height, width, 3), np.uint8)
    side = data.draw(st.integers(1, min(height, width)))
    box = Box(data.draw(st.integers(0, height - side)), data.draw(st.integers(0, width - side)), side)
    crop = frame[box.top : box.top + side, box.left : box.left + side]
    resized = crop_resize(frame, box, size)
    assert resized.shape == (size, size, 3) and resized.dtype == np.uint8
    for channel in range(3):
        assert crop[..., channel].min() <= resized[..., channel].min() <= resized[..., channel].max() <= crop[..., channel].max()


def test_the_frame_is_not_written_to() -> None:
    frame = _noise(9, 9)
    frame.setflags(write=False)
    crop_resize(frame, Box(0, 0, 9), 4)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(240, 320, (0, 40, 240)), (320, 240, (40, 0, 240)), (7, 7, (0, 0, 7)), (5, 8, (0, 1, 5)), (1, 4, (0, 1, 1))],
)
def test_center_box_is_the_largest_centred_square(height: int, width: int, box: tuple[int, int, int]) -> None:
    assert center_box(height, width) == box
