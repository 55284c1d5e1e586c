"""The app's page of licences: the libraries that are in it, their versions, and the texts that they come with."""

import re
import tomllib
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RAW = ROOT / "android_demo/app/src/main/res/raw"
GRADLE = tomllib.loads((ROOT / "android_demo/gradle/libs.versions.toml").read_text())


@pytest.fixture
def apk(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import apk

    return apk


def test_each_library_in_the_apk_is_listed_with_its_version(apk: ModuleType) -> None:
    own = {("io.github.clipstep", "clipstep"): apk.version()}
    engine = {("org.pytorch", "executorch-android"): apk.properties()["executorch.version"]}  # From an AAR, in Gradle's APK alone.
    packaged = {(group, apk.gradle_name(name)): version for group, name, version in apk.packaged()}
    assert {module: version for module, (version, _) in apk.listed().items()} == own | engine | packaged


def test_each_library_that_gradle_puts_into_the_apk_is_listed(apk: ModuleType) -> None:
    files = [(ROOT / folder / "build.gradle.kts").read_text() for folder in ("android_demo/app", "runtime/android", "runtime/kotlin")]
    named = {name.replace(".", "-") for file in files for name in re.findall(r"^    (?:api|implementation)\(libs\.([\w.]+)\)", file, re.M)}
    assert len(named) == 4
    for library in (GRADLE["libraries"][name] for name in named):
        version, _ = apk.listed()[tuple(library["module"].split(":"))]
        assert version == GRADLE["versions"][library["version"]["ref"]]


def test_the_texts_are_the_libraries_own() -> None:
    engine = find_spec("onnxruntime")
    assert engine is not None and engine.origin is not None
    (executorch,) = (file for file in distribution("executorch").files or [] if file.name == "LICENSE" and "dist-info" in str(file))
    texts = {"apache": ROOT / "LICENSE", "onnxruntime": Path(engine.origin).parent / "LICENSE", "executorch": Path(str(executorch.locate()))}
    for name, file in texts.items():
        assert (RAW / f"licence_{name}.txt").read_text() == file.read_text(), name
