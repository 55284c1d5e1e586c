"""Evaluate the artifacts of a bundle, each in its own runtime, and compare those of lower precision with a float32 artifact."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.console import Console

from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import Bundle, this_machine
from clipstep.runtime.bundle.manifest import Accuracy, AgainstFloat32, Artifact, Input
from clipstep.runtime.command_line.confidence_interval import paired_interval, wilson_interval
from clipstep.runtime.command_line.terminal import ProgressReporter
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.model import StepModel
from clipstep.training.data.lists import Clip, DataSet, read_data_set
from clipstep.training.data.trained_on import TrainedOn, check_unseen
from clipstep.training.drift import measure_drift
from clipstep.training.evaluation import check_classes, dataset_name, top_five_share
from clipstep.training.metrics import ranking, top_k_share
from clipstep.training.predict import VideoPrediction, bundle_logits, predict_videos

EXACT = "float32"
Predictions = Sequence[VideoPrediction]


@dataclass(frozen=True)
class Runnable:
    """An artifact, and what runs it on this computer."""

    artifact: Artifact
    runtime: str
    """The name of an engine, or of clipstep's own evaluator of the target's files."""
    load: Callable[[], Engine]


def read_unseen(
    data: Path, split: int, layout: str, labels: Sequence[str], training: Mapping[str, Any], what: object, *, allow_leakage: bool
) -> DataSet:
    """Read a data set of the classes `labels`, on whose test list the network `what` with that training summary is to be evaluated.

    Raises:
        ClipstepError: the data set is malformed or has other classes, or the network was trained on test videos and ``allow_leakage`` is false.
    """
    data_set = read_data_set(data, split, layout=layout, allow_leakage=allow_leakage)
    check_classes(labels, what, data, data_set)
    return check_unseen(data_set, TrainedOn.read(training, what), what, allow_leakage=allow_leakage)


def evaluate_artifacts(
    bundle: Bundle, runnables: Sequence[Runnable], data: Path, data_set: DataSet, drift_steps: int, progress: ProgressReporter
) -> tuple[dict[str, Accuracy], dict[str, str]]:
    """Evaluate artifacts on the test list of a data set, in this process.

    Args:
        bundle: the bundle.
        runnables: those of its artifacts to evaluate.
        data: the folder of the data set, as it was named.
        data_set: the data set, of the bundle's classes.
        drift_steps: over how many steps drift is measured; videos are repeated until there are so many.
        progress: returns the context in which a stage runs.

    Returns:
        The accuracy of each artifact by its file, and the videos that could not be used, each with the reason.

    Raises:
        ClipstepError: no video can be used, or an artifact gives outputs that are not finite.
    """
    predictions: dict[str, Predictions] = {}
    skipped: Mapping[str, str] = {}
    for runnable in runnables:
        with progress(f"evaluating {runnable.artifact.file}", False), _loaded(bundle, runnable) as model:
            predictions[runnable.artifact.file], skipped = _predicted(model, data_set.test)
    name, usable = dataset_name(data, data_set), [clip for clip in data_set.test if str(clip.shown_path) not in skipped]
    by_file = {runnable.artifact.file: runnable for runnable in runnables}
    artifacts = [runnable.artifact for runnable in runnables]
    accuracies = {}
    for file, runnable in by_file.items():
        against = None
        if runnable.artifact.precision != EXACT and (exact := exact_for(runnable.artifact, artifacts)) is not None:
            with progress(f"comparing {file} with {exact.file}", False):
                against = _against(bundle, runnable, by_file[exact.file], predictions, usable, drift_steps)
        predicted = predictions[file]
        accuracies[file] = Accuracy(
            dataset=name,
            engine=runnable.runtime,
            videos=len(predicted),
            crops=1,
            top1=top_k_share(predicted, 1),
            top5=top_five_share(predicted, bundle.manifest.labels),
            skipped_videos=len(skipped),
            processor=this_machine(),
            against_float32=against,
        )
    return accuracies, dict(skipped)


def exact_for(artifact: Artifact, artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the float32 artifact that one of lower precision is compared with; None if there is none.

    It is that of the same target and platform or, if there is none, of the same target or, if there is none either, the first of any target.
    """
    exact = [other for other in artifacts if other.precision == EXACT]
    return max(exact, key=lambda other: (other.target == artifact.target, other.platform == artifact.platform), default=None)


@contextmanager
def _loaded(bundle: Bundle, runnable: Runnable) -> Iterator[StepModel]:
    artifact = runnable.artifact
    interface = bundle.manifest.interface(artifact.input_dtype)
    with StepModel(interface, runnable.load(), f"{artifact.file} in {runnable.runtime}", precision=artifact.precision) as model:
        yield model


def _predicted(model: StepModel, clips: Sequence[Clip]) -> tuple[Predictions, Mapping[str, str]]:
    spec, kind = model.interface.input, model.interface.output_kind
    return predict_videos(partial(bundle_logits, model), clips, _shape(spec), spec.fps, Console(quiet=True), output_kind=kind)


def _shape(spec: Input) -> tuple[int, int, int]:
    frames, size, _, channels = spec.shape
    return frames, size, channels


def _against(
    bundle: Bundle, runnable: Runnable, exact: Runnable, predictions: Mapping[str, Predictions], clips: Sequence[Clip], drift_steps: int
) -> AgainstFloat32:
    own, other = predictions[runnable.artifact.file], predictions[exact.artifact.file]
    right = [(_best(one)[-1] == one.label, _best(two)[-1] == two.label) for one, two in zip(own, other, strict=True)]
    both, gained, lost, neither = (right.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))
    agreeing = [a == b for one, two in zip(own, other, strict=True) for a, b in zip(_best(one), _best(two), strict=True)]
    with _loaded(bundle, exact) as reference, _loaded(bundle, runnable) as rounded:
        drift = measure_drift(reference, rounded, _endless(clips, bundle.manifest.input), drift_steps)
    return AgainstFloat32(
        file=exact.artifact.file,
        engine=exact.runtime,
        top1=(both + lost) / len(right),
        top1_change=(gained - lost) / len(right),
        top1_change_interval=paired_interval(both, gained, lost, neither),
        gained_videos=gained,
        lost_videos=lost,
        steps=len(agreeing),
        agreeing_steps=sum(agreeing),
        agreement_interval=wilson_interval(sum(agreeing) / len(agreeing), len(agreeing)),
        drift_steps=drift_steps,
        drift=drift,
    )


def _best(prediction: VideoPrediction) -> list[int]:
    """Return the most probable class after each step of a video that has a prediction."""
    return [ranking(row)[0] for row in prediction.probabilities]


def _endless(clips: Sequence[Clip], spec: Input) -> Iterator[Array]:
    """Yield the subclips of the videos, one after the other, again and again."""
    for clip in cycle(clips):
        yield from read_subclips(clip.path, *_shape(spec), fps=spec.fps, cut=clip.cut).numpy()
