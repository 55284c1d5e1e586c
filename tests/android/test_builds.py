"""Gradle builds the app for phones, Maven proves it on a computer: both must mean the same versions, sources and numbers."""

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
GRADLE = tomllib.loads((ROOT / "android_demo/gradle/libs.versions.toml").read_text())
APP = (ROOT / "android_demo/app/build.gradle.kts").read_text()


def pom(path: str) -> ElementTree.Element:
    return ElementTree.parse(ROOT / path / "pom.xml").getroot()


def text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext("/".join(MAVEN + part for part in path.split("/")))
    assert found is not None, path
    return found


@pytest.mark.parametrize("name", ["kotlin", "serialization", "onnxruntime", "executorch"])
def test_versions_are_the_same(name: str) -> None:
    assert GRADLE["versions"][name] == text(pom("."), f"properties/{name}.version")


def test_the_app_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {GRADLE["versions"]["app"], text(pom("."), "version")} == {project}


def test_the_app_says_executorchs_version() -> None:
    values = ElementTree.parse(ROOT / "android_demo/app/src/main/res/values/versions.xml").getroot()
    assert values.findtext("string[@name='executorch_version']") == GRADLE["versions"]["executorch"]


@pytest.mark.parametrize("folder", ["runtime/kotlin", "android_demo/app"])
def test_both_compile_the_same_sources(folder: str) -> None:
    """Gradle's own place for Kotlin is `src/main/kotlin`; no build file names another, and Maven names that."""
    assert text(pom(folder), "build/sourceDirectory") == "src/main/kotlin"
    named = re.findall(r"srcDirs?\(([^)]*)\)", (ROOT / folder / "build.gradle.kts").read_text())
    assert [name for name in named if "kotlin" in name] == []
    assert not list((ROOT / folder / "src/main").rglob("*.java"))


def test_the_modules_are_the_same() -> None:
    settings = (ROOT / "android_demo/settings.gradle.kts").read_text()
    assert re.findall(r"include\((.*)\)", settings) == ['":app", ":clipstep-runtime"']
    assert re.findall(r'projectDir = file\("(.*)"\)', settings) == ["../runtime/kotlin"]
    modules = [module.text for module in pom(".").iter(f"{MAVEN}module")]
    assert modules == ["runtime/kotlin/executorch-api", "runtime/kotlin", "android_demo/app"]


def test_the_stand_in_is_not_shipped() -> None:
    """The stand-in for ExecuTorch's classes: the Maven and Gradle builds compile against it, and neither puts it into the library."""
    for folder, scope in [("runtime/kotlin", "provided"), ("android_demo/app", "test")]:
        dependencies = {text(entry, "artifactId"): entry.findtext(f"{MAVEN}scope") for entry in pom(folder).iter(f"{MAVEN}dependency")}
        assert dependencies["executorch-api"] == scope
    assert "compileOnly(executorchApi.output)" in (ROOT / "runtime/kotlin/build.gradle.kts").read_text()


def test_sdks_are_those_of_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import apk

    assert {name: int(GRADLE["versions"][name]) for name in ("minSdk", "targetSdk")} == {"minSdk": apk.MIN_SDK, "targetSdk": apk.TARGET_SDK}
    assert f'applicationId = "{apk.PACKAGE}"' in APP
    assert f'namespace = "{apk.PACKAGE}"' in APP
    assert text(pom("."), "properties/android.version").startswith("15-")  # Android 15 is SDK 35.
