"""``clipstep bench phone --app`` with a fake adb: its phone is a folder, and its app writes what the test prepares."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstep.benchmarks.phone import FOLDER
from clipstep.benchmarks.records import Configuration
from clipstep.benchmarks.report import read_records

Call = Callable[..., tuple[int, str, str]]

FAKE = """#!{python}
import json, pathlib, sys
here = pathlib.Path({here!r})
phone = json.loads((here / "phone.json").read_text())
arguments = sys.argv[1:]
with (here / "calls").open("a") as calls:
    print(json.dumps(arguments), file=calls)
if arguments == ["devices"]:
    print("List of devices attached")
    for line in phone["devices"]:
        print(line)
    sys.exit()
assert arguments[0] == "-s", arguments
words = arguments[3].split()
folder = here / "records"
if phone.get("gone"):
    sys.exit("error: device offline")
if words[:2] == ["pm", "list"]:
    print(phone["app"] and "package:clipstep.demo" or "")
elif words[:2] == ["am", "start"]:
    if phone.get("refuses"):
        print("Error type 3\\nError: Activity class {{clipstep.demo/clipstep.demo.BenchActivity}} does not exist.")
    for ending in ("jsonl", "error"):
        if ending in phone:
            (folder / (words[words.index("out") + 1] + "." + ending)).write_text(phone[ending])
elif words[0] == "ls":
    print("\\n".join(file.name for file in folder.iterdir()))
elif words[0] == "cat":
    print((folder / words[1].rsplit("/", 1)[1]).read_text(), end="")
elif words[0] == "rm":
    (folder / words[1].rsplit("/", 1)[1]).unlink()
else:
    sys.exit(f"unknown: {{arguments}}")
"""

SUSTAINED = Path(__file__).parent / "sustained.jsonl"
"""What the demo app wrote of a run of a minute."""
RECORD: dict[str, Any] = {
    "bundle": "demo.clipstep",
    "manifest_sha256": "0" * 64,
    "artifact_sha256": "1" * 64,
    "configuration": {
        "name": "step.onnx",
        "target": "onnx",
        "form": "lowered",
        "precision": "float32",
        "engine": "onnxruntime",
        "threads": 2,
        "file": "step.onnx",
        "spinning": False,
        "providers": ["cpu"],
    },
    "cold_start": {"load_s": 0.2, "first_step_ms": 31.0, "threads_used": 2, "largest_error": 1e-6},
    "device": {"cpu_model": "Maker Chip", "cores": 8, "os": "Android 15 (SDK 35)", "machine": "aarch64"},
    "tool_versions": {"clipstep": "0.1.0", "onnxruntime": "1.29.0"},
    "placement": {"CPUExecutionProvider": 9},
    "not_delegated": [],
    "file_bytes": 4000000,
    "subclip_s": 0.5,
    "peak_memory_bytes": 90000000,
    "memory_before_load_bytes": 50000000,
    "step_ms": [10.0, 20.0, 30.0],
    "phone": {
        "model": "Maker Phone",
        "build_fingerprint": "maker/phone:15",
        "temperature_before_c": 25.0,
        "temperature_after_c": 31.5,
        "thermal_status_after": 0,
    },
    "weights_sha256": None,
    "pause_ms": 0.0,
    "processor_ms": None,
    "percentiles_ms": {"p10": 12.0, "p50": 20.0, "p90": 28.0, "p99": 29.8},
    "steps_per_s": 50.0,
    "real_time_factor": 25.0,
    "measured_utc": "2026-11-28T12:00:00Z",
}


@pytest.fixture
def phone(tmp_path: Path) -> Callable[..., Path]:
    """``phone(jsonl=...)`` creates an adb with one phone whose app writes these records."""

    def make(**changes: Any) -> Path:
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / "phone.json").write_text(json.dumps({"devices": ["ABC\tdevice"], "app": True, **changes}))
        adb = tmp_path / "adb"
        adb.write_text(FAKE.format(python=sys.executable, here=str(tmp_path)))
        adb.chmod(0o755)
        return adb

    return make


def test_records_are_pulled_shown_and_appended(phone: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    adb, out = phone(jsonl=json.dumps(RECORD) + "\n"), tmp_path / "records.jsonl"
    code, text, error = clipstep(
        "bench",
        "phone",
        "--app",
        "--adb",
        adb,
        "--bundle",
        "demo",
        "--engine",
        "onnxruntime",
        "--threads",
        1,
        "--threads",
        2,
        "--steps",
        7,
        "--out",
        out,
    )
    assert (code, error) == (0, "")
    assert "demo.clipstep on Maker Phone, Maker Chip, Android 15 (SDK 35); 3 steps each, taking turns; battery 25.0 to 31.5 °C" in text
    assert text.splitlines()[4].split()[:6] == ["step.onnx", "onnxruntime", "2", "20.00", "28.00", "25"]
    (record,) = read_records(out).timed
    here = {"turn_steps": 7, "parts": None, "configuration": {**RECORD["configuration"], "video": None}}
    assert json.loads(record.model_dump_json()) == {**RECORD, **here}
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    (start,) = [call[3] for call in calls if len(call) > 3 and call[3].startswith("am start")]
    name = start.split()[start.split().index("out") + 1]
    assert start == (
        f"am start -W -n clipstep.demo/.BenchActivity --es out {name} --es bundle demo --es engines onnxruntime --es threads 1,2 "
        "--ei rounds 5 --ei steps 7 --ei warmup 5"
    )
    assert ["-s", "ABC", "exec-out", f"cat {FOLDER}/{name}.jsonl"] in calls
    assert list((tmp_path / "records").iterdir()) == []  # Nothing stays on the phone.


def test_a_run_of_minutes_is_asked_for_waited_for_shown_and_appended(phone: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    adb, out = phone(jsonl=json.dumps(RECORD) + "\n" + SUSTAINED.read_text()), tmp_path / "records.jsonl"
    code, text, error = clipstep("bench", "phone", "--app", "--adb", adb, "--minutes", 3, "--out", out)
    assert (code, error) == (0, "")
    found = read_records(out)
    assert found.sustained == read_records(SUSTAINED).sustained and len(found.timed) == 1
    assert "60 s without pause: a step takes +25% at the end" in text and "2 records appended" in text
    started = [call[3] for line in (tmp_path / "calls").read_text().splitlines() if (call := json.loads(line))[3:] and "am start" in call[3]]
    assert [words.endswith("--ei warmup 5 --ei minutes 3") for words in started] == [True]


def test_an_artifact_with_other_providers_is_told_from_the_artifact_as_it_is_loaded() -> None:
    plain = Configuration.model_validate(RECORD["configuration"])
    other = plain.model_copy(update={"name": "step.onnx, on xnnpack and cpu", "providers": ("xnnpack", "cpu")})
    spinning = other.model_copy(update={"name": "step.onnx, on xnnpack and cpu, spinning threads", "spinning": True})
    assert [(each.is_artifact, each.is_plain) for each in (plain, other, spinning)] == [(True, True), (True, False), (True, False)]
    assert not plain.model_copy(update={"name": other.name}).is_artifact


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error": "no such bundle; got x\n"}, "the app failed; got no such bundle; got x"),
        ({"devices": []}, "no phone to measure; got none; expected one phone; connect it"),
        ({"devices": ["A\tdevice", "B\tdevice"]}, "no phone to measure; got A, B; expected one phone"),
        ({"devices": ["A\tunauthorized"]}, "phone A cannot be used; got unauthorized; expected device; unlock it"),
        ({"app": False}, "phone ABC lacks the app clipstep.demo; build and install it: docs/android.md"),
        ({"refuses": True}, "the app does not start; got Error: Activity class"),
        ({"gone": True}, "failed; got error: device offline"),
        ({"jsonl": '{"bundle": 3}\n'}, "the phone's records:1: is not a record"),
        ({"jsonl": ""}, "the phone gave no record"),
        ({}, "the phone has not finished; got nothing in 1 s; leave its screen on"),
    ],
)
def test_what_goes_wrong_is_explained(phone: Callable[..., Path], clipstep: Call, changes: dict[str, Any], words: str) -> None:
    code, _, error = clipstep("bench", "phone", "--app", "--adb", phone(**changes), "--timeout", 1)
    assert code == 2
    assert words in error


def test_a_phone_is_chosen_by_its_serial_number(phone: Callable[..., Path], tmp_path: Path, clipstep: Call) -> None:
    adb = phone(devices=["A\tdevice", "B\tdevice"], jsonl=json.dumps(RECORD) + "\n")
    assert clipstep("bench", "phone", "--app", "--adb", adb, "--serial", "B")[0] == 0
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert {call[1] for call in calls[1:]} == {"B"}


def test_no_adb_no_app_and_shell_words_are_refused(phone: Callable[..., Path], clipstep: Call) -> None:
    assert "no such program; install Android's platform tools" in clipstep("bench", "phone", "--app", "--adb", "no-adb")[2]
    assert "give --app" in clipstep("bench", "phone", "--adb", phone())[2]
    assert "bundle cannot be given to the phone's shell; got a;rm" in clipstep("bench", "phone", "--app", "--adb", phone(), "--bundle", "a;rm")[2]


def test_both_ways_to_measure_are_in_the_help(clipstep: Call) -> None:
    assert "clipstep bench phone measures on a phone" in clipstep("bench", "--help")[1]
    assert "--warm-up" in clipstep("bench", "phone", "--help")[1]
