"""Check that a file exists and is not empty."""

from pathlib import Path

from clipstep.runtime.errors import ClipstepError


def check_present(path: Path, fix: str) -> None:
    """Check that an artifact, a file or for Core ML a folder, exists and is not empty; `fix` says what to do if not.

    Raises:
        ClipstepError: it is absent or empty.
    """
    if not path.exists():
        raise ClipstepError(f"{path}: no such file", fix=fix)
    if not (any(path.iterdir()) if path.is_dir() else path.stat().st_size):
        raise ClipstepError(f"{path}: is empty", fix=fix)
