"""``clipstep bench compare``."""

from pathlib import Path

import click

from clipstep.benchmarks.comparison.api import compare
from clipstep.benchmarks.comparison.output import comparison_table, csv_text, json_values, markdown_text
from clipstep.benchmarks.comparison.result import Comparison
from clipstep.runtime.command_line.options import command, json_option
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import either

ABOVE_LIMIT = 1
"""The exit code if a configuration is surely above its limit."""


@command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option(
    "--limits",
    type=click.Path(path_type=Path),
    help='End with exit code 1 if a ratio is surely above its limit in this JSON file, such as {"onnxruntime, 1 thread": 1.05, "*": 1.1}.',
)
@click.option("--relative-to", help='Compare times relative to those of this configuration in the same turns, such as "naive rank-5 ONNX".')
@click.option("--csv", "as_csv", is_flag=True, help="The table as CSV, and nothing else on standard output; notes go to standard error.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Everything as Markdown, and nothing else on standard output.")
@json_option
def compare_command(a: Path, b: Path, limits: Path | None, relative_to: str | None, as_csv: bool, as_markdown: bool, as_json: bool) -> None:
    """Compare the records B with the records A, both of which clipstep bench --out wrote: is anything faster or slower?"""
    forms = [name for name, asked in (("--csv", as_csv), ("--markdown", as_markdown), ("--json", as_json)) if asked]
    if len(forms) > 1:
        raise ClipstepError("the output has one form", got=" and ".join(forms), expected=either(forms))
    comparison = compare(a, b, limits=limits, relative_to=relative_to)
    if as_json:
        print_json(json_values(comparison))
    elif as_markdown:
        click.echo(markdown_text(comparison), nl=False)
    elif as_csv:
        click.echo(csv_text(comparison), nl=False)
        for note in comparison.notes:
            click.echo(f"note: {note}", err=True)
    else:
        _print(comparison)
    for row in comparison.above_limits:
        surely = row.ratio if row.interval is None else row.interval[0]
        click.echo(f"above its limit: {row.name}: at least {surely:.3f} times A, and {row.limit:g} is allowed", err=True)
    if comparison.above_limits:
        click.get_current_context().exit(ABOVE_LIMIT)


def _print(comparison: Comparison) -> None:
    console = new_console()
    console.print(f"A  {comparison.a}\nB  {comparison.b}", soft_wrap=True, highlight=False)
    if comparison.configurations:
        print_table(console, comparison_table(comparison))
    for where, names in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if names:
            console.print(f"only in {where}: {'; '.join(names)}", soft_wrap=True, highlight=False)
    for line in (comparison.method, *(f"note: {note}" for note in comparison.notes)):
        console.print(line, soft_wrap=True, highlight=False)
