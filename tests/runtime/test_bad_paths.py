"""Every path that a command takes, with everything that a path can be instead of what is wanted: one line, exit code 2, nothing done."""

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from clipstep.runtime.command_line.cli import COMMANDS
from clipstep.runtime.command_line.exit_codes import one_line
from clipstep.runtime.command_line.sign import new_key

Cli = Callable[..., tuple[int, str, str]]
FIGHT = Path(__file__).parents[2] / "training/demo/fight"
PATHS = {"bundle", "run", "config"}
"""Parameters that are paths, or may be, though their type does not say so."""
INPUTS = ("absent", "empty", "text", "binary", "folder", "long", "escapes", "not ascii", "unreadable", "nothing", "inside a file", "url")
NEW_FILES = ("folder", "inside a file", "in no folder", "in proc", "long", "url")
NEW_FOLDERS = ("text", "inside a file", "in proc", "long", "url")
THERE = ("empty", "text", "binary", "folder", "unreadable", "nothing")
URL = "https://example.com/a/rather/long/name.mp4"
RIGHT = {
    "train": ("DATA", "--out", "NEW"),
    "models": (),
    "generate": ("DATA", "--out", "NEW"),
    "convert": ("CHECKPOINT", "DATA", "--out", "NEW"),
    "pack": ("BUNDLE", "--for", "python", "--out", "NEW.clipstep.zip"),
    "export": ("RUN", "--out", "NEW.clipstep"),
    "verify": ("BUNDLE",),
    "inspect": ("BUNDLE",),
    "run": ("BUNDLE", "VIDEO"),
    "evaluate": ("BUNDLE", "DATA"),
    "explain": ("RUN", "VIDEO", "--out", "NEW"),
    "bench": ("BUNDLE",),
    "report": ("BUNDLE", "RECORDS"),
    "peers": ("BUNDLE",),
    "bench-models": ("DATA", "--out", "NEW"),
    "bench-scaling": ("DATA", "--out", "NEW"),
    "bench-streams": ("BUNDLE", "VIDEO"),
    "bench-training": ("DATA",),
    "arm64": (),
    "demo": (),
    "sign": ("BUNDLE",),
}
"""A right command line of each command; what is tested takes the place of one word, or comes after them."""
OWN = ("--model", "torch.nn:Identity", "--frames", "4", "--size", "8", "--labels", "CLASSES")
BESIDE: dict[tuple[str, str], tuple[str, ...]] = {
    ("export", "weights"): OWN,
    ("export", "labels"): OWN[:6],
    ("export", "video"): OWN,
    ("export", "sample"): OWN,
    ("export", "calibration"): ("RUN", "--target", "executorch", "--precision", "int8"),
    ("bench", "ceilings"): ("--arch", "arm64"),
    ("bench", "weights"): OWN[:2],
    ("peers", "weights"): OWN[:2],
    ("peers", "bundle"): ("--run", "RUN"),
    ("peers", "signer"): ("--run", "RUN"),
    ("sign", "bundle"): ("--key", "KEY"),
    ("pack", "run"): ("--golden", "synthetic"),
    ("pack", "weights"): ("--golden", "synthetic", *OWN[:2]),
    ("verify", "weights"): OWN[:2],
}
FINE = {("train", "config", "empty"), ("train", "config", "nothing"), ("report", "records", "empty")}
"""A file without options, and one without records."""


def _command(job: str) -> click.Command:
    found: click.Command = getattr(importlib.import_module(COMMANDS[job].module), f"{job.replace('-', '_')}_command")
    return found


def _cases() -> Iterator[Any]:
    for job in COMMANDS:
        for parameter in _command(job).params:
            name = str(parameter.name)
            if not isinstance(parameter.type, click.Path) and not (name in PATHS and parameter.param_type_name == "option"):
                continue
            kind = type(parameter.type).__name__
            for bad in {"OutputFile": NEW_FILES, "OutputFolder": NEW_FOLDERS}.get(kind, INPUTS):
                if (job, name, bad) in FINE or (job, name) in {
                    ("verify", "video"),
                    ("verify", "labels"),
                    ("report", "evaluation"),
                }:  # Another network than the bundle's, or a file without records, is refused first.
                    continue
                yield pytest.param(job, name, bad, id=f"{job}-{name}-{bad}")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, run_folder: Path, clip: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("given")
    torch.save({"classifier.1.weight": torch.zeros(2, 960)}, folder / "checkpoint.pt")
    (folder / "records.jsonl").touch()
    new_key(folder / "key.pem")
    (folder / "classes.txt").write_text("red\ngreen\nblue\n")
    right = {"DATA": FIGHT, "RUN": run_folder, "BUNDLE": bundle_path, "VIDEO": clip}
    return {
        **right,
        "CHECKPOINT": folder / "checkpoint.pt",
        "RECORDS": folder / "records.jsonl",
        "CLASSES": folder / "classes.txt",
        "KEY": folder / "key.pem",
    }


@pytest.fixture(scope="module")
def bad_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").touch()
    (folder / "text").write_text("to be or not to be\n" * 3)
    (folder / "binary").write_bytes(bytes(range(256)) * 300)
    (folder / "folder").mkdir()
    return {
        **{name: folder / name for name in ("empty", "text", "binary", "folder", "absent")},
        "long": folder / ("n" * 300),
        "escapes": folder / "two\nlines \x1b[31mred",
        "not ascii": folder / os.fsdecode("naïve 视频 \udcff".encode("utf-8", "surrogateescape")),
        "unreadable": Path("/proc/self/mem"),
        "nothing": Path("/dev/null"),
        "inside a file": folder / "text" / "inside",
        "in no folder": folder / "absent" / "file",
        "url": Path(URL),
        "in proc": Path("/proc/clipstep-test"),
    }


def _words(job: str, name: str, path: Path, given: dict[str, Path], new: Path) -> list[str]:
    """The right command line with `path` for the parameter `name`; an output keeps the ending that it needs."""
    words = list(RIGHT[job])
    command = _command(job)
    arguments = [str(p.name) for p in command.params if isinstance(p, click.Argument)]
    if name in arguments:
        words[arguments.index(name)] = str(path)
        words += BESIDE.get((job, name), ())
    else:
        option = next(p.opts[-1] for p in command.params if p.name == name)
        words = [w for w in words if w != "NEW" and w != "NEW.clipstep" and w != "--out"] if option == "--out" else words
        if (job, name) in BESIDE and job == "export":
            words = words[1:]
        words += [*BESIDE.get((job, name), ()), option, str(path)]
    return [str(given.get(word, f"{new}{word[3:]}" if word.startswith("NEW") else word)) for word in words]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the files that root cannot read, or write beside, are Linux's")
@pytest.mark.parametrize(("job", "name", "bad"), list(_cases()))
def test_a_bad_path_is_one_line(
    job: str, name: str, bad: str, given: dict[str, Path], bad_paths: dict[str, Path], clipstep: Cli, tmp_path: Path
) -> None:
    path = bad_paths[bad]
    code, out, err = clipstep(job, *_words(job, name, path, given, tmp_path / "new"))
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith("error: ") and "Traceback" not in err and "bug of clipstep" not in err
    assert not (bad in THERE and f"{path}: no such" in err), err
    assert bad != "url" or (f"{URL}" in err and "is a URL" in err), err
    assert one_line(str(path))[-20:] in err or one_line(str(path.parent)) in err, err
    assert (out == "" or (job, name) == ("run", "video")) and not (tmp_path / "new").exists()
