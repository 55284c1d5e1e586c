"""``clipstep convert``: write a checkpoint of the paper's published code as a run."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch import Tensor

from clipstep.network.weights import Checkpoint, load_checkpoint_weights, read_checkpoint, without_prefixes
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.training.data.lists import read_data_set
from clipstep.training.data.subclips import channel_statistics
from clipstep.training.data.trained_on import KEY, TrainedOn
from clipstep.training.models import ARCHITECTURES, build
from clipstep.training.models.slowfast_causal_shufflenet import STAGE_UNITS
from clipstep.training.probe import frame_rates, median_rate, sample_subclips
from clipstep.training.run import Run, RunInfo, check_out, save_run

ARCHITECTURE = "slowfast_published"
STEM = {"0": "stem", "1": "norm"}
UNIT = {"conv1": "conv1", "bn1": "norm1", "conv2": "depthwise", "bn2": "norm2", "conv3": "conv2", "bn3": "norm3"}


def convert_command(checkpoint: Path, data: Path, out: Path, force: bool, split: int, layout: str, frames: int, size: int) -> None:
    """``clipstep convert``, whose options are in cli.py."""
    click.get_current_context().with_resource(write_lock(out))
    check_out(out, force=force)
    found = read_checkpoint(checkpoint)
    found = replace(found, sets={key: rename_published(without_prefixes(weights)) for key, weights in found.sets.items()})
    described = _describe_weights(found)
    data_set = read_data_set(data, split, layout=layout, allow_leakage=True)
    config = {"classes": len(data_set.labels), "frames": frames, "size": size}
    network = build(ARCHITECTURE, config).eval()
    load_checkpoint_weights(
        network, found, f"give the data with the classes that it was trained on: it holds {described}, {data} has {len(data_set.labels)}"
    )
    console = new_console()
    console.print(f"read {checkpoint}: {', '.join(filter(None, (described, str(found))))}", soft_wrap=True)
    fps = median_rate(frame_rates(data_set.train))
    mean, std = channel_statistics(data_set.train, frames, size, fps=fps)
    info = RunInfo(
        ARCHITECTURE,
        config,
        data_set.labels,
        tuple(mean),
        tuple(std),
        fps,
        training={KEY: TrainedOn.of((*data_set.train, *data_set.validation)).values()},
    )
    save_run(out, Run(network, info, sample_subclips(data_set.test, frames, size, fps=fps)), replace=True)
    console.print(f"wrote {out}: {ARCHITECTURE}, {len(data_set.labels)} classes")


def _describe_weights(found: Checkpoint) -> str:
    """Return in words which architecture a checkpoint's weights belong to, and how many classes they have; empty if neither is known.

    Raises:
        ClipstepError: the weights belong to another known architecture, which a training takes directly.
    """
    names = next(iter(found.sets.values()))
    heads = [value for name, value in names.items() if name.endswith(".weight") and value.ndim == 2] or [Tensor()]
    classes = f"{len(heads[-1])} classes"
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            wanted = build(architecture, {"classes": 2, "frames": 16, "size": 112}).state_dict()
        if architecture == ARCHITECTURE:
            if len(wanted.keys() & names.keys()) > len(wanted) / 2:
                return f"{architecture}, {classes}"
        elif wanted.keys() == names.keys():
            raise ClipstepError(
                f"{found.path}: is of another architecture",
                got=f"{architecture}, {classes}",
                expected=ARCHITECTURE,
                fix=f"start a training from it: clipstep train DATA --architecture {architecture} --init {found.path}",
            )
    return ""


def rename_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of `PublishedSlowFast`; unknown names stay as they are."""
    return {_name(name): value for name, value in state.items()}


def _name(name: str) -> str:
    if match := re.fullmatch(r"(slow|fast)_conv\.([01])\.(\w+)", name):
        return f"{match[1]}_{STEM[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"(slow|fast)_shufflenet\.layer([123])\.(\d+)\.(conv[123]|bn[123])\.(\w+)", name):
        unit = sum(STAGE_UNITS[: int(match[2]) - 1]) + int(match[3])
        return f"{match[1]}_stages.{unit}.{UNIT[match[4]]}.{match[5]}"
    return name.replace("classifier.1.", "classifier.")
