"""Weights to start a training from: those of a run, or of a file that another program wrote."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipstep.network.weights import fill, read_state
from clipstep.runtime.errors import ClipstepError
from clipstep.training.convert import ARCHITECTURE as PUBLISHED
from clipstep.training.convert import converted
from clipstep.training.data.trained_on import TrainedOn
from clipstep.training.models import build
from clipstep.training.run import CHECKPOINT, RunInfo, load_run


@dataclass(frozen=True)
class Start:
    """A trained network's weights. ``info`` is what its run says of it; None for a lone file, which says nothing of itself."""

    source: Path
    weights: Mapping[str, Tensor]
    sha256: str
    info: RunInfo | None = None

    @property
    def trained_on(self) -> TrainedOn | None:
        """What its run says that it was trained on; None where nothing is said."""
        return None if self.info is None else TrainedOn.read(self.info.training, self.source)


def read_start(source: Path) -> Start:
    """The weights of a run's folder, or of a file of tensors as ``clipstep.network.weights.read_state`` takes it.

    Raises:
        ClipstepError: it is neither, or cannot be read.
    """
    if not source.exists():
        raise ClipstepError(f"--init {source}: no such run or file", expected="a run, or a file of weights", fix="check the path")
    if source.is_dir():
        if (source / CHECKPOINT).is_file() and not (source / "run.json").is_file():
            raise ClipstepError(f"--init {source}: holds a training that was stopped", fix="finish it with --resume first, or give a finished run")
        run = load_run(source)
        return Start(source, run.network.state_dict(), run.info.checkpoint_sha256, run.info)
    weights = read_state(source)
    return Start(source, weights, hashlib.sha256(source.read_bytes()).hexdigest())


def config_from(start: Start, architecture: str, given: Mapping[str, int], classes: int) -> tuple[str, dict[str, int]]:
    """The architecture and config to fine-tune a run with: its own, but for what is ``given`` and the number of classes.

    Raises:
        ClipstepError: the run is of another architecture than the one asked for.
    """
    assert start.info is not None
    if architecture != start.info.architecture:
        raise ClipstepError(
            f"--init {start.source}: is of another architecture",
            got=start.info.architecture,
            expected=architecture,
            fix=f"leave --architecture out, or start from a run of {architecture}",
        )
    return start.info.architecture, {**start.info.config, **given, "classes": classes}


def start_from(network: nn.Module, start: Start, architecture: str, config: Mapping[str, int], classes: Sequence[str]) -> dict[str, Any]:
    """Puts the weights into the network and gives what was done, for the run's summary.

    The head (the layers whose shape depends on the number of classes) keeps its random weights where the classes are others: where
    the run's names differ, or, of a file, which has no names, their number.

    Raises:
        ClipstepError: the weights are of another architecture, or of other channels.
    """
    weights = converted(start.weights) if architecture == PUBLISHED else start.weights
    fresh = network.state_dict()
    wider = build(architecture, {**config, "classes": config["classes"] + 1}).state_dict()
    head = [name for name, value in fresh.items() if value.shape != wider[name].shape]
    fits = all(name in weights and weights[name].shape == fresh[name].shape for name in head)
    kept = fits and (start.info is None or tuple(start.info.classes) == tuple(classes))
    fill(
        network, weights if kept else {**weights, **{name: fresh[name] for name in head}}, start.source, f"start from a {architecture} of such frames"
    )
    return {
        "from": str(start.source),
        "checkpoint_sha256": start.sha256,
        "classes": None if start.info is None else list(start.info.classes),
        "head": "kept" if kept else "replaced",
        "normalisation": "measured" if start.info is None else "kept",
    }


def said(init: Mapping[str, Any], classes: Sequence[str]) -> str:
    """One sentence that says where a fine-tuning starts from."""
    count = f"{len(classes)} class{'es' * (len(classes) != 1)}"
    of = "a file without class names" if init["classes"] is None else f"trained on {len(init['classes'])} classes"
    head = f"its head is kept for {count}" if init["head"] == "kept" else f"its head is replaced by a new one for {count}"
    normalisation = "its normalisation is kept" if init["normalisation"] == "kept" else "the normalisation is measured on the training videos"
    return f"starting from {init['from']} ({of}): {head}, {normalisation}"
