"""Fine-tuning: start a training from the weights of a run, or of a file that another program wrote."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipstep.network.weights import load_weights, read_state
from clipstep.runtime.errors import ClipstepError
from clipstep.training.convert import ARCHITECTURE as PUBLISHED
from clipstep.training.convert import rename_published
from clipstep.training.data.trained_on import TrainedOn
from clipstep.training.models import build
from clipstep.training.run import CHECKPOINT, RunInfo, load_run


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start a training from. ``info`` is what their run says about them; None for a lone file."""

    source: Path
    weights: Mapping[str, Tensor]
    sha256: str
    info: RunInfo | None = None

    @property
    def trained_on(self) -> TrainedOn | None:
        """What the weights were trained on, as their run says it; None if nothing is known."""
        return None if self.info is None else TrainedOn.read(self.info.training, self.source)


def read_initial_weights(source: Path) -> InitialWeights:
    """Read the weights in a run's folder, or in a file as `read_state` takes it.

    Raises:
        ClipstepError: it is neither, or cannot be read.
    """
    if not source.exists():
        raise ClipstepError(f"--init {source}: no such run or file", expected="a run, or a file of weights", fix="check the path")
    if source.is_dir():
        if (source / CHECKPOINT).is_file() and not (source / "run.json").is_file():
            raise ClipstepError(f"--init {source}: holds a training that was stopped", fix="finish it with --resume first, or give a finished run")
        run = load_run(source)
        return InitialWeights(source, run.network.state_dict(), run.info.checkpoint_sha256, run.info)
    weights = read_state(source)
    return InitialWeights(source, weights, hashlib.sha256(source.read_bytes()).hexdigest())


def fine_tuning_config(initial: InitialWeights, architecture: str, given: Mapping[str, int], classes: int) -> tuple[str, dict[str, int]]:
    """Return the architecture and config to fine-tune a run with: the run's own, except for what is ``given`` and the number of classes.

    Raises:
        ClipstepError: the run is of another architecture than the one asked for.
    """
    assert initial.info is not None
    if architecture != initial.info.architecture:
        raise ClipstepError(
            f"--init {initial.source}: is of another architecture",
            got=initial.info.architecture,
            expected=architecture,
            fix=f"leave --architecture out, or start from a run of {architecture}",
        )
    return initial.info.architecture, {**initial.info.config, **given, "classes": classes}


def load_initial_weights(
    network: nn.Module, initial: InitialWeights, architecture: str, config: Mapping[str, int], labels: Sequence[str]
) -> dict[str, Any]:
    """Load the weights into the network and return what was done, for the run's summary.

    The head (the layers whose shape depends on the number of classes) is loaded only if the classes are the same: by their names in a run, and
    by their number in a file, which has no names. Otherwise it keeps its random weights.

    Raises:
        ClipstepError: the weights belong to another architecture, or to other input channels.
    """
    weights = rename_published(initial.weights) if architecture == PUBLISHED else initial.weights
    fresh = network.state_dict()
    wider = build(architecture, {**config, "classes": config["classes"] + 1}).state_dict()
    head = [name for name, value in fresh.items() if value.shape != wider[name].shape]
    fits = all(name in weights and weights[name].shape == fresh[name].shape for name in head)
    kept = fits and (initial.info is None or tuple(initial.info.labels) == tuple(labels))
    load_weights(
        network,
        weights if kept else {**weights, **{name: fresh[name] for name in head}},
        initial.source,
        f"start from a {architecture} of such frames",
    )
    return {
        "from": str(initial.source),
        "checkpoint_sha256": initial.sha256,
        "labels": None if initial.info is None else list(initial.info.labels),
        "head": "kept" if kept else "replaced",
        "normalisation": "measured" if initial.info is None else "kept",
    }


def describe_initial_weights(init: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Return a sentence that says where a fine-tuning starts from."""
    count = f"{len(labels)} class{'es' * (len(labels) != 1)}"
    of = "a file without class names" if init["labels"] is None else f"trained on {len(init['labels'])} classes"
    head = f"its head is kept for {count}" if init["head"] == "kept" else f"its head is replaced by a new one for {count}"
    normalisation = "its normalisation is kept" if init["normalisation"] == "kept" else "the normalisation is measured on the training videos"
    return f"starting from {init['from']} ({of}): {head}, {normalisation}"
