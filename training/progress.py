"""What a training leaves on the disk while it goes on: its log and, after each epoch, its whole state, from which it can go on.

It lies in the run's folder; where that holds a finished run, in ``unfinished/`` inside it, so that the finished run stays whole until
the new one is.
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
from clipstep.training.course import Course
from clipstep.training.run import CHECKPOINT, LOG, RUN, UNFINISHED, load_run
from clipstep.training.trainer import Trainer

STATES = 10
"""How many times the weights' bytes a run takes at most while it is written: network, averages, the optimizer's two moments and the best
epoch in the checkpoint, which is written beside the previous one; the run itself and its last epoch."""


def is_finished(out: Path) -> bool:
    """Whether the folder holds a finished run."""
    return (out / RUN.marker).is_file()


def is_newest(out: Path) -> bool:
    """Whether the folder holds a finished run, and nothing further than it."""
    return is_finished(out) and not (out / UNFINISHED / CHECKPOINT).exists()


def progress_folder(out: Path) -> Path:
    """Where the training in the run's folder keeps its log and checkpoint."""
    return out / UNFINISHED if is_finished(out) else out


def check_room(out: Path, network: nn.Module) -> None:
    """Makes sure before training that the disk has room for the run and its checkpoint.

    Raises:
        ClipstepError: it has not.
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


def saved_state(out: Path, about: Mapping[str, Any], epochs: int) -> dict[str, Any] | None:
    """The state to go on from with so many ``epochs``; None where nothing was begun.

    Raises:
        ClipstepError: it is of another training than the one that is ``about`` this, is further than that, or was deleted.
    """
    path = next((path for path in (out / UNFINISHED / CHECKPOINT, out / CHECKPOINT) if path.exists()), None)
    if path is None:
        if is_finished(out) and load_run(out).info.training.get("epochs_done") != 0:  # In its first epoch there was none to keep.
            raise ClipstepError(
                f"{out}: is finished, and has no {CHECKPOINT} to go on from", fix=f"fine-tune it: --init {out} and another --out, without --resume"
            )
        return None
    saved = load_checkpoint(path)
    other = {key: saved["about"].get(key) for key in about if saved["about"].get(key) != about[key]}
    if other:
        got = ", ".join(f"{key} {value}" if len(str(value)) < 40 else f"another {key}" for key, value in other.items())
        expected = ", ".join(f"{key} {about[key]}" if len(str(about[key])) < 40 else f"this {key}" for key in other)
        raise ClipstepError(f"{path}: is of another training", got=got, expected=expected, fix="give the options of then, or choose another --out")
    done = len(saved["course"]["rows"])
    if done > epochs:
        raise ClipstepError(f"{path}: is after epoch {done} already", got=f"--epochs {epochs}", expected=f"at least {done}")
    return saved


def keep(folder: Path, about: Mapping[str, Any], trainer: Trainer, course: Course) -> None:
    """Puts the log there and, after a whole epoch, the state."""
    folder.mkdir(parents=True, exist_ok=True)
    if course.rows[-1]["whole"]:
        facts = {"mean": trainer.info.mean, "std": trainer.info.std, "fps": trainer.info.fps}
        save_checkpoint(folder / CHECKPOINT, {"about": about, "facts": facts, "trainer": trainer.state(), "course": vars(course)})
    (folder / LOG).write_text(course.csv(), encoding="utf-8")


def taken_up(trainer: Trainer, saved: Mapping[str, Any], config: TrainingConfig) -> tuple[Course, str]:
    """Puts a saved state into the trainer; gives the course so far, and in a sentence where it goes on.

    With more epochs than it was begun with, a learning rate that falls on a plateau goes on as if there had been so many from the
    start. One that follows a cosine falls anew, from where the longer cosine is at that epoch: what comes out is not what a training
    of so many epochs from the start gives, because the first ones followed the shorter cosine.
    """
    trainer.load(saved["trainer"])
    course = Course(**saved["course"])
    said = f"going on after epoch {len(course.rows)} of {config.epochs}"
    if course.epochs != config.epochs:
        said += f", which were to be {course.epochs}"
        if config.schedule == "cosine":
            before = trainer.learning_rate
            _follow_cosine(trainer, config.epochs)
            said += (
                f"; the learning rate goes from {before:g} to {trainer.learning_rate:g} and falls along the cosine of {config.epochs} epochs: "
                f"not exactly what {config.epochs} epochs from the start would give"
            )
        else:
            said += "; the learning rate goes on as if there had been so many from the start"
        course.epochs = config.epochs
    return course, said


def _follow_cosine(trainer: Trainer, epochs: int) -> None:
    schedule = trainer.schedule
    schedule.T_max = epochs
    share = (1 + math.cos(math.pi * schedule.last_epoch / epochs)) / 2
    for group, base in zip(trainer.optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = schedule.eta_min + (base - schedule.eta_min) * share
