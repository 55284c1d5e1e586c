"""The SHA-256 and the size of a file, or of a folder as a whole."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from clipstep.runtime.bundle.contents import is_clutter


def tree_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder as a whole.

    For a folder it is the hash of a list with a line `sha256  path` for each file in it, sorted by path. Files that Finder and Explorer leave
    are not listed.
    """
    if path.is_file():
        with path.open("rb") as file:
            return file_digest(file)
    return tree_digest("", _files_in(path), lambda part: tree_sha256(path / part))


def tree_size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder except those that Finder and Explorer leave."""
    return path.stat().st_size if path.is_file() else sum((path / part).stat().st_size for part in _files_in(path))


def tree_digest(file: str, parts: Sequence[str], digest: Callable[[str], str]) -> str:
    """Return the `tree_sha256` of `file`, from the hash that `digest` returns for each part.

    `parts` are the names of its files: `file` itself, or the files in it if it is a folder.
    """
    whole = PurePosixPath(file).as_posix()
    if list(parts) == [whole]:
        return digest(whole)
    inside = {part.removeprefix(f"{whole}/") if file else part: part for part in parts}
    lines = "".join(f"{digest(inside[name])}  {name}\n" for name in sorted(inside))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file, from its present position to its end."""
    digest = hashlib.sha256()
    while data := file.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def _files_in(path: Path) -> list[str]:
    return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and not is_clutter(file.name)]
