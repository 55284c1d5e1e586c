"""Optical flow: how each pixel moved since the frame before, as a picture of two channels for a network's second stream.

By OpenCV's dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016), horizontal and
vertical; -20..20 pixels become 0..255, cut off there as Carreira and Zisserman do ("Quo Vadis, Action Recognition?", 2017,
section 3).
"""

import cv2
import numpy as np
import numpy.typing as npt

CHANNELS = 2
LARGEST = 20.0
"""Pixels between two frames that reach the end of the scale."""
STILL = 128

cv2.setNumThreads(0)  # Frames are small, and OpenCV's threads do not survive in the decoding processes.


def optical_flow(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``(F, H, W, 2)`` uint8 from RGB ``(F, H, W, 3)`` uint8: x to the right, y down; the first frame has not moved."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.full((*frames.shape[:3], CHANNELS), STILL, np.uint8)
    for moved, before, now in zip(flow[1:], grey, grey[1:], strict=False):
        pixels = search.calc(before, now, None)  # type: ignore[call-overload]
        moved[:] = np.clip(np.rint(pixels * (127 / LARGEST) + STILL), 0, 255)
    return flow
