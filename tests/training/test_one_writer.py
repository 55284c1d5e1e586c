"""Two commands that write to one place: the second is refused before its work, and the first one's files are untouched."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipstep.training.train import _is_first_process

Cli = Callable[..., tuple[int, str, str]]
HOLD = """
import sys
from pathlib import Path
from clipstep.runtime.filesystem.locking import write_lock
with write_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[Path], int]]:
    """``other(out)``: another process that writes there; gives its number."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path) -> int:
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None and started[-1].stdout.readline() == "held\n"
        return started[-1].pid

    yield start
    for process in started:
        process.communicate("")


@pytest.mark.parametrize(
    "words",
    [
        "train DATA --out OUT",
        "train DATA --out OUT --resume",
        "train DATA --out OUT --force",
        "evaluate RUN DATA --out OUT",
        "explain RUN CLIP --out OUT",
        "convert RUN/model.safetensors DATA --out OUT",
        "generate DATA --out OUT",
        "demo --out OUT",
        "export RUN --out OUT.clipstep",
        "bench-scaling DATA --out OUT",
        "bench-models DATA --out OUT",
    ],
)
def test_the_second_one_is_refused(
    words: str, tiny_data: Path, run_folder: Path, clip: Path, tmp_path: Path, clipstep: Cli, other: Callable[[Path], int]
) -> None:
    name = "out.clipstep" if "clipstep" in words else "out"
    places = {"DATA": tiny_data, "RUN": run_folder, "CLIP": clip, "RUN/model.safetensors": run_folder / "model.safetensors"}
    pid = other(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    code, said, err = clipstep(*(tmp_path / name if word.startswith("OUT") else places.get(word, word) for word in words.split()))
    assert code == 2 and len(err.splitlines()) == 1 and "epoch" not in said
    assert f"error: another clipstep process ({pid}) is writing to {tmp_path / name}; wait until it is through, or choose another place" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "first"), [("LOCAL_RANK", False), ("RANK", False), ("NODE_RANK", False), ("WORLD_SIZE", True)])
def test_the_processes_of_one_training_do_not_refuse_each_other(name: str, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning, torchrun and Slurm start the same command several times; only the process that writes takes the lock."""
    monkeypatch.setenv(name, "1")
    assert _is_first_process() == first
