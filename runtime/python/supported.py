"""The range of versions that clipstep supports of a library which it uses beyond its public API."""

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clipstep.runtime.errors import ClipstepError, error_summary


@dataclass(frozen=True)
class SupportedRange:
    """The supported versions of a library: from `lowest` on, and before `below`.

    What is not public may change in any minor version, so the next one is refused until clipstep was tested with it. The extra in
    pyproject.toml that installs the library states the same range, and a test compares the two.
    """

    library: str
    """Its name, which is the same for pip and in an import."""
    lowest: str
    below: str
    version_in: str
    """The module whose `__version__` is the library's."""

    @property
    def requirement(self) -> str:
        """The range as pip reads it, such as `torch>=2.13,<2.14`."""
        return f"{self.library}>={self.lowest},<{self.below}"

    def installed(self) -> str:
        """Return the installed version.

        Raises:
            ModuleNotFoundError: the library is not installed.
        """
        from importlib.metadata import version

        found: Any = getattr(importlib.import_module(self.version_in), "__version__", None)
        return str(found or version(self.library))

    def check(self) -> None:
        """Check that the installed version is in the range.

        Raises:
            ClipstepError: it is not.
            ModuleNotFoundError: the library is not installed.
        """
        installed = self.installed()
        if not _release(self.lowest) <= _release(installed) < _release(self.below):
            raise ClipstepError(
                f"this version of {self.library} is not supported, because clipstep uses parts of {self.library} that are not public",
                got=installed,
                expected=self.requirement,
                fix=f"pip install {shlex.quote(self.requirement)}",
            )

    @contextmanager
    def internals(self) -> Iterator[None]:
        """Check the version, then run a block that imports or uses what is not public.

        Raises:
            ClipstepError: the version is not supported, or the library lacks something that the block imports or uses.
            ModuleNotFoundError: the library, or another one that it imports, is not installed.
        """
        self.check()
        try:
            yield
        except ImportError as error:
            name = error.name or ""
            if name.partition(".")[0] != self.library or (name == self.library and isinstance(error, ModuleNotFoundError)):
                raise  # Another library fails, or this one is absent as a whole.
            raise self._lacks(error) from error
        except AttributeError as error:
            raise self._lacks(error) from error

    def guarded(self, module: object) -> Any:
        """Return a view of a module of the library that raises a `ClipstepError` for a name which the module lacks."""
        return _Guarded(module, self._lacks)

    def _lacks(self, error: Exception) -> ClipstepError:
        return ClipstepError(
            f"{self.library} {self.installed()} lacks what clipstep uses of it",
            got=error_summary(error),
            expected=f"that of {self.requirement}",
            fix=f"pip install --force-reinstall {shlex.quote(self.requirement)}",
        )


class _Guarded:
    def __init__(self, module: object, lacks: Callable[[Exception], ClipstepError]) -> None:
        self._module, self._lacks = module, lacks

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._module, name)
        except AttributeError as error:
            raise self._lacks(error) from error


def _release(version_text: str) -> tuple[int, ...]:
    """Return the numbers of a version, such as `(2, 13, 1)` for `2.13.1rc1+cpu`. Zeros at the end are left out, so that 2.13 equals 2.13.0."""
    release = re.match(r"\d+(\.\d+)*", version_text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
