"""The ARM64 kit: a folder with the engines' ARM64 builds, an ARM64 Python, the instruction counter, the ExecuTorch runner
and a program that says what the processor can do."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipstep.runtime.errors import ClipstepError

HERE = Path(__file__).parent
KIT_FILE = "kit.json"
EMULATOR = "qemu-aarch64"
SOURCES = ("arithmetic.h", "counter.c", "processor.cpp", "step_executorch.cpp", "install.py")
SET_UP = "set it up with: clipstep arm64"


@dataclass(frozen=True)
class Kit:
    """An installed kit and its engine versions."""

    path: Path
    python: str
    """The ARM64 Python, relative to ``path``."""
    versions: Mapping[str, str]
    """The versions of onnxruntime, executorch and numpy."""
    emulator: str
    """``qemu-aarch64`` and its version."""

    @classmethod
    def open(cls, path: Path | None = None) -> "Kit":
        """Open the kit at ``path``, by default at `kit_folder`.

        Raises:
            ClipstepError: it is not set up, was set up by another clipstep, or QEMU is not installed.
        """
        path = path or kit_folder()
        if not (path / KIT_FILE).is_file():
            raise ClipstepError("the ARM64 engines are not set up", got=f"no {path / KIT_FILE}", fix=SET_UP)
        values = json.loads((path / KIT_FILE).read_text(encoding="utf-8"))
        if values["sources_sha256"] != sources_sha256():
            raise ClipstepError(f"{path}: the ARM64 engines were set up by another clipstep", fix=SET_UP)
        return cls(path, values["python"], values["versions"], f"{EMULATOR} {emulator_version()}")

    def check_version(self, what: str, engine: str, expected: str | None) -> None:
        """Check that ``what`` was verified with the engine version of this kit; ``expected`` is that version, None if it is unknown.

        Raises:
            ClipstepError: it was another version.
        """
        if expected not in (None, self.versions[engine]):
            raise ClipstepError(
                f"{what} was verified with another {engine} than the ARM64 one",
                got=self.versions[engine],
                expected=expected,
                fix=f"install {engine}=={expected} and set up again with: clipstep arm64; or export again",
            )


def kit_folder() -> Path:
    """Return the folder of the kit: ``$CLIPSTEP_ARM64``, or else ``clipstep/arm64`` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CLIPSTEP_ARM64") or cache / "clipstep/arm64").absolute()


def sources_sha256() -> str:
    """Return the hash of the sources that a kit is built from: a kit with another one is outdated."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def emulator_version() -> str:
    """Return QEMU's version.

    Raises:
        ClipstepError: QEMU is not installed, or too new for the counter, which is written for version 1 of its plugin interface.
    """
    if shutil.which(EMULATOR) is None:
        raise ClipstepError(f"{EMULATOR} is not installed", fix="on Debian: apt-get install qemu-user")
    text = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)\.([\d.]+)", text)
    if found is None or not 6 <= int(found[1]) <= 8:
        raise ClipstepError(f"{EMULATOR} has another plugin interface", got=text.split("\n")[0], expected="QEMU 6, 7 or 8, as Debian 12 has")
    return f"{found[1]}.{found[2]}"
