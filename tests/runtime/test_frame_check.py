"""What is pushed in place of a frame is refused, and what the message says makes a frame of it."""

import re
from typing import Any

import av
import numpy as np
import pytest
import torch

from clipstep.runtime import ClipstepError, StepModel
from clipstep.runtime.frame_check import check_frame

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
GREY = np.repeat(PICTURE[..., :1], 3, axis=2)
ALPHA = np.full((6, 8, 1), 255, np.uint8)


class Image:
    """As PIL's."""

    def getbands(self) -> tuple[str, ...]:
        return ("P",)

    def convert(self, mode: str) -> np.ndarray:
        assert mode == "RGB"
        return PICTURE


MADE_BY_THE_FIX: dict[str, tuple[Any, int, np.ndarray]] = {
    "PIL": (Image(), 0, PICTURE),
    "tensor": (torch.from_numpy(PICTURE), 0, PICTURE),
    "PyAV": (av.VideoFrame.from_ndarray(PICTURE, format="rgb24"), 0, PICTURE),
    "grey": (GREY[..., 0], 0, GREY),
    "grey with an axis": (GREY[..., :1], 0, GREY),
    "RGBA": (np.concatenate([PICTURE, ALPHA], axis=2), 0, PICTURE),
    "BGRA": (np.concatenate([PICTURE[..., ::-1], ALPHA], axis=2), 1, PICTURE),
    "channels first": (PICTURE.transpose(2, 0, 1), 0, PICTURE),
    "0 to 1": (PICTURE / np.float32(255), 0, PICTURE),
    "0 to 255": (PICTURE.astype(np.float64), 1, PICTURE),
    "16 bits": (PICTURE.astype(np.uint16) * 257, 0, PICTURE),
    "10 bits": (PICTURE.astype(np.uint16) * 4, 1, PICTURE),
    "int64": (PICTURE.astype(np.int64), 0, PICTURE),
}


@pytest.mark.parametrize("name", MADE_BY_THE_FIX)
def test_the_fix_in_the_message_makes_a_frame(model: StepModel, name: str) -> None:
    given, place, expected = MADE_BY_THE_FIX[name]
    stream = model.stream()
    with pytest.raises(ClipstepError, match=r"; expected uint8 \(H, W, 3\), RGB; push ") as error:
        stream.push(given)
    _, _, advice = str(error.value).partition("; push ")
    fixes = re.findall(r"(?:^|, or |, )(\S.*?) of ", advice)
    frame = eval(fixes[place], {"np": np, "frame": given, "image": given, "tensor": given})
    np.testing.assert_array_equal(check_frame(frame), expected)
    stream.push(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([[0, 0, 0]], r"must be a numpy array; got list; expected uint8 \(H, W, 3\), RGB$"),
        (None, r"must be a numpy array; got NoneType; expected uint8 \(H, W, 3\), RGB$"),
        ("video.mp4", r"got str; .*read a file with read_frames\(path\) and push its frames"),
        (PICTURE[None], r"got uint8 \(1, 6, 8, 3\); .*push the frames of a batch one by one"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\); expected uint8 \(H, W, 3\), RGB$"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 \(4, 4, 2\); expected uint8 \(H, W, 3\), RGB$"),
        (np.zeros(4, np.uint8), r"got uint8 \(4,\); expected uint8 \(H, W, 3\), RGB$"),
    ],
)
def test_what_is_no_frame_is_refused(frame: object, message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        check_frame(frame)
