"""The commands of this package that need PyTorch, light enough that their help shows without; what each does is in the file of its name."""

from pathlib import Path
from typing import Any

import click

from clipstep.runtime.options import NewFile, NewFolder, command
from clipstep.training.choices import ARCHITECTURES, HOME


@command("throughput", loads=["clipstep.benchmarks.throughput"])
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), default=HOME, show_default=True)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Videos a batch, of one process.")
@click.option("--devices", default=1, show_default=True, type=click.IntRange(1), help="Processes that train together; they share the cores.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Decoding processes, of each process.")
@click.option("--videos", default=48, show_default=True, type=click.IntRange(1), help="Videos a round, from the start of the training list.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often the two take turns.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
def throughput_command(**given: Any) -> None:
    """Measure training on the videos of DATA: decoding, forward and backward passes and the optimizer's steps, all counted.

    The plain loop takes one video after the other, in one process with all cores.
    """
    from clipstep.benchmarks.throughput import throughput_command as call

    call(**given)


@command("systems", loads=["clipstep.benchmarks.systems"])
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=NewFolder(), required=True, help="Folder for runs, bundles and records; what is there is not made again.")
@click.option("--system", "names", multiple=True, type=click.Choice(list(ARCHITECTURES)), help="May be given several times. [default: all]")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
@click.option("--arm64", is_flag=True, help="Also count the ARM64 instructions of a step, as clipstep bench --arch arm64 does.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=3, show_default=True, type=click.IntRange(1), help="Steps a turn.")
def systems_command(**given: Any) -> None:
    """Export and measure the networks with random weights, whose batch norms have the statistics of DATA's first test videos."""
    from clipstep.benchmarks.systems import systems_command as call

    call(**given)


@command("scaling", needs=[("force", "picture")], loads=["clipstep.benchmarks.scaling"])
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=NewFolder(), required=True, help="Folder for runs and bundles; what is there is not made again.")
@click.option("--system", default="slowfast_causal_shufflenet", show_default=True, type=click.Choice(list(ARCHITECTURES)), help="The network.")
@click.option("--frames", multiple=True, default=(4, 8, 16, 32), show_default=True, type=click.IntRange(1), help="T, may be given several times.")
@click.option("--size", "sizes", multiple=True, default=(112, 160, 224), show_default=True, type=click.IntRange(16), help="Height and width, too.")
@click.option("--streams", multiple=True, default=(1, 2, 4, 8), show_default=True, type=click.IntRange(1), help="Streams on one model, too.")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--picture", type=NewFile(), help="Also draw it: .png or .svg.")
@click.option("--force", is_flag=True, help="Replace an older picture.")
def scaling_command(**given: Any) -> None:
    """Measure a network's step with random weights over T, frame sizes and numbers of streams, one thread, each beside the others.

    T grows at the first size, and the size at the last but one T. The first of both is what the others are compared with.
    """
    from clipstep.benchmarks.scaling import scaling_command as call

    call(**given)
