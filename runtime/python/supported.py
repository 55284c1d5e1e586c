"""Libraries that clipstep uses beyond their public API, and the range of versions of each that it supports."""

import importlib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from clipstep.runtime.errors import ClipstepError, error_summary


@dataclass(frozen=True)
class SupportedRange:
    """The supported versions of a library: those from `lowest` on and before `below`.

    What is not public may change in any minor version, so a version of the next one is refused until clipstep was tested with it. The extra
    of pyproject.toml that brings the library states the same range, and a test compares the two.
    """

    library: str
    """The name that pip and Python know it by."""
    lowest: str
    below: str
    version_in: str
    """The module whose `__version__` is the library's."""

    @property
    def requirement(self) -> str:
        """The range as pip reads it, such as `torch>=2.13,<2.14`."""
        return f"{self.library}>={self.lowest},<{self.below}"

    def installed(self) -> str:
        """The installed version.

        Raises:
            ModuleNotFoundError: the library is not installed.
        """
        found: Any = getattr(importlib.import_module(self.version_in), "__version__", None)
        return str(found or version(self.library))

    def check(self) -> None:
        """Checks the installed version.

        Raises:
            ClipstepError: it is not in the range.
            ModuleNotFoundError: the library is not installed.
        """
        installed = self.installed()
        if not _numbers(self.lowest) <= _numbers(installed) < _numbers(self.below):
            raise ClipstepError(
                f"this version of {self.library} is not supported, because clipstep uses parts of {self.library} that are not public",
                got=installed,
                expected=self.requirement,
                fix=f"pip install {shlex.quote(self.requirement)}",
            )

    @contextmanager
    def internals(self) -> Iterator[None]:
        """A context for imports and uses of what is not public. It checks the version first.

        Raises:
            ClipstepError: the version is not supported, or the library lacks what is imported or used in the context.
            ModuleNotFoundError: the library, or one that it imports itself, is not installed.
        """
        self.check()
        try:
            yield
        except ImportError as error:
            name = error.name or ""
            if name.partition(".")[0] != self.library or (name == self.library and isinstance(error, ModuleNotFoundError)):
                raise  # Another library's mistake, or the whole library is absent.
            raise self.lacking(error) from error
        except AttributeError as error:
            raise self.lacking(error) from error

    def guarded(self, module: object) -> Any:
        """A view of a module of the library, which raises a ClipstepError for a name that the module lacks."""
        return _Guarded(self, module)

    def lacking(self, error: Exception) -> ClipstepError:
        """What to raise when something that clipstep uses is missing from the library."""
        return ClipstepError(
            f"{self.library} {self.installed()} lacks what clipstep uses of it",
            got=error_summary(error),
            expected=f"that of {self.requirement}",
            fix=f"pip install --force-reinstall {shlex.quote(self.requirement)}",
        )


class _Guarded:
    def __init__(self, library: SupportedRange, module: object) -> None:
        self._library, self._module = library, module

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._module, name)
        except AttributeError as error:
            raise self._library.lacking(error) from error


def _numbers(version_text: str) -> tuple[int, ...]:
    """The release of a version, `(2, 13, 1)` of `2.13.1rc1+cpu`; without zeros at its end, so that 2.13 is 2.13.0."""
    release = re.match(r"\d+(\.\d+)*", version_text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
