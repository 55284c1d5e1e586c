"""Folders that are written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipstep.runtime.errors import ClipstepError


def check_replaceable(out: Path, marker: str, kind: str) -> None:
    """Makes sure before the work that ``out`` may be written: it is new, or an older ``kind``, which has a file ``marker``.

    Raises:
        ClipstepError: it is something else.
    """
    if out.exists() and not (out / marker).is_file():
        article = "an" if kind[0] in "aeiou" else "a"
        raise ClipstepError(f"{out}: exists and is not {article} {kind}", expected=f"a new folder or an older {kind}", fix="choose another --out")


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
