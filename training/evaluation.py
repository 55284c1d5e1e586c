"""Evaluate a run in PyTorch, or a bundle in its engine, on the test list of a data set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from clipstep.runtime.bundle import is_bundle, open_for_command
from clipstep.runtime.command_line.confidence_interval import wilson_interval
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.model import StepModel
from clipstep.runtime.output_kind import OutputKind
from clipstep.training.choices import AUTO
from clipstep.training.data.lists import DataSet, read_data_set
from clipstep.training.data.trained_on import TrainedOn, check_unseen
from clipstep.training.metrics import SEEN, confusion_matrix, largest_share, top_k_share, top_k_when_seen
from clipstep.training.predict import VideoPrediction, bundle_logits, predict_videos, video_logits
from clipstep.training.run import load_run


@dataclass(frozen=True)
class Evaluation:
    """What a run or a bundle predicts for the videos of a test list."""

    description: str
    """What was evaluated, such as an artifact and its engine."""
    labels: tuple[str, ...]
    predictions: tuple[VideoPrediction, ...]
    """In the order of the list, without the videos that were skipped."""
    skipped: Mapping[str, str]
    """The videos that could not be used, such as those that are too short, each with the reason."""
    warnings: tuple[str, ...]

    @property
    def top1(self) -> float:
        """The share of the videos whose class is the most probable one at their end."""
        return top_k_share(self.predictions, 1)

    @property
    def top1_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of `top1`, Wilson's."""
        return wilson_interval(self.top1, len(self.predictions))

    @property
    def top5(self) -> float | None:
        """The share of the videos whose class is among the five most probable ones; None if there are no more than five classes."""
        return top_five_share(self.predictions, self.labels)

    def __repr__(self) -> str:
        return f"<Evaluation of {self.description}: top-1 {self.top1:.1%} of {len(self.predictions)} videos>"


def evaluate(
    what: Path | str,
    data: Path | str,
    *,
    split: int = 1,
    layout: str = AUTO,
    engine: str = "onnxruntime",
    precision: str = "float32",
    threads: int = 1,
    crops: int = 1,
    signer: Path | None = None,
    allow_leakage: bool = False,
) -> Evaluation:
    """Evaluate a run, or the artifact of a bundle in its own engine, on the test list of a data set, as `clipstep evaluate` does.

    Args:
        what: the folder of a run, or a bundle.
        data: the folder of a data set of the same classes.
        split: which split of the data set; see `read_data_set`.
        layout: the data set's layout.
        engine: the engine that runs a bundle's artifact.
        precision: the precision of that artifact.
        threads: how many threads the engine has.
        crops: 1, or 5 to average the probabilities of the centre and the four corners.
        signer: a PEM file with the public key that must have signed the bundle.
        allow_leakage: evaluate also on videos that the network was trained on, and say so in the warnings.

    Raises:
        ClipstepError: the data set is malformed or of other classes; the bundle has no such artifact, or this processor cannot run it; or no video
            can be used.

    Example:
        ```python
        result = evaluate("fight.clipstep", "fight", split=2, engine="executorch", precision="float16")
        print(result.top1, result.top1_interval)
        ```
    """
    what, data = Path(what), Path(data)
    if crops not in (1, 5):
        raise ClipstepError("a video has no such number of crops", got=crops, expected="1 or 5")
    data_set = read_data_set(data, split, layout=layout, allow_leakage=allow_leakage)
    with open_model(what, signer, engine, threads, precision) as model:
        check_comparable(model, model, data, data_set)
        data_set = check_unseen(data_set, model.trained_on, what, allow_leakage=allow_leakage)
        logits = partial(model.logits, reset=False)
        quiet = Console(quiet=True)
        found, skipped = predict_videos(logits, data_set.test, model.shape, model.fps, quiet, crops=crops, output_kind=model.output_kind)
        return Evaluation(model.description, model.labels, tuple(found), skipped, data_set.warnings)


@dataclass(frozen=True)
class EvaluatedModel:
    """A run or a bundle to evaluate: its class names, the shape ``(T, size, channels)`` of a subclip, its frames a second, and how it predicts.

    ``logits(subclips, reset=...)`` returns the outputs after each subclip of a video; ``reset`` resets the states before each of them.
    """

    what: Path
    description: str
    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    fps: float
    logits: Callable[..., Tensor]
    trained_on: TrainedOn | None = None
    """What it was trained on; None if it does not say."""
    output_kind: OutputKind = "logits"
    """What these outputs hold: logits, probabilities, or several labels at once."""


@contextmanager
def open_model(
    what: Path, signer: Path | None, engine: str, threads: int, precision: str, *, reset_each_step: bool = False
) -> Iterator[EvaluatedModel]:
    """Open a run, or a bundle whose artifact of that precision is then loaded into the engine, in a process of its own.

    Raises:
        ClipstepError: it is damaged or takes no videos; or the bundle has no such artifact, or one that this processor does not run.
    """
    if is_bundle(what):
        with ExitStack() as stack:
            bundle = stack.enter_context(open_for_command(what, signer, lazily=True))
            model = stack.enter_context(StepModel.load(bundle, engine, threads, isolated=True, precision=precision))
            if model.precision != precision:
                raise ClipstepError(
                    f"{what}: its {precision} artifact cannot be evaluated here, because this processor does not compute in {precision}",
                    fix=f"evaluate it on one that does, or the {model.precision} artifact with --precision {model.precision}",
                )
            spec = model.interface.input
            if spec.kind != "video":
                raise ClipstepError(f"{what}: takes no videos", got=f"a bundle for {spec.content}", expected="one for RGB frames or optical flow")
            frames, size, _, channels = spec.shape
            if reset_each_step and model.interface.frames_needed > frames:
                raise ClipstepError(
                    f"--reset-each-step: {what} says nothing after a step from its initial states",
                    got=f"steps of {frames} frames",
                    expected=f"{model.interface.frames_needed} frames",
                    fix="evaluate it without, or export it with a larger --stream",
                )
            yield EvaluatedModel(
                what,
                f"{what}: {model.description}",
                model.labels,
                (frames, size, channels),
                spec.fps,
                lambda subclips, reset: bundle_logits(model, subclips, reset=reset),
                TrainedOn.read(bundle.manifest.training, what),
                model.interface.output_kind,
            )
        return
    run = load_run(what)
    yield EvaluatedModel(
        what,
        f"{what}: the network in PyTorch",
        run.info.labels,
        run.info.shape,
        run.info.fps,
        lambda subclips, reset: video_logits(run.network, subclips, run.info, reset=reset),
        TrainedOn.read(run.info.training, what),
    )


def dataset_name(data: Path, data_set: DataSet) -> str:
    """Return what a manifest calls a test list, and whether videos of it were trained on."""
    return f"{data}, {data_set.test_list}{', some of whose videos it was trained on or counts twice' if data_set.leaks else ''}"


def check_comparable(model: EvaluatedModel, first: EvaluatedModel, data: Path, data_set: DataSet) -> None:
    """Check that a model has the classes of the data set, and that its probabilities can be averaged with those of the `first` model.

    Raises:
        ClipstepError: it has not, or they cannot.
    """
    check_classes(model.labels, model.what, data, data_set)
    if model.output_kind.startswith("multilabel") != first.output_kind.startswith("multilabel"):
        raise ClipstepError(
            f"{model.what}: its classes {'exclude each other' if first.output_kind.startswith('multilabel') else 'do not exclude each other'}",
            got=model.output_kind,
            expected=f"{first.output_kind} as of the first, to average the probabilities",
        )
    if model.shape[0] != first.shape[0]:
        raise ClipstepError(
            f"{model.what}: has subclips of another length", got=f"{model.shape[0]} frames", expected=f"{first.shape[0]} as the first"
        )


def check_classes(labels: Sequence[str], what: object, data: Path, data_set: DataSet) -> None:
    """Check that a data set has the classes of the network `what`, in the same order.

    Raises:
        ClipstepError: it has others.
    """
    if tuple(labels) != data_set.labels:
        raise ClipstepError(
            f"{data}: has other classes than {what}",
            got=", ".join(data_set.labels),
            expected=", ".join(labels),
            fix="evaluate on the classes that were trained",
        )


def summarise(predictions: Sequence[VideoPrediction], labels: Sequence[str], unusable: Mapping[str, str]) -> dict[str, Any]:
    """Return all figures of an evaluation as JSON values; shares are between 0 and 1."""
    matrix = confusion_matrix(predictions, len(labels))
    seen = {f"{share:.1f}": top_k_when_seen(predictions, 1, share) for share in SEEN}
    videos = matrix.sum(axis=1)
    return {
        "videos": len(predictions),
        "skipped_videos": dict(unusable),
        "largest_class_share": largest_share(p.label for p in predictions),
        "top1": top_k_share(predictions, 1),
        "top5": top_five_share(predictions, labels),
        "per_class": {
            name: {"videos": int(count), "accuracy": float(matrix[index, index] / count) if count else None}
            for index, (name, count) in enumerate(zip(labels, videos, strict=True))
        },
        "seen": {share: accuracy for share, (accuracy, _) in seen.items()},
        "seen_videos": {share: count for share, (_, count) in seen.items()},
        "confusion": matrix.tolist(),
    }


def top_five_share(predictions: Sequence[VideoPrediction], labels: Sequence[str]) -> float | None:
    """Return top-5 accuracy; None if there are no more than five classes, of which it would always be 1."""
    return top_k_share(predictions, 5) if len(labels) > 5 else None
