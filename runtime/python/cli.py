"""The ``clipstep`` command. Each subcommand is imported only when it is called, so that a base install can run."""

import errno
import importlib
import sys
from typing import NamedTuple

import click

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.terminal import quiet_stderr

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class _Job(NamedTuple):
    module: str
    extra: str | None
    """The extra whose libraries the subcommand needs; None if the base install suffices."""
    help: str


JOBS = {
    "train": _Job("clipstep.training.cli", "training", "Train a network on a data set in UCF101's layout."),
    "models": _Job("clipstep.training.count", "training", "List the networks that can be trained, with their parameters and arithmetic."),
    "generate": _Job("clipstep.training.generate", "training", "Write a data set of which the order of motion alone decides the class."),
    "explain": _Job("clipstep.training.explain", "training", "Show where a network looks in a video, and its predictions over time."),
    "convert": _Job("clipstep.training.convert", "training", "Write a checkpoint of the paper's published code as a run."),
    "evaluate": _Job("clipstep.training.evaluate", "training", "Measure how right a run or a bundle is on a data set."),
    "export": _Job("clipstep.export.cli", "export", "Write a trained run as a verified bundle."),
    "verify": _Job("clipstep.export.cli", "export", "Check each artifact of a bundle against the eager network."),
    "inspect": _Job("clipstep.runtime.inspect", None, "Show what a bundle, or a lone artifact, is."),
    "run": _Job("clipstep.runtime.run", None, "Stream a video through a bundle."),
    "bench": _Job("clipstep.benchmarks.cli", "bench", "Measure a bundle's latency and memory, or its instructions on ARM64."),
    "arm64": _Job("clipstep.benchmarks.arm64.install", "bench", "Set up what clipstep bench --arch arm64 needs."),
    "throughput": _Job("clipstep.benchmarks.throughput", "training", "Measure training in batches beside one video at a time."),
    "peers": _Job("clipstep.benchmarks.peers.command", "peers", "Measure a bundle beside the same network in other runtimes."),
    "systems": _Job("clipstep.benchmarks.systems", "bench", "Export and measure every network that can be trained, in one table."),
    "scaling": _Job("clipstep.benchmarks.scaling", "bench", "Measure how a step grows with frames, their size and streams."),
    "report": _Job("clipstep.benchmarks.report", None, "Summarise a bundle and what was measured of it in one table."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(JOBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in JOBS:
            return None
        job = JOBS[cmd_name]
        try:
            with quiet_stderr():
                module = importlib.import_module(job.module)
        except ModuleNotFoundError as error:
            if job.extra is None or (error.name or "").startswith("clipstep"):
                raise
            raise ClipstepError(
                f"clipstep {cmd_name} needs {error.name}, which is not installed", fix=f"pip install 'clipstep[{job.extra}]'"
            ) from error
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, job.help) for name, job in JOBS.items()])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="clipstep")
def group() -> None:
    """From a video network trained in PyTorch to verified artifacts for phones."""


def main() -> None:
    """Runs the command line; a user's mistake is one line on standard error and exit code 2."""
    try:
        group.main(standalone_mode=False)
    except ClipstepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"error: {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
