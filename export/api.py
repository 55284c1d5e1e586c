"""The Python API of the export: write a module in memory as a bundle, and verify a bundle.

The functions print nothing and raise `clipstep.runtime.ClipstepError`. The converters print progress and warnings of their own, which a
program may redirect.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from clipstep.export.budget import parse_budget
from clipstep.export.choices import TARGETS
from clipstep.export.evaluating import EvaluationData
from clipstep.export.module import network_of_module
from clipstep.export.network_source import given_network
from clipstep.export.options import ExportOptions, check_flags
from clipstep.export.pipeline import ExportResult, WrittenArtifact, export_network
from clipstep.export.reference import reference_module, reference_network
from clipstep.export.tuning import tune_by_measuring
from clipstep.export.verification import Reference, VerifyResult, fresh_reference, verify_opened
from clipstep.network.inputs import Images, Joints
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.overwrite import BUNDLE, check_bundle_name, check_overwrite
from clipstep.runtime.golden import GoldenSteps

EXAMPLES = {"targets": "such as ['onnx']", "platforms": "such as ['any']", "precisions": "such as ['executorch=float16']"}
"""For each parameter that is a list of names, an example for the error."""


def export(
    module: nn.Module,
    out: Path | str,
    *,
    frames: int,
    size: int | None = None,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    sample: Tensor | np.ndarray[Any, Any] | Path | str | None = None,
    input: Images | Joints | None = None,
    targets: Sequence[str] = TARGETS,
    platforms: Sequence[str] = ("any",),
    precisions: Sequence[str] = (),
    calibration: Sequence[Path | str] = (),
    calibration_percentile: float = 100.0,
    float32_layers: int | Mapping[str, int] | None = None,
    equalize: bool = False,
    correct_biases: bool = False,
    form: str = "auto",
    input_dtype: str = "auto",
    stream: int | None = None,
    window: float | None = None,
    output: str | int | None = None,
    keep_outputs: Sequence[str | int] | Mapping[str, str | int] = (),
    output_kind: str | None = None,
    tune: bool = False,
    budget: str | None = None,
    format_versions: Mapping[str, int] | None = None,
    evaluate: EvaluationData | Path | str | None = None,
    max_accuracy_drop: float | None = None,
    on_artifact: Callable[[WrittenArtifact], object] | None = None,
    keep_going: bool = True,
    force: bool = False,
) -> ExportResult:
    """Export a module in memory as a bundle of verified artifacts.

    A target that fails is left out, and the result says under `failed` why, if at least one other is verified; with `keep_going=False` its error
    is raised, and nothing is written. What is wrong with the module or an argument is raised in either case.

    Args:
        module: the network, in eval mode, on the CPU, with float32 weights. `module.forward(frames, *states)` takes normalised
            `(1, 3, frames, size, size)` float32, or what `input` says, and returns logits `(1, len(labels))`, followed by the next states if it has
            `initial_states()`; or a dictionary, a dataclass, a list or a tuple of values among which they are. It is neither copied, pickled nor
            changed. `clipstep.export.adapters` makes such a module of a network that takes something else.
        out: the folder to write, `NAME.clipstep`.
        frames: T, the frames of a subclip.
        size: height and width of a frame, in pixels; None for joints.
        labels: the class names.
        mean: what is subtracted from each channel, R G B, in 0..255; of another input on its own scale.
        std: what each channel is then divided by, on the same scale.
        fps: frames per second of the videos that the module was trained on.
        sample: the frames of the golden steps: subclips `(S, frames, size, size, 3)` uint8 or of another input's shape and type, or the path of a
            video or of a `.npy` file of them; None for synthetic ones.
        input: what a frame is, if not RGB: `clipstep.network.Images` of other channels, or `clipstep.network.Joints` of skeletons.
        targets: the names of targets, of `clipstep.export.targets.TARGETS`; by default all.
        platforms: the processors that the artifacts are optimised for, out of `any`, `arm64` and `x86_64`.
        precisions: some of `float32`, `float16` and `int8` for every target, or for one of them as in `executorch=float16`, `dynamic8` for
            ExecuTorch, or `w8a8`, `palette8`, `palette6` and `palette4` for Core ML; a target for which none is given has its default ones: Core ML
            float32 and float16, the others float32.
        calibration: videos, or folders of them, on which the ranges of the values of int8 artifacts are found, beside `sample`.
        calibration_percentile: at which percentile of the numbers that a value has in a step those ranges end, and at the same one from below;
            100 leaves out none.
        float32_layers: how many layers int8 artifacts compute in float32, those whose rounding would move the prediction most: a number, or one for
            each of some targets, such as `{"onnx": 3}`. None for none or, with a budget, as many as fit.
        equalize: write int8 artifacts of weights that are equalised across layers, so that the channels between them have more equal ranges.
        correct_biases: change the biases of int8 artifacts so that rounding the weights does not change the mean of a channel on `sample` and
            `calibration`.
        form: `auto`, `lowered` (operators of rank 4 or less) or `3d` (as trained, for onnx alone).
        input_dtype: the type of the frames that the artifacts take: `auto`, `uint8` or `float32`.
        stream: the number of new frames of a step, in place of a whole subclip; predictions are then from all frames so far.
        window: predictions are from the newest `window` seconds instead; needs `stream`.
        output: the key or the position of the logits, if the module returns several values; None to find the only one that fits.
        keep_outputs: the keys or positions of further values that become outputs of the artifacts, float32 and of rank 1 to 4; or a dictionary of
            them by the name that each shall have. With `stream` they are of all frames so far.
        output_kind: what the first output holds: `logits`, `probabilities` or `multilabel`; None to infer it.
        tune: measure every variant of each artifact and keep the fastest on its platform; needs clipstep[bench]. Of several precisions of a target
            the bundle has for each platform the cheapest that is accurate, which runtimes there take by default, and float32;
            `result.manifest.choices` says what was tried. Accuracy is known with `evaluate`; int8 is not chosen without.
        budget: the most that an artifact may take, such as `size=1.3MB,instructions=60M`: quantities out of `latency`, `memory`, `size` and
            `instructions`, each with its unit. Of what fits, the most accurate is chosen. Needs `tune`.
        format_versions: the versions of the targets' file formats, such as `{"opset": 17, "ios": 16}`; by default those of the command line.
        evaluate: the folder of a labelled data set, or `EvaluationData` that says more: each artifact that this computer can run is evaluated on its
            test list, and compared with float32; `result.evaluated` and the manifest say what was found. Needs clipstep[training].
        max_accuracy_drop: the most percentage points by which the top-1 accuracy of an artifact of lower precision may fall against float32; needs
            `evaluate`. If it falls by more, nothing is written or, with `tune`, another precision is chosen.
        on_artifact: called with each artifact once it is written and verified.
        keep_going: write the other targets if one fails, and say so in the result.
        force: replace a bundle at `out`.

    Raises:
        ClipstepError: the module breaks the step contract or is in training mode, a value is not possible for a network, an artifact does not
            compute what the module does (with `keep_going`: one of every target) or is less accurate than allowed, or `out` exists and is not a
            bundle to replace.

    Example:
        ```python
        network = torchvision.models.video.r3d_18(weights="DEFAULT").eval()
        result = export(network, "r3d.clipstep", frames=16, size=112, labels=labels, mean=mean, std=std, fps=25)
        ```
    """
    check_flags(tune=tune, force=force)
    path = Path(out)
    check_bundle_name(path)
    check_overwrite(path, BUNDLE, force=force)
    options = ExportOptions(
        targets=_names("targets", targets),
        form=form,
        input_dtype=input_dtype,
        stream=stream,
        platforms=_names("platforms", platforms),
        precisions=_names("precisions", precisions),
        calibration=calibration,
        calibration_percentile=calibration_percentile,
        float32_layers=float32_layers,
        equalize=equalize,
        correct_biases=correct_biases,
        tune=tune_by_measuring() if tune else None,
        budget=None if budget is None else parse_budget(budget),
        window=window,
        output=output,
        keep_outputs=keep_outputs,
        output_kind=output_kind,
        keep_going=keep_going,
        format_versions=format_versions or {},
        evaluate=EvaluationData(Path(evaluate)) if isinstance(evaluate, Path | str) else evaluate,
        max_accuracy_drop=max_accuracy_drop,
    )
    spec = network_of_module(module, frames=frames, size=size, labels=labels, mean=mean, std=std, fps=fps, sample=sample, input=input)
    return export_network(spec, path, options, on_artifact or (lambda _: None), force=force)


def verify(
    bundle: Path | str,
    *,
    module: nn.Module | None = None,
    run: Path | str | None = None,
    model: str | None = None,
    weights: Path | str | None = None,
    video: Path | str | None = None,
) -> VerifyResult:
    """Check each artifact of a bundle over at least 16 consecutive steps and a reset, in its own runtime.

    The artifacts are compared with the golden steps, which were recorded from the network at export. If you also give the network
    behind the bundle, as a `module`, a `run` or a factory `model`, the golden steps are computed anew from it.
    These have to equal the recorded ones, and the artifacts are then compared with them.

    Example:
        ```python
        for artifact in verify("own.clipstep", model="own:Network", weights="own.pt").artifacts:
            print(artifact.file, artifact.max_relative_error, artifact.bound)
        ```

    Args:
        bundle: The folder that `clipstep export` wrote, or a pack of it.
        module: The network in memory, in eval mode, on the CPU and of float32. Its outputs have to be the golden steps.
        run: The folder of the run that the bundle was exported from.
        model: The factory of the network, `"package.module:factory"`.
        weights: The file of the factory's weights, as it was given to the export.
        video: Run the steps on the frames of this video instead of the golden frames; it needs the network.

    Raises:
        ParityError: An artifact, or the network, computes something else than the golden steps.
        ClipstepError: The bundle is damaged, an artifact is missing, or the network is not the one that the bundle was exported from.
    """
    source = given_network(run, model, weights)
    if module is not None and source is not None:
        raise ClipstepError("two networks are given", got=f"module= and {source}", expected="one of them")
    if video is not None and module is None and source is None:
        raise ClipstepError("a video needs the network to compute the reference with", got="no network", fix="give module=, run= or model=")
    with Bundle.open(Path(bundle)) as opened:
        if module is not None:
            spec = reference_module(opened, module)
        elif source is not None:
            spec = reference_network(opened, source)
        else:
            spec = None
        reference = Reference(GoldenSteps.of(opened)) if spec is None else fresh_reference(opened, spec, None if video is None else Path(video))
        result = verify_opened(opened, reference)
    result.check_whole()
    return result


def _names(what: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once; a single string is taken as a list of one name."""
    try:
        return tuple(dict.fromkeys((given,) if isinstance(given, str) else given))
    except TypeError as error:
        raise ClipstepError(f"{what} are a list of names", got=repr(given)[:80], expected=EXAMPLES[what]) from error
