"""A bundle: the folder ``NAME.clipstep/``, opened read-only and trusted only after its hashes were checked."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.manifest import SCHEMA_VERSION, Accuracy, Arm64Step, Artifact, Golden, Manifest

MANIFEST = "manifest.json"


class BundleError(ClipstepError):
    """A bundle that is missing, damaged, altered, or of a version this runtime does not know."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files are what its manifest says."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Reads the manifest and checks every file's size and hash.

        Raises:
            BundleError: no such bundle, an unknown schema version, a malformed manifest, a file that is missing,
                altered or outside the folder.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        items: tuple[Artifact | Golden, ...] = (*manifest.artifacts, manifest.golden)
        for item in items:
            file = path / item.file
            if not file.exists():
                raise BundleError(f"{path}: {item.file} is missing", fix="copy the bundle again, whole")
            if not file.resolve().is_relative_to(path.resolve()):
                raise BundleError(f"{path}: {item.file} lies outside the bundle", expected="files inside the folder")
            found = (tree_size(file), tree_sha256(file))
            if found != (item.size_bytes, item.sha256):
                got, expected = (f"{size} bytes, sha256 {sha256[:12]}…" for size, sha256 in (found, (item.size_bytes, item.sha256)))
                raise BundleError(f"{path}: {item.file} was altered", got=got, expected=expected, fix="export it again")
        return cls(path, manifest)

    def artifact(self, target: str, machine: str | None = None) -> Artifact:
        """The float32 artifact of that target for ``machine`` (``arm64`` or ``x86_64``; by default this processor), else the one for any.

        Raises:
            BundleError: the bundle has none.
        """
        machine = machine or {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
        found: dict[str, Artifact] = {a.platform: a for a in self.manifest.artifacts if a.target == target and a.precision == "float32"}
        artifact = found.get(machine or "any") or found.get("any")
        if artifact is None:
            have = ", ".join(sorted({f"{a.target} for {a.platform}" for a in self.manifest.artifacts}))
            raise BundleError(
                f"{self.path}: has no float32 {target} artifact for this processor", got=have, fix="choose another engine or export again"
            )
        return artifact

    def record_accuracy(self, file: str, accuracy: Accuracy) -> None:
        """Notes in the bundle's manifest how right the artifact ``file`` is; the manifest is replaced at once, or not at all."""
        self._note({file: {"accuracy": accuracy}})

    def record_arm64(self, costs: Mapping[str, Arm64Step]) -> None:
        """Notes in the bundle's manifest what a step of each artifact costs on ARM64, as ``record_accuracy`` does."""
        self._note({file: {"arm64_step": cost} for file, cost in costs.items()})

    def _note(self, notes: Mapping[str, Mapping[str, object]]) -> None:
        artifacts = [a.model_copy(update=notes.get(a.file, {})) for a in self.manifest.artifacts]
        changed = self.manifest.model_copy(update={"artifacts": tuple(artifacts)})
        new = self.path / f".{MANIFEST}.new"
        new.write_text(changed.text(), encoding="utf-8")
        new.replace(self.path / MANIFEST)


def tree_sha256(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of its ``sha256  path`` lines in order of path."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{tree_sha256(path / file)}  {file}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all the files in a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _read_manifest(path: Path) -> Manifest:
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path}: is not a bundle", got=f"no {MANIFEST}", expected="a folder written by clipstep export")
    try:
        values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path}: {MANIFEST} is not JSON", got=str(error), fix="export it again") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(f"{path}: unknown schema version", got=version, expected=SCHEMA_VERSION, fix="use a clipstep that knows it")
    try:
        return Manifest.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {MANIFEST} is malformed at {where}", got=first["msg"], fix="export it again") from error
