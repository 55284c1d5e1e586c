"""The options of this package's smaller commands, apart from their code so that help shows without loading PyTorch.

Each command imports the file that does its work when it is called.
"""

from pathlib import Path
from typing import Any

import click

from clipstep.runtime.command_line.options import OutputFolder, command, json_option, signer_option
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.precision import PRECISIONS
from clipstep.runtime.wording import either
from clipstep.training.data_options import layout_option, split_option


@command("models", loads=["clipstep.training.list_models"])
@json_option
def models_command(**given: Any) -> None:
    """List the networks that can be trained: their parameters beside those of the paper's table 2, and multiply-accumulates of a step."""
    from clipstep.training.list_models import models_command as call

    call(**given)


@command("generate", loads=["clipstep.training.generate"])
@click.argument("backgrounds", type=click.Path(path_type=Path))
@click.option("--out", type=OutputFolder(), required=True, help="Data set to write, in UCF101's layout.")
@layout_option
@click.option("--pairs", default=60, show_default=True, type=click.IntRange(4), help="Pairs to write, a quarter of them for the test list.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(2), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(32), help="Height and width of a frame, in pixels; even.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def generate_command(**given: Any) -> None:
    """Write pairs of videos of opening and closing doors over the videos of BACKGROUNDS, a data set.

    The two videos of a pair differ only in the order of the motion. Test videos are drawn over test videos of BACKGROUNDS.
    """
    from clipstep.training.generate import generate_command as call

    call(**given)


@command("explain", loads=["clipstep.training.explain"])
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--label", help="The class to explain. [default: the most probable at the end of the video]")
@click.option("--out", type=OutputFolder(), required=True, help="Folder for explanation.png and explanation.mp4.")
@click.option("--force", is_flag=True, help="Replace an older explanation in --out, once the new one is whole.")
def explain_command(**given: Any) -> None:
    """Show where the network of RUN looks in VIDEO: a Grad-CAM heat map over its frames, and the predictions over time."""
    from clipstep.training.explain import explain_command as call

    call(**given)


@command("convert", loads=["clipstep.training.convert"])
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=OutputFolder(), required=True, help="Folder to write the run to.")
@click.option("--force", is_flag=True, help="Replace a finished run in --out, once the new one is whole.")
@split_option
@layout_option
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
def convert_command(**given: Any) -> None:
    """Write CHECKPOINT, a state dict of the paper's published code, as a run that can be evaluated and exported.

    DATA is the data set that it was trained on, see clipstep train: class names, normalisation and sample subclips are taken from it.
    """
    from clipstep.training.convert import convert_command as call

    call(**given)


@command(
    "evaluate",
    groups={
        "The data": ("split", "layout", "crops"),
        "A bundle": ("signer", "engine", "precision", "threads", "record"),
        "Compare": ("reset_each_step", "other"),
        "Where": ("out", "force", "as_json"),
    },
    needs=[("force", "out")],
    loads=["clipstep.training.evaluate_command"],
)
@click.argument("what", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@split_option
@layout_option
@signer_option
@click.option("--engine", type=click.Choice(list(ENGINES)), default="onnxruntime", show_default=True, help="The engine that runs a bundle.")
@click.option("--precision", default="float32", show_default=True, help=f"Which of the bundle's artifacts for that engine, {either(PRECISIONS)}.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads of a bundle's engine.")
@click.option(
    "--crops",
    type=click.Choice(["1", "5"]),
    default="1",
    show_default=True,
    help="Predict from the centre, or from the mean over the centre and the four corners.",
)
@click.option("--reset-each-step", is_flag=True, help="Also measure without memory: reset the states before each subclip.")
@click.option("--with", "other", type=click.Path(path_type=Path), help="Average the probabilities with those of this run or bundle.")
@click.option("--record", is_flag=True, help="Record the accuracy in the bundle's manifest.")
@click.option("--out", type=OutputFolder(), help="Folder for tables and plots.")
@click.option("--force", is_flag=True, help="Replace an older evaluation in --out, once the new one is whole.")
@click.option("--allow-leakage", is_flag=True, help="Only warn of videos that are tested with and trained on, or twice in the test list.")
@json_option
def evaluate_command(**given: Any) -> None:
    """Measure the accuracy of WHAT, a run or a bundle, on the test list of DATA."""
    from clipstep.training.evaluate_command import evaluate_command as call

    call(**given)
