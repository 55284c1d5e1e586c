"""Record measurements in a bundle's manifest after its export: accuracy by `evaluate --record`, ARM64 costs by `bench --record`.

The manifest is read again under the bundle's lock, changed, and replaced atomically. So two processes that measure at the same time keep
each other's values, and keys that only a newer clipstep knows are kept.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clipstep.runtime.bundle.bundle import MANIFEST, Bundle, read_manifest
from clipstep.runtime.bundle.contents import BundleError
from clipstep.runtime.bundle.format_version import OWN, check_version
from clipstep.runtime.bundle.manifest import Accuracy, Arm64Step
from clipstep.runtime.bundle.signature import SIGNATURE
from clipstep.runtime.bundle.strict_json import parse_json
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.locking import write_lock


def check_recordable(bundle: Bundle) -> None:
    """Check, before hours of work, that the manifest can be changed.

    Raises:
        BundleError: the bundle is a pack; its folder cannot be written to; or it is signed, and its signature would become invalid.
    """
    if bundle.is_signed:
        raise _signed(bundle.path)
    if bundle.is_pack:
        raise BundleError(f"{bundle.path}: is a pack, and a pack is never changed", fix="note it in the bundle's folder, and pack that again")
    with _writing(bundle.path):
        probe = bundle.path / f".{MANIFEST}.new"
        probe.touch(exist_ok=True)
        probe.unlink(missing_ok=True)  # Another process may check at the same time.


def record_accuracy(bundle: Bundle, file: str, accuracy: Accuracy) -> None:
    """Record the accuracy of the artifact `file` in the bundle's manifest.

    Raises:
        BundleError: see `check_recordable`; or the artifact was replaced since the bundle was opened.
    """
    _record(bundle, "accuracy", {file: accuracy})


def record_arm64(bundle: Bundle, costs: Mapping[str, Arm64Step]) -> None:
    """Record in the bundle's manifest what a step of each artifact costs on ARM64; see `record_accuracy`."""
    _record(bundle, "arm64_step", costs)


def _record(bundle: Bundle, key: str, notes: Mapping[str, BaseModel]) -> None:
    check_recordable(bundle)
    path = bundle.path / MANIFEST
    with _writing(bundle.path), write_lock(_lock_of(bundle.path), wait=True):
        if (bundle.path / SIGNATURE).exists():
            raise _signed(bundle.path)
        values = _noted(bundle, path.read_bytes(), key, notes)
        with atomic_file(path, mode=stat.S_IMODE(path.stat().st_mode)) as new:
            new.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _noted(bundle: Bundle, present: bytes, key: str, notes: Mapping[str, BaseModel]) -> dict[str, Any]:
    """Return the present values of the manifest with the new ones added."""
    read_manifest(bundle.path, present)
    values: dict[str, Any] = parse_json(present)
    measured = {artifact.file: artifact.sha256 for artifact in bundle.manifest.artifacts}
    artifacts = {artifact["file"]: artifact for artifact in values["artifacts"]}
    for file, note in notes.items():
        if artifacts.get(file, {}).get("sha256") != measured[file]:
            raise BundleError(f"{bundle.path}: {file} was replaced while it was measured", fix="measure it again")
        artifacts[file][key] = note.model_dump(mode="json")
    values["schema_version"] = str(max(check_version(values, bundle.path), OWN))  # The new values may have keys that this version adds.
    return values


def _lock_of(bundle: Path) -> Path:
    """Return the path to lock: the bundle, as export locks it. If its parent folder is read-only, no export can replace it, and no lock file can be
    written there, so the manifest is locked instead."""
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
        raise BundleError(f"{path}: its manifest cannot be changed", got=error.strerror or str(error), fix="make its folder writable") from error
