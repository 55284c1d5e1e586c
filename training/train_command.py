"""``clipstep train``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from clipstep.runtime.command_line.confidence_interval import proportion_text
from clipstep.runtime.command_line.options import OutputFolder, command, is_given, json_option
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.cores import available_cores
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_no_url
from clipstep.training.choices import ARCHITECTURES, HOME, INPUTS, LOSSES, PRESETS
from clipstep.training.config import CLASS_WEIGHTS, OPTIMIZERS, PRECISIONS, SCHEDULES, TrainingConfig
from clipstep.training.data_options import layout_option, split_option

if TYPE_CHECKING:  # Help is shown without loading PyTorch, so whatever needs PyTorch is imported where it is called.
    from clipstep.training.data.lists import DataSet
    from clipstep.training.finetune import InitialWeights

CONFIGS = ("paper",)
DEFAULTS = TrainingConfig()
"""The defaults of the options."""

GROUPS = {
    "Where": ("out", "force", "resume", "init", "config", "cache"),
    "The data": ("split", "layout", "validation", "fps", "flip", "allow_leakage", "check", "as_json"),
    "The network": ("architecture", "preset", "seen", "frames", "size"),
    "How long": ("epochs", "max_minutes", "max_steps"),
    "How it learns": (
        "optimizer",
        "learning_rate",
        "momentum",
        "weight_decay",
        "schedule",
        "patience",
        "batch_size",
        "accumulate",
        "loss",
        "class_weights",
        "truncate",
        "ema",
        "precision",
        "seed",
    ),
    "On what": ("accelerator", "devices", "nodes", "workers"),
}
"""The headings of the options in the help."""


def _read_config(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Make the options in the file ``value`` the defaults, so that those on the command line override them."""
    if value is None:
        return
    source: Any = resources.files("clipstep.training") / f"{value}.toml" if value in CONFIGS else Path(value)
    if isinstance(source, Path):
        check_no_url(source)
    try:
        options = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClipstepError(
            f"--config {value}: cannot be read", got=error.strerror or error, expected=f"a TOML file, or {', '.join(CONFIGS)}"
        ) from error
    except ValueError as error:
        raise ClipstepError(f"--config {value}: is not TOML", got=error, fix="correct the file") from error
    every = {str(parameter.name) for parameter in context.command.params if isinstance(parameter, click.Option)}
    known = every - {"config", "out", "resume", "force", "check", "as_json"}
    unknown = [key for key in options if key.replace("-", "_") not in known]
    if unknown:
        names = ", ".join(sorted(name.replace("_", "-") for name in known))
        raise ClipstepError(f"--config {value}: unknown option", got=", ".join(unknown), expected=f"some of {names}")
    context.default_map = {key.replace("-", "_"): option for key, option in options.items()}


def _setting(flags: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare an option for the field of `TrainingConfig` that it is named for; the help shows the field's default."""
    field = flags.partition("/")[0].removeprefix("--").replace("-", "_")
    return click.option(flags, default=getattr(DEFAULTS, field), show_default=True, **settings)


ONLY_WITH = [("momentum", "optimizer", ("sgd",)), ("patience", "schedule", ("plateau",))]


@command("train", groups=GROUPS, needs=[("as_json", "check")], only_with=ONLY_WITH, loads=["clipstep.training.train"])
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=OutputFolder(), help="Folder to write the run to; required, except with --check.")
@click.option("--check", is_flag=True, help="Only read every video of DATA, and list those that are broken, too short or there twice.")
@json_option
@click.option("--config", callback=_read_config, is_eager=True, expose_value=False, help="A TOML file of these options, or 'paper'.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out: a stopped one, or a finished one with more --epochs.")
@click.option("--force", is_flag=True, help="Replace a finished run in --out, once the new one is whole.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="Fine-tune this run, or the weights in this file; a new head is made for other classes."
)
@split_option
@layout_option
@click.option("--allow-leakage", is_flag=True, help="Only warn of videos that are tested with and trained on, or twice in the test list.")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default=HOME, show_default=True, help="See clipstep models.")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), help=f"Of {HOME}: its temporal strides alpha and beta, or fully causal; a2b1 unless given."
)
@click.option(
    "--input", "seen", type=click.Choice(list(INPUTS)), default="rgb", show_default=True, help="RGB frames, or the optical flow between them."
)
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
@_setting("--epochs", type=click.IntRange(1))
@_setting("--batch-size", type=click.IntRange(1), help="Videos in a batch of one process.")
@_setting("--accumulate", type=click.IntRange(1), help="Batches whose gradients are added up for one optimizer step.")
@_setting("--optimizer", type=click.Choice(list(OPTIMIZERS)))
@_setting("--learning-rate", type=click.FloatRange(0, min_open=True))
@_setting("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Momentum of --optimizer sgd.")
@_setting("--weight-decay", type=click.FloatRange(0))
@_setting("--schedule", type=click.Choice(list(SCHEDULES)), help="How the learning rate falls.")
@_setting("--patience", type=click.IntRange(0), help="Epochs without a lower loss before the learning rate falls (plateau).")
@_setting("--loss", type=click.Choice(LOSSES), help="Compute the loss after every subclip of a video, or after its last one.")
@_setting("--class-weights", type=click.Choice(CLASS_WEIGHTS), help="balanced: weight a video's loss by n / (k * the number of its class).")
@_setting("--truncate", type=click.IntRange(1), help="Subclips that a loss is back-propagated through (truncated BPTT).")
@_setting("--ema", type=click.FloatRange(0, 1, max_open=True), help="Decay of an exponential moving average of the weights; 0 for none.")
@_setting("--precision", type=click.Choice(PRECISIONS), help="bf16 computes in mixed precision.")
@_setting(
    "--fps",
    type=click.FloatRange(0, min_open=True),
    help="Frames a second that are taken of every video. [default: the median of the training videos' rates, or the rate of --init]",
)
@_setting("--flip/--no-flip", help="Mirror half of the videos; leave it off if the direction of a movement matters.")
@_setting("--validation", type=click.FloatRange(0, 0.5), help="Share of the source videos held out to choose the best epoch.")
@click.option("--cache", type=OutputFolder(), help="Folder to keep decoded frames in.")
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop after that many minutes.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after that many optimizer steps in total.")
@_setting("--accelerator", type=click.Choice(["auto", "cpu", "cuda", "mps"]))
@_setting("--devices", type=click.IntRange(1), help="Number of processes on this machine, one for each GPU; without GPUs they share the CPU.")
@_setting("--nodes", type=click.IntRange(1), help="Machines; start the command on each, or use torchrun.")
@click.option(
    "--workers", default=min(2, available_cores()), show_default=True, type=click.IntRange(0), help="Decoding processes of each training process."
)
@_setting("--seed", type=click.IntRange(0))
@click.pass_context
def train_command(
    context: click.Context,
    /,
    data: Path,
    out: Path | None,
    check: bool,
    as_json: bool,
    resume: bool,
    force: bool,
    init: Path | None,
    split: int,
    layout: str,
    allow_leakage: bool,
    cache: Path | None,
    **options: Any,
) -> None:
    """Train a network on DATA: a folder of videos for each class, or videos with lists as UCF101, HMDB51, Kinetics, Something-Something or MMAction2
    have them, or CSV files of path,label. docs/training.md shows each.
    """
    from clipstep.training.data.check import check_data
    from clipstep.training.data.lists import read_data_set
    from clipstep.training.data.subclips import short_side
    from clipstep.training.data.trained_on import check_unseen
    from clipstep.training.finetune import read_initial_weights
    from clipstep.training.train import Job, train

    if out is not None and not check:
        _check_out(out, data, resume=resume, force=force)
    elif not check:
        raise click.UsageError("Missing option '--out'.")
    asked = {name: options.pop(name) for name in ("architecture", "preset", "seen", "frames", "size")}
    initial = None if init is None else read_initial_weights(init)
    data_set = read_data_set(data, split, layout=layout, allow_leakage=allow_leakage or check)
    if initial is not None:
        data_set = check_unseen(data_set, initial.trained_on, init, allow_leakage=allow_leakage or check, fix="start from another run")
    architecture, model_config = _network(asked, _given(context), initial, len(data_set.labels))
    data_set, options["validation"] = _validated(data, data_set, options["validation"])
    if check or out is None:
        fps = options["fps"] or (initial.info.fps if initial is not None and initial.info is not None else None)
        size = short_side(model_config["size"])
        check_data(data, data_set, model_config["frames"], size, fps, allow_leakage=allow_leakage, as_json=as_json)
        return
    console = new_console()
    run = train(Job(data_set, architecture, model_config, TrainingConfig(**options), out, cache, resume, initial, force), console)
    if run is not None:
        summary = run.info.training
        console.print(
            f"test top-1 {proportion_text(summary['test_top1'], summary['test_videos'])}, "
            f"largest class {summary['test_largest_class_share']:.1%}; "
            f"{len(summary['skipped_videos']) + len(summary['skipped_test_videos'])} broken videos skipped; written to {out}",
            soft_wrap=True,
        )


def _check_out(out: Path, data: Path, *, resume: bool, force: bool) -> None:
    from clipstep.training.run import check_out

    check_out(out, resume=resume, force=force)
    if out.resolve().is_relative_to(data.resolve()):
        raise ClipstepError(f"--out {out}: lies in the data folder", expected="a folder outside of it", fix="choose another --out")


def _validated(data: Path, data_set: DataSet, share: float) -> tuple[DataSet, float]:
    """Return the data set, with a warning if it can be split only at random, and the share to hold out: 0 if it has a list for validation."""
    from clipstep.training.data.lists import untold_sources

    if not data_set.validation:
        untold = untold_sources(data_set.train) if share else []
        return replace(data_set, warnings=tuple(dict.fromkeys((*data_set.warnings, *untold)))), share
    if is_given(click.get_current_context(), "validation"):
        raise ClipstepError(f"{data}: says what is for validation", got=f"--validation {share:g}", fix="leave --validation out")
    return data_set, 0.0


def _given(context: click.Context) -> set[str]:
    """Return the options that the command line or ``--config`` gives."""
    return {name for name in context.params if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)}


def _network(asked: Mapping[str, Any], given: set[str], initial: InitialWeights | None, classes: int) -> tuple[str, dict[str, int]]:
    """Return the architecture and its config; what is not given comes from the run to fine-tune, or from the defaults."""
    from clipstep.network.preprocess import RGB
    from clipstep.training.finetune import fine_tuning_config
    from clipstep.training.models import PRESETS as STRIDES

    info = initial.info if initial is not None else None
    architecture = info.architecture if info is not None and "architecture" not in given else asked["architecture"]
    if asked["preset"] is not None and architecture != HOME:
        raise ClipstepError(f"{architecture} has no presets", got=f"--preset {asked['preset']}", fix=f"leave it out, or train {HOME}")
    strides = STRIDES[asked["preset"] or "a2b1"] if architecture == HOME else {}
    if initial is None or info is None:
        return architecture, {"classes": classes, "frames": asked["frames"], "size": asked["size"], **strides, **INPUTS[asked["seen"]]}
    changes: dict[str, int] = {name: asked[name] for name in ("frames", "size") if name in given}
    if "preset" in given:
        changes |= {"causal": False, **strides} if info.config.get("causal") else strides
    if "seen" in given:
        changes |= {"channels": INPUTS[asked["seen"]].get("channels", RGB)}
    return fine_tuning_config(initial, architecture, changes, classes)
