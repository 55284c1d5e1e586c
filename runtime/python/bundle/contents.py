"""Read the files of a bundle from a folder or from a pack, which is a zip file.

Neither is trusted. Symbolic links and names that lead out of the bundle, and anything that is not a regular file, are detected before a
file is read. Of a pack, only the files that the manifest names are unpacked, into a private folder, and up to a limit on their total size.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import threading
import unicodedata
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_no_url

PACK_SUFFIX = ".clipstep.zip"
ZIP_START = b"PK\x03\x04"
LARGEST_PACK_BYTES = 4 << 30
"""How many bytes the files that are unpacked from a pack may have in total."""
LARGEST_RATIO, SMALL_BYTES = 200, 64 << 20
"""If these files have more than `SMALL_BYTES` in total, they may have at most this many times the bytes of the pack itself."""
MOST_ENTRIES = 10_000


class BundleError(ClipstepError):
    """A bundle is missing, damaged, altered, or of a version that this runtime does not know."""


class Contents(Protocol):
    """The files of a bundle by their names in it, with `/` between folders."""

    path: Path
    sizes: dict[str, int]
    """The size of each file in bytes."""
    unusable: dict[str, str]
    """The entries that are not regular files inside the bundle, such as links that lead out of it or devices, with the reason."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""

    def extract(self, names: list[str]) -> Path:
        """Return a folder that holds these files, unpacked if need be."""

    def close(self) -> None:
        """Delete what `extract` unpacked."""


class Folder:
    """A bundle that is a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: dict[str, int] = {}
        self.unusable: dict[str, str] = {}
        root = path.resolve()
        for folder, folders, files in os.walk(path):
            for name in (*files, *folders):
                self._add(Path(folder) / name, root)

    def _add(self, file: Path, root: Path) -> None:
        name = file.relative_to(self.path).as_posix()
        try:
            facts = file.stat()
        except (OSError, ValueError):
            if not file.is_symlink():  # A broken link counts as a missing file.
                self.unusable[name] = "cannot be read"
            return
        if not file.resolve().is_relative_to(root):
            self.unusable[name] = "lies outside the bundle"
        elif stat.S_ISREG(facts.st_mode):
            self.sizes[name] = facts.st_size
        elif file.is_symlink() or not stat.S_ISDIR(facts.st_mode):
            self.unusable[name] = "is a link to a folder" if stat.S_ISDIR(facts.st_mode) else "is not a regular file"

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")

    def extract(self, names: list[str]) -> Path:
        return self.path

    def close(self) -> None:
        pass


class Pack:
    """A bundle that is one zip file, as `clipstep pack` writes it, or a folder that was zipped by hand.

    Raises:
        BundleError: it is not a zip file; a name in it leads out of it, or two names are the same file on some systems; or it has links,
            encryption, or compression methods that not every runtime knows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unusable: dict[str, str] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
            raise _no_pack(path) from error
        self._lock = threading.Lock()
        self._temporary: Path | None = None
        self._remove: weakref.finalize[[Path, int], Pack] | None = None
        try:
            self._entries = _checked(path, self._zip.infolist())
        except BaseException:
            self._zip.close()
            raise
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(self._entries[name])

    def extract(self, names: list[str]) -> Path:
        self._check_sizes(names)
        with self._lock:
            if self._temporary is None:
                self._temporary = Path(tempfile.mkdtemp(prefix="clipstep-"))
                self._remove = weakref.finalize(self, _remove, self._temporary, os.getpid())
            for name in names:
                if not (self._temporary / name).exists():
                    self._unpack(name, self._temporary / name)
            return self._temporary

    def _unpack(self, name: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with reading(self.path, name), self.open(name) as source, file.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def _check_sizes(self, names: list[str]) -> None:
        total, most = sum(self.sizes[name] for name in names), max(SMALL_BYTES, LARGEST_RATIO * self.path.stat().st_size)
        if total > min(most, LARGEST_PACK_BYTES):
            raise BundleError(
                f"{self.path}: unpacks to more than a bundle of its size holds",
                got=f"{total} bytes",
                expected=f"at most {min(most, LARGEST_PACK_BYTES)}",
            )

    def close(self) -> None:
        self._zip.close()
        if self._remove is not None:
            self._remove()


def open_contents(path: Path) -> Contents:
    """Open the files of the bundle at `path`.

    Raises:
        BundleError: there is nothing, or neither a folder nor a zip file.
    """
    try:
        if path.is_dir():
            return Folder(path)
        if path.is_file():
            return Pack(path)
    except (OSError, ValueError) as error:  # For example a name that is too long, or a folder without permission to read.
        reason = getattr(error, "strerror", None) or str(error)
        raise BundleError(f"{path}: cannot be read", got=reason) from error
    check_no_url(path, BundleError)
    raise BundleError(f"{path}: is not a bundle", got="no manifest.json", expected="a folder written by clipstep export, or a pack of it")


def _no_pack(path: Path) -> BundleError:
    with path.open("rb") as file:
        begins_as_zip = file.read(len(ZIP_START)) == ZIP_START
    if begins_as_zip:
        return BundleError(f"{path}: is not a whole pack", got="a zip file that was cut short or is damaged", fix="copy or download it again")
    inside = f"give the folder of the bundle, {path.parent}" if (path.parent / "manifest.json").is_file() else None
    return BundleError(f"{path}: is not a bundle", got="a file that is no zip file", expected=f"a folder, or NAME{PACK_SUFFIX}", fix=inside)


@contextlib.contextmanager
def reading(path: Path, name: str) -> Iterator[None]:
    """Convert the exceptions of a damaged zip file or of the disk to a `BundleError`."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{path}: {name} is damaged", got=str(error) or type(error).__name__, fix="copy it again") from error
    except OSError as error:
        raise BundleError(f"{path}: {name} cannot be read", got=error.strerror or str(error)) from error


def is_clutter(name: str) -> bool:
    """Whether a file is one of those that Finder and Explorer leave in folders, and so belongs to no bundle or artifact."""
    base = PurePosixPath(name).name
    return base in (".DS_Store", "Thumbs.db", "desktop.ini") or base.startswith("._")


def _checked(path: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(entries) > MOST_ENTRIES:
        raise BundleError(f"{path}: holds too many files", got=len(entries), expected=f"at most {MOST_ENTRIES}")
    found: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for entry in entries:
        _check_entry(path, entry)
        name = unicodedata.normalize("NFC", entry.filename).casefold().rstrip("/")
        if name in seen:
            raise BundleError(f"{path}: holds two files of one name", got=entry.filename, fix="pack the bundle again")
        seen.add(name)
        if not entry.is_dir():
            found[entry.filename] = entry
    files = {unicodedata.normalize("NFC", name).casefold() for name in found}
    within = next(
        (name for name in found for above in PurePosixPath(name).parents if unicodedata.normalize("NFC", str(above)).casefold() in files), None
    )
    if within is not None:
        raise BundleError(f"{path}: holds a file inside a file", got=within, fix="pack the bundle again")
    return _without_top_folder(found)


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    if is_unsafe(name.rstrip("/")):
        raise BundleError(f"{path}: holds a name that no file of a bundle may have", got=ascii(name), fix="do not use it")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BundleError(f"{path}: {name} is not a regular file", got="a link" if kind == stat.S_IFLNK else "something else", fix="do not use it")
    if entry.flag_bits & 1:
        raise BundleError(f"{path}: {name} is encrypted", expected="a pack written by clipstep pack")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path}: {name} is compressed by a method that not every runtime supports", expected="stored or deflated")


def is_unsafe(name: str) -> bool:
    """Whether a name could lead out of a folder on some system: it is absolute, or has `..`, a drive, a backslash or a control character."""
    parts = name.split("/")
    return not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts) or any(c in "\\:" or ord(c) < 32 for c in name)


def _without_top_folder(found: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Strip the name of the folder from all entries if a folder was zipped by hand, and drop what lies outside it."""
    tops = [name.removesuffix("/manifest.json") for name in found if name.count("/") == 1 and name.endswith("/manifest.json")]
    if "manifest.json" in found or len(tops) != 1:
        return found
    return {name.removeprefix(f"{tops[0]}/"): entry for name, entry in found.items() if name.startswith(f"{tops[0]}/")}


def _remove(folder: Path, process: int) -> None:
    """Delete the folder in the process that created it. A forked process has a copy of the object, but must not delete the files."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
