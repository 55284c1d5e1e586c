"""Folders that are written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(out: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, and puts it at ``out`` if nothing was raised; what was there before is replaced.

    Otherwise ``out`` stays as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        yield new
        if out.exists():
            shutil.move(out, old)
        try:
            shutil.move(new, out)
        except OSError:
            if old.exists():
                shutil.move(old, out)
            raise
