"""Checks the frames that are pushed into a stream, and says how other things become frames."""

import numpy as np

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.resize import Frame

EXPECTED = "uint8 (H, W, 3), RGB"


def check_frame(frame: object) -> Frame:
    """Return the frame if it is an `(H, W, 3)` uint8 array.

    Raises:
        ClipstepError: it is not. The message says what makes it one, where that is clear.
    """
    if not isinstance(frame, np.ndarray):
        raise ClipstepError("a frame must be a numpy array", got=type(frame).__name__, expected=EXPECTED, fix=_fix_of_object(frame))
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ClipstepError("a frame has the wrong shape or type", got=f"{frame.dtype} {frame.shape}", expected=EXPECTED, fix=_fix_of_array(frame))
    return frame


def _fix_of_object(frame: object) -> str | None:
    if hasattr(frame, "convert") and hasattr(frame, "getbands"):
        return 'push np.asarray(image.convert("RGB")) of a PIL image'
    if hasattr(frame, "detach"):
        return "push tensor.numpy() of a tensor, (H, W, 3) uint8"
    if hasattr(frame, "to_ndarray"):
        return 'push frame.to_ndarray(format="rgb24") of a PyAV frame'
    return "read a file with read_frames(path) and push its frames" if isinstance(frame, str) else None


def _fix_of_array(frame: np.ndarray) -> str | None:
    if frame.ndim == 4:
        return "push the frames of a batch one by one"
    if frame.ndim == 2:
        return "push np.repeat(frame[..., None], 3, axis=2) of a grey frame"
    if frame.ndim != 3 or 0 in frame.shape:
        return None
    if frame.shape[2] == 1:
        return "push np.repeat(frame, 3, axis=2) of a grey frame"
    if frame.shape[2] == 4:
        return "push frame[..., :3] of RGBA, or frame[..., 2::-1] of BGRA"
    if frame.shape[2] != 3:
        return "push frame.transpose(1, 2, 0) of a frame whose channels come first" if frame.shape[0] == 3 else None
    if np.issubdtype(frame.dtype, np.floating):
        return "push (255 * frame).round().astype(np.uint8) of numbers from 0 to 1, frame.round().astype(np.uint8) of numbers from 0 to 255"
    if frame.dtype == np.uint16:
        return "push (frame >> 8).astype(np.uint8) of 16 bits, (frame >> 2).astype(np.uint8) of 10 bits"
    return "push frame.astype(np.uint8) of numbers from 0 to 255"
