"""Manifests that pass a schema and would crash, exhaust or deceive later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import Bundle, BundleError, ClipstepError, GoldenSteps, StepModel
from clipstep.runtime.bundle import tree_sha256, tree_size

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
HUGE = 2**15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["states"][0].update(shape=[HUGE, HUGE]), "frames and states must fit into 1073741824 bytes, not 4.29e"),
        (lambda v: v["input"].update(shape=[10**12, 8, 8, 3]), "frames and states must fit into"),
        (lambda v: v["input"].update(fps=1e-300), "malformed at input.fps"),
        (lambda v: v["input"].update(frame_stride=10**15), "malformed at input.frame_stride"),
        (lambda v: v["input"].update(std=[1, 0, 1]), "malformed at input; got std must be above 0"),
        (lambda v: v["states"][0].update(initial=1e300), "an initial value must be a float32 number"),
        (lambda v: v.update(states=v["states"] * 2, outputs=["logits", "memory_out", "memory_out"]), "names of frames, states and outputs must"),
        (lambda v: (v["states"][0].update(name="logits"), v.update(outputs=["logits", "logits_out"])), "names of frames, states and outputs must"),
        (lambda v: v.update(outputs=["memory_out", "logits"]), "outputs must be logits, memory_out"),
        (lambda v: v.update(labels=["red", " ", "blue"]), "label 1 must have 1 to 1000 characters, not 0"),
        (lambda v: v.update(artifacts=v["artifacts"] * 2), "there are two artifacts for onnx, any, float32"),
        (lambda v: v["artifacts"].append({**v["artifacts"][0], "file": "other.onnx"}), "there are two artifacts for onnx, any, float32"),
        (lambda v: v["golden"].update(file="model.onnx"), "model.onnx is named twice"),
        (lambda v: v["golden"].update(file="./manifest.json"), "manifest.json cannot be an artifact"),
        (lambda v: v["golden"].update(file="x" * 5000), "a file's name may have 80 characters, not 5000"),
        (lambda v: v["labels"].__setitem__(0, "a\x1b[2Jb"), r"holds control characters at labels\.0; got 'a\\x1b\[2Jb'"),
        (lambda v: v.update(name="one\ntwo"), "holds control characters at name"),
        (lambda v: v["provenance"].update(source="\u202egnp.exe"), r"holds control characters at provenance\.source; got '\\u202egnp.exe'"),
        (lambda v: v["provenance"]["training"].update({"a\0": 1}), r"holds control characters at provenance\.training"),
        (lambda v: v["provenance"]["training"].update(epochs=2**63), "has an integer of more than 64 bits"),
    ],
)
def test_what_would_go_wrong_later_is_refused(edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.open(edit_manifest(change))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fps": 25', '"fps": NaN', "is not JSON; got NaN"),
        ('"fps": 25', '"fps": 1e999', r"has a number out of range at input\.fps"),
        ('"fps": 25', '"fps": 25, "fps": 50', "is ambiguous; got the key 'fps' twice"),
        ('"fps": 25', '"fps": ' + "9" * 5000, "has an integer of more than 64 bits"),
        ('"training": {}', '"training": ' + "[" * 100_000 + "]" * 100_000, "is nested too deep; expected at most 32"),
        ('"training": {}', '"training": ' + '{"a":' * 40 + "1" + "}" * 40, "is nested too deep"),
        ('"training": {}', '"training": {"a": "' + "x" * (17 << 20) + '"}', "is too large; got 178"),
        ('"name": "colour"', '"name": "\\ud800"', "holds control characters at name"),
    ],
)
def test_json_that_readers_disagree_about(copied_bundle: Path, old: str, new: str, message: str) -> None:
    path = copied_bundle / "manifest.json"
    text = json.dumps(json.loads(path.read_text())).replace('"fps": 25.0', '"fps": 25')
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=f"manifest.json {message}"):
        Bundle.open(copied_bundle)


def test_names_in_other_scripts_are_names(edit_manifest: Edit) -> None:
    labels = ["می\u200cرود", "ひらがな　漢字", "👩\u200d👩\u200d👧 [/b] :smile:"]
    assert list(Bundle.open(edit_manifest(lambda values: values.update(labels=labels))).manifest.labels) == labels


def test_a_name_is_no_markup(edit_manifest: Edit, clipstep_run: Callable[..., str]) -> None:
    """A closing tag without an opening one is an error of the library that prints tables."""
    bundle = edit_manifest(lambda values: values.update(labels=["[/bold]", ":smile:", "[red]x"]))
    assert "[/bold], :smile:, [red]x" in clipstep_run("inspect", bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["input"].update(shape=[5, 8, 8, 3]), r"an input does not fit the manifest; got frames uint8 \(4, 8.*; expected .*\(5, 8"),
        (lambda v: v["artifacts"][0].update(input_dtype="float32"), r"got frames uint8 .*; expected frames float32"),
        (lambda v: v["labels"].append("more"), r"an output does not fit the manifest; got logits float32 \(1, 3\); expected logits float32 \(1, 4\)"),
        (lambda v: (v["states"][0].update(name="m"), v.update(outputs=["logits", "m_out"])), r"got memory float32 \(1, 3\); expected m float32"),
        (lambda v: v.update(states=[], outputs=["logits"]), "got 2 inputs; expected 1"),
    ],
)
def test_an_artifact_that_does_not_fit_is_refused_before_the_first_step(
    edit_manifest: Edit, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(ClipstepError, match=message):
        StepModel.load(edit_manifest(change))


class Liar:
    """An engine whose file declares nothing, and gives something else."""

    def __init__(self, outputs: list[np.ndarray]) -> None:
        self.outputs = outputs

    def run(self, inputs: object) -> list[np.ndarray]:
        return self.outputs

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([np.zeros((1, 3), np.float32)], "another number of outputs; got 1; expected 2"),
        ([np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)], r"got logits float32 \(1, 4\); expected logits float32 \(1, 3\)"),
        ([np.zeros((1, 3), np.float64), np.zeros((1, 3), np.float32)], "got logits float64"),
    ],
)
def test_outputs_that_are_not_the_manifests(bundle_path: Path, outputs: list[np.ndarray], message: str) -> None:
    model = StepModel(Bundle.open(bundle_path).manifest.interface("uint8"), Liar(outputs), "liar")
    with pytest.raises(ClipstepError, match=message):
        model.step(np.zeros((4, 8, 8, 3), np.uint8), model.initial_states())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (66).to_bytes(8, "little") + b'{"subclips":{"dtype":"U8","shape":[9,9,9],"data_offsets":[0,729]}}',
        (70).to_bytes(8, "little") + b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8"}}' + b"0000",
    ],
)
def test_a_damaged_safetensors_file_is_one_error(edit_manifest: Edit, copied_bundle: Path, data: bytes) -> None:
    path = copied_bundle / "golden.safetensors"
    path.write_bytes(data)
    edit_manifest(lambda v: v["golden"].update(sha256=tree_sha256(path), size_bytes=max(1, tree_size(path))))
    with pytest.raises(ClipstepError, match=r"golden\.safetensors"):
        GoldenSteps.of(Bundle.open(copied_bundle))


@pytest.fixture
def clipstep_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command line in this process and gives what it printed."""
    from clipstep.runtime.command_line.cli import main

    def call(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["clipstep", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call
