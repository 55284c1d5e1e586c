"""Whether a file is there at all, and has anything in it."""

from pathlib import Path

from clipstep.runtime.errors import ClipstepError


def check_present(path: Path, fix: str) -> None:
    """Checks that a file, or a folder that is one of a format's files, is there and not empty; ``fix`` is what to do if not.

    Raises:
        ClipstepError: it is absent or empty.
    """
    if not path.exists():
        raise ClipstepError(f"{path}: no such file", fix=fix)
    if not (any(path.iterdir()) if path.is_dir() else path.stat().st_size):
        raise ClipstepError(f"{path}: is empty", fix=fix)
