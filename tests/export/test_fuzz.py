"""A few of the damaged bundles that `make fuzz` tries by the thousand."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

COUNTS = {"manifest": 80, "onnx": 20, "safetensors": 15, "pte": 12, "mlpackage": 6}
MORE = {"manifest": 120, "onnx": 20, "safetensors": 25, "pte": 13, "mlpackage": 4}


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "fuzz")
        module = importlib.import_module("fuzz")
        patch.setattr(module, "MEGABYTES", 8000)  # Other tests have used memory in this process.
        yield module


@pytest.fixture(scope="module")
def tried(fuzz: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The bundle that `make fuzz` damages, and the process that tries it."""
    out = tmp_path_factory.mktemp("small") / "small.clipstep"
    fuzz.export_small(out)
    with fuzz.fuzzing(out) as copy:
        yield copy


@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [(kind, 0, count) for kind, count in COUNTS.items()]
    + [pytest.param(kind, COUNTS[kind], count, marks=pytest.mark.heavy) for kind, count in MORE.items()],
)
def test_every_damaged_bundle_is_run_or_refused(fuzz: ModuleType, tried: Any, kind: str, first: int, count: int) -> None:
    """In this process, which must survive all of them without growing."""
    outcomes, faults = fuzz.fuzz(tried, kind, count, first)
    assert not faults, faults[0]
    assert outcomes.total() == count and len(outcomes) > 1
