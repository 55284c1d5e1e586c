"""The files that a training writes while it runs: the log and, after each epoch, a checkpoint from which it can resume.

They are in the run's folder, or, if that holds a finished run already, in ``unfinished/`` inside it, so that the finished run stays intact until
the new one replaces it.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from clipstep.runtime.errors import ClipstepError
from clipstep.training.checkpoint import load_checkpoint, save_checkpoint
from clipstep.training.config import TrainingConfig
from clipstep.training.history import History
from clipstep.training.run import CHECKPOINT, LOG, RUN, UNFINISHED, load_run
from clipstep.training.trainer import Trainer

STATES = 10
"""About how much disk space a training needs, in multiples of the weights' bytes. A checkpoint holds the network, its average, two moments of the
optimizer and the best epoch, and the previous checkpoint is kept until the new one is complete. The run and the run of its last epoch, in `last/`,
need space too."""


def is_finished(out: Path) -> bool:
    """Whether the folder holds a finished run."""
    return (out / RUN.marker).is_file()


def is_up_to_date(out: Path) -> bool:
    """Whether the folder holds a finished run, and no checkpoint of a training that goes beyond it."""
    return is_finished(out) and not (out / UNFINISHED / CHECKPOINT).exists()


def progress_folder(out: Path) -> Path:
    """Return the folder in which a training that writes to ``out`` keeps its log and checkpoint."""
    return out / UNFINISHED if is_finished(out) else out


def check_room(out: Path, network: nn.Module) -> None:
    """Check before training that the disk has room for the run and its checkpoint.

    Raises:
        ClipstepError: there is not enough room.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    needed = STATES * sum(value.numel() * value.element_size() for value in network.state_dict().values())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ClipstepError(
            f"{out}: not enough room for the run and its checkpoint",
            got=f"{free / 1e6:.0f} MB free",
            expected=f"about {needed / 1e6:.0f} MB",
            fix="make room, or choose another --out",
        )


def load_progress(out: Path, settings: Mapping[str, Any], epochs: int) -> dict[str, Any] | None:
    """Read the checkpoint to resume from, for a training of ``epochs`` epochs with these ``settings``; None if there is nothing to resume.

    Raises:
        ClipstepError: the checkpoint belongs to a training with other settings, has more epochs already, or was deleted.
    """
    path = next((path for path in (out / UNFINISHED / CHECKPOINT, out / CHECKPOINT) if path.exists()), None)
    if path is None:
        if is_finished(out) and load_run(out).info.training.get("epochs_done") != 0:  # A run that was stopped in its first epoch never had one.
            raise ClipstepError(
                f"{out}: is finished, and has no {CHECKPOINT} to go on from", fix=f"fine-tune it: --init {out} and another --out, without --resume"
            )
        return None
    saved = load_checkpoint(path)
    other = {key: saved["settings"].get(key) for key in settings if saved["settings"].get(key) != settings[key]}
    if other:
        got = ", ".join(f"{key} {value}" if len(str(value)) < 40 else f"another {key}" for key, value in other.items())
        expected = ", ".join(f"{key} {settings[key]}" if len(str(settings[key])) < 40 else f"this {key}" for key in other)
        raise ClipstepError(
            f"{path}: belongs to another training", got=got, expected=expected, fix="give the same options as before, or choose another --out"
        )
    done = len(saved["history"]["rows"])
    if done > epochs:
        raise ClipstepError(f"{path}: has {done} epochs already", got=f"--epochs {epochs}", expected=f"at least {done}")
    return saved


def save_progress(folder: Path, settings: Mapping[str, Any], trainer: Trainer, history: History) -> None:
    """Write the log to ``folder`` and, after a complete epoch, the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    if history.rows[-1]["complete"]:
        facts = {"mean": trainer.info.mean, "std": trainer.info.std, "fps": trainer.info.fps, **trainer.info.training}
        save_checkpoint(folder / CHECKPOINT, {"settings": settings, "facts": facts, "trainer": trainer.state(), "history": vars(history)})
    (folder / LOG).write_text(history.csv(), encoding="utf-8")


def resume(trainer: Trainer, saved: Mapping[str, Any], config: TrainingConfig) -> tuple[History, str]:
    """Load a saved state into the trainer; return the history so far, and a sentence that says where the training goes on.

    With more epochs than before, a plateau schedule continues exactly as if all epochs had been planned from the start. A cosine schedule
    jumps to where the longer cosine is at that epoch; the result differs from a training planned with all epochs, because the first ones
    followed the shorter cosine.
    """
    trainer.load(saved["trainer"])
    history = History(**saved["history"])
    said = f"resuming after epoch {len(history.rows)} of {config.epochs}"
    if history.epochs != config.epochs:
        said += f" ({history.epochs} planned before)"
        if config.schedule == "cosine":
            before = trainer.learning_rate
            _follow_cosine(trainer, config.epochs)
            said += (
                f"; the learning rate goes from {before:g} to {trainer.learning_rate:g} and falls along the cosine of {config.epochs} epochs: "
                f"not exactly what {config.epochs} epochs from the start would give"
            )
        else:
            said += "; the learning rate continues as if all had been planned from the start"
        history.epochs = config.epochs
    return history, said


def _follow_cosine(trainer: Trainer, epochs: int) -> None:
    schedule = trainer.schedule
    schedule.T_max = epochs
    share = (1 + math.cos(math.pi * schedule.last_epoch / epochs)) / 2
    for group, base in zip(trainer.optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = schedule.eta_min + (base - schedule.eta_min) * share
