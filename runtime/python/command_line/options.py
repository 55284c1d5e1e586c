"""The base of all commands: options in named groups, and checks of all arguments before any work."""

import importlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from clipstep.runtime.command_line.streams import quiet_stderr
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file_writable, check_folder_writable, check_readable

LARGEST_NUMBER = 2**31 - 1
"""The largest whole number that an option takes. Engines, random number generators and file formats take no larger ones."""
LONGEST_CHOICE = 40
"""How many characters the choices of an option may have to be listed in its metavar in the help; otherwise the metavar is NAME."""


def import_quietly(*modules: str) -> None:
    """Import modules of clipstep that import PyTorch and the like, and hide what these libraries print."""
    if modules:
        with quiet_stderr():
            for module in modules:
                importlib.import_module(module)


class OutputFile(click.Path):
    """A parameter type: a file to write or to append to, which is checked before the command starts its work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Any = super().convert(value, param, ctx)
        check_file_writable(path)
        return path


class OutputFolder(click.Path):
    """A parameter type: a folder to write, which is checked before the command starts its work. The command itself checks what it may replace."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Any = super().convert(value, param, ctx)
        check_folder_writable(path)
        return path


class Numbers(click.types.StringParamType):
    """Any number of numbers, one after the other or joined by commas: `--mean 114 114 114`, `--mean 114,114,114`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return tuple(float(number) for number in value.split(",")) if isinstance(value, str) else tuple(value)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers.", param, ctx)


METAVARS = {click.types.IntRange: "N", click.types.IntParamType: "N", click.types.FloatRange: "X", click.types.FloatParamType: "X", Numbers: "X ..."}


class Command(click.Command):
    """A command that groups its options in the help, and refuses arguments that no command can use or that it would ignore.

    Args:
        groups: for each heading of the help, the names of its parameters; the others are listed under "Options".
        needs: pairs of parameters; the first has no effect without the second.
        only_with: triples `(option, other, values)`: `option` has an effect only if `other` has one of `values`.
        loads: modules that the command needs but its help does not, because they import PyTorch.
    """

    def __init__(
        self,
        *args: Any,
        groups: Mapping[str, Sequence[str]] | None = None,
        needs: Sequence[tuple[str, str]] = (),
        only_with: Sequence[tuple[str, str, Sequence[str]]] = (),
        loads: Sequence[str] = (),
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.groups, self.needs, self.only_with, self.loads = groups or {}, needs, only_with, loads
        for parameter in self.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag and parameter.metavar is None:
                parameter.metavar = _metavar(parameter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        empty = [word.removesuffix("=") for word in args if word == "" or (word.startswith("--") and word.endswith("="))]
        if empty:
            raise ClipstepError(f"{empty[0] or 'an argument'} is empty", fix="check the variable that it came from")
        rest = super().parse_args(ctx, _joined(args, {opt for p in self.params if isinstance(p.type, Numbers) for opt in p.opts}))
        if not ctx.resilient_parsing:
            for parameter in self.params:
                for value in _single(ctx.params.get(str(parameter.name))):
                    _check_value(parameter.human_readable_name if isinstance(parameter, click.Argument) else parameter.opts[-1], value)
                    if isinstance(value, Path) and not isinstance(parameter.type, OutputFile | OutputFolder):
                        check_readable(value)
            self._check_pairs(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        import_quietly(*self.loads)
        return super().invoke(ctx)

    def _check_pairs(self, ctx: click.Context) -> None:
        """Refuse options that would be ignored silently."""
        names = {parameter.name: parameter.opts[-1] for parameter in self.params}
        for one, other in self.needs:
            if is_given(ctx, one) and not is_given(ctx, other):
                raise ClipstepError(f"{names[one]} does nothing without {names[other]}", fix=f"add {names[other]}, or leave {names[one]} out")
        for one, other, values in self.only_with:
            if is_given(ctx, one) and ctx.params[other] not in values:
                does = f"{names[one]} does nothing with {names[other]} {ctx.params[other]}"
                raise ClipstepError(does, expected=f"{names[other]} {' or '.join(values)}", fix=f"leave {names[one]} out")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = {str(p.name): record for p in self.params if isinstance(p, click.Option) and (record := p.get_help_record(ctx)) is not None}
        rows = {heading: [left.pop(name) for name in names if name in left] for heading, names in self.groups.items()}
        shown_help = self.get_help_option(ctx)
        rows["Options"] = [*left.values(), *([r] if shown_help and (r := shown_help.get_help_record(ctx)) and r not in left.values() else [])]
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


json_option = click.option("--json", "as_json", is_flag=True, help="Everything as JSON, and nothing else on standard output.")


def command(name: str, **more: Any) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a function a command of clipstep, as `click.command` does; `more` are arguments of `Command`."""
    return click.command(name, cls=Command, **more)


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether the parameter is on the command line. One from a configuration file counts as a default."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _joined(args: Sequence[str], options: Collection[str]) -> list[str]:
    """Return the words of a command line, with the numbers that follow one of `options` joined by commas."""
    joined: list[str] = []
    open_list = False
    for word in args:
        if open_list and joined[-1] not in options and _is_number(word):
            joined[-1] += f",{word}"
            continue
        joined.append(word)
        open_list = word in options or (open_list and joined[-2] in options and _is_number(word))
    return joined


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _metavar(parameter: click.Option) -> str | None:
    if isinstance(parameter.type, click.Path):
        return "PATH"
    if isinstance(parameter.type, click.Choice) and len("|".join(map(str, parameter.type.choices))) > LONGEST_CHOICE:
        return "NAME"
    word = METAVARS.get(type(parameter.type))
    return None if word is None else " ".join([word] * parameter.nargs)


def _single(value: Any) -> Iterator[Any]:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        yield from value
    else:
        yield value


def _check_value(name: str, value: Any) -> None:
    """Refuse numbers that are not finite or too large."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ClipstepError(f"{name} is not a finite number", got=value, expected="a finite number")
    if isinstance(value, int) and value > LARGEST_NUMBER:
        raise ClipstepError(f"{name} is too large", got=value, expected=f"at most {LARGEST_NUMBER}")


signer_option = click.option(
    "--signer", type=click.Path(path_type=Path), help="A public key (PEM) with which the bundle's signature must agree; see clipstep sign --help."
)
"""The option `--signer`, which every command that opens a bundle has; see `clipstep.runtime.bundle.open_for_command`."""
