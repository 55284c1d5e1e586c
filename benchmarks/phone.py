"""``clipstep bench phone --app``: start the demo app's benchmark on a phone and fetch its records, with adb."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from clipstep.benchmarks.output import append_records, record_table
from clipstep.benchmarks.records import Record, Records
from clipstep.benchmarks.report import read_records
from clipstep.benchmarks.sustained import print_sustained
from clipstep.runtime.command_line.options import OutputFile, command
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import counted

PACKAGE = "clipstep.demo"
FOLDER = f"/sdcard/Android/data/{PACKAGE}/files/records"
"""Where the app writes its records: NAME.jsonl when a benchmark has finished, NAME.error when it failed."""
POLL_S = 0.5
"""Seconds between two checks whether the records are there."""


@dataclass(frozen=True)
class Adb:
    """adb, connected to one phone."""

    program: str
    serial: str

    def __call__(self, *arguments: str) -> str:
        """Run an adb command on the phone and return its output.

        Raises:
            ClipstepError: it fails, for example because the phone was disconnected.
        """
        return _run(self.program, "-s", self.serial, *arguments)


@command("phone")
@click.option("--app", is_flag=True, help="Measure with the demo app, which must be installed on the phone. Required: there is no other way yet.")
@click.option("--bundle", help="The bundle's name in the app. [default: its first]")
@click.option("--engine", "engines", multiple=True, help="May be given several times. [default: all that run the bundle]")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="May be given several times. [default: 1, 2 and 4]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="How often the configurations take turns.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Steps in each turn.")
@click.option("--warm-up", default=5, show_default=True, type=click.IntRange(1), help="Warm-up steps before those of a turn, which are not counted.")
@click.option("--minutes", type=click.IntRange(1, 60), help="Then run the fastest without pause for so long: does the phone keep its speed?")
@click.option("--serial", help="Which phone, as adb devices names it; needed where there are several.")
@click.option("--adb", default="adb", show_default=True, help="The adb program.")
@click.option("--timeout", default=900, show_default=True, type=click.IntRange(1), help="Seconds to wait for the phone, beside --minutes.")
@click.option("--out", type=OutputFile(), help="Append the records to this file, one JSON object a line.")
def phone_command(
    app: bool,
    bundle: str | None,
    engines: Sequence[str],
    threads: Sequence[int],
    rounds: int,
    steps: int,
    warm_up: int,
    minutes: int | None,
    serial: str | None,
    adb: str,
    timeout: int,
    out: Path | None,
) -> None:
    """Measure on a phone: each engine with each thread count, in processes of their own that take turns."""
    if not app:
        raise ClipstepError("clipstep bench phone measures with the demo app only", fix="install the app (docs/android.md) and give --app")
    if out is not None and not out.parent.is_dir():
        raise ClipstepError(f"{out}: no such folder", fix="make it first")
    phone = find_phone(adb, serial)
    extras = [*_extras(bundle, engines, threads), "--ei", "rounds", str(rounds), "--ei", "steps", str(steps), "--ei", "warmup", str(warm_up)]
    if minutes is not None:
        extras += ["--ei", "minutes", str(minutes)]
    found = _read(run_benchmark_mode(phone, extras, timeout + 60 * (minutes or 0)))
    records = [record.model_copy(update={"turn_steps": steps}) for record in found.timed]
    console = new_console()
    console.print(_describe(records[0]), soft_wrap=True)
    print_table(console, record_table(records))
    print_sustained(console, found.sustained)
    append_records(out, [*records, *found.sustained], console)


def find_phone(program: str, serial: str | None) -> Adb:
    """Return the phone with that serial number, or the only one that is connected, after checking that the app is on it.

    Raises:
        ClipstepError: there is no adb, no phone or several, the phone does not trust this computer, or the app is not installed.
    """
    if shutil.which(program) is None:
        raise ClipstepError(f"{program}: no such program", fix="install Android's platform tools, or name the program with --adb")
    lines = [line.split() for line in _run(program, "devices").splitlines()[1:] if line.strip()]
    phones = {line[0]: line[1] for line in lines if len(line) > 1}
    chosen = serial or (next(iter(phones)) if len(phones) == 1 else None)
    if chosen is None or chosen not in phones:
        got = ", ".join(phones) or "none"
        raise ClipstepError(
            "no phone to measure", got=got, expected=serial or "one phone", fix="connect it with USB debugging on, or choose with --serial"
        )
    if phones[chosen] != "device":
        raise ClipstepError(f"phone {chosen} cannot be used", got=phones[chosen], expected="device", fix="unlock it and trust this computer")
    phone = Adb(program, chosen)
    if PACKAGE not in phone("shell", f"pm list packages {PACKAGE}"):
        raise ClipstepError(f"phone {chosen} lacks the app {PACKAGE}", fix="build and install it: docs/android.md")
    return phone


def run_benchmark_mode(phone: Adb, extras: Sequence[str], timeout_s: float) -> str:
    """Start the app's benchmark mode, wait for its records, move them off the phone, and return them as text.

    Raises:
        ClipstepError: the app cannot be started, reports a failure, or does not finish within ``timeout_s`` seconds.
    """
    name = f"bench-{time.time_ns()}"
    said = phone("shell", " ".join(["am", "start", "-W", "-n", f"{PACKAGE}/.BenchActivity", "--es", "out", name, *extras]))
    if "Error" in said:
        raise ClipstepError("the app does not start", got=(said.strip().splitlines() or ["nothing"])[-1])
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        files = phone("shell", f"ls {FOLDER} 2>/dev/null || true").split()
        if f"{name}.error" in files:
            raise ClipstepError("the app failed", got=_take(phone, f"{name}.error").strip())
        if f"{name}.jsonl" in files:
            return _take(phone, f"{name}.jsonl")
        time.sleep(POLL_S)
    raise ClipstepError(
        "the phone has not finished", got=f"nothing in {timeout_s:g} s", fix="leave its screen on and the app in front; give --timeout"
    )


def _take(phone: Adb, file: str) -> str:
    text = phone("exec-out", f"cat {FOLDER}/{file}")
    phone("shell", f"rm {FOLDER}/{file}")
    return text


def _extras(bundle: str | None, engines: Sequence[str], threads: Sequence[int]) -> list[str]:
    values = {"bundle": bundle or "", "engines": ",".join(engines), "threads": ",".join(map(str, threads))}
    for key, value in values.items():
        if not set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._,-"):
            raise ClipstepError(f"{key} cannot be given to the phone's shell", got=value, expected="letters, digits, dot, dash and underscore")
    return [part for key, value in values.items() if value for part in ("--es", key, value)]


def _read(text: str) -> Records:
    with tempfile.TemporaryDirectory(prefix="clipstep-phone-") as folder:
        path = Path(folder) / "the phone's records"
        path.write_text(text, encoding="utf-8")
        records = read_records(path)
    if not records.timed:
        raise ClipstepError("the phone gave no record", fix="look at the app's screen")
    return records


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = (done.stderr or done.stdout).strip().splitlines() or ["no reason"]
        raise ClipstepError(f"{program} {' '.join(arguments)} failed", got=reasons[-1])
    return done.stdout


def _describe(record: Record) -> str:
    phone = record.phone
    where = f"{phone.model}, {record.device.cpu_model}" if phone else record.device.cpu_model
    warmth = f"; battery {phone.temperature_before_c} to {phone.temperature_after_c} °C" if phone and phone.temperature_before_c is not None else ""
    return f"{record.bundle} on {where}, {record.device.os}; {counted(len(record.step_ms), 'step')} each, taking turns{warmth}"
