"""Bundles of which `--tune` chose a precision for a platform: what is in them, what runtimes take, and what is said, by costs that are made up."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from clipstep.export import EvaluationData, ExportOptions, ExportResult, api, export, export_network, network_of_module, tuning, variants
from clipstep.export.choosing import Measured
from clipstep.export.variants import variants_of
from clipstep.runtime import Bundle, ClipstepError, StepModel, isolated_engine, plot_choices
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.pack import artifacts_for, golden_of, write_pack
from tests.export.test_evaluating import labelled

Cli = Callable[..., tuple[int, str, str]]
HERE = this_machine()
OTHER = "arm64" if HERE == "x86_64" else "x86_64"
UNITS = {"arm64": "M ARM64 instructions", "x86_64": "ms"}
COSTS = {"float32": 30.0, "float16": 20.0, "int8": 10.0}


class Near(nn.Module):
    """Says the second class always, by a ten-thousandth of its logit, which float16 cannot tell."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean((2, 3, 4))[:, :1] * torch.tensor([1.0, 1.0001])


class Tune:
    """A measure that says what it is told of each precision, in the order in which an export writes them."""

    def __init__(self, *precisions: str, memory: Mapping[str, int] | None = None) -> None:
        self.precisions, self.calls, self.memory = precisions, 0, memory or {}

    def __call__(self, platform: str, target: str, _: str, files: Mapping[str, Path], *__: Any) -> tuple[str, dict[str, Measured]]:
        precision = self.precisions[self.calls % len(self.precisions)]
        self.calls += 1
        return UNITS[platform], {name: Measured(COSTS[precision], self.memory.get(precision)) for name in files}


KNOWN: dict[str, Any] = {"frames": 3, "size": 16, "labels": ("a", "b"), "mean": (0.0,) * 3, "std": (255.0,) * 3, "fps": 25.0}
BOTH = ("float32", "float16")


def exported(out: Path, *precisions: str, **options: Any) -> ExportResult:
    return export_network(
        network_of_module(Near().eval(), **KNOWN),
        out,
        ExportOptions(("executorch",), precisions=precisions, tune=Tune(*precisions), **options),
    )


@pytest.fixture(scope="module", autouse=True)
def one_variant() -> Iterator[None]:
    """Write the default variant alone; the choice among variants is tested in `test_platforms.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "variants_of", lambda *given: variants_of(*given)[:1])
        yield


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of which float16 was chosen for this processor, without an evaluation."""
    return exported(tmp_path_factory.mktemp("chosen") / "near.clipstep", *BOTH, platforms=(HERE,)).bundle


def test_runtimes_take_what_was_chosen(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a pack's; unless they are asked for another, or the processor does not compute in float16."""
    with StepModel.load(chosen, "executorch") as model:
        assert (model.precision, model.description) == ("float16", f"step-float16-{HERE}.pte (lowered, float16, for {HERE}) in executorch, 1 thread")
    with StepModel.load(chosen, "executorch", precision="float32") as model:
        assert model.precision == "float32"
    bundle = Bundle.open(chosen)
    assert (bundle.chosen_precision("executorch"), bundle.chosen_precision("executorch", OTHER), bundle.chosen_precision("onnx")) == (
        *("float16", "float32"),
        "float32",
    )
    monkeypatch.setattr(isolated_engine, "computes_float16", lambda machine: False)
    with StepModel.load(chosen, "executorch") as model:
        assert model.precision == "float32" and "float32 in place of float16, which this processor does not compute in" in model.description


def test_a_pack_keeps_the_choices_of_its_artifacts(chosen: Path, tmp_path: Path) -> None:
    with Bundle.open(chosen) as bundle:
        artifacts, golden = artifacts_for(bundle, "python"), golden_of(bundle, "full")
        write_pack(bundle, artifacts, golden, tmp_path / "all.clipstep.zip")
        write_pack(bundle, [one for one in artifacts if one.precision == "float32"], golden, tmp_path / "exact.clipstep.zip")
        assert str(golden_of(bundle, "synthetic").golden.recorded_by).startswith(f"step-{HERE}.pte in executorch, which proved itself")
    for name, precision in (("all", "float16"), ("exact", "float32")):
        with StepModel.load(tmp_path / f"{name}.clipstep.zip", "executorch") as model:
            assert model.precision == precision


def test_the_manifest_says_what_was_tried(chosen: Path, clipstep: Cli) -> None:
    (choice,) = Bundle.open(chosen).manifest.choices
    assert (choice.target, choice.platform, choice.precision, choice.unit, choice.measured_on) == ("executorch", HERE, "float16", UNITS[HERE], HERE)
    for one in choice.tried:
        file = chosen / ("step" + f"-{one.precision}" * (one.precision != "float32") + f"-{HERE}.pte")
        assert (one.own.cost, one.own.size_bytes, one.accuracy) == (COSTS[one.precision], file.stat().st_size, None)
    assert [one.verdict for one in choice.tried] == ["not cheaper than float16", "chosen: the cheapest"]
    assert f"chosen        float16 for executorch on {HERE}, of float32 (" in clipstep("inspect", chosen)[1]


def test_int8_that_was_not_evaluated_is_left_out_and_what_was_chosen_is_kept(tmp_path: Path) -> None:
    result = exported(tmp_path / "near.clipstep", "float32", "int8", platforms=(HERE,))
    assert sorted(path.name for path in result.bundle.iterdir()) == ["golden.safetensors", "manifest.json", f"step-{HERE}.pte"]
    assert [(one.precision, one.verdict) for one in result.manifest.choices[0].tried] == [
        ("float32", "chosen: the cheapest"),
        ("int8", "its accuracy is not known"),
    ]
    assert Bundle.open(result.bundle).manifest == result.manifest


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four test videos, all of them of the second of two classes."""
    return labelled(tmp_path_factory.mktemp("seconds"), {f"v{index}": (3, "b") for index in range(4)}, ("a", "b"))


def test_a_precision_that_loses_too_much_is_left_out_on_every_platform(seconds: Path, tmp_path: Path) -> None:
    """Also on that of another processor, which is evaluated here; nothing else is refused."""
    data = EvaluationData(seconds, drift_steps=5)
    result = exported(tmp_path / "near.clipstep", *BOTH, platforms=(HERE, OTHER), evaluate=data, max_accuracy_drop=99)
    assert [artifact.file for artifact in result.manifest.artifacts] == [f"step-{HERE}.pte", f"step-{OTHER}.pte"]
    for choice, platform in zip(result.manifest.choices, (HERE, OTHER), strict=True):
        exact, half = choice.tried
        assert (choice.platform, choice.precision, choice.max_accuracy_drop) == (platform, "float32", 99)
        assert half.accuracy is not None and half.accuracy.against_float32 is not None and exact.accuracy is not None
        assert (half.accuracy.top1, exact.accuracy.top1, half.accuracy.processor) == (0, 1, HERE)
        assert half.verdict == "its top-1 falls by 100.0 points" and exact.verdict == "chosen: the only one left"
        assert half.accuracy.against_float32.file == f"step-{platform}.pte"


def test_with_keep_going_the_targets_that_fit_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory ONNX is given more than it may take."""
    monkeypatch.setattr(api, "tune_by_measuring", lambda: Tune("onnx", "executorch", memory={"onnx": 2_000_000, "executorch": 1_000_000}))
    monkeypatch.setitem(COSTS, "onnx", 1.0)
    monkeypatch.setitem(COSTS, "executorch", 1.0)
    known = {**KNOWN, "targets": ("onnx", "executorch"), "platforms": (HERE,), "tune": True}
    result = export(Near().eval(), tmp_path / "near.clipstep", budget="memory=1.5MB", **known)
    assert [artifact.target for artifact in result.manifest.artifacts] == ["executorch"] == [choice.target for choice in result.manifest.choices]
    assert str(result.failed["onnx"]).startswith(f"onnx for {HERE}: nothing that was tried is within memory=1.5MB; got float32 (")
    assert {path.name for path in result.bundle.iterdir()} == {"golden.safetensors", "manifest.json", f"step-{HERE}.pte"}
    with pytest.raises(ClipstepError, match=r"onnx for .*: nothing that was tried is within"):
        export(Near().eval(), tmp_path / "two.clipstep", budget="memory=1.5MB", keep_going=False, **known)


NEAR = ("--model", "tests.export.test_chosen_bundle:Near", "--random-weights", "--frames", "3", "--size", "16", "--target", "executorch")


def test_the_command_prints_and_draws_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipstep: Cli) -> None:
    """If nothing fits, the table of what was tried, and no bundle."""
    monkeypatch.setattr(tuning, "tune_by_measuring", lambda: Tune("float32", "int8", memory={"float32": 8_000_000, "int8": 7_000_000}))
    (tmp_path / "labels.txt").write_text("a\nb\n")
    given = (*NEAR, "--labels", tmp_path / "labels.txt", "--platform", "arm64", "--tune")
    code, said, error = clipstep("export", *given, "--out", tmp_path / "none.clipstep", "--budget", "instructions=9M")
    assert code == 2 and error.startswith(
        "error: executorch for arm64: nothing that was tried is within instructions=9M; got float32 (gemm): a step takes"
    )
    assert ["float32", "gemm", "30", "0.01", "8.0", "yes", "over"] in [line.split() for line in said.splitlines()]
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]
    picture, both = tmp_path / "tried.svg", ("--precision", "float32", "--precision", "int8")
    code, said, error = clipstep("export", *given, *both, "--out", tmp_path / "a.clipstep", "--budget", "instructions=12M", "--pareto", picture)
    assert code == 0, error
    assert "tried for executorch on arm64, within instructions=12M" in said and f"wrote {picture}" in said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("int8") and line.endswith("chosen")]
    assert row[:5] == ["int8", "linear-layers", "10", "0.01", "7.0"] and 0 < float(row[5]) < 30 and row[6:] == ["yes", "chosen"]
    assert "): chosen: the only one left, although its accuracy is not known" in said and "a step takes 30 M instructions" in said
    texts = [element.text for element in ElementTree.parse(picture).iter() if element.tag.endswith("}text")]
    title = "executorch on arm64: int8 (linear-layers) was chosen within instructions=12M"
    expected = [title, "file (MB)", "a step (M ARM64 instructions)", "limits", "float32 (large: gemm)", "int8 (large: linear-layers)"]
    assert [text for text in expected if text not in texts] == []
    code, _, error = clipstep("export", *given, "--out", tmp_path / "b.clipstep", "--pareto", picture)
    assert code == 2 and f"{picture}: exists" in error and "choose another --pareto" in error and not (tmp_path / "b.clipstep").exists()


def test_a_picture_needs_choices_and_a_format(tmp_path: Path, clipstep: Cli) -> None:
    with pytest.raises(ClipstepError, match=r"x\.gif: unknown format of a picture; got \.gif; expected a name that ends in \.png or \.svg"):
        plot_choices((), tmp_path / "x.gif")
    with pytest.raises(ClipstepError, match="there are no choices to draw"):
        plot_choices((), tmp_path / "x.png")
    code, _, error = clipstep("export", tmp_path, "--out", tmp_path / "a.clipstep", "--pareto", tmp_path / "x.png")
    assert code == 2 and "--pareto does nothing without --tune" in error and list(tmp_path.iterdir()) == []


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a precision that is not there": (lambda choice: choice.update(platform=OTHER), f"there is no artifact for executorch, {OTHER}, float16"),
    "a precision that was not tried": (lambda choice: choice.update(precision="int8"), "each precision must be tried once, and int8 among them"),
    "an unknown variant": (lambda choice: choice["tried"][0].update(variant="best"), "the variant must be "),
    "an unknown key": (lambda choice: choice["tried"][0].update(mood=1), "mood"),
    "an empty budget of nothing": (lambda choice: choice.update(budget={"size_bytes": 0}), "greater than or equal to 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_choice_is_refused(name: str, chosen: Path, tmp_path: Path) -> None:
    change, message = WRONG[name]
    bundle = Path(shutil.copytree(chosen, tmp_path / "copy.clipstep"))
    values = json.loads((bundle / "manifest.json").read_text())
    change(values["choices"][0])
    (bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ClipstepError, match=message):
        Bundle.open(bundle)


def test_two_choices_for_a_platform_are_refused(chosen: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(chosen, tmp_path / "copy.clipstep"))
    values = json.loads((bundle / "manifest.json").read_text())
    values["choices"] *= 2
    (bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ClipstepError, match=f"there are two choices for executorch, {HERE}"):
        Bundle.open(bundle)
