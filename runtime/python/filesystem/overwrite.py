"""Check, before a command starts its work, that it overwrites nothing finished unless `--force` is given."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import IGNORED, recover
from clipstep.runtime.filesystem.path_checks import check_file_writable, check_folder_writable


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that a command writes, such as a bundle or a run.

    It is recognised by `marker`, a file that it always holds. `parts` returns the names that belong in such a folder: with `--force` it is
    replaced only if it holds nothing else. `describe` says in a few words what a finished one is.
    """

    name: str
    marker: str
    parts: Callable[[Path], Iterable[str]]
    describe: Callable[[Path], str] = lambda _: ""

    @property
    def with_article(self) -> str:
        """The name with its article, such as `a bundle`."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"


def check_overwrite(out: Path, kind: FolderKind | None = None, *, force: bool = False, instead: str = "", option: str = "--out") -> None:
    """Check that a command may write `out`.

    Args:
        out: a folder, which may be new, empty, or with `force` an older one of that kind; or a file, which may be new, or with `force`
            an older one. A symbolic link stands for its target.
        kind: the kind of folder; None for a file.
        force: whether `--force` was given.
        instead: alternatives to `--force` for the message, such as ", go on with --resume".
        option: the option that `out` comes from, for the message.

    Raises:
        ClipstepError: something else is there; something finished is there and `force` is false; or nothing can be written there.
    """
    place = Path(os.path.realpath(out))
    other = f"choose another {option}"
    if kind is None:
        check_file_writable(place)
        if place.exists() and not force:
            raise ClipstepError(f"{out}: exists ({modified_text(out)})", fix=f"replace it with --force, or {other}")
        return
    check_folder_writable(place)
    if place in (Path.cwd(), *Path.cwd().parents):
        raise ClipstepError(f"{out}: is the folder you are in, or holds it", expected="a folder to write anew", fix=other)
    recover(place)
    if place.exists():
        _check_folder(out, kind, force, instead, other)


def check_bundle_name(out: Path) -> None:
    """Check that a bundle's folder may have that name.

    Raises:
        ClipstepError: it does not end in `.clipstep`.
    """
    if out.suffix != ".clipstep":
        raise ClipstepError("a bundle's name ends in .clipstep", got=out, expected=f"{out}.clipstep")


def modified_text(path: Path) -> str:
    """Return when a file was last modified, such as `of 2026-01-31 09:30`."""
    return time.strftime("of %Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def _check_folder(out: Path, kind: FolderKind, force: bool, instead: str, other: str) -> None:
    there = {path.name for path in out.iterdir()} - IGNORED
    if not there:
        return
    if kind.marker not in there:
        raise ClipstepError(f"{out}: exists and is not {kind.with_article}", expected=f"a new folder or an older {kind.name}", fix=other)
    if not force:
        what = ", ".join(filter(None, (kind.describe(out), modified_text(out / kind.marker))))
        raise ClipstepError(
            f"{out}: holds a finished {kind.name} ({what})", fix=f"replace it with --force once the new one is whole{instead}, or {other}"
        )
    others = sorted(there - {kind.marker, *kind.parts(out)})
    if others:
        names = ", ".join(others[:5]) + (" ..." if len(others) > 5 else "")
        raise ClipstepError(f"{out}: holds more than {kind.with_article}, which --force would delete", got=names, fix=f"move that away, or {other}")


def _manifest_of(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _bundle_parts(folder: Path) -> Iterable[str]:
    from clipstep.runtime.bundle.signature import SIGNATURE

    values = _manifest_of(folder)
    artifacts = values.get("artifacts")
    items = (*(artifacts if isinstance(artifacts, list) else ()), values.get("golden"))
    return {SIGNATURE, *(str(item.get("file")).partition("/")[0] for item in items if isinstance(item, dict))}


def _describe_bundle(folder: Path) -> str:
    values = _manifest_of(folder)
    provenance, labels = values.get("provenance"), values.get("labels")
    network = provenance.get("architecture", provenance.get("source")) if isinstance(provenance, dict) else None
    return f"{network}, {len(labels)} classes" if network is not None and isinstance(labels, list) else "damaged"


BUNDLE = FolderKind("bundle", "manifest.json", _bundle_parts, _describe_bundle)
"""The folder that `clipstep export` writes. It is recognised without opening it as a bundle, so that a damaged one is recognised, too."""
