"""The `clipstep` command. The module of a subcommand is imported only when that subcommand is called, because many need more than a base install."""

import difflib
import importlib
import os
import sys
from typing import Any, NamedTuple

import click

from clipstep.runtime.command_line.exit_codes import run_for_exit_code
from clipstep.runtime.command_line.streams import library_warnings_hidden, prepare_streams
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra


class _Entry(NamedTuple):
    """A subcommand `NAME`: the module that defines `NAME_command`, and its line in the help."""

    module: str
    extra: str | None
    """The extra that installs the libraries which the subcommand needs; None if the base install has them."""
    help: str
    group: str = "Others"


MAKE, EXPORT, RUN, MEASURE = "Make a network", "Export it", "Run it", "Measure it"
COMMANDS = {
    "demo": _Entry("clipstep.training.demo.command", "bench", "Export, run and measure a small network that ships with clipstep.", MAKE),
    "train": _Entry("clipstep.training.train_command", "training", "Train a network on a folder of videos.", MAKE),
    "models": _Entry("clipstep.training.cli", "training", "List the networks that can be trained, and what each costs.", MAKE),
    "generate": _Entry("clipstep.training.cli", "training", "Write a data set whose classes differ only in the order of the motion.", MAKE),
    "convert": _Entry("clipstep.training.cli", "training", "Write a checkpoint of the paper's published code as a run.", MAKE),
    "export": _Entry("clipstep.export.cli", "export", "Write a trained run, or a network of your own, as a bundle.", EXPORT),
    "verify": _Entry("clipstep.export.verify_command", "export", "Check each artifact of a bundle against the eager network.", EXPORT),
    "inspect": _Entry("clipstep.runtime.inspection", None, "Show what a bundle, or a lone artifact, is.", EXPORT),
    "sign": _Entry("clipstep.runtime.command_line.sign", "sign", "Sign a bundle, so that others can check who made it.", EXPORT),
    "pack": _Entry("clipstep.export.pack", None, "Write a bundle as one file, for one platform.", EXPORT),
    "run": _Entry("clipstep.runtime.command_line.run", None, "Stream a video through a bundle.", RUN),
    "evaluate": _Entry("clipstep.training.cli", "training", "Measure the accuracy of a run or a bundle on a data set.", MEASURE),
    "explain": _Entry("clipstep.training.cli", "training", "Show where a network looks in a video, and what it predicts.", MEASURE),
    "bench": _Entry("clipstep.benchmarks.bench_command", "bench", "Measure latency and memory, or instructions on ARM64.", MEASURE),
    "report": _Entry("clipstep.benchmarks.report", None, "Summarise a bundle and what was measured of it.", MEASURE),
    "peers": _Entry("clipstep.benchmarks.peers.command", "peers", "Measure a bundle beside the network in other runtimes.", MEASURE),
    "bench-models": _Entry("clipstep.benchmarks.cli", "bench", "Export and measure every network that can be trained.", MEASURE),
    "bench-scaling": _Entry("clipstep.benchmarks.cli", "bench", "Measure how a step grows with frames, size and streams.", MEASURE),
    "bench-streams": _Entry("clipstep.benchmarks.streams", "bench", "Measure how many streams of a video run at once.", MEASURE),
    "bench-training": _Entry("clipstep.benchmarks.cli", "training", "Measure training in batches, in videos a second.", MEASURE),
    "arm64": _Entry("clipstep.benchmarks.arm64.install", "bench", "Set up what clipstep bench --arch arm64 needs.", MEASURE),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name].module), f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 1)
            raise ClipstepError(f"clipstep has no command {name}", fix=f"did you mean {near[0]}?" if near else "see clipstep --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            entry = COMMANDS[ctx.invoked_subcommand or ""]
            if entry.extra is None or (error.name or "").startswith("clipstep"):
                raise
            raise ClipstepError(
                f"clipstep {ctx.invoked_subcommand} needs {error.name}, which is not installed", fix=install_extra(entry.extra)
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading in dict.fromkeys(entry.group for entry in COMMANDS.values()):
            with formatter.section(heading):
                formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items() if entry.group == heading], col_max=14)


@click.command(cls=_LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="clipstep")
@click.pass_context
def group(context: click.Context) -> None:
    """From a video network trained in PyTorch to verified artifacts for phones.

    clipstep COMMAND --help explains a command.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """Run the command line. An error that the user can put right is printed as one line on standard error, with exit code 2."""
    prepare_streams()
    with library_warnings_hidden():
        code = run_for_exit_code(_run)
    if code:
        raise SystemExit(code)


def _run() -> None:
    if "_CLIPSTEP_COMPLETE" in os.environ:  # The shell asks for completions.
        group.main(prog_name="clipstep")
    try:  # Not with click's own main(), which handles Ctrl-C and closed pipes in its own way.
        with group.make_context("clipstep", sys.argv[1:]) as context:
            group.invoke(context)
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
