"""Engines inside somebody else's process: after a fork, when a step fails, with idle threads, on few cores; what is changed of the process."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clipstep.runtime import ClipstepError, EngineError, StepModel
from clipstep.runtime import engine_onnxruntime as engine
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.command_line.streams import quiet, quiet_stderr
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import check_threads, load_engine

ALLOW_SPINNING = "session.intra_op.allow_spinning"

FORKED = """
import os, sys
import numpy as np
from clipstep.runtime import ClipstepError, StepModel
bundle, threads, again = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "again"
model = StepModel.load(bundle, threads=threads)
frames = np.full((4, 8, 8, 3), 51, np.uint8)
model.step(frames, model.initial_states())
if os.fork() == 0:
    if again:
        model = StepModel.load(bundle, threads=threads)
    try:
        print("logits", round(float(model.step(frames, model.initial_states())[0][0]), 4))
    except ClipstepError as error:
        print("refused", error)
    model.close()
    sys.exit(0)
status = os.wait()[1]
print("status", status, "and here", round(float(model.step(frames, model.initial_states())[0][0]), 4))
"""


def _forked(bundle: Path, threads: int, again: str) -> list[str]:
    """What the child and then the parent say; the timeout makes a failure of a process that waits for ever."""
    command = [sys.executable, "-c", FORKED, str(bundle), str(threads), again]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


needs_two_cores = pytest.mark.skipif(available_cores() < 2, reason="two threads need two cores")


@needs_two_cores
def test_onnxruntime_s_threads_are_missed_after_a_fork_and_closing_does_not_wait_for_them(bundle_path: Path) -> None:
    child, parent = _forked(bundle_path, 2, "same")
    assert child.startswith(f"refused {bundle_path}/model.onnx: was loaded before this process was forked; got process ")
    assert "load it in the process that runs it" in child
    assert parent == "status 0 and here 0.55"


@needs_two_cores
def test_a_forked_process_may_load_the_model_itself(bundle_path: Path) -> None:
    assert _forked(bundle_path, 2, "again") == ["logits 0.55", "status 0 and here 0.55"]


def test_onnxruntime_on_one_thread_has_none_to_miss(bundle_path: Path) -> None:
    assert _forked(bundle_path, 1, "same") == ["logits 0.55", "status 0 and here 0.55"]


def test_threads_do_not_spin_between_steps_unless_asked_to(bundle_path: Path) -> None:
    def setting(**asked: bool) -> str:
        with StepModel.load(bundle_path, **asked) as model:
            options = model._engine._session.get_session_options()  # type: ignore[union-attr]
            return str(options.get_session_config_entry(ALLOW_SPINNING))

    assert (setting(), setting(spinning=False), setting(spinning=True)) == ("0", "0", "1")


def test_an_engine_that_cannot_spin_says_which_can(bundle_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"executorch cannot let its threads spin \(wait busily\); expected spinning with onnxruntime only"):
        load_engine("executorch", bundle_path / "model.onnx", 1, spinning=True)


@pytest.fixture
def picky_bundle(copied_bundle: Path, edit_manifest: Callable[[Callable[[dict[str, Any]], Any]], Path]) -> Path:
    """Its network looks its logits up in a table, at the brightest pixel: there are only ten entries."""
    nodes = [
        helper.make_node("ReduceMax", ["integers", "axes"], ["brightest"], keepdims=0),
        helper.make_node("Gather", ["table", "brightest"], ["looked_up"]),
        helper.make_node("Add", ["looked_up", "memory"], ["logits"]),
        helper.make_node("Identity", ["memory"], ["memory_out"]),
    ]
    nodes.insert(0, helper.make_node("Cast", ["frames"], ["integers"], to=TensorProto.INT32))
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [4], [0, 1, 2, 3]),
        helper.make_tensor("table", TensorProto.FLOAT, [10, 1, 3], np.arange(30, dtype=np.float32)),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, (4, 8, 8, 3))
    memory, logits, memory_out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3)) for name in ("memory", "logits", "memory_out"))
    graph = helper.make_graph(nodes, "picky", [frames, memory], [logits, memory_out], constants)
    file = copied_bundle / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)
    return edit_manifest(lambda values: values["artifacts"][0].update(size_bytes=tree_size(file), sha256=tree_sha256(file)))


def test_a_step_that_fails_names_the_artifact_and_the_step(picky_bundle: Path) -> None:
    dark, bright = (np.full((8, 8, 3), value, np.uint8) for value in (9, 10))
    with StepModel.load(picky_bundle) as model:
        stream = model.stream()
        predictions = [stream.push(dark) for _ in range(8)]
        assert predictions[7] is not None and predictions[7].logits[0] == 27.25
        with pytest.raises(EngineError, match=r"^step 2: .*model\.onnx: onnxruntime failed in a step; got .*Gather"):
            for _ in range(4):
                stream.push(bright)
        with pytest.raises(EngineError, match=r"^[^ ]*model\.onnx: onnxruntime failed in a step; got .*Gather"):
            model.step(np.full((4, 8, 8, 3), 10, np.uint8), model.initial_states())


@pytest.mark.parametrize(("error", "got"), [(RuntimeError(""), "RuntimeError"), (ValueError("\n\n bad \n worse"), "bad")])
def test_whatever_an_engine_raises_on_loading_is_one_line(bundle_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, got: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(engine, "onnxruntime_session", fail)
    with pytest.raises(EngineError, match=f"model.onnx: onnxruntime cannot load it; got {got}$"):
        StepModel.load(bundle_path)


def test_an_engine_built_for_another_numpy_is_named(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    def broken(*_: object) -> None:
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr("builtins.__import__", lambda name, *rest: broken() if name == "onnxruntime" else original(name, *rest))
    with pytest.raises(EngineError, match=r"engine onnxruntime cannot be imported; got numpy.core.multiarray failed to import; install it anew"):
        load_engine("onnxruntime", bundle_path / "model.onnx", 1)


original = __import__


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinities here")
def test_cores_are_those_that_this_process_may_run_on() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from clipstep.runtime.engines import check_threads; check_threads(2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith("thread count not available; got 2; expected 1 to 1")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 64),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "5000 100000"}, 1),
        ({"proc/self/cgroup": "0::/box/app", "sys/fs/cgroup/box/cpu.max": "300000 100000", "sys/fs/cgroup/box/app/cpu.max": "max 100000"}, 3),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
    ],
)
def test_a_container_s_share_of_processor_time_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize("hush", [quiet_stderr, quiet])
def test_silences_that_overlap_leave_the_process_as_it_was(hush: Callable[[], Any], capfd: pytest.CaptureFixture[str]) -> None:
    """A begins, B begins, A ends, B ends."""
    before, streams = os.fstat(2), (sys.stdout, sys.stderr)
    begun, ended = threading.Event(), threading.Event()

    def first() -> None:
        with hush():
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(10)
    with hush():
        ended.set()
        thread.join()
        os.write(2, b"hidden")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"
    assert os.path.samestat(os.fstat(2), before) and (sys.stdout, sys.stderr) == streams


def test_one_thread_is_always_available() -> None:
    check_threads(1)
