"""Whatever has to name targets names those of the table."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.bundle.pack import destinations
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.precision import PRECISIONS
from clipstep.runtime.target import DestinationName
from clipstep.runtime.targets import TARGETS, by_suffix, targets_for

KOTLIN = Path(__file__).parents[2] / "runtime/kotlin/src/main/kotlin/clipstep/runtime"


def test_the_manifest_and_its_schema_take_them() -> None:
    assert Artifact.model_json_schema()["properties"]["target"]["enum"] == list(TARGETS)


def test_the_kotlin_runtime_knows_them() -> None:
    names = re.search(r"^public val TARGETS: List<String> = listOf\((.*)\)$", (KOTLIN / "Manifest.kt").read_text(encoding="utf-8"), re.M)
    assert names is not None and re.findall(r'"(\w+)"', names[1]) == list(TARGETS)


def test_the_kotlin_runtime_knows_the_precisions() -> None:
    names = re.search(r"^public val PRECISIONS: List<String> = listOf\((.*)\)$", (KOTLIN / "Manifest.kt").read_text(encoding="utf-8"), re.M)
    assert names is not None and tuple(re.findall(r'"(\w+)"', names[1])) == PRECISIONS


def test_the_engines_of_both_runtimes_are_for_some_of_them() -> None:
    assert {info.target for info in ENGINES.values()} == set(targets_for("python"))
    kotlin = dict(re.findall(r'\bEngine\("(\w+)", "(\w+)"', (KOTLIN / "Engines.kt").read_text(encoding="utf-8")))
    assert set(kotlin.values()) == set(targets_for("android"))
    assert kotlin == {name: info.target for name, info in ENGINES.items()}


def test_the_places_of_packs_are_those_where_they_run() -> None:
    assert set(destinations()) == set(get_args(DestinationName)) and all(info.destinations for info in TARGETS.values())
    assert {name: place.targets for name, place in destinations().items()} == {
        "android": ("onnx", "executorch"),
        "ios": ("coreml",),
        "python": ("onnx", "executorch"),
    }


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_is_known_by_its_suffix(name: str) -> None:
    info = TARGETS[name]
    assert by_suffix(Path(f"step{info.suffix}")) is info and by_suffix(Path("step.bin")) is None
    assert info.imports and info.display_name and len({other.suffix for other in TARGETS.values()}) == len(TARGETS)
