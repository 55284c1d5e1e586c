"""Side effects on the process: ExecuTorch's only thread pool, forks, exports in threads, imports, random generators."""

import contextlib
import importlib.util
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from clipstep.export import export, verify
from clipstep.export.interrupts import interruptible
from clipstep.export.mlprogram import MlProgram
from clipstep.export.module import network_of_module
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.network.rng_state import preserved_rng_state
from clipstep.runtime import Bundle, ClipstepError, EngineError, GoldenSteps, StepModel
from clipstep.runtime.cores import available_cores
from clipstep.runtime.engines import load_engine
from clipstep.training import train as training
from clipstep.training.run import Run, RunInfo

portable_lib = pytest.importorskip("executorch.extension.pybindings.portable_lib")
FORKED = """
import os, sys
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, StepModel
golden = GoldenSteps.of(Bundle.open(sys.argv[1]))
model = StepModel.load(sys.argv[1], "executorch", int(sys.argv[2]))
model.step(golden.subclips[0], model.initial_states())
if os.fork() == 0:
    for use in (lambda: model.step(golden.subclips[0], model.initial_states()), lambda: StepModel.load(sys.argv[1], "executorch", int(sys.argv[2]))):
        try:
            use()
        except ClipstepError as error:
            print(error, flush=True)
    model.close()
    os._exit(0)
print(os.wait()[1], abs(model.step(golden.subclips[0], model.initial_states())[0] - golden.logits[0]).max() < 1e-4)
"""


def test_executorch_in_a_forked_process_is_an_error_and_not_a_hang(bundle_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(bundle_path), str(min(2, available_cores()))]
    step, load, parent = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()
    assert step.startswith(f"{bundle_path}/step.pte: was loaded before this process was forked; got process ")
    assert load.startswith("ExecuTorch was used before this process was forked, and its threads are not in it; load it in the process that runs it")
    assert parent == "0 True"


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread counts with which ExecuTorch's pool was replaced."""
    asked: list[int] = []
    reset = portable_lib._unsafe_reset_threadpool
    monkeypatch.setattr(portable_lib, "_unsafe_reset_threadpool", lambda threads: (asked.append(threads), reset(threads)))
    return asked


def test_executorch_s_pool_is_never_replaced_under_an_open_model(bundle_path: Path, golden: GoldenSteps, resets: list[int]) -> None:
    """Four threads load, run and close models while one is open: each gets the golden logits."""

    def use(_: int) -> bool:
        with StepModel.load(bundle_path, "executorch", 1) as model:
            return all(np.abs(model.step(golden.subclips[0], model.initial_states())[0] - golden.logits[0]).max() < 1e-4 for _ in range(3))

    with StepModel.load(bundle_path, "executorch", 1):
        resets.clear()
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(use, range(8)))
        assert resets == []


@pytest.mark.skipif(available_cores() < 2, reason="two thread counts need two cores")
def test_executorch_models_that_ask_for_two_thread_counts_at_once(bundle_path: Path, golden: GoldenSteps) -> None:
    """Whatever the order, one count wins while its models are open, the others get an error, and the loaded models compute the right logits."""
    barrier = threading.Barrier(4)

    def use(threads: int) -> str:
        barrier.wait(30)
        try:
            with StepModel.load(bundle_path, "executorch", threads) as model:
                barrier.wait(30)
                right = np.abs(model.step(golden.subclips[0], model.initial_states())[0] - golden.logits[0]).max() < 1e-4
                barrier.wait(30)
                return f"{threads} {bool(right)}"
        except ClipstepError as error:
            barrier.wait(30), barrier.wait(30)
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        said = sorted(pool.map(use, (1, 2, 1, 2)))
    winner = said[0][0]
    other = "2" if winner == "1" else "1"
    assert said[:2] == [f"{winner} True"] * 2
    for line in said[2:]:
        assert line.startswith(f"ExecuTorch has one thread pool a process: got {other} threads, but a model that is open uses {winner};")


def test_executorch_loads_without_redirecting_the_process_streams(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a library function redirects the process' streams")

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup2", forbidden)
        patch.setattr("contextlib.redirect_stderr.__enter__", forbidden)
        StepModel.load(bundle_path, "executorch").close()


def test_a_step_with_too_few_inputs_or_other_shapes_names_the_artifact(bundle: Bundle, golden: GoldenSteps) -> None:
    """ExecuTorch itself computes with the earlier contents of an input that is not given."""
    path = bundle.path / "step.pte"
    states = [np.zeros(state.shape, np.float32) for state in bundle.manifest.states]
    engine = load_engine("executorch", path, 1)
    engine.run([golden.subclips[0], *states])
    with pytest.raises(EngineError, match=r"step\.pte: wrong number of inputs; got 1; expected 3"):
        engine.run([golden.subclips[0]])
    with pytest.raises(EngineError, match=r"step\.pte: ExecuTorch failed in a step; got ."):
        engine.run([golden.subclips[0][:1], *states])
    engine.close()
    with pytest.raises(EngineError, match=r"step\.pte: the engine is closed"):
        engine.run([golden.subclips[0], *states])


def test_the_evaluator_names_the_package_in_which_it_fails(bundle: Bundle, golden: GoldenSteps) -> None:
    engine = MlProgram(bundle.path / "step-float32.mlpackage")
    with pytest.raises(EngineError, match=r"step-float32\.mlpackage: our evaluator of ML Programs failed in a step; got ."):
        engine.run([golden.subclips[0].astype(np.float32)])
    with pytest.raises(EngineError, match=r"step-float32\.mlpackage: "):
        engine.run([np.zeros((1, 2), np.float32)] * 3)


def test_exports_in_two_threads_leave_the_process_as_it_was(pooled_run: Run, tmp_path: Path) -> None:
    streams, level = (sys.stdout, sys.stderr), logging.root.manager.disable
    handler, error_stream = signal.getsignal(signal.SIGINT), os.fstat(2)
    paths = [tmp_path / f"{name}.clipstep" for name in "ab"]
    specs = [pooled_run.spec("pooled") for _ in paths]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda spec, path: export_network(spec, path, ExportOptions(("onnx", "executorch"))), specs, paths)
    files = [(path / "step.pte").read_bytes() for path in paths]
    assert len(first.manifest.artifacts) == len(second.manifest.artifacts) == 2 and files[0].replace(b'"a"', b'"b"') == files[1]
    assert (sys.stdout, sys.stderr) == streams and logging.root.manager.disable == level
    assert signal.getsignal(signal.SIGINT) is handler and os.path.samestat(os.fstat(2), error_stream)


class _Waiting(torch.nn.Module):
    """A network that calls a function while it is traced."""

    def __init__(self, while_traced: Callable[[], object]) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(3, 2, 1)
        self.while_traced = while_traced

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            self.while_traced()
        return self.layer(x).mean((2, 3, 4))


@pytest.mark.parametrize("used", ["export", "verify"])
def test_a_module_that_two_threads_use_is_not_looked_at_while_one_traces_it(used: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"frames": 2, "size": 8, "labels": ("a", "b"), "mean": (0.0,) * 3, "std": (1.0,) * 3, "fps": 25}
    traced, done, overlaps = threading.Event(), threading.Event(), list[bool]()
    network = _Waiting(lambda: (traced.set(), overlaps.append(done.wait(0.3)))).eval()
    export(network, tmp_path / "first.clipstep", targets=("onnx",), **sizes)
    traced.clear()
    overlaps.clear()

    def use() -> None:
        traced.wait(60)
        try:
            network_of_module(network, **sizes) if used == "export" else verify(tmp_path / "first.clipstep", module=network)
        finally:
            done.set()

    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(use), pool.submit(export, network, tmp_path / "second.clipstep", targets=("onnx",), **sizes)]
        for outcome in outcomes:
            outcome.result()
    assert overlaps[0] is False


def test_a_handler_of_ctrl_c_that_is_set_during_an_export_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class _Wide(torch.nn.Module):
    """A network with a state so large that PyTorch copies it in several threads."""

    def forward(self, frames: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        past = 0.5 * past + frames.mean((1, 2))[:, None]
        return past.mean((1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]]), past

    def initial_states(self) -> dict[str, torch.Tensor]:
        return {"past": torch.zeros(1, 1, 256, 256)}


STEPPED = """
import os, sys
import numpy
from clipstep.runtime import StepModel
with StepModel.load(sys.argv[1], "executorch", 1) as model:
    spec, states = model.interface.input, model.initial_states()
    before = set(os.listdir("/proc/self/task"))
    for _ in range(3):
        logits, states = model.step(numpy.full(spec.shape, 100, spec.dtype), states)
    print(len(set(os.listdir("/proc/self/task")) - before))
"""


def test_one_thread_of_executorch_is_one(tmp_path: Path) -> None:
    """PyTorch's own threads would copy a large state and then wait busily, which takes at least twice the processor time."""
    sample = torch.randint(256, (2, 2, 256, 256, 3), dtype=torch.uint8)
    run = Run(_Wide().eval(), RunInfo("wide", {}, ("a", "b"), (100.0,) * 3, (60.0,) * 3, 25.0, "0" * 64), sample)
    export_network(run.spec("wide"), tmp_path / "wide.clipstep", ExportOptions(("executorch",)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", STEPPED, str(tmp_path / "wide.clipstep")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=True)
    assert done.stdout == "0\n"


class _SwallowsInterrupt(torch.nn.Module):
    """Ctrl-C is pressed while it computes, and the exception is caught and ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, frames: torch.Tensor) -> Any:
        if not torch.compiler.is_compiling():
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return self.linear(frames.mean((2, 3, 4)))


def test_a_swallowed_ctrl_c_still_ends_the_export(tmp_path: Path) -> None:
    sample = torch.randint(256, (2, 2, 4, 4, 3), dtype=torch.uint8)
    run = Run(_SwallowsInterrupt().eval(), RunInfo("deaf", {}, ("a", "b"), (100.0,) * 3, (60.0,) * 3, 25.0, "0" * 64), sample)
    steps: list[str] = []

    @contextlib.contextmanager
    def progress(name: str, reported: bool) -> Iterator[None]:
        steps.append(name)
        yield

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export_network(run.spec("deaf"), tmp_path / "deaf.clipstep", ExportOptions(("onnx",)), progress=progress)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == ["tracing the network"] and list(tmp_path.iterdir()) == []


IMPORTED = """
import importlib, logging, os, pkgutil, random, signal, sys, warnings
import av, click, coremltools, cv2, lightning, matplotlib, numpy, onnx, onnxruntime, onnxscript, rich, torch, torchmetrics
import executorch.exir, executorch.backends.xnnpack.partition.xnnpack_partitioner, torch.export

def state():
    loggers = {name: (item.level, item.disabled, len(item.handlers)) for name, item in logging.root.manager.loggerDict.items()
               if isinstance(item, logging.Logger)}
    return {
        "loggers": loggers, "disabled": logging.root.manager.disable, "warnings": list(warnings.filters), "environ": dict(os.environ),
        "path": list(sys.path), "folder": os.getcwd(), "umask": (os.umask(0o22), os.umask(0o22))[1], "streams": (sys.stdout, sys.stderr),
        "stderr": os.fstat(2).st_ino, "SIGINT": signal.getsignal(signal.SIGINT), "torch": (torch.get_num_threads(), torch.is_grad_enabled()),
        "cv2": cv2.getNumThreads(),
        "seeds": (random.getstate(), torch.initial_seed(), torch.get_rng_state().sum().item(), numpy.random.get_state()[2]),
    }

from clipstep.benchmarks.zoo.entries import ENTRIES

of_extras = {f"clipstep.benchmarks.zoo.{entry.file}" for entry in ENTRIES.values() if entry.needs}
before = state()
for package in ("runtime", "network", "training", "export", "benchmarks"):
    parent = importlib.import_module(f"clipstep.{package}")
    for module in pkgutil.walk_packages(parent.__path__, f"clipstep.{package}."):
        if not module.name.endswith(("step_onnx", "__main__")) and module.name not in of_extras:
            importlib.import_module(module.name)
after = state()
for key, value in before.items():
    if key == "loggers":
        after[key] = {name: after[key].get(name) for name in value}
    if after[key] != value:
        print("changed", key)
        print([item for item in after[key].items() if item not in value.items()] if key in ("loggers", "environ") else (value, after[key]))
print("compared", len(before))
"""


def test_importing_clipstep_changes_nothing_in_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, timeout=200)
    assert done.stdout == "compared 13\n", done.stdout + done.stderr


BINDING_ALONE = """
import sys
from clipstep.runtime import StepModel
StepModel.load(sys.argv[1], "executorch", 1).close()
print(*sorted(name for name in sys.modules if name.startswith("executorch.exir")))
import executorch.exir._warnings as warnings
from executorch.exir import to_edge
print(warnings is sys.modules["executorch.exir"]._warnings, warnings.__name__)
"""


def test_a_pte_is_loaded_without_executorchs_exporter(bundle_path: Path) -> None:
    """Its import takes longer than that of PyTorch. Afterwards it can be imported as always."""
    command = [sys.executable, "-c", BINDING_ALONE, str(bundle_path)]
    exporter, afterwards = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout.splitlines()
    assert (exporter, afterwards) == ("", "True executorch.exir._warnings")


PACKAGE_ALONE = """
import sys
from pathlib import Path
from clipstep.export.mlprogram import MlProgram
from clipstep.runtime.target_coreml import read_coreml
package = Path(sys.argv[1], "step-float32.mlpackage")
MlProgram(package), read_coreml(package)
print(*({"coremltools", "executorch", "sklearn"} & sys.modules.keys()))
import coremltools
from coremltools.converters.mil import Builder
print(coremltools.utils.load_spec(str(package)).WhichOneof("Type"), coremltools.proto.MIL_pb2 is sys.modules["coremltools.proto.MIL_pb2"])
"""


def test_a_core_ml_package_is_loaded_without_the_converters(bundle_path: Path) -> None:
    """Core ML Tools imports ExecuTorch and others for them, which takes ten seconds. Afterwards it can be imported as always."""
    command = [sys.executable, "-c", PACKAGE_ALONE, str(bundle_path)]
    others, afterwards = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout.splitlines()
    assert (others, afterwards) == ("", "mlProgram True")


def _generators() -> tuple[object, ...]:
    return (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), os.environ.get("PL_GLOBAL_SEED"))


def test_training_restores_the_random_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object) -> None:
        torch.rand(5), np.random.rand(), random.random()
        raise ClipstepError("stopped here")

    monkeypatch.setattr(training, "split_by_group", lambda *_: ((), ()))
    monkeypatch.setattr(training, "check_out", lambda *_, **__: None)
    monkeypatch.setattr(training, "describe_balance", lambda *_: "")
    monkeypatch.setattr(training, "build", drawn)
    job = training.Job.__new__(training.Job)
    object.__setattr__(job, "data", type("Data", (), {"labels": (), "train": (), "validation": (), "warnings": ()}))
    object.__setattr__(job, "config", type("Config", (), {"validation": 0.0, "seed": 3}))
    object.__setattr__(job, "out", Path("nowhere"))
    object.__setattr__(job, "resume", False)
    object.__setattr__(job, "force", False)
    object.__setattr__(job, "architecture", "any")
    object.__setattr__(job, "model_config", {})
    before = _generators()
    with pytest.raises(ClipstepError, match="stopped here"):
        training.train(job, Console(quiet=True))
    assert _generators() == before
    with preserved_rng_state():
        torch.manual_seed(1), random.seed(1), np.random.seed(1)
    assert _generators() == before


def test_optical_flow_leaves_opencvs_threads_unchanged() -> None:
    cv2 = pytest.importorskip("cv2")
    from clipstep.network.flow import optical_flow

    assert importlib.util.find_spec("cv2") is not None
    cv2.setNumThreads(2)
    optical_flow(np.zeros((2, 32, 32, 3), np.uint8))
    assert cv2.getNumThreads() == 2
