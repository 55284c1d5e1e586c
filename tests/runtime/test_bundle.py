"""A bundle opens only if it is exactly what its manifest says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstep.runtime import Bundle, BundleError, StepModel
from clipstep.runtime.bundle import tree_sha256, tree_size

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]


def test_opens_with_what_the_manifest_says(bundle_path: Path) -> None:
    bundle = Bundle.open(str(bundle_path))
    values = json.loads((bundle_path / "manifest.json").read_text())
    assert json.loads(bundle.manifest.model_dump_json()) == values
    assert bundle.artifact("onnx").file == "model.onnx"


def read(bundle: Bundle) -> None:
    """Both of its files."""
    bundle.file(bundle.manifest.artifacts[0])
    bundle.file(bundle.manifest.golden)


SIZE_AND_HASH = "[0-9]+ bytes, sha256 [0-9a-f]{12}…"


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors"])
class TestFiles:
    def test_missing(self, copied_bundle: Path, name: str) -> None:
        (copied_bundle / name).unlink()
        with pytest.raises(BundleError, match=f"{name} is missing; copy the bundle again"):
            read(Bundle.open(copied_bundle))

    def test_one_bit_altered(self, copied_bundle: Path, name: str) -> None:
        data = bytearray((copied_bundle / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copied_bundle / name).write_bytes(data)
        with pytest.raises(BundleError, match=f"{name} was altered; got {SIZE_AND_HASH}; expected {SIZE_AND_HASH}"):
            Bundle.open(copied_bundle)

    def test_a_link_to_the_same_file_outside(self, copied_bundle: Path, bundle_path: Path, name: str) -> None:
        (copied_bundle / name).unlink()
        (copied_bundle / name).symlink_to(bundle_path / name)
        with pytest.raises(BundleError, match=f"{name} lies outside the bundle; expected files inside"):
            Bundle.open(copied_bundle)

    def test_a_link_to_nowhere(self, copied_bundle: Path, tmp_path: Path, name: str) -> None:
        (copied_bundle / name).unlink()
        (copied_bundle / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(BundleError, match=f"{name} is missing"):
            read(Bundle.open(copied_bundle))


@pytest.mark.parametrize("outside", ["../colour.clipstep/model.onnx", "/etc/hostname", "a/../../x", "", ".", "..\\model.onnx"])
@pytest.mark.parametrize("item", ["artifacts.0.file", "golden.file"])
def test_a_path_outside_is_refused(edit_manifest: Edit, item: str, outside: str) -> None:
    def change(values: dict[str, Any]) -> None:
        (values["golden"] if item == "golden.file" else values["artifacts"][0])["file"] = outside

    with pytest.raises(BundleError, match=f"malformed at {item}; got .*must name a file inside the bundle"):
        Bundle.open(edit_manifest(change))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda values: values.update(colour="red"), "colour; got Extra inputs are not permitted"),
        (lambda values: values["input"].update(gamma=2.2), "input.gamma; got Extra inputs"),
        (lambda values: values["artifacts"][0].update(delegate="gpu"), "artifacts.0.delegate; got Extra inputs"),
        (lambda values: values.pop("states"), "states; got Field required"),
        (lambda values: values["input"].update(shape=[4, 8]), "input.shape"),
        (lambda values: values["input"].update(shape=[4, 8, 3]), "input; got a shape of 3 numbers and the layout THWC are not those of video"),
        (lambda values: values["states"][0].update(dtype="float64"), "states.0.dtype"),
        (lambda values: values["golden"].update(sha256="0" * 63), "golden.sha256"),
        (lambda values: values.update(artifacts=[]), "artifacts"),
        (lambda values: values.update(labels=[]), "labels"),
        (lambda values: values["input"].update(fps="25"), "input.fps; got Input should be a valid number"),
        (lambda values: values["states"][0].update(initial="0"), "states.0.initial; got Input should be a valid number"),
        (lambda values: values.update(delay_frames=True), "delay_frames; got Input should be a valid integer"),
    ],
)
def test_a_malformed_manifest_is_an_error_that_names_the_place(edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], where: str) -> None:
    with pytest.raises(BundleError, match=f"manifest.json is malformed at {where}"):
        Bundle.open(edit_manifest(change))


def test_a_size_that_is_not_the_files_is_refused(edit_manifest: Edit) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Bundle.open(edit_manifest(lambda values: values["artifacts"][0].update(size_bytes=values["artifacts"][0]["size_bytes"] + 1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "malformed; got a list; expected an object"),
        (b"null", "malformed; got a NoneType; expected an object"),
    ],
)
def test_a_manifest_that_is_no_json_object(copied_bundle: Path, content: bytes, message: str) -> None:
    (copied_bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copied_bundle)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.clipstep: is not a bundle; got no manifest\.json; expected a folder written by clipstep export"):
        Bundle.open(tmp_path / "none.clipstep")


@pytest.mark.parametrize(
    ("change", "have"),
    [
        ({"target": "coreml"}, "holds Core ML artifacts alone, which run on Apple devices only"),
        ({"precision": "float16"}, "no float32 onnx artifact for this processor; got float16 onnx for any; choose another engine or precision"),
        ({"platform": "arm64"}, "no float32 onnx artifact for this processor; got onnx for arm64"),
    ],
)
def test_no_artifact_for_the_engine_lists_what_there_is(
    edit_manifest: Edit, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], have: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(BundleError, match=have):
        StepModel.load(edit_manifest(lambda values: values["artifacts"][0].update(change)))


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", "x86_64"), ("AMD64", "x86_64"), ("aarch64", "arm64"), ("riscv64", "any")])
def test_the_artifact_of_this_processor_comes_before_the_one_for_any(
    edit_manifest: Edit, monkeypatch: pytest.MonkeyPatch, machine: str, expected: str
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["artifacts"] = [{**values["artifacts"][0], "platform": platform} for platform in ("any", "arm64", "x86_64")]

    monkeypatch.setattr("platform.machine", lambda: machine)
    assert Bundle.open(edit_manifest(change)).artifact("onnx").platform == expected


def test_the_hash_of_a_folder(tmp_path: Path) -> None:
    """As `sha256sum` lines in order of path; the second hash was computed with coreutils."""
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/two").write_text("2")
    (tmp_path / "one").write_text("1")
    assert tree_sha256(tmp_path / "one") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    before = tree_sha256(tmp_path)
    assert before == "34a335574f715baa3654df07400c183d05461ec69fa65c3085e6b7fba5c941ff"
    assert tree_size(tmp_path) == 2
    (tmp_path / "one").rename(tmp_path / "uno")
    assert tree_sha256(tmp_path) != before
