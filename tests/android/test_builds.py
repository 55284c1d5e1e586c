"""Gradle builds the app for phones, Maven proves it on a computer: both must mean the same versions, sources and numbers."""

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
SETTINGS = (ROOT / "android_demo/settings.gradle.kts").read_text()
GRADLE = tomllib.loads((ROOT / "android_demo/gradle/libs.versions.toml").read_text())
ANDROID = (ROOT / "runtime/android/build.gradle.kts").read_text()
APP = (ROOT / "android_demo/app/build.gradle.kts").read_text()


def pom(path: str) -> ElementTree.Element:
    return ElementTree.parse(ROOT / path / "pom.xml").getroot()


def text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext("/".join(MAVEN + part for part in path.split("/")))
    assert found is not None, path
    return found


@pytest.mark.parametrize("name", ["kotlin", "serialization", "coroutines", "onnxruntime", "executorch", "junit", "robolectric", "monitor"])
def test_versions_are_the_same(name: str) -> None:
    assert GRADLE["versions"][name] == text(pom("."), f"properties/{name}.version")


def test_the_app_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {GRADLE["versions"]["app"], text(pom("."), "version")} == {project}


def test_the_app_says_executorchs_version() -> None:
    values = ElementTree.parse(ROOT / "android_demo/app/src/main/res/values/versions.xml").getroot()
    assert values.findtext("string[@name='executorch_version']") == GRADLE["versions"]["executorch"]


def used(folder: str) -> dict[str, set[str]]:
    """A Gradle module's dependencies from the version catalogue, as `group:name`, by the configuration that they are in."""
    build = (ROOT / folder / "build.gradle.kts").read_text()
    found: dict[str, set[str]] = {}
    for configuration, accessor in re.findall(r"^    (\w+)\(libs\.((?!plugins)[\w.]+)\)", build, re.M):
        found.setdefault(configuration, set()).add(GRADLE["libraries"][accessor.replace(".", "-")]["module"])
    return found


def declared(folder: str) -> dict[str, set[str]]:
    """A Maven module's dependencies outside this build by scope, by the names that they have in Gradle."""
    found: dict[str, set[str]] = {}
    for entry in pom(folder).iter(f"{MAVEN}dependency"):
        group, name = text(entry, "groupId"), text(entry, "artifactId").removesuffix("-jvm")
        if group != text(pom("."), "groupId") and name != "kotlin-stdlib":  # Gradle's Kotlin plugin adds that.
            found.setdefault(entry.findtext(f"{MAVEN}scope") or "compile", set()).add(f"{group}:{name}")
    return found


def test_the_library_has_the_same_dependencies_in_both() -> None:
    gradle, maven = used("runtime/kotlin"), declared("runtime/kotlin")
    assert gradle["api"] == maven["compile"]  # Types of its signatures.
    assert gradle["compileOnly"] == maven["provided"]
    assert gradle["testImplementation"] == maven["provided"] | maven["test"]


def test_the_android_library_has_the_same_dependencies_in_both() -> None:
    """Gradle has Android's classes, `android-all` in Maven, from its plugin."""
    gradle, maven = used("runtime/android"), declared("runtime/android")
    assert gradle["api"] == maven["compile"]  # Types of its signatures.
    assert maven["provided"] == {"org.robolectric:android-all"} and "compileOnly" not in gradle
    assert gradle["testImplementation"] == maven["test"] | {"androidx.test:monitor"}  # Maven has that from an AAR.
    assert 'api(project(":clipstep-runtime"))' in ANDROID
    assert "clipstep-runtime" in [text(entry, "artifactId") for entry in pom("runtime/android").iter(f"{MAVEN}dependency")]
    assert 'implementation(project(":clipstep-android"))' in APP
    assert "clipstep-android" in [text(entry, "artifactId") for entry in pom("android_demo/app").iter(f"{MAVEN}dependency")]


def test_the_app_has_the_same_dependencies_in_both() -> None:
    """Maven's onnxruntime is for computers, Gradle's for Android. Gradle has Android's classes from its plugin, and ExecuTorch's from an AAR."""
    gradle, maven = used("android_demo/app"), declared("android_demo/app")
    computers = "com.microsoft.onnxruntime:onnxruntime"
    direct = {"org.jetbrains.kotlinx:kotlinx-serialization-json", "org.pytorch:executorch-android"}
    assert gradle["implementation"] == {f"{name}-android" for name in maven["compile"] if name == computers} | direct
    assert gradle["testImplementation"] == maven["test"] | {computers, "androidx.test:monitor"}  # Maven has the last from an AAR.


def test_the_catalogue_is_what_the_build_files_use() -> None:
    folders = ("android_demo", "android_demo/app", "runtime/android", "runtime/kotlin")
    files = "".join((ROOT / folder / "build.gradle.kts").read_text() for folder in folders)
    libraries = {name.replace(".", "-") for name in re.findall(r"libs\.((?!versions|plugins)[\w.]+)\)", files)}
    plugins = {name.replace(".", "-") for name in re.findall(r"libs\.plugins\.([\w.]+)\)", files)}
    versions = set(re.findall(r"libs\.versions\.(\w+)\.get", files))
    assert (libraries, plugins) == (set(GRADLE["libraries"]), set(GRADLE["plugins"]))
    referred = {entry["version"]["ref"] for kind in ("libraries", "plugins") for entry in GRADLE[kind].values()}
    assert versions | referred == set(GRADLE["versions"])


def test_the_android_plugin_fits_gradle_and_kotlin() -> None:
    """By its release notes 9.1 needs Gradle 9.2.1, and from 9.0 on it compiles Kotlin itself and refuses the plugin that did."""
    wrapper = (ROOT / "android_demo/gradle/wrapper/gradle-wrapper.properties").read_text()
    (gradle,) = re.findall(r"gradle-([\d.]+)-bin\.zip", wrapper)
    assert GRADLE["versions"]["agp"].startswith("9.1.")
    assert tuple(map(int, gradle.split("."))) >= (9, 2, 1)
    assert "org.jetbrains.kotlin.android" not in {plugin["id"] for plugin in GRADLE["plugins"].values()}


def test_release_builds_are_shrunk_by_the_r8_that_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import apk

    assert f'classpath("{":".join(apk.R8)}")' in SETTINGS
    (release,) = re.findall(r"release \{(.*?)\n        \}", APP, re.S)
    assert "isMinifyEnabled = true" in release
    assert 'abiFilters += listOf("arm64-v8a", "x86_64")' in APP


@pytest.mark.parametrize(("folder", "module"), [("runtime/kotlin", "clipstep.runtime"), ("runtime/android", "clipstep.android")])
def test_the_api_is_explicit_and_the_module_named_in_both(folder: str, module: str) -> None:
    """An AAR, which Gradle makes of the Android library, has no manifest for Java's module path; its namespace is that name."""
    gradle, maven = (ROOT / folder / "build.gradle.kts").read_text(), (ROOT / folder / "pom.xml").read_text()
    assert "explicitApi()" in gradle and "-Xexplicit-api=strict" in maven
    assert f'"Automatic-Module-Name" to "{module}"' in gradle or f'namespace = "{module}"' in gradle
    assert f"<Automatic-Module-Name>{module}<" in maven


@pytest.mark.parametrize(("folder", "name"), [("runtime/kotlin", "clipstep-runtime"), ("runtime/android", "clipstep-android")])
def test_the_pom_says_what_a_repository_of_packages_asks_for(folder: str, name: str) -> None:
    parent, library = pom("."), pom(folder)
    assert re.fullmatch(r"io\.github\.\w+", text(parent, "groupId"))  # Verified by the account of that name.
    account = text(parent, "groupId").rsplit(".", 1)[1]
    assert text(parent, "url").startswith(f"https://github.com/{account}/")
    assert text(parent, "licenses/license/name") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    assert text(parent, "scm/url") == text(parent, "url") and text(parent, "scm/connection").startswith("scm:git:")
    assert text(parent, "developers/developer/name")
    assert text(library, "description") and {text(library, key) for key in ("name", "artifactId")} == {name}


@pytest.mark.parametrize("folder", ["runtime/kotlin", "runtime/android", "android_demo/app"])
def test_both_compile_the_same_sources(folder: str) -> None:
    """Gradle's own places are `src/main/kotlin`, `src/test/kotlin` and `src/test/java`; no build file names another, and Maven names those."""
    assert text(pom(folder), "build/sourceDirectory") == "src/main/kotlin"
    tests = ROOT / folder / "src/test"
    assert {file.relative_to(tests).parts[0] for file in tests.rglob("*") if file.suffix in (".kt", ".java")} <= {"kotlin", "java"}
    named = re.findall(r"srcDirs?\(([^)]*)\)", (ROOT / folder / "build.gradle.kts").read_text())
    assert [name for name in named if "kotlin" in name] == []
    assert not list((ROOT / folder / "src/main").rglob("*.java"))


def test_the_modules_are_the_same() -> None:
    assert re.findall(r"include\((.*)\)", SETTINGS) == ['":app", ":clipstep-android", ":clipstep-runtime"']
    assert re.findall(r'projectDir = file\("(.*)"\)', SETTINGS) == ["../runtime/android", "../runtime/kotlin"]
    modules = [module.text for module in pom(".").iter(f"{MAVEN}module")]
    assert modules == ["runtime/kotlin/executorch-api", "runtime/kotlin", "runtime/android", "android_demo/app"]


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
    assert "minSdk = libs.versions.minSdk.get().toInt()" in ANDROID and "minSdk = libs.versions.minSdk.get().toInt()" in APP
    assert f'applicationId = "{apk.PACKAGE}"' in APP
    assert f'namespace = "{apk.PACKAGE}"' in APP
    assert text(pom("."), "properties/android.version").startswith("15-")  # SDK 35, the newest whose classes can be had as a package.
    assert GRADLE["versions"]["compileSdk"] == GRADLE["versions"]["targetSdk"] == "36"
