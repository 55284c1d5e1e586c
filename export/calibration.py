"""Reads the videos on which the ranges of values of int8 artifacts are found."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clipstep.export.step import StepProgram
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video_folder import videos_in


def calibration_of(spec: NetworkSpec, program: StepProgram, paths: Sequence[Path | str]) -> tuple[Tensor, ...]:
    """Return the subclips `(S, T, H, W, C)` of each video, and of all videos in each folder, at the network's frames per second.

    Raises:
        VideoError: one cannot be read, or is shorter than a step.
        ClipstepError: the network takes no videos, or there is none in a folder.
    """
    if not paths:
        return ()
    if program.input.kind != "video":
        raise ClipstepError("--calibrate takes videos", got=f"a network for {program.input.kind}", fix="leave it out: its sample frames are taken")
    videos = [video for path in map(Path, paths) for video in (videos_in(path) if path.is_dir() else [path])]
    frames, size, _, channels = program.frames.shape
    return tuple(read_subclips(video, frames, size, channels, fps=spec.fps) for video in videos)
