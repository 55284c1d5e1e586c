"""``clipstep train``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from clipstep.runtime.cores import available_cores
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.interval import share_text
from clipstep.runtime.options import NewFolder, command
from clipstep.runtime.places import check_no_url
from clipstep.runtime.terminal import new_console
from clipstep.training.choices import ARCHITECTURES, HOME, INPUTS, LOSSES, PRESETS
from clipstep.training.config import OPTIMIZERS, PRECISIONS, SCHEDULES, TrainingConfig

if TYPE_CHECKING:  # Help is shown without PyTorch: what needs it is imported where it is called.
    from clipstep.training.finetune import Start

CONFIGS = ("paper",)
HOW = TrainingConfig()
"""How to train unless told otherwise."""

GROUPS = {
    "Where": ("out", "force", "resume", "init", "config", "cache"),
    "The data": ("split", "validation", "flip"),
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
        "truncate",
        "ema",
        "precision",
        "seed",
    ),
    "On what": ("accelerator", "devices", "nodes", "workers"),
}
"""The headings of the options in the help."""


def _read_config(context: click.Context, _: click.Parameter, value: str | None) -> None:
    """Options from a file become defaults: what is given on the command line still wins."""
    if value is None:
        return
    source: Any = resources.files("clipstep.training") / f"{value}.toml" if value in CONFIGS else Path(value)
    if isinstance(source, Path):
        check_no_url(source)
    try:
        options = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClipstepError(f"--config {value}: cannot be read", got=error.strerror, expected=f"a TOML file, or {', '.join(CONFIGS)}") from error
    except ValueError as error:
        raise ClipstepError(f"--config {value}: is not TOML", got=error, fix="correct the file") from error
    every = {str(parameter.name) for parameter in context.command.params if isinstance(parameter, click.Option)}
    known = every - {"config", "out", "resume", "force"}
    unknown = [key for key in options if key.replace("-", "_") not in known]
    if unknown:
        names = ", ".join(sorted(name.replace("_", "-") for name in known))
        raise ClipstepError(f"--config {value}: unknown option", got=", ".join(unknown), expected=f"some of {names}")
    context.default_map = {key.replace("-", "_"): option for key, option in options.items()}


ONLY_WITH = [("momentum", "optimizer", ("sgd",)), ("patience", "schedule", ("plateau",))]


@command("train", groups=GROUPS, only_with=ONLY_WITH, loads=["clipstep.training.train"])
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=NewFolder(), required=True, help="Folder to write the run to.")
@click.option("--config", callback=_read_config, is_eager=True, expose_value=False, help="A TOML file of these options, or 'paper'.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out: a stopped one, or a finished one with more --epochs.")
@click.option("--force", is_flag=True, help="Replace a finished run in --out, once the new one is whole.")
@click.option(
    "--init", type=click.Path(path_type=Path), help="Fine-tune this run, or the weights in this file; a new head is made for other classes."
)
@click.option("--split", default=1, show_default=True, help="Which trainlist0N.txt and testlist0N.txt.")
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
@click.option("--epochs", default=HOW.epochs, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=HOW.batch_size, show_default=True, type=click.IntRange(1), help="Videos a batch, of one process.")
@click.option("--accumulate", default=HOW.accumulate, show_default=True, type=click.IntRange(1), help="Batches a step of the optimizer.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default=HOW.optimizer, show_default=True)
@click.option("--learning-rate", default=HOW.learning_rate, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--momentum", default=HOW.momentum, show_default=True, type=click.FloatRange(0, 1, max_open=True), help="Of sgd.")
@click.option("--weight-decay", default=HOW.weight_decay, show_default=True, type=click.FloatRange(0))
@click.option("--schedule", type=click.Choice(list(SCHEDULES)), default=HOW.schedule, show_default=True, help="How the learning rate falls.")
@click.option(
    "--patience",
    default=HOW.patience,
    show_default=True,
    type=click.IntRange(0),
    help="Epochs without a lower loss before it falls on a plateau.",
)
@click.option("--loss", type=click.Choice(LOSSES), default=HOW.loss, show_default=True, help="After which subclips of a video.")
@click.option("--truncate", default=HOW.truncate, show_default=True, type=click.IntRange(1), help="Subclips that a loss is back-propagated through.")
@click.option("--ema", default=HOW.ema, show_default=True, type=click.FloatRange(0, 1, max_open=True), help="Decay of averaged weights; 0 for none.")
@click.option("--precision", type=click.Choice(PRECISIONS), default=HOW.precision, show_default=True, help="bf16 computes in mixed precision.")
@click.option("--flip/--no-flip", default=HOW.flip, show_default=True, help="Mirror half of the videos; actions may have a direction.")
@click.option(
    "--validation",
    default=HOW.validation,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Share of the groups held out to choose the epoch.",
)
@click.option("--cache", type=NewFolder(), help="Folder to keep decoded frames in.")
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop after that many minutes.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after that many steps of the optimizer, in all.")
@click.option("--accelerator", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default=HOW.accelerator, show_default=True)
@click.option("--devices", default=HOW.devices, show_default=True, type=click.IntRange(1), help="Processes on this machine, one a GPU or on the CPU.")
@click.option("--nodes", default=HOW.nodes, show_default=True, type=click.IntRange(1), help="Machines; start the command on each, or use torchrun.")
@click.option("--workers", default=min(2, available_cores()), show_default=True, type=click.IntRange(0), help="Decoding processes, of each process.")
@click.option("--seed", default=HOW.seed, show_default=True, type=click.IntRange(0))
@click.pass_context
def train_command(
    context: click.Context,
    /,
    data: Path,
    out: Path,
    resume: bool,
    force: bool,
    init: Path | None,
    split: int,
    allow_leakage: bool,
    cache: Path | None,
    **options: Any,
) -> None:
    """Train a network on DATA, a folder in UCF101's layout (classInd.txt, lists, videos/)."""
    from clipstep.training.data.lists import read_data_set
    from clipstep.training.data.trained_on import checked
    from clipstep.training.finetune import read_start
    from clipstep.training.run import check_out
    from clipstep.training.train import Job, train

    check_out(out, resume=resume, force=force)
    if out.resolve().is_relative_to(data.resolve()):
        raise ClipstepError(f"--out {out}: lies in the data folder", expected="a folder outside of it", fix="choose another --out")
    asked = {name: options.pop(name) for name in ("architecture", "preset", "seen", "frames", "size")}
    start = None if init is None else read_start(init)
    data_set = read_data_set(data, split, allow_leakage=allow_leakage)
    if start is not None:
        data_set = checked(data_set, start.trained_on, init, allow_leakage=allow_leakage, fix="start from another run")
    architecture, model_config = _network(asked, _given(context), start, len(data_set.classes))
    console = new_console()
    run = train(Job(data_set, architecture, model_config, TrainingConfig(**options), out, cache, resume, start, force), console)
    if run is not None:
        summary = run.info.training
        console.print(
            f"test top-1 {share_text(summary['test_top1'], summary['test_videos'])}, "
            f"the larger class {summary['test_largest_class_share']:.1%}; "
            f"{len(summary['skipped_videos']) + len(summary['skipped_test_videos'])} broken videos skipped; written to {out}",
            soft_wrap=True,
        )


def _given(context: click.Context) -> set[str]:
    """The options that the command line or --config names."""
    return {name for name in context.params if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)}


def _network(asked: Mapping[str, Any], given: set[str], start: Start | None, classes: int) -> tuple[str, dict[str, int]]:
    """The architecture and config asked for; what is not given is that of the run to start from, or the default."""
    from clipstep.network.preprocess import RGB
    from clipstep.training.finetune import config_from
    from clipstep.training.models import PRESETS as STRIDES

    info = start.info if start is not None else None
    architecture = info.architecture if info is not None and "architecture" not in given else asked["architecture"]
    if asked["preset"] is not None and architecture != HOME:
        raise ClipstepError(f"{architecture} has no presets", got=f"--preset {asked['preset']}", fix=f"leave it out, or train {HOME}")
    strides = STRIDES[asked["preset"] or "a2b1"] if architecture == HOME else {}
    if start is None or info is None:
        return architecture, {"classes": classes, "frames": asked["frames"], "size": asked["size"], **strides, **INPUTS[asked["seen"]]}
    changes: dict[str, int] = {name: asked[name] for name in ("frames", "size") if name in given}
    if "preset" in given:
        changes |= {"causal": False, **strides} if info.config.get("causal") else strides
    if "seen" in given:
        changes |= {"channels": INPUTS[asked["seen"]].get("channels", RGB)}
    return config_from(start, architecture, changes, classes)
