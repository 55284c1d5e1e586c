"""Reads the videos on which the ranges of values of int8 artifacts are found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from clipstep.export.options import ExportOptions
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.video import VideoError
from clipstep.runtime.video_folder import videos_in


@dataclass(frozen=True)
class Calibration:
    """The videos of a calibration that could be read."""

    videos: tuple[Tensor, ...] = ()
    """Each as its subclips `(S, T, H, W, C)`, at the network's frames per second; T is that of a step."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """The others, which are too short or cannot be decoded, each with the reason."""


def calibration_of(spec: NetworkSpec, options: ExportOptions) -> Calibration:
    """Read each video of `options.calibration`, and all videos in each folder. In a folder, those that cannot be used are skipped.

    Raises:
        VideoError: one that is named itself cannot be read, or is shorter than a step.
        ClipstepError: the network takes no videos, or there is none in a folder that can be used.
    """
    if not options.calibration:
        return Calibration()
    if spec.input.kind != "video":
        raise ClipstepError("--calibrate takes videos", got=f"a network for {spec.input.kind}", fix="leave it out: its sample frames are taken")
    size, channels = spec.sample.shape[-2:]
    videos, skipped = list[Tensor](), dict[str, str]()
    for path in map(Path, options.calibration):
        found = videos_in(path) if path.is_dir() else [path]
        before = len(videos)
        for video in found:
            try:
                videos.append(read_subclips(video, options.stream or spec.frames, size, channels, fps=spec.fps))
            except VideoError as error:
                if video is path:
                    raise
                skipped[str(video)] = str(error).removeprefix(f"{video}: ")
        if len(videos) == before:
            raise ClipstepError(
                f"{path}: no video in it can be calibrated on", got="; ".join(f"{video}: {why}" for video, why in skipped.items())[:300]
            )
    return Calibration(tuple(videos), skipped)
