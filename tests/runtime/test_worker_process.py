"""A process of its own: what kills it, stops it or fills memory there is one error here, and the next request is answered."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, StepModel
from clipstep.runtime.isolated_engine import IsolatedEngine
from clipstep.runtime.worker_process import WorkerProcess, call_in_worker, fresh_worker

FILE = Path(__file__)


@pytest.fixture
def engine_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of engines that are hostile in Python; its name."""
    (tmp_path / "hostile_engines.py").write_text(
        "import os, signal, time, sys\n"
        "import numpy as np\n"
        "class Engine:\n"
        "    def __init__(self, path, does): self.does = does\n"
        "    def run(self, inputs):\n"
        "        if self.does == 'crash': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        if self.does == 'abort': os.abort()\n"
        "        if self.does == 'exit': os._exit(3)\n"
        "        if self.does == 'hang': time.sleep(100)\n"
        "        if self.does == 'fill': return [np.ones(1 << 33, np.uint8)]\n"
        "        if self.does == 'raise': raise RuntimeError('one\\ntwo')\n"
        "        if self.does == 'print': print('noise'); sys.stdout.flush()\n"
        "        return [value + 1 for value in inputs]\n"
        "    def close(self): pass\n"
        "def process(path): return os.getpid()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "hostile_engines"


def _load(worker: WorkerProcess, module: str, does: str) -> IsolatedEngine:
    return IsolatedEngine(f"{module}:Engine", FILE, "the engine", worker, does=does)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("crash", r"the engine crashed \(signal 11, SIGSEGV\); the file is damaged, or not made for this version"),
        ("abort", r"the engine crashed \(signal 6, SIGABRT\)"),
        ("exit", r"the engine ended its process \(exit code 3\)"),
        ("hang", "the engine gave no answer within 1 s and was stopped"),
        ("fill", "the engine failed; got .*(Unable to allocate|MemoryError)"),
        ("raise", "the engine failed; got RuntimeError: one$"),
    ],
)
def test_whatever_happens_there_is_one_error_and_the_next_file_is_run(engine_module: str, does: str, message: str) -> None:
    one, two = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 2), np.uint8)
    with WorkerProcess(timeout_s=1) as worker:
        with pytest.raises(ClipstepError, match=f"test_worker_process.py: {message}"):
            _load(worker, engine_module, does).run([one])
        got = _load(worker, engine_module, "print").run([one, two])
    assert [value.dtype for value in got] == [np.float32, np.uint8]
    np.testing.assert_array_equal(got[0], one + 1)
    assert got[1].shape == (0, 2)


def test_a_stopped_process_says_so(engine_module: str) -> None:
    engine = IsolatedEngine(f"{engine_module}:Engine", FILE, "the engine", does="print")
    engine.close()
    engine.close()
    with pytest.raises(ClipstepError, match="the process of the engine has ended; load it again"):
        engine.run([])


def test_each_bundle_has_a_process_in_which_nothing_was_loaded(engine_module: str) -> None:
    """Two numbers of processes that differ, although the second one imports nothing again."""
    imports = [engine_module]  # No other test has left such a process.
    seen = [call_in_worker(f"{engine_module}:process", FILE, "the reader", imports) for _ in range(2)]
    assert len({*seen, os.getpid()}) == 3


def test_no_process_is_left_behind(engine_module: str) -> None:
    with WorkerProcess() as worker:
        copy = worker.ask(FILE, "x", {"call": f"{engine_module}:process", "arguments": {"path": ""}, "memory_bytes": 1 << 32})[0]["result"]
        _load(worker, engine_module, "print")
    for _ in range(100):
        if not Path(f"/proc/{copy}").exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"process {copy} is there after its parent was stopped")


def test_a_module_of_the_current_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hostile bundle would have one, where the user has changed into it."""
    (tmp_path / "numpy.py").write_text("import os; os._exit(9)")
    monkeypatch.chdir(tmp_path)
    with fresh_worker(["this_module_does_not_exist"]) as worker:
        assert worker.renewed()


def test_the_isolated_model_gives_the_same_numbers(bundle_path: Path, model: StepModel) -> None:
    frames = np.random.default_rng(3).integers(0, 256, model.interface.input.shape, np.uint8)
    with StepModel.load(bundle_path, isolated=True) as isolated:
        assert isolated.description == model.description
        for given in (model.initial_states(), (np.full((1, 3), 7, np.float32),)):
            expected, got = model.step(frames, given), isolated.step(frames, given)
            np.testing.assert_array_equal(got[0], expected[0])
            np.testing.assert_array_equal(got[1][0], expected[1][0])


def test_a_process_that_is_killed_from_outside_is_one_error(bundle_path: Path) -> None:
    with StepModel.load(bundle_path, isolated=True) as isolated:
        frames: Any = np.zeros(isolated.interface.input.shape, np.uint8)
        os.killpg(isolated._engine._worker._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(ClipstepError, match=r"onnxruntime crashed \(signal 9, SIGKILL\)"):
            isolated.step(frames, isolated.initial_states())
