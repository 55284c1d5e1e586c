"""`manifest.schema.json` is what the runtime checks, readable by any JSON Schema validator."""

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from clipstep.runtime import Manifest
from clipstep.runtime.bundle.manifest import Input

SCHEMA = json.loads(files("clipstep.runtime.bundle").joinpath("manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def test_the_shipped_schema_is_the_models() -> None:
    assert json.loads(json.dumps(Manifest.model_json_schema())) == SCHEMA


def test_the_schema_itself_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_a_manifest_validates(bundle_path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(json.loads((bundle_path / "manifest.json").read_text()))] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(colour="red"), "'colour' was unexpected"),
        (lambda values: values["input"].update(gamma=2.2), "'gamma' was unexpected"),
        (lambda values: values["artifacts"][0]["parity"].update(mean_error=0), "'mean_error' was unexpected"),
        (lambda values: values.update(schema_version="3.0"), "does not match"),
        (lambda values: values.pop("golden"), "'golden' is a required property"),
        (lambda values: values["golden"].update(sha256="abc"), "does not match"),
        (lambda values: values["input"].update(fps=0), "0 is less than the minimum of 0.001"),
        (lambda values: values["input"].update(shape=[4, 8]), "too short"),
    ],
)
def test_what_the_runtime_refuses_does_not_validate(bundle_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    values = json.loads((bundle_path / "manifest.json").read_text())
    change(values)
    (error,) = VALIDATOR.iter_errors(values)
    assert message in error.message
    with pytest.raises(ValueError):
        Manifest.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("change", [{"color": "flow"}, {"mean": [1, 2]}, {"color": "flow", "mean": [1, 2], "std": [1, 2]}, {"std": [1, 2]}])
def test_channels_that_do_not_agree_are_refused(bundle_path: Path, change: dict[str, Any]) -> None:
    """What a schema cannot say: three numbers a frame for RGB, two for flow, everywhere."""
    values = json.loads((bundle_path / "manifest.json").read_text())
    values["input"].update(change)
    with pytest.raises(ValueError, match="channels of shape, mean and std must be"):
        Manifest.model_validate(values)


JOINTS = {
    "kind": "joints",
    "shape": [4, 5, 3],
    "dtype": "float32",
    "layout": "TVC",
    "color": None,
    "channels": ["x", "y", "score"],
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "fps": 30.0,
    "crop": None,
    "resize": None,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"layout": "TMVC", "shape": [4, 2, 5, 3]}, None),
        ({"kind": "images", "layout": "THWC", "shape": [4, 8, 8, 3], "dtype": "uint8"}, None),
        ({"layout": "THWC"}, "a shape of 3 numbers and the layout THWC are not those of joints"),
        ({"layout": "TMVC"}, "a shape of 3 numbers and the layout TMVC are not those of joints"),
        ({"color": "RGB"}, "color, crop and resize are given for a video, and channels for other kinds, but this is joints"),
        ({"resize": "triangle"}, "color, crop and resize are given for a video"),
        ({"channels": []}, "and channels for other kinds, but this is joints"),
        ({"dtype": "uint8"}, "joints are float32"),
        ({"channels": ["x", "x", "y"]}, "must differ from each other"),
        ({"channels": ["x", "y"]}, "channels of shape, mean and std must be 2 for joints"),
        ({"kind": "video"}, "are not those of video"),
    ],
)
def test_the_keys_of_an_input_fit_its_kind(change: dict[str, Any], message: str | None) -> None:
    values = JOINTS | change
    if message is None:
        assert Input.model_validate(values).kind == values["kind"]
        return
    with pytest.raises(ValueError, match=message):
        Input.model_validate(values)


KOTLIN = Path(__file__).parents[2] / "runtime/kotlin/src/main/kotlin/clipstep/runtime/Manifest.kt"


@pytest.mark.parametrize("name", ["Manifest", *SCHEMA["$defs"]])
def test_the_kotlin_runtime_knows_every_key(name: str) -> None:
    """It refuses keys that it does not know, so that one that only Python has would close every new bundle to it."""
    keys = (SCHEMA if name == "Manifest" else SCHEMA["$defs"][name])["properties"]
    start = re.search(rf"^public data class {name}\(", text := KOTLIN.read_text(encoding="utf-8"), re.M)
    assert start is not None
    fields = text[start.end() : re.compile(r"\)( : \w+)?( \{|$)", re.M).search(text, start.end()).start()]  # type: ignore[union-attr]
    known = {serial or plain for serial, plain in re.findall(r'(?:@SerialName\("(\w+)"\) )?(?:override )?val (\w+):', fields)}
    discriminator = {key for key, value in keys.items() if key == "kind" and "const" in value}  # Of a union, which is no property in Kotlin.
    assert known | discriminator == set(keys)
