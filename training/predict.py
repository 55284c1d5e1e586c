"""Predictions of a network, or of a bundle in its engine, after each subclip of a video."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from clipstep.network.preprocess import normalise
from clipstep.network.states import initial_states, outputs_of
from clipstep.network.videos import read_views
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.output_kind import OutputKind, probabilities_of
from clipstep.runtime.resize import Box, center_box
from clipstep.runtime.subclip_stream import SubclipStream
from clipstep.runtime.video import VideoError
from clipstep.training.data.lists import Clip
from clipstep.training.data.subclips import CORNER_SCALES, corner_square
from clipstep.training.run import RunInfo


@torch.no_grad()
def video_logits(network: nn.Module, subclips: Tensor, info: RunInfo, *, reset: bool = False) -> Tensor:
    """Return the logits ``(S, classes)`` after each subclip of one video, ``subclips`` ``(S, T, H, W, channels)`` uint8.

    With ``reset`` each step starts from the initial states: what the network predicts without its memory.
    """
    device = next(iter(network.parameters()), torch.empty(0)).device
    initial = states = [state.to(device) for state in initial_states(network)]
    every = []
    for subclip in subclips:
        states = initial if reset else states
        logits, *states = outputs_of(network(normalise(subclip[None].to(device), info.mean, info.std), *states))
        every.append(logits[0])
    return torch.stack(every)


def bundle_logits(model: StepModel, subclips: Tensor, *, reset: bool = False) -> Tensor:
    """Return the logits ``(P, classes)`` after each subclip of one video from a bundle in its engine.

    A bundle with a delay gives none for the first subclips, so that P may be less than S. At the end the video is flushed, so that the last
    logits are those of the whole video. With ``reset`` each subclip is a video of its own.

    Raises:
        VideoError: the video is shorter than the bundle needs.
    """
    session, every = SubclipStream(model), []
    for index, subclip in enumerate(subclips, 1):
        logits = session.step(subclip.numpy().astype(model.interface.input.dtype, copy=False))
        if reset or index == len(subclips):
            whole = session.flush()
            logits = logits if whole is None else whole
        if logits is not None:
            every.append(torch.from_numpy(logits.copy()))
    if not every:
        frames, needed = subclips.shape[1], model.interface.frames_needed
        raise VideoError("too short", got=f"{len(subclips) * frames} frames in whole steps of {frames}", expected=f"at least {needed}")
    return torch.stack(every)


@dataclass(frozen=True)
class VideoPrediction:
    """A video, the index ``label`` of its true class, and the ``probabilities`` ``(S - silent, classes)`` after each of its S subclips.

    The ``silent`` first subclips have none, because a network with a delay predicts nothing after them.
    """

    path: Path
    label: int
    probabilities: Tensor
    silent: int = 0

    def __repr__(self) -> str:
        subclips, classes = self.probabilities.shape
        return f"<VideoPrediction of {self.path}, of class {self.label}: {classes} probabilities after each of {subclips} subclips>"


def predict_videos(
    logits: Callable[[Tensor], Tensor],
    clips: Sequence[Clip],
    shape: tuple[int, int, int],
    fps: float | None,
    console: Console,
    *,
    crops: int = 1,
    output_kind: OutputKind = "logits",
) -> tuple[list[VideoPrediction], Mapping[str, str]]:
    """Predict the videos of a list, one at a time: return the predictions in the list's order, and the unusable videos with the reason.

    ``logits`` is called with the subclips of a video, ``(S, T, size, size, channels)`` uint8, and returns the network's output after each of them,
    or after all but the first ones; ``output_kind`` says whether that is logits or probabilities. ``shape`` is ``(T, size, channels)``, and ``fps``
    the rate that the videos are read at, None for every frame. With 5 ``crops`` the probabilities of the centre and of the four corners are
    averaged.

    Raises:
        VideoError: none of the videos can be used.
        ClipstepError: the network's outputs for a video are not finite.
    """
    found, unusable = [], {}
    for clip in track(clips, "predicting", console=console, disable=not console.is_terminal, transient=True):
        try:
            views = read_views(clip.path, *shape, _boxes(crops), fps, cut=clip.cut)
            probabilities = torch.stack([torch.from_numpy(probabilities_of(logits(view).cpu().numpy(), output_kind)) for view in views]).mean(dim=0)
        except VideoError as error:
            unusable[str(clip.shown_path)] = str(error)
            continue
        if not bool(probabilities.isfinite().all()):
            raise ClipstepError(
                f"{clip.shown_path}: the network's outputs are not finite", got="NaN among the probabilities", fix="train it again, or verify it"
            )
        found.append(VideoPrediction(clip.shown_path, clip.label, probabilities, len(views[0]) - len(probabilities)))
    if not found:
        raise VideoError(f"no usable video: {next(iter(unusable.values()), 'the list is empty')}")
    return found, unusable


def fused(first: Sequence[VideoPrediction], second: Sequence[VideoPrediction]) -> list[VideoPrediction]:
    """Late fusion: return the mean of the probabilities of two networks on the same videos, after each subclip for which both have some."""
    return [_fused(one, other) for one, other in zip(first, second, strict=True)]


def _fused(one: VideoPrediction, other: VideoPrediction) -> VideoPrediction:
    rows = min(len(one.probabilities), len(other.probabilities))
    return replace(one, probabilities=(one.probabilities[-rows:] + other.probabilities[-rows:]) / 2, silent=max(one.silent, other.silent))


def _boxes(crops: int) -> list[Callable[[int, int], Box]]:
    return [center_box, *(partial(corner_square, corner=corner, scale=CORNER_SCALES[1]) for corner in range(crops - 1))]
