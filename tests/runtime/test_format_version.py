"""A reader takes bundles of its own major version: it refuses another in a sentence, and ignores what a newer minor one has added."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import Bundle, BundleError, ClipstepError, StepModel
from clipstep.runtime.bundle.embedded_metadata import parse_interface
from clipstep.runtime.bundle.format_version import SCHEMA_VERSION, FormatVersion
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.recording import record_accuracy

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
Cli = Callable[..., tuple[int, str, str]]
ACCURACY = Accuracy(dataset="ucf101", engine="onnxruntime", videos=4, crops=1, top1=0.75, top5=None)
ADDED = ("colour", "input.gamma", "states.0.kind", "artifacts.0.parity.median_error", "provenance.run", "provenance.kind_of_run", "export.host")


def newer(values: dict[str, Any], version: str = "2.1") -> None:
    """A manifest of a newer minor version, with a key more at every depth."""
    values["schema_version"] = version
    values["colour"] = {"deep": [{"er": 1}]}
    values["input"]["gamma"] = 2.2
    values["states"][0]["kind"] = "factory"  # Not a union's.
    values["artifacts"][0]["parity"]["median_error"] = 0
    values["provenance"]["run"] = values["provenance"]["kind_of_run"] = "x"  # The first is called as the tag of the union is.
    values["export"]["host"] = None


def of_before(values: dict[str, Any]) -> None:
    """A manifest of clipstep before its format had minor versions."""
    values["schema_version"] = 1
    values["input"]["deviation"] = values["input"].pop("std")
    values["provenance"] = {"run": "runs/x", "checkpoint_sha256": "0" * 64, "clipstep_version": "0.1.0", "architecture": "x", "config": {}}
    del values["export"]


def test_versions_are_ordered_as_numbers() -> None:
    assert FormatVersion(2, 10) > FormatVersion(2, 9) > FormatVersion(1, 99) and str(FormatVersion(2, 10)) == "2.10"
    assert SCHEMA_VERSION == "2.0"


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (of_before, "schema_version 1"),
        (lambda values: values.pop("schema_version"), "no schema_version"),
        (lambda values: values.update(schema_version="1.7"), r"schema_version 1\.7"),
    ],
)
def test_an_older_bundle_is_refused_in_a_sentence(edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], got: str) -> None:
    message = rf"copy\.clipstep was written by an older clipstep; got {got}; expected 2\.x; export the network again with this version$"
    with pytest.raises(BundleError, match=message):
        Bundle.open(edit_manifest(change))


@pytest.mark.parametrize("version", ["3.0", "10.2"])
def test_a_newer_major_version_is_refused_in_a_sentence(edit_manifest: Edit, version: str) -> None:
    def change(values: dict[str, Any]) -> None:
        newer(values, version)
        del values["input"]

    with pytest.raises(
        BundleError, match=rf"was written by a newer clipstep; got schema_version {version}; expected 2\.x; install a newer clipstep$"
    ):
        Bundle.open(edit_manifest(change))


@pytest.mark.parametrize("version", [0, 2, 2.0, True, [1], {}, "", "2", "2.", "2.0.1", "02.0", "2.x", " 2.0", "\uff12.0", "2.0\n", "2." + "9" * 400])
def test_what_is_no_version_is_refused(edit_manifest: Edit, version: object) -> None:
    with pytest.raises(BundleError, match=r'malformed schema_version; got .{,80}; expected a text such as "2\.0"|holds control characters') as error:
        Bundle.open(edit_manifest(lambda values: values.update(schema_version=version)))
    assert len(str(error.value)) < 400


def test_a_newer_minor_bundle_opens_and_computes_the_same(edit_manifest: Edit, model: StepModel) -> None:
    path = edit_manifest(newer)
    frames = np.full((4, 8, 8, 3), 90, np.uint8)
    with Bundle.open(path) as bundle, StepModel.load(bundle) as other:
        assert sorted(bundle.ignored_keys) == sorted(ADDED) and bundle.manifest.schema_version == "2.1"
        assert np.array_equal(other.step(frames, other.initial_states())[0], model.step(frames, model.initial_states())[0])


def test_each_kind_of_provenance_has_keys_of_its_own(edit_manifest: Edit) -> None:
    def change(values: dict[str, Any]) -> None:
        values["schema_version"] = "2.1"
        values["provenance"] = {"kind": "factory", "source": "nets:Net", "weights_sha256": "0" * 64, "config": {}, "architecture": "new here"}

    bundle = Bundle.open(edit_manifest(change))
    assert bundle.ignored_keys == ("provenance.architecture",) and bundle.manifest.architecture == "nets:Net"


def test_nothing_is_ignored_in_a_bundle_of_ones_own_version(edit_manifest: Edit, bundle_path: Path) -> None:
    """There an unknown key is a mistake, and is told."""
    assert Bundle.open(bundle_path).ignored_keys == ()
    with pytest.raises(BundleError, match=r"malformed at .*; got Extra inputs are not permitted; export it again"):
        Bundle.open(edit_manifest(lambda values: newer(values, "2.0")))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda values: values["input"].pop("fps"), "input.fps; got Field required"),
        (lambda values: values["artifacts"][0].update(target="litert"), "artifacts.0.target; got 'litert' is not onnx, executorch or coreml;"),
        (lambda values: values["provenance"].update(kind="registry"), "provenance; got Input tag 'registry'"),
        (lambda values: values.update(labels="red"), "labels; got Input should be a valid"),
        (lambda values: values.update(input=[1]), "input; got Input should be an object"),
        (lambda values: values.update(artifacts={"a": 1}), "artifacts; got Input should be a valid"),
        (lambda values: values.update(artifacts=[[1], 2]), "artifacts.0; got Input should be an object"),
    ],
)
def test_a_newer_minor_bundle_that_this_clipstep_does_not_understand_says_so(
    edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], where: str
) -> None:
    def both(values: dict[str, Any]) -> None:
        newer(values)
        change(values)

    with pytest.raises(BundleError) as error:
        Bundle.open(edit_manifest(both))
    assert f"malformed at {where}" in str(error.value)
    assert str(error.value).endswith("install a newer clipstep: it is of format 2.1, and this one knows 2.0")


def test_inspect_says_what_was_not_read(edit_manifest: Edit, bundle_path: Path, clipstep: Cli) -> None:
    code, out, err = clipstep("inspect", bundle_path)
    assert (code, err) == (0, "") and "\nformat        2.0\n" in out
    path = edit_manifest(newer)
    code, out, err = clipstep("inspect", path)
    assert (code, err) == (0, "") and "\nformat        2.1, newer than this clipstep's 2.0; not read: colour, provenance.run" not in out
    line = next(line for line in out.splitlines() if line.startswith("format"))
    assert line.startswith("format        2.1, newer than this clipstep's 2.0; not read: ") and line.endswith(" and 2 more")
    code, out, err = clipstep("inspect", path, "--json")
    assert code == 0 and json.loads(out)["schema_version"] == "2.1"
    assert err.startswith(f"note: {path}: format 2.1, newer than this clipstep's 2.0; not read: ") and err.count("\n") == 1


def test_a_note_keeps_what_only_a_newer_clipstep_knows(edit_manifest: Edit) -> None:
    path = edit_manifest(newer)
    before = json.loads((path / "manifest.json").read_text())
    record_accuracy(Bundle.open(path), "model.onnx", ACCURACY)
    before["artifacts"][0]["accuracy"] = ACCURACY.model_dump()
    assert json.loads((path / "manifest.json").read_text()) == before


class TestEmbedded:
    """The same of the facts in an artifact."""

    @pytest.fixture
    def facts(self, bundle_path: Path) -> dict[str, Any]:
        return json.loads(Bundle.open(bundle_path).manifest.interface("uint8").model_dump_json())

    def test_they_carry_the_version(self, facts: dict[str, Any]) -> None:
        assert facts["schema_version"] == "2.0"
        assert parse_interface(json.dumps(facts), "x.onnx")[1] == ()

    def test_a_newer_minor_version(self, facts: dict[str, Any]) -> None:
        facts["input"]["gamma"], facts["schema_version"] = 2.2, "2.3"
        interface, ignored = parse_interface(json.dumps(facts), "x.onnx")
        assert ignored == ("input.gamma",) and interface.labels == ("red", "green", "blue")
        facts["output_kind"] = "embedding"
        with pytest.raises(ClipstepError, match=r"malformed at output_kind; .*; install a newer clipstep: it is of format 2\.3"):
            parse_interface(json.dumps(facts), "x.onnx")

    @pytest.mark.parametrize(
        ("version", "message"), [(None, "an older clipstep; got no schema_version"), ("3.0", "a newer clipstep; got schema_version 3.0")]
    )
    def test_another_major_version(self, facts: dict[str, Any], version: str | None, message: str) -> None:
        facts["schema_version"] = version
        with pytest.raises(ClipstepError, match=f"x.onnx: what clipstep embedded in it was written by {message}"):
            parse_interface(json.dumps(facts), "x.onnx")

    def test_an_unknown_key_of_ones_own_version_is_a_mistake(self, facts: dict[str, Any]) -> None:
        with pytest.raises(ClipstepError, match=r"malformed at input\.gamma; got Extra inputs are not permitted; export it again"):
            parse_interface(json.dumps({**facts, "input": {**facts["input"], "gamma": 1}}), "x.onnx")
