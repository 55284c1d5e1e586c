"""A square of a frame, resized as planes: within rounding of the pixels that ITU-T H.273 defines, cropped and resized in float64."""

from fractions import Fraction

import av
import numpy as np
import pytest

from clipstep.runtime.resize import Box, crop_resize
from clipstep.runtime.video_images import ImageConverter

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
STEPS = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (1, 2),
    "yuv444p": (1, 1),
    "yuv420p10le": (2, 2),
    "yuv422p12le": (1, 2),
    "yuva420p": (2, 2),
}


def made(pixels: str, height: int, width: int, matrix: int, full: bool) -> tuple[av.VideoFrame, np.ndarray]:
    """A frame of random samples, and its image as float64 RGB: each sample of chroma belongs to the pixels of its step."""
    random, frame = np.random.default_rng(height), av.VideoFrame(width, height, pixels)
    bits = frame.format.components[0].bits
    planes = []
    for plane, component in zip(frame.planes, frame.format.components, strict=True):
        low, high = (0, 256) if full else (40, 200)
        values = random.integers(low << (bits - 8), high << (bits - 8), (component.height, component.width))
        kind = np.dtype("u1" if bits == 8 else "<u2")
        rows = np.zeros((component.height, plane.line_size // kind.itemsize), kind)
        rows[:, : component.width] = values
        plane.update(rows.tobytes())
        planes.append(values * 255 / (2**bits - 1) if full else values / (1 << (bits - 8)))
    down, across = STEPS[pixels]
    y, u, v = planes[0], *(np.repeat(np.repeat(plane, down, 0), across, 1)[:height, :width] for plane in planes[1:3])
    red, blue = WEIGHTS[matrix]
    if full:
        u, v = (plane - 2 ** (bits - 1) * 255 / (2**bits - 1) for plane in (u, v))
    else:
        y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame, np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)


def resized(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """The triangle filter over the square, widened when it shrinks, in float64."""
    crop = image[box.top : box.top + box.side, box.left : box.left + box.side]
    step = box.side / size
    distance = np.abs(np.arange(box.side) - ((np.arange(size) + 0.5) * step - 0.5)[:, None]) / max(step, 1)
    weights = np.clip(1 - distance, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("iy,jx,yxc->ijc", weights, weights, crop).clip(0, 255)


@pytest.mark.parametrize("pixels", STEPS)
@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (9, True), (7, False)])
@pytest.mark.parametrize(("height", "width", "box", "size"), [(54, 96, Box(0, 21, 54), 13), (37, 51, Box(3, 5, 31), 31), (30, 40, Box(0, 0, 24), 40)])
def test_squares_are_those_of_the_definition(pixels: str, matrix: int, full: bool, height: int, width: int, box: Box, size: int) -> None:
    """Shrunk, as large as it is, and enlarged; with odd sizes and places. Random chroma leaves 0..255, so some numbers are clipped."""
    frame, image = made(pixels, height, width, matrix, full or pixels == "yuvj420p")
    got = ImageConverter(None, None).square(frame, box, size)
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    assert np.abs(got - resized(image, box, size)).max() <= 0.51


@pytest.mark.parametrize(
    ("samples", "levels"),
    [((1023, 512, 512), (255, 255, 255)), ((1020, 512, 512), (254, 254, 254)), ((600, 512, 700), (223, 128, 150))],
)
def test_all_words_of_full_range_are_levels(samples: tuple[int, int, int], levels: tuple[int, int, int]) -> None:
    """1020 of 1023 is 254.25 of 255. With BT.709, 600 and 188 above the middle: red 149.56 + 1.5748 * 46.86, green 149.56 - 0.4681 * 46.86."""
    frame = av.VideoFrame(16, 16, "yuv444p10le")
    for plane, sample in zip(frame.planes, samples, strict=True):
        plane.update(np.full((16, plane.line_size // 2), sample, "<u2").tobytes())
    frame.colorspace, frame.color_range = 1, 2
    assert ImageConverter(None, None).square(frame, Box(0, 0, 16), 4)[1, 2].tolist() == list(levels)


def test_a_frame_that_has_no_planes_or_no_square_pixels_gives_the_square_of_its_image() -> None:
    random = np.random.default_rng(0)
    rgb = av.VideoFrame.from_ndarray(random.integers(0, 256, (40, 60, 3), np.uint8), format="rgb24")
    for frame, aspect in ((rgb, None), (rgb.reformat(format="gray"), None), (rgb.reformat(format="yuv420p"), Fraction(2))):
        images = ImageConverter(aspect, None)
        height, width = images.shape(frame)
        assert (height, width) == images.image(frame).shape[:2] == ((40, 120) if aspect else (40, 60))
        np.testing.assert_array_equal(images.square(frame, Box(2, 9, 30), 11), crop_resize(images.image(frame), Box(2, 9, 30), 11))


@pytest.mark.parametrize(("height", "width"), [(37, 51), (36, 51), (37, 50)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p"])
def test_images_of_an_odd_size_are_within_a_level_of_the_definition(pixels: str, height: int, width: int) -> None:
    """The last row and column have samples of chroma of their own."""
    frame, image = made(pixels, height, width, 1, full=False)
    got = ImageConverter(None, None).image(frame)
    assert np.abs(got - image.clip(0, 255)).max() <= 1.01
