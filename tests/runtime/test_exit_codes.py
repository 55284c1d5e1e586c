"""How commands end: whatever goes wrong is one line, and the exit code says which kind it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstep.runtime.command_line import cli
from clipstep.runtime.command_line.exit_codes import one_line, run_for_exit_code
from clipstep.runtime.errors import ClipstepError

COMMAND = [sys.executable, "-c", "from clipstep.runtime.command_line.cli import main; main()"]
SLOW_IMPORT = """
import sys, time, types
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("importing", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                {heard}
sys.meta_path.insert(0, Slow())
sys.argv = ["clipstep", "models"]
{start}
"""


def _start(code: str, **more: Any) -> "subprocess.Popen[str]":
    """Python with that code, which hears Ctrl-C even if these tests run in the background, where the shell has it ignored."""
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **hears, **more)


@pytest.mark.parametrize(
    ("module", "heard"),
    [("click", "raise"), ("torch", "raise"), ("torch", "raise ImportError('cannot initialise') from None"), ("torch", "raise SystemError('in it')")],
)
def test_ctrl_c_inside_an_import_is_one_line(module: str, heard: str) -> None:
    main = Path(__file__).parents[2] / "runtime/command/__main__.py"
    process = _start(SLOW_IMPORT.format(module=module, heard=heard, start=f"exec(open({str(main)!r}).read())"))
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ClipstepError("that is not so", got=1, expected=2), 2, "error: that is not so; got 1; expected 2"),
        (OSError(28, "No space left on device"), 2, "error: the disk: No space left on device"),
        (PermissionError(13, "Permission denied", "a/b"), 2, "error: a/b: Permission denied"),
        (MemoryError(), 2, "error: there is not enough memory; use smaller frames, fewer of them, or smaller batches"),
        (KeyError("x"), 1, "error: this is a bug of clipstep: KeyError: 'x'; CLIPSTEP_DEBUG=1 shows where; please report it with that"),
        (ClipstepError("two\nlines \x1b[31m"), 2, r"error: two\nlines \x1b[31m"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_each_error_is_one_line_with_its_code(error: Exception, code: int, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipstep.runtime.command_line.exit_codes._discard_output", lambda: None)
        assert run_for_exit_code(fail) == code
    assert capfd.readouterr().err == (f"{line}\n" if line else "")


def test_a_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise KeyError("x")

    monkeypatch.setenv("CLIPSTEP_DEBUG", "1")
    assert run_for_exit_code(fail) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and any("raise KeyError" in line for line in lines) and lines[-1].startswith("error: this is a bug")


def test_a_long_text_is_cut() -> None:
    assert len(one_line("a" * 10_000)) < 2100


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("exprot run", "error: clipstep has no command exprot; did you mean export?"),
        ("xyz", "error: clipstep has no command xyz; see clipstep --help"),
        ("run", "error: Missing argument 'BUNDLE'; see clipstep run --help"),
        ("run a b --topp 3", "error: No such option '--topp'. Did you mean '--top'?; see clipstep run --help"),
        ("run a b --top 0", "error: Invalid value for '--top': 0 is not in the range x>=1; see clipstep run --help"),
        ("train a --out b --learning-rate nan", "error: --learning-rate is not a finite number; got nan; expected a finite number"),
        ("train a --out b --seed 99999999999999999999", "error: --seed is too large; got 99999999999999999999; expected at most 2147483647"),
        ("export --out= a", "error: --out is empty; check the variable that it came from"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: str, line: str, clipstep: Callable[..., tuple[int, str, str]]) -> None:
    assert clipstep(*arguments.split()) == (2, "", f"{line}\n")


def test_a_reader_who_leaves_ends_the_command_quietly(bundle_path: Path, clip: Path) -> None:
    words = " ".join(f"'{word}'" for word in [*COMMAND, "run", str(bundle_path), str(clip)])
    done = subprocess.run(["bash", "-c", f"{words} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_a_full_disk_behind_standard_output_is_said(bundle_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "inspect", str(bundle_path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: the disk: No space left on device\n")


def test_closed_standard_streams_are_no_files_to_write_to(bundle_path: Path, clip: Path) -> None:
    words = " ".join(f"'{word}'" for word in [*COMMAND, "run", str(bundle_path), str(clip)])
    done = subprocess.run(["bash", "-c", f"{words} <&- >&- 2>&-"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("environment", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_label_that_the_locale_lacks_is_escaped(
    environment: dict[str, str], edit_manifest: Callable[[Callable[[dict[str, Any]], Any]], Path], clip: Path
) -> None:
    path = edit_manifest(lambda values: values.update(labels=["größe", "视频", "red"]))
    for arguments, said in ((["inspect", path], ""), (["run", path, clip], f"note: {clip}: 20 frames a second, taken at 25\n")):
        words = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, env={**os.environ, **environment}, check=False)
        assert (done.returncode, done.stderr) == (0, said.encode())


def test_every_command_is_in_a_group_and_declared_as_one() -> None:
    assert all(entry.group != "Others" for entry in cli.COMMANDS.values())


WAITING = """
import os, sys
from clipstep.__main__ import main
sys.argv = ["clipstep", "--version"]
try:
    main()
except SystemExit:
    pass
from clipstep.runtime.openmp import environment_for_timing
print(os.environ["OMP_WAIT_POLICY"], environment_for_timing().get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(("given", "waiting"), [(None, "PASSIVE None"), ("ACTIVE", "ACTIVE ACTIVE")])
def test_pytorch_s_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given: str | None, waiting: str) -> None:
    """In commands; what is timed gets the environment as the user has it."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | (
        {} if given is None else {"OMP_WAIT_POLICY": given}
    )
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, env=environment, timeout=100, check=True)
    assert done.stdout.splitlines()[-1] == waiting
