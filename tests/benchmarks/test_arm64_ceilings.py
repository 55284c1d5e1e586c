"""The instructions of a step of the home network, in the engines' ARM64 builds, stay below ``arm64_ceilings.json``.

Needs ``make arm64``; runs with ``make test-arm64``, which prints the counts and the ceilings that they give.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipstep.benchmarks.arm64.ceilings import check_ceilings, read_ceilings
from clipstep.benchmarks.models import random_run
from clipstep.benchmarks.records import InstructionRecord
from clipstep.benchmarks.report import read_records
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.training.data.lists import read_data_set
from clipstep.training.models import HOME
from clipstep.training.run import load_run, save_run

Call = Callable[..., tuple[int, str, str]]
HERE = Path(__file__).parent
CEILINGS = HERE / "arm64_ceilings.json"

PRECISIONS = ("float32", "executorch=float16", "executorch=dynamic8")

pytestmark = pytest.mark.arm64


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An untrained home network, as a run and as a bundle of what runs on ARM64 here."""
    folder = tmp_path_factory.mktemp("home")
    run, bundle = folder / "home", folder / "home.clipstep"
    save_run(run, random_run(HOME, read_data_set(HERE.parents[1] / "training/demo/fight"), 16, 112))
    export_network(load_run(run).spec(run), bundle, ExportOptions(targets=("onnx", "executorch"), precisions=PRECISIONS))
    return run, bundle


def test_no_step_takes_more_instructions_than_its_ceiling(
    home: tuple[Path, Path], tmp_path: Path, clipstep: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    (run, bundle), out = home, tmp_path / "records.jsonl"
    code, text, error = clipstep(
        "bench", bundle, "--arch", "arm64", "--run", run, "--steps", "2", "--record", "--operators", "--out", out, "--ceilings", CEILINGS
    )
    with capsys.disabled():
        print("\n" + text)
    assert (code, error) == (0, "")
    _check_records(bundle, out)
    low = {name: value // 2 for name, value in read_ceilings(CEILINGS).items()}
    with pytest.raises(ClipstepError, match="a step takes more ARM64 instructions than its ceiling"):
        check_ceilings([record for record in read_records(out)[1] if isinstance(record, InstructionRecord)], low, CEILINGS)


def _check_records(bundle: Path, out: Path) -> None:
    """Each step has at least the multiply-accumulates that the network needs, in its precision, and its operators add up to it."""
    noted = {artifact.file: artifact.arm64_step for artifact in Bundle.open(bundle).manifest.artifacts}
    for record in read_records(out)[1]:
        assert record.needed_multiply_accumulates is not None
        half, integers = record.step.float16_macs, record.step.integer_macs
        of_precision = {"float32": record.step.float32_macs, "float16": half, "dynamic8": half + integers}[record.configuration.precision]
        assert (integers > 0.2 * record.needed_multiply_accumulates) == (record.configuration.precision == "dynamic8")
        assert of_precision >= 0.95 * record.needed_multiply_accumulates and of_precision >= 0.98 * record.step.macs
        assert (record.cpu_model, record.step.scalable) == ("cortex-a76", 0) and {"asimdhp", "asimddp"} <= set(record.cpu_features or ())
        assert sum(operator.instructions for operator in record.operators) == pytest.approx(record.step.instructions, rel=0.05)
        if record.artifact_sha256:
            step = noted[record.configuration.name]
            assert step is not None and step.instructions == record.step.instructions
