"""``clipstep explain``: where a network looks in a video, and its predictions over time.

The heat map is the Grad-CAM (Selvaraju et al., 2017) of one class, on the layers that the architecture names (`Architecture.explained`). Each
subclip is explained with the states that the subclips before it left.
"""

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.preprocess import normalise
from clipstep.network.states import initial_states, outputs_of
from clipstep.network.videos import as_channels, read_subclips
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_folder
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.filesystem.overwrite import FolderKind, check_overwrite
from clipstep.training.data.encode import write_video
from clipstep.training.models import ARCHITECTURES
from clipstep.training.plots import explained_frames, plot_explanation
from clipstep.training.run import Run, load_run

EXPLANATION = FolderKind("explanation", "explanation.png", lambda _: ("explanation.mp4",))


@dataclass(frozen=True)
class Explanation:
    """The explanation of one video: frames ``(S * T, size, size, 3)`` uint8, heat ``(S * T, size, size)`` of 0..1, probabilities ``(S, classes)``."""

    frames: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


def explain_command(run: Path, video: Path, label: str | None, out: Path, force: bool) -> None:
    """``clipstep explain``, whose options are in cli.py."""
    click.get_current_context().with_resource(write_lock(out))
    check_overwrite(out, EXPLANATION, force=force)
    loaded = load_run(run)
    if label is not None and label not in loaded.info.labels:
        raise ClipstepError("unknown class", got=label, expected=f"one of {', '.join(loaded.info.labels)}")
    subclips = read_subclips(video, *loaded.info.shape[:2], fps=loaded.info.fps)
    rate, console = loaded.info.fps, new_console()
    explanation, index = explain(loaded, subclips, None if label is None else loaded.info.labels.index(label), console.is_terminal)
    name = loaded.info.labels[index]
    with atomic_folder(out, replace=force) as new:
        plot_explanation(new / "explanation.png", explanation.frames, explanation.heat, explanation.probabilities, loaded.info.labels, name, rate)
        write_video(new / "explanation.mp4", explained_frames(explanation.frames, explanation.heat, explanation.probabilities[:, index]), round(rate))
    last = explanation.probabilities[-1, index]
    console.print(f"{name}: {last:.3f} after {len(subclips)} subclips; wrote {out}/explanation.png and explanation.mp4")


def explain(run: Run, subclips: Tensor, label: int | None, show: bool = False) -> tuple[Explanation, int]:
    """Return the explanation of RGB ``subclips`` ``(S, T, size, size, 3)`` uint8, and the index of the class that it explains: ``label``, or the most
    probable class after the last subclip."""
    seen = as_channels(subclips, run.info.shape[2])
    states, before, every = initial_states(run.network), [], []
    with torch.no_grad():
        for subclip in seen:
            before.append(states)
            logits, *states = outputs_of(run.network(normalise(subclip[None], run.info.mean, run.info.std), *states))
            every.append(logits[0])
    probabilities = torch.stack(every).softmax(dim=1)
    label = int(probabilities[-1].argmax()) if label is None else label
    layers = [run.network.get_submodule(name) for name in ARCHITECTURES[run.info.architecture].explained]
    heats = []
    for subclip, held in zip(track(seen, "explaining", disable=not show, transient=True), before, strict=True):
        frames = normalise(subclip[None], run.info.mean, run.info.std)
        heats.append(torch.stack([_heat(run.network, layer, frames, held, label) for layer in layers]).sum(dim=0))
    heat = torch.stack(heats)
    scaled = (heat / heat.max().clamp(min=1e-12)).flatten(0, 1)
    return Explanation(subclips.flatten(0, 1).numpy(), scaled.numpy(), probabilities.numpy()), label


def _heat(network: nn.Module, layer: nn.Module, frames: Tensor, states: list[Tensor], label: int) -> Tensor:
    """Return the Grad-CAM of one layer, scaled up to the frames, ``(T, H, W)`` of at least 0."""

    def logits(frames: Tensor) -> Tensor:
        return outputs_of(network(frames, *states))[0]

    attribution = LayerGradCam(logits, layer).attribute(frames, label, relu_attributions=True)
    heat: Tensor = F.interpolate(attribution.detach(), frames.shape[2:], mode="trilinear", align_corners=False)[0, 0]
    return heat
