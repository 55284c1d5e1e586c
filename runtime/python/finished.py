"""What a command has finished is not replaced unasked: the check before its work starts."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.places import check_file_place, check_folder_place
from clipstep.runtime.whole import IGNORED, recover


@dataclass(frozen=True)
class Kind:
    """A folder that a command writes, known by a file that it always has.

    ``parts`` gives the names that belong in such a folder: with ``--force`` it is replaced only if it holds nothing else.
    ``describe`` says in a few words what a finished one is.
    """

    name: str
    marker: str
    parts: Callable[[Path], Iterable[str]]
    describe: Callable[[Path], str] = lambda _: ""

    @property
    def a(self) -> str:
        """The name with its article."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"


def check_output(out: Path, kind: Kind | None = None, *, force: bool = False, instead: str = "", option: str = "--out") -> None:
    """Makes sure that a command may write ``out``: a folder of that kind, or a file if there is none.

    A folder may be new, empty, or with ``force`` an older one of that kind; a file may be new, or with ``force`` an older one.
    A symbolic link stands for what it points to. ``instead`` names other ways than ``--force`` (", go on with --resume").

    Raises:
        ClipstepError: something else is there, or something finished without ``force``; or nothing can be written there.
    """
    place = Path(os.path.realpath(out))
    other = f"choose another {option}"
    if kind is None:
        check_file_place(place)
        if place.exists() and not force:
            raise ClipstepError(f"{out}: exists ({written(out)})", fix=f"replace it with --force, or {other}")
        return
    check_folder_place(place)
    if place in (Path.cwd(), *Path.cwd().parents):
        raise ClipstepError(f"{out}: is the folder you are in, or holds it", expected="a folder to write anew", fix=other)
    recover(place)
    if place.exists():
        _check_folder(out, kind, force, instead, other)


def check_bundle_name(out: Path) -> None:
    """Raises:
    ClipstepError: it is not the name of a bundle's folder.
    """
    if out.suffix != ".clipstep":
        raise ClipstepError("a bundle's name ends in .clipstep", got=out, expected=f"{out}.clipstep")


def written(path: Path) -> str:
    """When it was last written, in words."""
    return time.strftime("of %Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def _check_folder(out: Path, kind: Kind, force: bool, instead: str, other: str) -> None:
    there = {path.name for path in out.iterdir()} - IGNORED
    if not there:
        return
    if kind.marker not in there:
        raise ClipstepError(f"{out}: exists and is not {kind.a}", expected=f"a new folder or an older {kind.name}", fix=other)
    if not force:
        what = ", ".join(filter(None, (kind.describe(out), written(out / kind.marker))))
        raise ClipstepError(
            f"{out}: holds a finished {kind.name} ({what})", fix=f"replace it with --force once the new one is whole{instead}, or {other}"
        )
    others = sorted(there - {kind.marker, *kind.parts(out)})
    if others:
        names = ", ".join(others[:5]) + (" ..." if len(others) > 5 else "")
        raise ClipstepError(f"{out}: holds more than {kind.a}, which --force would delete", got=names, fix=f"move that away, or {other}")


def _manifest_of(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _bundle_parts(folder: Path) -> Iterable[str]:
    values = _manifest_of(folder)
    artifacts = values.get("artifacts")
    items = (*(artifacts if isinstance(artifacts, list) else ()), values.get("golden"))
    return {"manifest.json.sig", *(str(item.get("file")).partition("/")[0] for item in items if isinstance(item, dict))}


def _describe_bundle(folder: Path) -> str:
    values = _manifest_of(folder)
    provenance, labels = values.get("provenance"), values.get("labels")
    network = provenance.get("architecture", provenance.get("source")) if isinstance(provenance, dict) else None
    return f"{network}, {len(labels)} classes" if network is not None and isinstance(labels, list) else "damaged"


BUNDLE = Kind("bundle", "manifest.json", _bundle_parts, _describe_bundle)
"""What ``clipstep export`` writes. It is looked at even where it is damaged, so it is not opened as a bundle."""
