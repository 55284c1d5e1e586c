"""`clipstep export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from clipstep.export.budget import parse_budget
from clipstep.export.choice_tables import choice_lines, tried_table
from clipstep.export.choices import ADAPTERS, FORMS, INPUT_DTYPES, OUTPUT_KINDS, PLATFORMS, PRECISIONS
from clipstep.export.choosing import NothingFitsError
from clipstep.export.evaluating import EvaluationData
from clipstep.export.evaluation_tables import evaluation_lines
from clipstep.export.result_lines import artifact_line, result_lines
from clipstep.export.targets import TARGETS
from clipstep.export.targets.target import ANY, Target
from clipstep.runtime.bundle.manifest import Manifest
from clipstep.runtime.command_line.options import Numbers, OutputFile, OutputFolder, command
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.command_line.terminal import ConsoleProgress, new_console, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.overwrite import BUNDLE, check_bundle_name, check_overwrite
from clipstep.runtime.outputs.choice_plot import check_plot_name, plot_choices
from clipstep.runtime.wording import either

if TYPE_CHECKING:  # PyTorch is imported in the functions that need it, so that --help is fast.
    from clipstep.network.inputs import Images, Joints
    from clipstep.network.spec import NetworkSpec

MODEL_OPTIONS = (
    *("model", "weights", "weights_key", "random_weights", "labels", "frames", "size", "channels", "joints", "persons", "mean", "std", "fps"),
    *("video", "sample", "adapters"),
)
"""The options that describe a network of the user's own; a run records these values itself."""


FORMAT_VERSIONS = [target.format_version for target in TARGETS.values() if target.format_version is not None]


def _names(targets: Iterable[Target]) -> str:
    return " and ".join(target.name for target in targets)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)


def _format_version_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each file format whose version can be chosen."""
    for version in reversed(FORMAT_VERSIONS):
        advice = f": {version.advice}" if version.advice else ""
        text = f"{version.meaning}, {version.numbers[0]} to {version.numbers[-1]}{advice}. [default: {version.default}]"
        function = click.option(f"--{version.option}", type=int, help=text)(function)
    return function


class FixedSize(click.types.IntParamType):
    """A whole number of at least 1; anything else is refused with the reason that shapes are fixed at export."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if not str(value).isdecimal() or int(value) < 1:
            raise ClipstepError(
                f"--{param.name if param else 'size'}: shapes are fixed at export: engines plan their memory and choose their kernels by them",
                got=value,
                expected="a whole number of at least 1",
                fix="export a bundle for each size that is needed",
            )
        return int(value)


@command(
    "export",
    groups={
        "Output": ("out", "force", "keep_going"),
        "A network of your own": (*MODEL_OPTIONS, "output", "keep_outputs", "output_kind"),
        "A clip network as a stream": ("stream", "window"),
        "Artifacts": (
            *("targets", "precisions", "form", "platforms", "explain", "input_dtype"),
            *(version.option for version in FORMAT_VERSIONS),
        ),
        "Artifacts of int8": ("calibration", "calibration_percentile", "float32_layers", "equalize", "correct_biases"),
        "The best for a platform": ("tune", "budget", "pareto"),
        "Their accuracy": ("evaluate", "split", "layout", "allow_leakage", "drift_steps", "max_accuracy_drop"),
    },
    needs=[
        *((name, "model") for name in MODEL_OPTIONS[1:]),
        ("persons", "joints"),
        ("pareto", "tune"),
        *((name, "evaluate") for name in ("split", "layout", "allow_leakage", "drift_steps")),
    ],
    loads=["clipstep.export.pipeline", "clipstep.export.factory", *(target.writer for target in TARGETS.values())],
)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=OutputFolder(), required=True, help="The bundle to write, NAME.clipstep.")
@click.option("--force", is_flag=True, help="Replace a bundle at --out, once the new one is whole.")
@click.option("--keep-going", is_flag=True, help="If a target fails, leave it out and write the others; otherwise nothing is written.")
@click.option("--model", help="Instead of RUN: package.module:factory, which gives a torch.nn.Module.")
@click.option("--weights", type=click.Path(path_type=Path), help="The model's state dict: safetensors, or what torch.save wrote.")
@click.option("--weights-key", metavar="KEY", help="The state dict to take from a file that holds several, such as model_ema.")
@click.option("--random-weights", is_flag=True, help="Allow a model whose weights are random.")
@click.option("--labels", type=click.Path(path_type=Path), help="Text file with the model's class names, one a line.")
@click.option("--frames", type=FixedSize(), help="Number of frames in a subclip, T.")
@click.option("--size", type=FixedSize(), help="Height and width of the model's frames, in pixels.")
@click.option(
    "--channels",
    metavar="NAME,...",
    help="The channels of the model's frames, if they are not RGB, such as depth; or what a joint has. [default with --joints: x,y,score]",
)
@click.option("--joints", type=FixedSize(), help="Instead of --size: the model takes this number of joints of a skeleton, (N, C, T, V).")
@click.option("--persons", type=FixedSize(), help="With --joints: of this number of skeletons, (N, C, T, V, M).")
@click.option(
    "--mean",
    type=Numbers(),
    help="Mean of each channel (R G B, in 0..255), which the model's normalisation subtracts. [default: 0 each]",
)
@click.option(
    "--std",
    type=Numbers(),
    help="Standard deviation of each channel, by which it divides then. [default: 255 each; 1 each for frames of float32]",
)
@click.option("--fps", type=click.FloatRange(0, min_open=True), default=25.0, show_default=True, help="Frames per second of the model's videos.")
@click.option("--video", type=click.Path(path_type=Path), help="The frames of the model's golden steps; unless given, synthetic ones.")
@click.option("--sample", type=click.Path(path_type=Path), help="Instead of --video: frames or joints that numpy.save wrote (.npy).")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME",
    help="What the model takes in place of clips (N, 3, T, H, W): "
    f"{'; '.join(f'{form}: {takes}' for form, takes in ADAPTERS.values())}. May be given several times, the innermost first.",
)
@click.option("--output", metavar="KEY", help="Which of the values that the network returns is the logits: a key, or a position from 0.")
@click.option("--keep-outputs", metavar="KEY,...", help="Further values that it returns, to keep as outputs of the artifacts; NAME=KEY gives a name.")
@click.option(
    "--stream",
    type=click.IntRange(1),
    help="The number of new frames a step: a clip network gets states, and each step predicts from all frames so far.",
)
@click.option(
    "--window",
    metavar="SECONDS",
    type=click.FloatRange(0, min_open=True),
    help="With --stream: predict from the newest SECONDS, not from all frames so far.",
)
@click.option("--target", "targets", multiple=True, default=tuple(TARGETS), show_default=True, help="May be given several times.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="[TARGET=]NAME",
    help=f"{either(PRECISIONS)}, of every target or of one; may be given several times. "
    f"[default: {'; '.join(f'{t.name} {_listed(t.default_precisions)}' for t in TARGETS.values())}]",
)
@click.option(
    "--calibrate",
    "calibration",
    multiple=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A video, or a folder of videos, on which the ranges of the values of int8 artifacts are found, beside the golden frames; may be given "
    "several times.",
)
@click.option(
    "--calibration-percentile",
    type=float,
    default=100.0,
    metavar="P",
    help="Where these ranges end: at the percentile P of the numbers that a value has in a step, and at the same one from below. [default: 100, "
    "all of them]",
)
@click.option(
    "--float32-layers",
    multiple=True,
    metavar="[TARGET=]N",
    help="Of artifacts of int8, compute the N layers in float32 whose rounding would move the prediction most; may be given for each target. "
    "[default: none or, with --budget, as many as fit]",
)
@click.option("--equalize", is_flag=True, help="Write artifacts of int8 of weights that are equalised across layers.")
@click.option("--correct-biases", is_flag=True, help="Change the biases of artifacts of int8, so that rounding the weights moves no channel's mean.")
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="auto",
    show_default=True,
    help=f"lowered: operators of rank 4 or less; 3d: as trained, for {_names(t for t in TARGETS.values() if '3d' in t.forms)} alone.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    default=(ANY,),
    show_default=True,
    type=click.Choice(PLATFORMS),
    help=f"The processor that {_names(t for t in TARGETS.values() if t.platforms)} artifacts are optimised for; may be given several times.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Measure every variant of each artifact, and keep the fastest on its platform: x86_64 by time, arm64 by instructions. Of several precisions "
    "of a target it keeps float32 and the cheapest that is accurate, which runtimes then take.",
)
@click.option(
    "--budget",
    metavar="QUANTITY=NUMBER,...",
    help="With --tune: keep the most accurate of what fits, such as latency=20ms (x86_64), instructions=60M (arm64), memory=14MB or size=1.3MB.",
)
@click.option("--pareto", type=OutputFile(), metavar="FILE", help="With --tune: draw what was tried, and the Pareto front, as FILE.png or FILE.svg.")
@click.option("--explain", is_flag=True, help="Print for each convolution how it is lowered, and what that costs.")
@click.option(
    "--input",
    "input_dtype",
    type=click.Choice(INPUT_DTYPES),
    default="auto",
    show_default=True,
    help="The type of the frames; auto: uint8 if the target has it. With --channels, float32 allows frames of any scale.",
)
@click.option("--output-kind", type=click.Choice(OUTPUT_KINDS), help="What the network's output holds; unless given, it is inferred.")
@_format_version_options
@click.option(
    "--evaluate",
    metavar="DATA",
    type=click.Path(path_type=Path),
    help="Evaluate each artifact that this computer can run on the test list of DATA, a data set as clipstep evaluate takes it, and compare "
    "those of lower precision with float32.",
)
@click.option("--split", default=EvaluationData.split, show_default=True, type=click.IntRange(1), help="Which split of DATA.")
@click.option("--layout", default=EvaluationData.layout, show_default=True, help="How DATA is laid out; see clipstep evaluate --help.")
@click.option("--allow-leakage", is_flag=True, help="Only warn of videos of DATA that are tested with and trained on, or twice in the test list.")
@click.option(
    "--drift-steps",
    default=EvaluationData.drift_steps,
    show_default=True,
    type=click.IntRange(1),
    help="Over how many steps in a row the outputs are compared with those of float32.",
)
@click.option(
    "--max-accuracy-drop",
    metavar="POINTS",
    type=click.FloatRange(0, 100),
    help="Write nothing if the top-1 accuracy of an artifact of lower precision falls by more percentage points than that against float32; with "
    "--tune, choose another precision.",
)
def export_command(
    run: Path | None,
    out: Path,
    force: bool,
    model: str | None,
    targets: tuple[str, ...],
    precisions: tuple[str, ...],
    calibration: tuple[Path, ...],
    calibration_percentile: float,
    float32_layers: tuple[str, ...],
    equalize: bool,
    correct_biases: bool,
    form: str,
    platforms: tuple[str, ...],
    tune: bool,
    budget: str | None,
    pareto: Path | None,
    explain: bool,
    input_dtype: str,
    stream: int | None,
    window: float | None,
    output_kind: str | None,
    output: str | None,
    keep_outputs: str | None,
    keep_going: bool,
    evaluate: Path | None,
    split: int,
    layout: str,
    allow_leakage: bool,
    drift_steps: int,
    max_accuracy_drop: float | None,
    **others: Any,
) -> None:
    """Write the trained RUN, or a network of your own, as a bundle of verified artifacts; nothing if one fails, unless --keep-going."""
    from clipstep.export.interrupts import interruptible
    from clipstep.export.options import ExportOptions, layers_by_target
    from clipstep.export.pipeline import export_network
    from clipstep.export.reference import network_of_run
    from clipstep.export.tuning import tune_by_measuring

    check_bundle_name(out)
    check_overwrite(out, BUNDLE, force=force)
    if pareto is not None:
        check_plot_name(pareto)
        check_overwrite(pareto, force=force, option="--pareto")
    versions = {version.option: others.pop(version.option) for version in FORMAT_VERSIONS}
    options = ExportOptions(
        targets=tuple(dict.fromkeys(targets)),
        form=form,
        input_dtype=input_dtype,
        stream=stream,
        platforms=tuple(dict.fromkeys(platforms)),
        precisions=tuple(dict.fromkeys(precisions)),
        calibration=calibration,
        calibration_percentile=calibration_percentile,
        float32_layers=layers_by_target(float32_layers),
        equalize=equalize,
        correct_biases=correct_biases,
        tune=tune_by_measuring() if tune else None,
        budget=None if budget is None else parse_budget(budget),
        window=window,
        output_kind=output_kind,
        output=output,
        keep_outputs=tuple(key.strip() for key in keep_outputs.split(",")) if keep_outputs is not None else (),
        keep_going=keep_going,
        format_versions={option: number for option, number in versions.items() if number is not None},
        evaluate=EvaluationData(evaluate, split, layout, allow_leakage, drift_steps) if evaluate is not None else None,
        max_accuracy_drop=max_accuracy_drop,
    )
    if explain and form == "3d":
        raise ClipstepError("--explain is about the lowered form", got="--form 3d", fix="leave one of them out")
    console = new_console()
    with interruptible() as stop:
        if run is not None and model is None:
            spec = network_of_run(run)
        elif model is not None and run is None:
            spec = _network_of_options(model, input_dtype, **others)
        else:
            raise ClipstepError("which network to export?", got="RUN and --model" if run else "neither RUN nor --model", expected="one of them")
        stop()
        try:
            result = export_network(
                spec, out, options, lambda w: console.print(artifact_line(w), soft_wrap=True), quiet, force=force, progress=ConsoleProgress(console)
            )
        except NothingFitsError as error:
            print_table(console, tried_table(error.unit, error.tried, error.budget))
            raise
    _print_lines(result_lines(result), console)
    if result.evaluated is not None:
        _print_lines(evaluation_lines(result.evaluated, result.manifest.artifacts, max_accuracy_drop), console)
    for choice in result.manifest.choices:
        _print_lines(choice_lines(choice), console)
    if pareto is not None:
        plot_choices(result.manifest.choices, pareto)
        console.print(f"wrote {pareto}", soft_wrap=True)
    if explain:
        _explain(spec, result.manifest, console)


def _print_lines(lines: Iterable[str | Table], console: Console) -> None:
    for line in lines:
        if isinstance(line, str):
            console.print(line, soft_wrap=True, markup=False)
        else:
            print_table(console, line)


def _explain(spec: NetworkSpec, manifest: Manifest, console: Console) -> None:
    """Print how each convolution is lowered in the artifacts."""
    from clipstep.export.explain_tables import explanations
    from clipstep.export.step import program_of

    program = program_of(spec, manifest.export.stream_frames, manifest.window_frames)
    for table in explanations(program, manifest.artifacts):
        print_table(console, table)


def _network_of_options(
    model: str,
    input_dtype: str,
    weights: Path | None,
    labels: Path | None,
    frames: int | None,
    size: int | None,
    channels: str | None,
    joints: int | None,
    persons: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    fps: float,
    video: Path | None,
    sample: Path | None,
    weights_key: str | None,
    random_weights: bool,
    adapters: tuple[str, ...],
) -> NetworkSpec:
    from clipstep.export.factory import network_of_factory, read_labels

    if labels is None or frames is None or (size is None and joints is None):
        raise ClipstepError("--model needs --labels, --frames and --size", expected="or --joints in place of --size")
    given = _input_of_options(channels, joints, persons, input_dtype)
    count = len(given.channels) if given is not None else len(mean or std or ("R", "G", "B"))
    mean, std = mean or (0.0,) * count, std or ((1.0 if given is not None and given.dtype == "float32" else 255.0),) * count
    if min(std) <= 0:
        raise ClipstepError("--std must be above 0, because frames are divided by it", got=std, expected="numbers above 0")
    if video is not None and sample is not None:
        raise ClipstepError("--video and --sample both give the frames of the golden steps", expected="one of them")
    sys.path.insert(0, "")  # As `python` itself does: modules in this folder can be imported.
    if weights_key is not None and weights is None:
        raise ClipstepError("--weights-key chooses from a file", got="no --weights", expected="--weights FILE, too")
    return network_of_factory(
        model,
        frames=frames,
        size=size,
        labels=read_labels(labels),
        mean=mean,
        std=std,
        fps=fps,
        weights=weights,
        weights_key=weights_key,
        video=sample or video,
        random_weights=random_weights,
        adapters=adapters,
        input=given,
    )


def _input_of_options(channels: str | None, joints: int | None, persons: int | None, dtype: str) -> Images | Joints | None:
    """Return what a frame is; None for RGB, or for optical flow."""
    from clipstep.network.inputs import Images, Joints

    names = None if channels is None else tuple(name.strip() for name in channels.split(","))
    if joints is not None:
        return Joints(joints, persons=persons) if names is None else Joints(joints, names, persons)
    return None if names is None else Images(names, "float32" if dtype == "float32" else "uint8")
