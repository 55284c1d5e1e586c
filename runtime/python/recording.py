"""What is noted in a bundle's manifest after its export: accuracy by ``evaluate --record``, ARM64 costs by ``bench --record``.

The manifest is changed as it lies there at that moment, under the bundle's lock, and is replaced whole: two who measure at the same time
keep each other's notes, and keys that only a newer clipstep knows stay.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clipstep.runtime.bundle import MANIFEST, Bundle, BundleError, read_manifest
from clipstep.runtime.format_version import OWN, check_version
from clipstep.runtime.lock import one_writer
from clipstep.runtime.manifest import Accuracy, Arm64Step
from clipstep.runtime.signature import SIGNATURE
from clipstep.runtime.strict_json import parse_json
from clipstep.runtime.whole import write_file


def check_recordable(bundle: Bundle) -> None:
    """Checks before hours of work that something may be noted in the manifest.

    Raises:
        BundleError: it is a pack, or its folder may not be written to; it is signed, and another manifest would break its signature.
    """
    if bundle.is_signed:
        raise _signed(bundle.path)
    if bundle.is_pack:
        raise BundleError(f"{bundle.path}: is a pack, which nothing is noted in", fix="note it in the bundle's folder, and pack that again")
    with _writing(bundle.path):
        probe = bundle.path / f".{MANIFEST}.new"
        probe.touch(exist_ok=True)
        probe.unlink(missing_ok=True)  # Another may look at the same time.


def record_accuracy(bundle: Bundle, file: str, accuracy: Accuracy) -> None:
    """Notes in the bundle's manifest how right the artifact ``file`` is; the manifest is replaced at once, or not at all.

    Raises:
        BundleError: as ``check_recordable``; or the artifact was replaced since the bundle was opened.
    """
    _record(bundle, "accuracy", {file: accuracy})


def record_arm64(bundle: Bundle, costs: Mapping[str, Arm64Step]) -> None:
    """Notes in the bundle's manifest what a step of each artifact costs on ARM64, as ``record_accuracy`` does."""
    _record(bundle, "arm64_step", costs)


def _record(bundle: Bundle, key: str, notes: Mapping[str, BaseModel]) -> None:
    check_recordable(bundle)
    path = bundle.path / MANIFEST
    with _writing(bundle.path), one_writer(_lock_of(bundle.path), wait=True):
        if (bundle.path / SIGNATURE).exists():
            raise _signed(bundle.path)
        values = _noted(bundle, path.read_bytes(), key, notes)
        with write_file(path, mode=stat.S_IMODE(path.stat().st_mode)) as new:
            new.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _noted(bundle: Bundle, present: bytes, key: str, notes: Mapping[str, BaseModel]) -> dict[str, Any]:
    """The manifest's values as they are at present, with the notes."""
    read_manifest(bundle.path, present)
    values: dict[str, Any] = parse_json(present)
    measured = {artifact.file: artifact.sha256 for artifact in bundle.manifest.artifacts}
    artifacts = {artifact["file"]: artifact for artifact in values["artifacts"]}
    for file, note in notes.items():
        if artifacts.get(file, {}).get("sha256") != measured[file]:
            raise BundleError(f"{bundle.path}: {file} was replaced while it was measured", fix="measure it again")
        artifacts[file][key] = note.model_dump(mode="json")
    values["schema_version"] = str(max(check_version(values, bundle.path), OWN))  # The notes may hold keys that are new in it.
    return values


def _lock_of(bundle: Path) -> Path:
    """The bundle itself, which export locks; where nothing can be written beside it, nobody can replace it either, and its manifest will do."""
    return bundle if os.access(Path(os.path.realpath(bundle)).parent, os.W_OK) else bundle / MANIFEST


def _signed(path: Path) -> BundleError:
    return BundleError(
        f"{path}: is signed, and its signature would not fit a manifest in which something was noted",
        fix=f"remove {SIGNATURE}, note it, and sign the bundle again",
    )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path}: nothing can be noted in it", got=error.strerror or str(error), fix="make its folder writable") from error
