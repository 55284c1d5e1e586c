"""The options of the commands that measure training and whole sets of networks, apart from their code so that help shows without loading PyTorch.

Each command imports the file that does its work when it is called.
"""

from pathlib import Path
from typing import Any

import click

from clipstep.runtime.command_line.options import OutputFile, OutputFolder, command
from clipstep.training.choices import ARCHITECTURES, HOME
from clipstep.training.data_options import layout_option


@command("bench-training", loads=["clipstep.benchmarks.training_throughput"])
@click.argument("data", type=click.Path(path_type=Path))
@layout_option
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default=HOME, show_default=True)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Videos in a batch of one process.")
@click.option("--devices", default=1, show_default=True, type=click.IntRange(1), help="Processes that train together; they share the cores.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Decoding processes of each training process.")
@click.option("--videos", default=48, show_default=True, type=click.IntRange(1), help="Videos in a round, from the start of the training list.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often the two take turns.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
def bench_training_command(**given: Any) -> None:
    """Measure the throughput of training on the videos of DATA: decoding, forward and backward passes and optimizer steps together.

    Beside it runs a plain loop over one video at a time, in one process with all cores.
    """
    from clipstep.benchmarks.training_throughput import bench_training_command as call

    call(**given)


@command("bench-models", only_with=[("frames", "family", ["trained"]), ("size", "family", ["trained"])], loads=["clipstep.benchmarks.models"])
@click.argument("data", type=click.Path(path_type=Path))
@layout_option
@click.option("--out", type=OutputFolder(), required=True, help="Folder for runs, bundles and records; those that exist are reused.")
@click.option(
    "--family",
    type=click.Choice(["trained", "zoo"]),
    default="trained",
    show_default=True,
    help="trained: those that clipstep train trains; zoo: those that people deploy, of torchvision, PyTorchVideo and others, from clipstep[zoo].",
)
@click.option("--architecture", "names", multiple=True, help="A network of the family. May be given several times. [default: all]")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip. Networks of the zoo have their own.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels; not for the zoo.")
@click.option("--arm64", is_flag=True, help="Also count the ARM64 instructions of a step, as clipstep bench --arch arm64 does.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Steps in each turn.")
def bench_models_command(**given: Any) -> None:
    """Export and measure the networks with random weights; their batch norms get the statistics of DATA's first test videos."""
    from clipstep.benchmarks.models import bench_models_command as call

    call(**given)


@command("bench-scaling", needs=[("force", "picture")], loads=["clipstep.benchmarks.scaling"])
@click.argument("data", type=click.Path(path_type=Path))
@layout_option
@click.option("--out", type=OutputFolder(), required=True, help="Folder for runs and bundles; those that exist are reused.")
@click.option("--architecture", default="slowfast_causal_shufflenet", show_default=True, type=click.Choice(list(ARCHITECTURES)), help="The network.")
@click.option(
    "--frames",
    multiple=True,
    default=(4, 8, 16, 32),
    show_default=True,
    type=click.IntRange(1),
    help="T, frames a subclip. May be given several times.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    default=(112, 160, 224),
    show_default=True,
    type=click.IntRange(16),
    help="Height and width in pixels. May be given several times.",
)
@click.option(
    "--streams",
    multiple=True,
    default=(1, 2, 4, 8),
    show_default=True,
    type=click.IntRange(1),
    help="Streams on one model. May be given several times.",
)
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--picture", type=OutputFile(), help="Also plot the results to this file, .png or .svg.")
@click.option("--force", is_flag=True, help="Replace an older plot.")
def bench_scaling_command(**given: Any) -> None:
    """Measure how the step of a network with random weights scales with T, with the size of frames and with the number of streams, in one thread.

    T varies at the first size, and the size varies at the second largest T. All are compared with the second largest T at the first size.
    """
    from clipstep.benchmarks.scaling import bench_scaling_command as call

    call(**given)
