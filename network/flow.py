"""Optical flow: how each pixel moved since the frame before, as a picture of two channels for a network's second stream.

By OpenCV's dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016), horizontal and
vertical; -20..20 pixels become 0..255, cut off there as Carreira and Zisserman do ("Quo Vadis, Action Recognition?", 2017,
section 3).
"""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from clipstep.network.preprocess import FLOW
from clipstep.runtime.process import Shared

LARGEST = 20.0
"""Pixels between two frames that reach the end of the scale."""
STILL = 128


@contextlib.contextmanager
def _no_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


_NO_THREADS = Shared(_no_threads)
"""Frames are small, and threads that OpenCV started before a decoding process was forked are not in that."""


def optical_flow(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``(F, H, W, 2)`` uint8 from RGB ``(F, H, W, 3)`` uint8: x to the right, y down; the first frame has not moved."""
    with _NO_THREADS:
        return _flow(frames)


def _flow(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.full((*frames.shape[:3], FLOW), STILL, np.uint8)
    for moved, before, now in zip(flow[1:], grey, grey[1:], strict=False):
        pixels = search.calc(before, now, None)  # type: ignore[call-overload]
        moved[:] = np.clip(np.rint(pixels * (127 / LARGEST) + STILL), 0, 255)
    return flow
