"""Reads the videos on which the ranges of values of int8 artifacts are found."""

from pathlib import Path

from torch import Tensor

from clipstep.export.options import ExportOptions
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video_folder import videos_in


def calibration_of(spec: NetworkSpec, options: ExportOptions) -> tuple[Tensor, ...]:
    """Return the subclips `(S, T, H, W, C)` of each video, and of all videos in each folder, at the network's frames per second; T is that of a step.

    Raises:
        VideoError: one cannot be read, or is shorter than a step.
        ClipstepError: the network takes no videos, or there is none in a folder.
    """
    if not options.calibration:
        return ()
    if spec.input.kind != "video":
        raise ClipstepError("--calibrate takes videos", got=f"a network for {spec.input.kind}", fix="leave it out: its sample frames are taken")
    paths = map(Path, options.calibration)
    videos = [video for path in paths for video in (videos_in(path) if path.is_dir() else [path])]
    size, channels = spec.sample.shape[-2:]
    return tuple(read_subclips(video, options.stream or spec.frames, size, channels, fps=spec.fps) for video in videos)
