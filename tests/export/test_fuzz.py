"""A few of the damaged bundles that `make fuzz` tries by the thousand."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

COUNTS = {"manifest": 200, "onnx": 40, "safetensors": 40, "pte": 25, "mlpackage": 10}


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "fuzz")
    return importlib.import_module("fuzz")


@pytest.mark.parametrize("kind", COUNTS)
def test_every_damaged_bundle_is_run_or_refused(fuzz: ModuleType, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """In this process, which must survive all of them without growing."""
    monkeypatch.setattr(fuzz, "MEGABYTES", 8000)  # Other tests have used memory in this process.
    outcomes, faults = fuzz.fuzz(bundle_path, kind, COUNTS[kind])
    assert not faults, faults[0]
    assert outcomes.total() == COUNTS[kind] and len(outcomes) > 1
