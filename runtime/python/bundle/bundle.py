"""Open a bundle, the folder `NAME.clipstep/` or the pack `NAME.clipstep.zip`, for reading. No file is used before its hash was checked."""

import contextlib
import hashlib
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

from pydantic import ValidationError

from clipstep.runtime.bundle.artifacts import Platform
from clipstep.runtime.bundle.contents import BundleError, Contents, Folder, is_clutter, open_contents, reading
from clipstep.runtime.bundle.format_version import check_version, malformed_fix, validated
from clipstep.runtime.bundle.hashes import file_digest, tree_digest
from clipstep.runtime.bundle.manifest import Artifact, Golden, Manifest
from clipstep.runtime.bundle.signature import SIGNATURE, check_signature
from clipstep.runtime.bundle.strict_json import LARGEST_BYTES, parse_json
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.precision import PRECISIONS, Precision
from clipstep.runtime.target import DESTINATIONS
from clipstep.runtime.targets import TARGETS, targets_for
from clipstep.runtime.wording import either, listed

MANIFEST = "manifest.json"
LONGEST_QUOTE = 300
BESIDE_MANIFEST = (SIGNATURE,)
"""Files that belong to a bundle although its manifest does not name them."""


@dataclass(frozen=True, repr=False, eq=False)
class Bundle:
    """An open bundle: its manifest, and its files, each of which is checked against the manifest before its path is returned.

    `close` deletes the files that were unpacked from a pack; a bundle that is a folder need not be closed.

    Example:
        ```python
        with Bundle.open("gestures.clipstep") as bundle:
            print(bundle.manifest.labels, bundle.file(bundle.artifact("onnx")))
        ```
    """

    path: Path
    """The folder, or the pack."""
    manifest: Manifest
    manifest_sha256: str
    ignored_keys: tuple[str, ...]
    """The keys of the manifest that were not read, because a newer minor version of the format added them."""
    _contents: Contents
    _checked: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, path: str | Path, *, lazily: bool = False, signer: Path | None = None) -> "Bundle":
        """Read the manifest, and check the size and the hash of every file that is there.

        A file that is `missing` is an error only once it is needed; one that is `extra` never is.

        Args:
            path: the bundle, a folder or a pack.
            lazily: check each file only when it is used.
            signer: a PEM file with the public key that must have signed the manifest.

        Raises:
            BundleError: there is no such bundle; its format has another major version; the manifest is malformed; a file was altered or
                lies outside the bundle.
            SignatureError: the bundle is not signed by that key.
        """
        contents = open_contents(Path(path))
        try:
            text = _text(contents, MANIFEST)
            if signer is not None:
                check_signature(text, _text(contents, SIGNATURE) if SIGNATURE in contents.sizes else None, signer, Path(path))
            manifest, ignored = read_manifest(contents.path, text)
            bundle = cls(Path(path), manifest, hashlib.sha256(text).hexdigest(), ignored, contents)
            if all(not bundle._parts(artifact) for artifact in bundle.manifest.artifacts):
                bundle._check(bundle.manifest.artifacts[0])
            for item in () if lazily else bundle._items():
                if bundle._parts(item):
                    bundle._check(item)
        except BaseException:
            contents.close()
            raise
        return bundle

    @property
    def is_pack(self) -> bool:
        return not isinstance(self._contents, Folder)

    @property
    def is_signed(self) -> bool:
        return SIGNATURE in self._contents.sizes

    @property
    def missing(self) -> tuple[str, ...]:
        """The files that the manifest names and that are not there."""
        return tuple(item.file for item in self._items() if not self._parts(item))

    @property
    def extra(self) -> tuple[str, ...]:
        """The files and whole folders that are there and that the manifest does not name; nothing reads them."""
        named = {part for item in self._items() for part in self._parts(item)} | {MANIFEST, *BESIDE_MANIFEST}
        needed = {str(above) for part in named for above in PurePosixPath(part).parents}
        others = (self._contents.sizes.keys() | self._contents.unusable.keys()) - named
        return tuple(sorted({_highest(PurePosixPath(name), needed) for name in others}))

    @property
    def size_bytes(self) -> int:
        """The size in bytes of all files that are there, unpacked."""
        return sum(self._contents.sizes.values())

    def file(self, item: Artifact | Golden) -> Path:
        """Return the path of an artifact or of the golden steps, checked against the manifest; from a pack they are unpacked first.

        Raises:
            BundleError: the file is missing, was altered, or lies outside the bundle; or the bundle is closed.
        """
        self._check(item)
        with self._unpacking():
            return self._contents.extract(self._parts(item)) / item.file

    def folder(self) -> Path:
        """Return the bundle as a folder, for another process; from a pack all that the manifest names is unpacked.

        Raises:
            BundleError: see `file`.
        """
        for item in self._items():
            if self._parts(item):
                self.file(item)
        with self._unpacking():
            return self._contents.extract([MANIFEST])

    def artifact(self, target: str, machine: str | None = None, precision: str = "float32") -> Artifact:
        """Return an artifact of a target: the one for a processor or, if there is none, the one for any processor.

        Args:
            target: `onnx`, `executorch` or `coreml`.
            machine: the processor, `arm64` or `x86_64`; by default this one.
            precision: one of `clipstep.runtime.precision.PRECISIONS`.

        Raises:
            ClipstepError: there is no such precision.
            BundleError: the bundle has no such artifact, or its file is missing.
        """
        if precision not in PRECISIONS:
            raise ClipstepError("unknown precision", got=precision, expected=f"one of {', '.join(PRECISIONS)}")
        artifact = self._for(target, machine or this_machine(), precision)
        if artifact is None:
            self.check_runs_on_computers()
            raise BundleError(
                f"{self.path}: has no {precision} {target} artifact for this processor",
                got=", ".join(sorted({artifact_kind(a) for a in self.manifest.artifacts})),
                fix="choose another engine or precision, or export again",
            )
        if not self._parts(artifact):
            self._check(artifact)
        return artifact

    def chosen_precision(self, target: str, machine: str | None = None) -> Precision:
        """Return the precision of a target that runtimes take unless they are asked for another.

        It is the one that `clipstep export --tune` chose for a processor, `arm64` or `x86_64` (by default this one), and otherwise float32.
        """
        chosen = (choice.precision for choice in self.manifest.choices if (choice.target, choice.platform) == (target, machine or this_machine()))
        return next(chosen, "float32")

    def artifacts(self, target: str, machine: str | None = None) -> tuple[Artifact, ...]:
        """Return the artifacts of a target that are not missing, of each precision that `artifact` has one for."""
        found = (self._for(target, machine or this_machine(), precision) for precision in PRECISIONS)
        return tuple(artifact for artifact in found if artifact is not None and self._parts(artifact))

    def _for(self, target: str, machine: str, precision: str) -> Artifact | None:
        found: dict[str, Artifact] = {a.platform: a for a in self.manifest.artifacts if (a.target, a.precision) == (target, precision)}
        return found.get(machine) or found.get("any")

    def check_runs_on_computers(self) -> None:
        """Check that there is an engine on computers for at least one artifact, even if it is for another processor than this one.

        Raises:
            BundleError: there is none, as for a bundle of Core ML packages.
        """
        here = targets_for("python")
        if not any(artifact.target in here for artifact in self.manifest.artifacts):
            infos = [TARGETS[target] for target in dict.fromkeys(artifact.target for artifact in self.manifest.artifacts)]
            names = " and ".join(info.display_name for info in infos)
            elsewhere = " and ".join(dict.fromkeys(DESTINATIONS[name] for info in infos for name in info.destinations))
            raise BundleError(
                f"{self.path}: holds {names} artifacts alone, which run on {elsewhere} only",
                expected=f"an {either(here)} artifact to run here",
                fix=f"export or pack the network with one; clipstep verify and clipstep inspect read {names} artifacts here too",
            )

    def _items(self) -> tuple[Artifact | Golden, ...]:
        return (*self.manifest.artifacts, self.manifest.golden)

    def _parts(self, item: Artifact | Golden) -> list[str]:
        """Return the names of the files of an item, several if it is a folder."""
        return _parts(item.file, (*self._contents.sizes, *self._contents.unusable))

    def _check(self, item: Artifact | Golden) -> None:
        if item.file in self._checked:
            return
        parts, contents = self._parts(item), self._contents
        if not parts:
            raise BundleError(f"{self.path}: {item.file} is missing", fix="copy the bundle again, whole")
        for part in parts:
            if part in contents.unusable:
                raise BundleError(f"{self.path}: {part} {contents.unusable[part]}", expected="files inside the folder")
        size = sum(contents.sizes[part] for part in parts)
        sha256 = "" if size != item.size_bytes else self._sha256(item.file, parts)
        if sha256 != item.sha256:
            got, expected = (
                f"{size} bytes{f', sha256 {sha256[:12]}…' if sha256 else ''}" for size, sha256 in ((size, sha256), (item.size_bytes, item.sha256))
            )
            raise BundleError(f"{self.path}: {item.file} was altered", got=got, expected=expected, fix="export it again")
        self._checked.add(item.file)

    def _sha256(self, file: str, parts: Sequence[str]) -> str:
        def digest(part: str) -> str:
            with reading(self.path, part), self._contents.open(part) as source:
                return file_digest(source)

        return tree_digest(file, parts, digest)

    @contextlib.contextmanager
    def _unpacking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BundleError(
                f"{self.path}: cannot be unpacked", got=error.strerror or str(error), fix="make room in the temporary folder"
            ) from error

    def close(self) -> None:
        """Delete the files that were unpacked from a pack. It may be called twice."""
        self._contents.close()

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        files = ", ".join(f"{artifact.file}{' (missing)' * (artifact.file in self.missing)}" for artifact in self.manifest.artifacts)
        return f"<Bundle {self.manifest.name} at {self.path}: {files}>"


@contextlib.contextmanager
def open_for_command(path: Path, signer: Path | None, *, lazily: bool = False) -> Iterator[Bundle]:
    """Open a bundle for a command, and note on standard error which of its files are missing.

    `signer` is the value of the command's option `--signer`.
    """
    with Bundle.open(path, lazily=lazily, signer=signer) as bundle:
        if bundle.missing:
            print(f"note: {path}: missing: {listed(bundle.missing)}", file=sys.stderr)
        yield bundle


def artifact_kind(artifact: Artifact) -> str:
    """Return what an artifact is for, such as `onnx for any` or `float16 executorch for arm64`."""
    precision = "" if artifact.precision == "float32" else f"{artifact.precision} "
    return f"{precision}{artifact.target} for {artifact.platform}"


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle: a folder with a manifest, or a zip file."""
    return (path / MANIFEST).is_file() or (path.suffix == ".zip" and path.is_file())


def this_machine() -> Platform:
    """Return this computer's processor as manifests call it, `arm64` or `x86_64`, or `any` for one that no artifact is made for."""
    known: dict[str, Platform] = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
    return known.get(platform.machine(), "any")


def _parts(file: str, names: Sequence[str]) -> list[str]:
    whole = PurePosixPath(file).as_posix()
    return [name for name in names if name == whole or (name.startswith(f"{whole}/") and not is_clutter(name))]


def _highest(name: PurePosixPath, needed: set[str]) -> str:
    """Return the topmost folder around `name` that holds nothing needed, or else `name` itself; `needed` are the folders of needed files."""
    return next((str(above) for above in reversed(name.parents) if str(above) not in needed), str(name))


def _text(contents: Contents, name: str) -> bytes:
    """Return the bytes of the manifest or the signature, after a check of their size."""
    path = contents.path
    if name in contents.unusable:
        raise BundleError(f"{path}: {name} {contents.unusable[name]}", expected="files inside the folder")
    if name not in contents.sizes:
        raise BundleError(f"{path}: is not a bundle", got=f"no {name}", expected="a folder written by clipstep export")
    if contents.sizes[name] > LARGEST_BYTES:
        raise BundleError(f"{path}: {name} is too large", got=f"{contents.sizes[name]} bytes", expected=f"at most {LARGEST_BYTES}")
    with reading(path, name), contents.open(name) as file:
        return file.read(LARGEST_BYTES)


def read_manifest(path: Path, text: bytes) -> tuple[Manifest, tuple[str, ...]]:
    """Parse the manifest of the bundle at `path`. Return it, and the keys that were ignored because a newer minor version added them.

    Raises:
        BundleError: it is malformed, or its format has another major version.
    """
    try:
        values = parse_json(text)
    except ClipstepError as error:
        raise BundleError(f"{path}: {MANIFEST} {error}", fix="export it again") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path}: {MANIFEST} is malformed", got=f"a {type(values).__name__}", expected="an object", fix="export it again")
    version = check_version(values, path, BundleError)
    try:
        return validated(Manifest, values, version)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        place, reason = f" at {where[:200]}" if where else "", _short(first["msg"].removeprefix("Value error, "))
        raise BundleError(f"{path}: {MANIFEST} is malformed{place}", got=reason, fix=malformed_fix(version)) from error


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
