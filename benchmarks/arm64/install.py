"""``clipstep arm64``: set up the ARM64 kit from Debian's packages and the engines' ARM64 wheels."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console

from clipstep.benchmarks.arm64.kit import EMULATOR, HERE, KIT_FILE, Kit, emulator_version, kit_folder, sources_sha256
from clipstep.benchmarks.arm64.processor import CORES, CPU, Processor
from clipstep.runtime.command_line.options import command
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_folder
from clipstep.runtime.filesystem.overwrite import FolderKind, check_overwrite
from clipstep.runtime.install_hints import install_extra

TOOLS = {EMULATOR: "qemu-user", "gcc": "gcc libc6-dev", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu"}
WHEELS = ("onnxruntime", "executorch", "numpy")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
LIBRARIES = ("executorch", "executorch_kernels_optimized", "executorch_backend_xnnpack", "executorch_threadpool")
KIT = FolderKind("kit of ARM64 engines", KIT_FILE, lambda _: ("root", "site", "counter.so", "processor", "step_executorch"))


@command("arm64")
def arm64_command() -> None:
    """Set up what clipstep bench --arch arm64 needs, once: about 260 MB in the user's cache folder, or in $CLIPSTEP_ARM64.

    It needs a Debian system, and downloads Debian packages and wheels from PyPI. As root it installs missing tools; otherwise it names them.
    """
    console, folder, versions = new_console(), kit_folder(), _versions()
    if _is_current(folder, versions):
        console.print(f"{folder}: ready")
        return
    check_overwrite(folder, KIT, force=True, option="CLIPSTEP_ARM64")  # An outdated kit is useless, so it is always replaced.
    _install_tools(console)
    emulator_version()
    with atomic_folder(folder, replace=True) as new:
        _unpack_python(new / "root", new / "apt", console)
        python = next((new / "root/usr/bin").glob("python3.*")).name
        _unpack_wheels(new, python.removeprefix("python"), versions, console)
        _count_cores(new / "root")
        _build(new, console)
        _try_out(new, f"root/usr/bin/{python}")
        values = {"python": f"root/usr/bin/{python}", "versions": versions, "sources_sha256": sources_sha256()}
        (new / KIT_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    console.print(f"{folder}: ready")


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in WHEELS}
    except PackageNotFoundError as error:
        raise ClipstepError(
            f"{error.name} is not installed", expected="the engines whose ARM builds are wanted", fix=install_extra("bench")
        ) from error


def _is_current(folder: Path, versions: Mapping[str, str]) -> bool:
    try:
        return Kit.open(folder).versions == versions
    except ClipstepError:
        return False


def _install_tools(console: Console) -> None:
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ClipstepError("apt-get and dpkg are not there", expected="a Debian system", fix="set up the ARM64 engines on one")
    if packages and os.geteuid() != 0:
        raise ClipstepError("tools are missing", fix=f"as root: apt-get install {' '.join(packages)}")
    if packages:
        with console.status(f"installing {' '.join(packages)}"):
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *" ".join(packages).split())


def _unpack_python(root: Path, apt: Path, console: Console) -> None:
    """Download Debian's ARM64 Python with its dependencies and unpack it; apt resolves them for an empty ARM64 system, not for this one."""
    for folder in (root, apt / "state/lists/partial", apt / "cache/archives/partial"):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "apt.conf").write_text(
        '#clear APT::Architectures;\nAPT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\nAPT::Sandbox::User "";\n'
        f'Dir::State "{apt}/state";\nDir::State::status "{apt}/status";\nDir::Cache "{apt}/cache";\n',
        encoding="utf-8",
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    with console.status("downloading Debian's ARM64 Python"):
        _run("apt-get", "update", "-qq", environment=environment)
        _run("apt-get", "install", "-qq", "--yes", "--download-only", "--no-install-recommends", *PACKAGES, environment=environment)
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run("dpkg", "--extract", package, root)
    shutil.rmtree(apt)


def _unpack_wheels(folder: Path, python: str, versions: Mapping[str, str], console: Console) -> None:
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    wanted = [f"{name}=={number}" for name, number in versions.items()]
    with console.status(f"downloading the ARM64 builds of {', '.join(wanted)}"):
        _run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version",
            python,
            *platforms,
            "--dest",
            folder / "wheels",
            *wanted,
        )
    for wheel in sorted((folder / "wheels").iterdir()):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    shutil.rmtree(folder / "wheels")


def _count_cores(root: Path) -> None:
    """Write the files in which the engines look up how many cores there are."""
    system = root / "sys/devices/system/cpu"
    system.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n", encoding="utf-8")
    (system / "kernel_max").write_text(f"{CORES - 1}\n", encoding="utf-8")


def _build(folder: Path, console: Console) -> None:
    engine = folder / "site/executorch"
    include = engine / "include/executorch/runtime/core/portable_type/c10"
    with console.status("building the counter and the ARM64 programs"):
        _run("gcc", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", HERE / "counter.c", "-o", folder / "counter.so")
        _run("aarch64-linux-gnu-g++", "-O2", "-static", HERE / "processor.cpp", "-o", folder / "processor")
        _run(
            "aarch64-linux-gnu-g++",
            "-std=c++17",
            "-O2",
            "-DC10_USING_CUSTOM_GENERATED_MACROS",
            "-DET_EVENT_TRACER_ENABLED",
            "-Wno-deprecated-declarations",
            "-I",
            engine / "include",
            "-I",
            include,
            HERE / "step_executorch.cpp",
            "-L",
            engine / "lib",
            "-Wl,--no-as-needed",
            "-Wl,--export-dynamic-symbol=clock_gettime",
            *(f"-l{library}" for library in LIBRARIES),
            "-o",
            folder / "step_executorch",
        )


def _try_out(folder: Path, python: str) -> None:
    """Import onnxruntime once, which also compiles the Python modules that later runs import."""
    with tempfile.TemporaryDirectory(prefix="clipstep-arm64-") as temporary:
        root = Path(temporary) / "root"
        Processor.read(folder, CPU).make_root(folder, root)
        command = [EMULATOR, "-cpu", CPU, "-L", root, "-E", "PYTHONPATH=site", python, "-c", "import numpy, onnxruntime"]
        _run(*command, cwd=folder)


def _run(*command: object, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    words: Sequence[str] = [str(word) for word in command]
    done = subprocess.run(words, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["nothing"]
        raise ClipstepError(f"setting up ARM64: {words[0]} failed with code {done.returncode}", got=said[-1].strip())
