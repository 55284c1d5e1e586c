"""Optical flow: how far each pixel moved since the previous frame, as an image of two channels, horizontal and vertical.

It is computed by OpenCV's dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016). Motion of -20..20 pixels
is mapped to 0..255, and what is beyond is clipped, as in Carreira and Zisserman, "Quo Vadis, Action Recognition?" (2017), section 3.
"""

import contextlib
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from clipstep.network.preprocess import FLOW
from clipstep.runtime.refcounted_context import RefCountedContext

LARGEST = 20.0
"""The motion, in pixels per frame, that is mapped to the end of the scale; larger motion is clipped."""
STILL = 128
"""The value of a pixel that did not move."""


@contextlib.contextmanager
def _no_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


_NO_THREADS = RefCountedContext(_no_threads)
"""Turns OpenCV's threads off while flow is computed: frames are small, and a forked decoding process does not have the threads that its parent
had started, so that OpenCV would wait for them forever."""


def optical_flow(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the optical flow ``(F, H, W, 2)`` uint8 of RGB ``frames`` ``(F, H, W, 3)`` uint8.

    Channel 0 is the motion to the right, channel 1 the motion downwards. The first frame has no previous one, so its flow is `STILL` everywhere.
    """
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
