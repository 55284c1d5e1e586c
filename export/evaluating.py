"""The evaluation of the artifacts that an export has written, for `clipstep export --evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clipstep.export.targets import TARGETS
from clipstep.export.targets.target import ANY
from clipstep.runtime.bundle import Bundle, this_machine
from clipstep.runtime.bundle.manifest import Accuracy, Artifact, Manifest, RunProvenance
from clipstep.runtime.command_line.terminal import ProgressReporter
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra
from clipstep.runtime.isolated_engine import runs_here

if TYPE_CHECKING:
    from clipstep.network.spec import NetworkSpec

EXACT = "float32"
NAMED_LAYERS = 3
"""The most layers that a line names."""


@dataclass(frozen=True)
class EvaluationData:
    """The labelled videos on which an export evaluates its artifacts: the test list of a data set, as `clipstep evaluate` takes it.

    Raises:
        ClipstepError: a number is out of range.
    """

    path: Path | str
    """The folder of the data set."""
    split: int = 1
    """Which split of it."""
    layout: str = "auto"
    """Its layout; `auto` goes by its files."""
    allow_leakage: bool = False
    """Evaluate also on videos that the network was trained on, and only warn of them."""
    drift_steps: int = 1000
    """Over how many steps in a row the outputs of an artifact of lower precision are compared with those of float32; videos are repeated until there
    are so many."""

    def __post_init__(self) -> None:
        for name, number in (("split", self.split), ("drift_steps", self.drift_steps)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ClipstepError(f"{name} is out of range", got=number, expected="a whole number of at least 1")


@dataclass(frozen=True)
class EvaluatedArtifacts:
    """What the evaluation of an export found."""

    accuracies: Mapping[str, Accuracy]
    """By the artifact's file."""
    not_evaluated: Mapping[str, str]
    """The files of the other artifacts, each with the reason."""
    skipped_videos: Mapping[str, str]
    """The videos that could not be used, such as those that are too short, each with the reason."""
    warnings: tuple[str, ...]
    """What makes the result doubtful, such as test videos that the network may have been trained on."""

    def noted_in(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the accuracy of each artifact."""
        artifacts = tuple(artifact.model_copy(update={"accuracy": self.accuracies.get(artifact.file)}) for artifact in manifest.artifacts)
        return manifest.model_copy(update={"artifacts": artifacts})


Evaluate = Callable[[Path, ProgressReporter], EvaluatedArtifacts]
"""A function that evaluates the artifacts of the bundle in a folder, each stage inside the context that the reporter returns."""


def evaluation_of(data: EvaluationData, spec: NetworkSpec, *, every_platform: bool = False) -> Evaluate:
    """Read the lists of the labelled videos, before the long work of an export, and return the function that evaluates artifacts on them.

    With `every_platform`, artifacts for other processors are evaluated on this one, too.

    Raises:
        ClipstepError: the network takes no videos; the data set is malformed or has other classes, or the network was trained on its test
            videos; or a library that this needs is not installed.
    """
    if spec.input.kind != "video":
        raise ClipstepError("--evaluate is for networks that take videos", got=f"a network of {spec.input.kind}", fix="leave --evaluate out")
    try:  # Against the arrows: reading labelled videos is the business of training.
        from clipstep.training.artifact_accuracy import Runnable, evaluate_artifacts, read_unseen
    except ModuleNotFoundError as error:
        raise ClipstepError(f"--evaluate needs {error.name}, which is not installed", fix=install_extra("training")) from error
    training = spec.provenance.training if isinstance(spec.provenance, RunProvenance) else {}
    what, path = spec.provenance.source or "the network", Path(data.path)
    data_set = read_unseen(path, data.split, data.layout, spec.labels, training, what, allow_leakage=data.allow_leakage)

    def evaluate(folder: Path, progress: ProgressReporter) -> EvaluatedArtifacts:
        from clipstep.export.parity import load_for_verification, runtime_name  # Here, because the command's options need no PyTorch.

        with Bundle.open(folder, lazily=True) as bundle:
            reasons = {artifact.file: _why_not(artifact, every_platform=every_platform) for artifact in bundle.manifest.artifacts}
            runnables = [
                Runnable(artifact, runtime_name(artifact.target), partial(load_for_verification, artifact.target, bundle.file(artifact)))
                for artifact in bundle.manifest.artifacts
                if reasons[artifact.file] is None
            ]
            found = evaluate_artifacts(bundle, runnables, path, data_set, data.drift_steps, progress) if runnables else ({}, {})
        return EvaluatedArtifacts(found[0], {file: why for file, why in reasons.items() if why is not None}, found[1], data_set.warnings)

    return evaluate


def _why_not(artifact: Artifact, *, every_platform: bool) -> str | None:
    """Return why this computer cannot run an artifact, in an engine or in clipstep's own evaluator of its target; None if it can."""
    if TARGETS[artifact.target].evaluator is not None:
        return None
    if artifact.platform not in (ANY, this_machine()) and not every_platform:
        return f"it is for {artifact.platform}"
    return None if runs_here(artifact) else f"this processor does not compute in {artifact.precision}"


def fall_in_points(artifact: Artifact) -> float | None:
    """Return by how many percentage points the top-1 accuracy of an artifact is below that of float32; None if that was not measured."""
    against = None if artifact.accuracy is None else artifact.accuracy.against_float32
    if artifact.accuracy is None or against is None:
        return None
    return 100 * (against.lost_videos - against.gained_videos) / artifact.accuracy.videos


def sensitive_layers(artifact: Artifact) -> str:
    """Return the layers of an int8 artifact whose rounding moves the prediction most, with their shares of the change; empty if none has 1%."""
    layers = [one for one in artifact.placement.sensitive_layers[:NAMED_LAYERS] if one.share >= 0.01]
    return ", ".join(f"{one.layer} ({one.share:.0%})" for one in layers)


def _mixed(artifact: Artifact) -> str:
    """Return the advice for an artifact of int8 to compute its most sensitive layers in float32."""
    layers = sensitive_layers(artifact)
    return f", or with --float32-layers N: rounding moves the prediction most in {layers}" if layers else ""


def check_accuracy_drop(artifacts: tuple[Artifact, ...], most: float) -> None:
    """Check that no artifact of lower precision that was evaluated is less accurate than float32 by more than `most` percentage points.

    Raises:
        ClipstepError: one is, or one could not be compared.
    """
    for artifact in artifacts:
        if artifact.precision == EXACT or artifact.accuracy is None:
            continue
        against = artifact.accuracy.against_float32
        if against is None:
            raise ClipstepError(
                f"{artifact.file}: --max-accuracy-drop needs a float32 artifact to compare with", got="none", fix="add --precision float32"
            )
        fall, videos = fall_in_points(artifact), artifact.accuracy.videos
        if fall is not None and fall > most:
            low, high = (-100 * end for end in reversed(against.top1_change_interval))
            raise ClipstepError(
                f"{artifact.file}: its top-1 falls by {fall:.1f} points, from {against.top1:.1%} of {against.file} to "
                f"{artifact.accuracy.top1:.1%} of {videos} videos (95% interval of the fall {low:.1f} to {high:.1f} points)",
                expected=f"a fall of at most {most:g} points",
                fix=f"export it without that precision, or with a larger --max-accuracy-drop{_mixed(artifact)}",
            )
