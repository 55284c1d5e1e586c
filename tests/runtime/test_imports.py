"""The base install: the runtime neither loads nor needs torch, and says which extra a subcommand needs."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import clipstep
from clipstep.runtime.command_line.cli import COMMANDS
from clipstep.runtime.install_hints import install_extra

BLOCK = """
import sys

EXTRAS = "captum coremltools executorch lightning matplotlib onnx onnxscript threadpoolctl torch torchmetrics".split()

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""

STEPS = """
import sys
import numpy as np
from clipstep.runtime import StepModel
with StepModel.load(sys.argv[1], engine="onnxruntime") as model:
    stream = model.stream()
    predictions = [stream.push(np.full((8, 8, 3), 51, np.uint8)) for _ in range(8)]
print([round(float(p.logits[0]), 4) for p in predictions if p])
print(sorted({"torch", "lightning", "onnx"} & set(sys.modules)))
"""

LOADING = """
import sys
from pathlib import Path
import clipstep.runtime.command_line.cli, clipstep.runtime.command_line.run
from clipstep.runtime.worker_process import WorkerProcess
with WorkerProcess(["onnxruntime"]) as process:
    print([name for name in ("av", "numpy", "pydantic", "rich") if name in sys.modules])
    from clipstep.runtime.bundle import Bundle
    from clipstep.runtime.isolated_engine import checked_file, load_isolated
    bundle = Bundle.open(sys.argv[1], lazily=True)
    engine = load_isolated(checked_file(bundle, bundle.artifact("onnx")), "onnxruntime", 1, worker=process)
    print([name for name in ("av", "numpy", "rich") if name in sys.modules])
    from clipstep.runtime.model import StepModel
    import numpy as np
    with StepModel.load(bundle, isolated=engine) as model:
        frames = np.full(model.interface.input.shape, 51, np.uint8)
        print(round(float(model.step(frames, model.initial_states())[0][0]), 4))
"""

MAIN = "from clipstep.runtime.command_line.cli import main; main()"


def _python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def test_the_package_itself_is_the_command_and_has_a_version() -> None:
    result = subprocess.run([sys.executable, "-m", "clipstep", "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"clipstep, version {clipstep.__version__}\n", "")
    assert clipstep.__version__ == version("clipstep")


def test_importing_and_stepping_does_not_load_torch(bundle_path: Path) -> None:
    """m = 0.2: logits 0.8 - 0.25, then 0.8 - (0.125 + 0.2)."""
    result = _python(STEPS, bundle_path)
    assert (result.stdout, result.returncode) == ("[0.55, 0.475]\n[]\n", 0), result.stderr


def test_an_engine_is_loaded_before_anything_large_is_imported(bundle_path: Path) -> None:
    """Its process imports it while this one imports pydantic, and loads the model while this one imports numpy and PyAV."""
    result = _python(LOADING, bundle_path)
    assert (result.stdout, result.returncode) == ("[]\n[]\n0.55\n", 0), result.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("train data --out run", "training"),
        ("models", "training"),
        ("evaluate run data", "training"),
        ("explain run video.mp4 --out folder", "training"),
        ("export run --out a.clipstep", "export"),
        ("verify a.clipstep", "export"),
        ("bench-models data --out folder", "bench"),
    ],
)
def test_without_its_extra_a_subcommand_names_it_on_one_line(arguments: str, extra: str) -> None:
    job, *_ = arguments.split()
    result = _python(BLOCK + MAIN, *arguments.split())
    assert result.returncode == 2 and result.stdout == ""
    line, *others = result.stderr.splitlines()
    assert others == []
    assert line.startswith(f"error: clipstep {job} needs ") and line.endswith(f"which is not installed; {install_extra(extra)}")


HELP = """
from clipstep.runtime.command_line.cli import COMMANDS, main
for job in COMMANDS:
    sys.argv = ["clipstep", job, "--help"]
    main()
"""


def test_without_any_extra_the_help_of_every_command_is_shown() -> None:
    result = _python(BLOCK + HELP)
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[2] for line in result.stdout.splitlines() if line.startswith("Usage: ")] == list(COMMANDS)


def test_without_any_extra_the_list_of_subcommands_is_shown() -> None:
    result = _python(BLOCK + MAIN, "--help")
    assert result.returncode == 0, result.stderr
    assert all(job in result.stdout for job in ("train", "export", "verify", "run", "bench"))


def test_without_any_extra_a_video_is_run(bundle_path: Path, clip: Path) -> None:
    with_everything = _python(MAIN, "run", bundle_path, clip)
    bare = _python(BLOCK + MAIN, "run", bundle_path, clip)
    assert bare.returncode == 0, bare.stderr
    assert bare.stdout == with_everything.stdout
    assert len(bare.stdout.splitlines()) > 5


def test_an_engine_that_is_not_installed_says_what_to_install(bundle_path: Path) -> None:
    code = f"""{BLOCK}
from pathlib import Path
from clipstep.runtime.engines import load_engine
load_engine("executorch", Path("any.pte"), 1)
"""
    last = _python(code).stderr.splitlines()[-1]
    assert last.endswith("ClipstepError: engine executorch needs executorch, which is not installed; " + install_extra("export"))
