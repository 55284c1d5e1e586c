"""A cache of decoded frames on disk, as uint8, so that later epochs do not decode again."""

import hashlib
import io
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError, open_video, read_frames
from clipstep.runtime.video_images import shown_size

Frames = npt.NDArray[np.uint8]
ABANDONED_SECONDS = 3600
"""An unfinished file that is older than this is taken for one that a killed process left, and is deleted."""


@dataclass(frozen=True)
class FrameCache:
    """One file for each video: its frames in whole subclips, ``(S * T, h, w, 3)`` uint8.

    Files are written atomically, so that a killed process leaves none that could be read. The name is a hash of the video's path, size and
    modification time, so that a changed video is decoded again.
    """

    folder: Path

    def read(self, path: Path, frames: int, short_side: int, fps: float | None = None, *, cut: tuple[float, float] | None = None) -> Frames:
        """Return the frames of a video, or of the seconds ``cut`` of it, from the cache; if they are not there, decode them and put them there.

        Raises:
            VideoError: the video is gone, or cannot be used.
            ClipstepError: the cache cannot be written.
        """
        try:
            stat = path.stat()
        except OSError as error:
            raise VideoError(f"{path}: cannot be read", got=error.strerror or error, fix="put it back, or correct the list") from error
        key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {frames} {short_side} {fps}" + (f" {cut}" if cut else "")
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        try:
            kept: Frames = np.load(file, mmap_mode="r")
            return kept
        except (OSError, ValueError, EOFError):  # It is not there, or a power failure truncated it.
            decoded = decode(path, frames, short_side, fps, cut=cut)
        new = file.with_name(f".{file.name}.{os.getpid()}")
        content = io.BytesIO()  # NumPy's own writing to a file does not say why it failed.
        np.save(content, decoded)
        try:
            new.write_bytes(content.getbuffer())
            new.replace(file)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise ClipstepError(
                f"{self.folder}: cannot be written", got=error.strerror or error, fix="make room, or train without --cache"
            ) from error
        return decoded

    def prepare(
        self,
        videos: Sequence[Path],
        frames: int,
        short_side: int,
        fps: float | None = None,
        *,
        cuts: Sequence[tuple[float, float] | None] | None = None,
    ) -> tuple[int, int]:
        """Make the folder, delete files that killed processes left, and return two sizes of the cache in bytes: once full, and now.

        ``cuts`` are the seconds of each video that are meant; by default all of them.

        Raises:
            ClipstepError: the folder cannot be made, or its disk does not have the room.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClipstepError(f"{self.folder}: cannot be made", got=error.strerror or error, expected="a folder for the cache") from error
        for left in self.folder.glob(".*"):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink(missing_ok=True)
        full = sum(_decoded_bytes(path, frames, short_side, fps, cut) for path, cut in zip(videos, cuts or [None] * len(videos), strict=True))
        now = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        free = shutil.disk_usage(self.folder).free
        if full - now > free:
            raise ClipstepError(
                f"{self.folder}: not enough room for the cache",
                got=f"{free / 1e9:.1f} GB free",
                expected=f"{(full - now) / 1e9:.1f} GB more",
                fix="make room, or train without --cache",
            )
        return full, now


def decode(path: Path, frames: int, short_side: int, fps: float | None = None, *, cut: tuple[float, float] | None = None) -> Frames:
    """Decode a video's frames, or those of the seconds ``cut``, in whole subclips, ``(S * T, h, w, 3)`` uint8.

    They are scaled so that the short side is at most ``short_side``. ``fps`` is how many a second are taken, as `read_timed_frames` explains; None
    for every frame.
    """
    return np.stack(list(read_frames(path, fps=fps, whole=frames, short_side=short_side, threads=1, cut=cut)))


def _decoded_bytes(path: Path, frames: int, short_side: int, fps: float | None, cut: tuple[float, float] | None) -> int:
    """Return the bytes of the decoded frames as the container states their number, without decoding; 0 for a broken video."""
    try:
        with open_video(path) as (_, stream):
            rate = float(stream.average_rate or 0)
            count = stream.frames if cut is None else min(stream.frames, (cut[1] - cut[0]) * rate)
            count = int(count if fps is None or not rate else count * fps / rate)
            return count // frames * frames * math.prod(shown_size(stream.height, stream.width, stream.sample_aspect_ratio, short_side)) * 3
    except (VideoError, ZeroDivisionError):
        return 0
