"""The options of the commands that read a data set: which split of it, and in which layout it is."""

import click

from clipstep.runtime.wording import either
from clipstep.training.choices import AUTO, LAYOUTS

split_option = click.option(
    "--split",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Which split of DATA: N of trainlist0N.txt, or the seed of a random one, if nothing says what is for the test.",
)
layout_option = click.option(
    "--layout",
    default=AUTO,
    show_default=True,
    type=click.Choice([AUTO, *LAYOUTS]),
    help=f"How the data is laid out: {either(LAYOUTS)}; auto goes by its files.",
)
