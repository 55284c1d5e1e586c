"""The ARM64 kit: a folder with the engines' ARM builds, an ARM Python, the instruction counter and the ExecuTorch runner."""

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
CPU = "cortex-a76"
"""The processor that QEMU plays: a phone's large core of 2018, with dot products and half precision, without SVE."""
SOURCES = ("counter.c", "step_executorch.cpp", "install.py")
SET_UP = "set it up with: clipstep arm64"


@dataclass(frozen=True)
class Kit:
    """A kit that is set up, and which engine versions it has."""

    path: Path
    python: str
    """The ARM Python inside ``path``."""
    versions: Mapping[str, str]
    """Of onnxruntime, executorch and numpy."""
    emulator: str
    """``qemu-aarch64`` and its version."""

    @classmethod
    def open(cls, path: Path | None = None) -> "Kit":
        """The kit at ``path``, else at ``kit_folder()``.

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
        """Checks that ``what`` was verified with the engine version that this kit has, if it says with which.

        Raises:
            ClipstepError: it was another one.
        """
        if expected not in (None, self.versions[engine]):
            raise ClipstepError(
                f"{what} was verified with another {engine} than the ARM64 one",
                got=self.versions[engine],
                expected=expected,
                fix=f"install {engine}=={expected} and set up again with: clipstep arm64; or export again",
            )


def kit_folder() -> Path:
    """``$CLIPSTEP_ARM64``, else ``clipstep/arm64`` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CLIPSTEP_ARM64") or cache / "clipstep/arm64").absolute()


def sources_sha256() -> str:
    """Of what a kit is built from; it differs where the kit must be built anew."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()


def emulator_version() -> str:
    """QEMU's version.

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
