"""The app's resources before its Kotlin is compiled, and its APK after: Debian's aapt2, zipalign and apksigner, D8, and R8 for the library.

`python tests/android/apk.py resources OUT` and `python tests/android/apk.py package OUT`; OUT is what prepare.py filled.
"""

import json
import platform
import re
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
APP = ROOT / "android_demo/app"
MAIN = APP / "src/main"
PACKAGE = "clipstep.demo"
MIN_SDK, TARGET_SDK = 26, 36
FRAMEWORK = ("org.robolectric", "android-all", "10-robolectric-5803371")
"""The newest whose resources Debian's aapt2 reads."""
R8 = ("com.android.tools", "r8", "9.5.28")
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
ANDROID = "{http://schemas.android.com/apk/res/android}"


def run(*command: object) -> str:
    """Runs a tool; what it says if it fails is this program's end."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {Path(str(command[0])).name} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@lru_cache
def fetched(group: str, name: str, version: str, kind: str = "jar") -> Path:
    """A file from Maven's local repository, fetched if need be."""
    said = run("mvn", "-B", "-q", "-ntp", "help:evaluate", "-Dexpression=settings.localRepository", "-DforceStdout")
    repository = Path(re.sub(r"\x1b\[[0-9;]*m", "", said).strip().splitlines()[-1])  # Some Mavens colour even this.
    path = repository / group.replace(".", "/") / name / version / f"{name}-{version}.{kind}"
    if not path.is_file():
        run("mvn", "-B", "-q", "-ntp", "dependency:get", f"-Dartifact={group}:{name}:{version}:{kind}", "-Dtransitive=false")
    return path


def resources(out: Path) -> None:
    """Compiles and links resources and manifest: `gen/` with R.java, `resources.apk`, and Robolectric's settings."""
    app = out / "app"
    shutil.rmtree(app, ignore_errors=True)
    assets = app / "assets"
    shutil.copytree(out / "demo.clipstep", assets / "demo.clipstep")
    (app / "AndroidManifest.xml").write_text(merged_manifest(), encoding="utf-8")
    run("aapt2", "compile", "--dir", MAIN / "res", "-o", app / "compiled.zip")
    run(
        "aapt2",
        "link",
        "-I",
        fetched(*FRAMEWORK),
        "-I",
        newer_colors(app),
        "--manifest",
        app / "AndroidManifest.xml",
        "-A",
        assets,
        "--java",
        app / "gen",
        "--debug-mode",
        "--auto-add-overlay",
        "-o",
        app / "resources.apk",
        app / "compiled.zip",
    )
    with zipfile.ZipFile(fetched("androidx.test", "monitor", properties()["monitor.version"], "aar")) as archive:
        (app / "monitor.jar").write_bytes(archive.read("classes.jar"))
    settings = app / "robolectric/com/android/tools/test_config.properties"
    settings.parent.mkdir(parents=True)
    values: dict[str, Path | str] = {
        "android_merged_manifest": app / "AndroidManifest.xml",
        "android_resource_apk": app / "resources.apk",
        "android_merged_assets": assets,
        "android_custom_package": PACKAGE,
    }
    lines = [f"{key}={value.resolve() if isinstance(value, Path) else value}\n" for key, value in values.items()]
    settings.write_text("".join(lines), encoding="utf-8")


def newer_colors(app: Path) -> Path:
    """Names for aapt2 the framework's colours that the app takes and FRAMEWORK lacks: an APK of their names and numbers."""
    folder = app / "newer"
    text = "".join(file.read_text(encoding="utf-8") for file in sorted((MAIN / "res").glob("values*-v31/*.xml")))
    names = set(re.findall(r"@android:color/(\w+)", text))
    said = run("javap", "-cp", fetched("org.robolectric", "android-all", properties()["android.version"]), "-constants", "android.R$color")
    numbers = {name: int(number) for name, number in re.findall(r" int (\w+) = (\d+);", said) if name in names}
    lines = [f'<public type="color" name="{name}" id="0x{numbers[name]:08x}" /><color name="{name}">#000</color>\n' for name in sorted(names)]
    (folder / "res/values").mkdir(parents=True)
    (folder / "res/values/colors.xml").write_text(f"<resources>{''.join(lines)}</resources>", encoding="utf-8")
    (folder / "AndroidManifest.xml").write_text(f'<manifest xmlns:android="{ANDROID[1:-1]}" package="android" />', encoding="utf-8")
    run("aapt2", "compile", "--dir", folder / "res", "-o", folder / "compiled.zip")
    run("aapt2", "link", "-x", "--manifest", folder / "AndroidManifest.xml", "-o", folder / "colors.apk", folder / "compiled.zip")
    return folder / "colors.apk"


def version() -> str:
    """The app's version: that of the Maven build."""
    return ElementTree.parse(ROOT / "pom.xml").getroot().findtext(f"{MAVEN}version") or ""


def merged_manifest() -> str:
    """The manifest with what Gradle adds to it, the package, the SDKs, the version; without what Debian's aapt2 lacks, a service's use."""
    sdk = f'<uses-sdk android:minSdkVersion="{MIN_SDK}" android:targetSdkVersion="{TARGET_SDK}" />'
    text = re.sub(r"<property\s.*?/>", "", (MAIN / "AndroidManifest.xml").read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r'\s+android:foregroundServiceType="specialUse"', "", text)
    head = '<manifest xmlns:android="http://schemas.android.com/apk/res/android"'
    return text.replace(f"{head}>", f'{head} package="{PACKAGE}" android:versionName="{version()}" android:versionCode="1">\n    {sdk}')


def package(out: Path) -> None:
    """Dexes with D8, assembles, aligns and signs a debug APK, verifies its signature and classes, and checks the libraries as published."""
    app, modules = out / "app", [APP / "target/classes", ROOT / "runtime/android/target/classes", ROOT / "runtime/kotlin/target/classes"]
    jars = [fetched(*library) for library in packaged()]
    classes = [file for folder in modules for file in folder.rglob("*.class")]
    android = fetched("org.robolectric", "android-all", properties()["android.version"])
    dex = app / "dex"
    dex.mkdir(exist_ok=True)
    d8 = ("java", "-Xmx2g", "-cp", fetched(*R8), "com.android.tools.r8.D8", "--release", "--min-api", MIN_SDK)
    run(*d8, "--lib", android, "--output", dex, *classes, *jars)
    unaligned, apk = app / "unaligned.apk", app / "clipstep-demo-debug.apk"
    shutil.copyfile(app / "resources.apk", unaligned)
    with zipfile.ZipFile(unaligned, "a", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(dex.glob("*.dex")):
            archive.write(file, file.name)
    run("zipalign", "-f", "-p", 4, unaligned, apk)
    run("zipalign", "-c", "-p", 4, apk)
    sign(app, apk)
    check(apk)
    check_licences()
    check_library(runtime(), "clipstep.runtime", "StepModel.kt")
    check_library(ROOT / f"runtime/android/target/clipstep-android-{version()}.jar", "clipstep.android", "Predictions.kt")
    print(f"the library, shrunk by R8: {shrunk_steps(out)}")


def runtime() -> Path:
    """The library's JAR."""
    return ROOT / f"runtime/kotlin/target/clipstep-runtime-{version()}.jar"


def shrink(output: Path, rules: Path, jars: Sequence[Path]) -> None:
    """Removes what a JVM program does not use and renames the rest with R8, by some rules and those in its JARs, as a release build does."""
    found = [file for jar in jars for file in consumer_rules(jar, output.parent)]
    given = [part for file in [rules, *found] for part in ("--pg-conf", file)]
    java = Path(shutil.which("java") or "").resolve()
    quick = ("-Xmx2g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # It ends before more pays.
    r8 = (java, *quick, "-cp", fetched(*R8), "com.android.tools.r8.R8")
    run(*r8, "--release", "--classfile", "--no-data-resources", "--lib", java.parents[1], "--output", output, *given, *jars)


def check_library(jar: Path, module: str, source: str) -> None:
    """Java's module path has the library by its name, and its sources are packed."""
    said = run("java", "--module-path", jar, "--describe-module", module)
    if "automatic" not in said or f"contains {module}" not in said:
        sys.exit(f"error: {jar}: no module {module}:\n{said}")
    with zipfile.ZipFile(jar.with_name(f"{jar.stem}-sources.jar")) as archive:
        if f"{module.replace('.', '/')}/{source}" not in archive.namelist():
            sys.exit(f"error: {archive.filename}: lacks the sources")


def consumer_rules(jar: Path, folder: Path) -> list[Path]:
    """The rules in a JAR that the Android Gradle plugin passes to R8: those for R8 itself or, if there are none, those for ProGuard."""
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pro")]
        own = [name for name in names if name.startswith("META-INF/com.android.tools/r8/")]
        chosen = own or [name for name in names if name.startswith("META-INF/proguard/")]
        files = [folder / name.rsplit("/", 1)[1] for name in chosen]
        for name, file in zip(chosen, files, strict=True):
            file.write_bytes(archive.read(name))
    return files


def shrunk_steps(out: Path) -> str:
    """Shrinks the library with a program that runs a bundle's golden steps, and runs that; returns what it prints."""
    app, tests = out / "app", ROOT / "runtime/kotlin/target/test-classes"
    program, rules, jar, native = app / "program.jar", app / "program.pro", app / "shrunk.jar", app / "native"
    with zipfile.ZipFile(program, "w") as archive:
        archive.write(tests / "clipstep/runtime/ShrunkKt.class", "clipstep/runtime/ShrunkKt.class")
    kept = "-keep class clipstep.runtime.ShrunkKt { public static void main(java.lang.String[]); }"
    rules.write_text(f"{kept}\n-dontoptimize\n", encoding="utf-8")  # Optimising takes half as long again.
    shrink(jar, rules, [program, runtime(), *(fetched(*library) for library in libraries())])
    native.mkdir(exist_ok=True)
    with zipfile.ZipFile(fetched(*libraries()[-1])) as archive:  # Its classes must not be on the class path beside the shrunk ones.
        folder = {"x86_64": "linux-x64", "aarch64": "linux-aarch64"}[platform.machine()]
        for name in (name for name in archive.namelist() if f"/native/{folder}/" in name and name.endswith(".so")):
            (native / Path(name).name).write_bytes(archive.read(name))
    said = run("java", f"-Donnxruntime.native.path={native}", "-cp", jar, "clipstep.runtime.ShrunkKt", out / "small.clipstep").strip()
    if not said.startswith("16 golden steps in float32") or not said.endswith("engines: [onnxruntime]"):
        sys.exit(f"error: the shrunk program says: {said}")
    return said


def properties() -> dict[str, str]:
    """The Maven build's versions."""
    found = ElementTree.parse(ROOT / "pom.xml").getroot().find(f"{MAVEN}properties")
    return {} if found is None else {entry.tag.split("}")[1]: entry.text or "" for entry in found}


def libraries() -> Sequence[tuple[str, str, str]]:
    """What the runtime is linked with. The engine's native libraries come with Gradle's AAR; here it is the classes alone."""
    versions = properties()
    return [
        ("org.jetbrains", "annotations", "13.0"),  # What kotlin-stdlib depends on.
        ("org.jetbrains.kotlin", "kotlin-stdlib", versions["kotlin.version"]),
        ("org.jetbrains.kotlinx", "kotlinx-serialization-core-jvm", versions["serialization.version"]),
        ("org.jetbrains.kotlinx", "kotlinx-serialization-json-jvm", versions["serialization.version"]),
        ("com.microsoft.onnxruntime", "onnxruntime", versions["onnxruntime.version"]),
    ]


def packaged() -> Sequence[tuple[str, str, str]]:
    """The libraries in the APK beside this project's own."""
    coroutines = ("org.jetbrains.kotlinx", "kotlinx-coroutines-core-jvm", properties()["coroutines.version"])  # The Android library's alone.
    return [*libraries(), coroutines]


def listed() -> dict[tuple[str, str], tuple[str, str]]:
    """What the app says on its page of licences: the version and the licence of each library, by its group and its name."""
    entries = json.loads((MAIN / "res/raw/libraries.json").read_text(encoding="utf-8"))
    return {tuple(entry["module"].split(":")): (entry["version"], entry["licence"]) for entry in entries}


def gradle_name(name: str) -> str:
    """The name in Gradle of a library in Maven: its file for the JVM comes by itself, and onnxruntime for computers is another one."""
    return {"onnxruntime": "onnxruntime-android"}.get(name, name.removesuffix("-jvm"))


def check_licences() -> None:
    """The page of licences names each library's licence as its own POM does."""
    for group, name, number in packaged():
        node = ElementTree.parse(fetched(group, name, number, "pom")).getroot().find(f"{MAVEN}licenses/{MAVEN}license/{MAVEN}name")
        said = "none" if node is None or node.text is None else node.text
        known = {"The Apache Software License, Version 2.0": "Apache-2.0", "MIT License": "MIT"}
        if known.get(said, said) != listed()[group, gradle_name(name)][1]:
            sys.exit(f"error: {MAIN / 'res/raw/libraries.json'}: {name} has the licence {said} by its POM")


def sign(app: Path, apk: Path) -> None:
    """Signs with a key made for this build, as Gradle does for debug builds."""
    key = app / "debug.keystore"
    key.unlink(missing_ok=True)
    run(
        "keytool",
        "-genkeypair",
        "-keystore",
        key,
        "-storepass",
        "android",
        "-keypass",
        "android",
        "-alias",
        "androiddebugkey",
        "-keyalg",
        "RSA",
        "-validity",
        10000,
        "-dname",
        "CN=Android Debug,O=Android,C=US",
    )
    run("apksigner", "sign", "--ks", key, "--ks-pass", "pass:android", "--ks-key-alias", "androiddebugkey", apk)


def check(apk: Path) -> None:
    """The signature verifies, every class that the manifest names is in the APK, and so is the bundle."""
    said = run("apksigner", "verify", "--verbose", "--min-sdk-version", MIN_SDK, apk)
    if "Verified using v2 scheme (APK Signature Scheme v2): true" not in said:
        sys.exit(f"error: {apk}: no signature of scheme v2:\n{said}")
    with zipfile.ZipFile(apk) as archive:
        defined = {name for file in archive.namelist() if file.endswith(".dex") for name in dex_classes(archive.read(file))}
        files = archive.namelist()
    missing = [name for name in manifest_classes() if name not in defined]
    if missing:
        sys.exit(f"error: {apk}: lacks {', '.join(missing)}, which the manifest names")
    if "assets/demo.clipstep/manifest.json" not in files:
        sys.exit(f"error: {apk}: lacks the bundle")
    print(f"{apk.name}: {apk.stat().st_size / 1e6:.1f} MB, {len(defined)} classes, signature verified; without the engine's native libraries")


def manifest_classes() -> list[str]:
    """The classes that the manifest names."""
    nodes = ElementTree.parse(MAIN / "AndroidManifest.xml").getroot().iter()
    names = [node.get(f"{ANDROID}name", "") for node in nodes if node.tag in ("application", "activity", "service", "provider", "receiver")]
    return [f"{PACKAGE}{name}" if name.startswith(".") else name for name in names]


def dex_classes(data: bytes) -> set[str]:
    """The names of the classes defined in a dex file, read from its tables."""
    string_offset, type_offset = (struct.unpack_from("<I", data, at)[0] for at in (0x3C, 0x44))
    count, offset = struct.unpack_from("<II", data, 0x60)
    names = set()
    for index in range(count):
        (type_index,) = struct.unpack_from("<I", data, offset + 32 * index)
        (descriptor,) = struct.unpack_from("<I", data, type_offset + 4 * type_index)
        (start,) = struct.unpack_from("<I", data, string_offset + 4 * descriptor)
        while data[start] & 0x80:
            start += 1
        text = data[start + 1 : data.index(b"\0", start + 1)].decode()
        names.add(text[1:-1].replace("/", "."))
    return names


if __name__ == "__main__":
    {"resources": resources, "package": package}[sys.argv[1]](Path(sys.argv[2]))
