"""How many layers of int8 a budget leaves in float32, by costs and errors that are made up."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import ExportOptions, ExportResult, export_network, network_of_module, variants
from clipstep.export.budget import parse_budget
from clipstep.export.choice_tables import choice_lines
from clipstep.export.choosing import Measured
from clipstep.export.parity import check_artifact
from clipstep.export.targets import common, int8
from clipstep.export.targets.int8 import KEPT
from clipstep.export.variants import variants_of
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, StepModel
from clipstep.runtime.bundle.choice import Choice
from clipstep.runtime.bundle.pareto_front import pareto_front
from clipstep.runtime.command_line.terminal import new_console, print_table
from clipstep.runtime.golden import GoldenErrors, ParityError
from tests.export.test_chosen_bundle import HERE, KNOWN, UNITS

LAYERS = 9
"""Of the network below in int8: its own, the sums of the mean over frames, and the one in the normalisation of frames."""


class Deep(nn.Module):
    """Six convolutions and a classifier, each a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv3d(3, 3, (1, 3, 3), padding=(0, 1, 1)) for _ in range(6))
        self.classify = nn.Linear(3, 2)

    def forward(self, frames: Tensor) -> Tensor:
        for layer in self.layers:
            frames = layer(frames).relu()
        logits: Tensor = self.classify(frames.mean((2, 3, 4)))
        return logits


class Costs:
    """A measure that gives each variant its cost and, for each layer in float32, some more; `calls` are the names that it is given together."""

    def __init__(self, least: Mapping[str, float], layer: Mapping[str, float], exact: float = 99.0, wrong: Sequence[str] = ()) -> None:
        self.least, self.layer, self.exact, self.wrong = least, layer, exact, wrong
        self.calls: list[list[str]] = []

    def __call__(self, platform: str, target: str, precision: str, files: Mapping[str, Path], *_: Any) -> tuple[str, dict[str, Measured]]:
        self.calls.append(list(files))
        return UNITS[platform], {
            name: Measured(self.exact if precision == "float32" else self._cost(name), fault="off" if name in self.wrong else None) for name in files
        }

    def _cost(self, name: str) -> float:
        variant, _, layers = name.partition("+")
        return self.least[variant] + self.layer[variant] * int(layers or 0)


def exported(out: Path, costs: Costs, most: float | None, *precisions: str, **options: Any) -> ExportResult:
    budget = None if most is None else parse_budget(f"latency={most}ms" if HERE == "x86_64" else f"instructions={most}M")
    given = {"precisions": precisions or ("int8",), "budget": budget, "tune": costs, "platforms": (HERE,), **options}
    return export_network(network_of_module(Deep().eval(), **KNOWN), out, ExportOptions(("executorch",), **given))


ERRORS = dict[str, float]()
"""The errors of variants that are made up; infinite for one beyond the bound. That of the others is the smaller the more layers are in float32."""


@pytest.fixture(autouse=True)
def two_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    def errors_of(target: str, path: Path, *_: Any) -> GoldenErrors:
        error = ERRORS.get(path.stem, 0.1 / (1 + int(path.stem.partition("+")[2] or 0)))
        if error == float("inf"):
            raise ParityError("gemm.pte: too much") from ParityError("too much")
        return GoldenErrors(16, error, error)

    monkeypatch.setattr(variants, "variants_of", lambda *given: [one for one in variants_of(*given) if one.name in ("gemm", "direct")])
    monkeypatch.setattr(variants, "check_artifact", errors_of)
    ERRORS.clear()


def tried(result: ExportResult, precision: str = "int8") -> dict[str, int]:
    """The variants of a precision that were tried, with their layers in float32."""
    (one,) = [one for one in result.manifest.choices[0].tried if one.precision == precision]
    return {variant.variant: variant.float32_layers for variant in one.variants}


def test_as_many_layers_stay_in_float32_as_the_budget_allows(tmp_path: Path) -> None:
    """Of the variant that is cheapest with so many, not without: bisection drops the other one as soon as it costs too much."""
    costs = Costs({"gemm": 20, "direct": 10}, {"gemm": 1, "direct": 9})
    result = exported(tmp_path / "a.clipstep", costs, 26.5)
    assert costs.calls == [["gemm", "direct"], ["gemm+4", "direct+4"], ["gemm+6"], ["gemm+7"]]
    assert tried(result) == {"gemm": 0, "direct": 0, "gemm+4": 4, "direct+4": 4, "gemm+6": 6, "gemm+7": 7}
    (choice,), (artifact,) = result.manifest.choices, result.manifest.artifacts
    assert (choice.chosen.variant, choice.chosen.own.cost, artifact.tuning and artifact.tuning.chosen) == ("gemm+6", 26, "gemm+6")
    assert artifact.placement.int8_layers == LAYERS - 6 == len(artifact.placement.sensitive_layers)
    assert KEPT in {one.reason for one in artifact.placement.in_float32}
    assert artifact.size_bytes == choice.chosen.own.size_bytes == (result.bundle / artifact.file).stat().st_size
    assert Bundle.open(result.bundle).manifest == result.manifest
    front = [variant.variant for _, variant in pareto_front(choice.tried)]
    assert {"gemm+6", "gemm+7"} <= set(front)  # They take more than gemm+4, but lose less.


def test_of_what_fits_the_least_error_decides_and_not_the_number_of_layers(tmp_path: Path) -> None:
    ERRORS.update({"gemm+6": 0.05, "direct+4": 0.01, "gemm+7": 0.001})
    choice = exported(tmp_path / "a.clipstep", Costs({"gemm": 20, "direct": 20}, {"gemm": 1, "direct": 1.5}), 26.5).manifest.choices[0]
    assert choice.chosen.variant == "direct+4" and {"gemm+6", "gemm+7"} <= {one.variant for one in choice.chosen.variants}
    (row,) = [line for line in printed(choice).splitlines() if line.startswith("int8       direct+4")]
    assert row.split()[-3:] == ["1", "yes", "chosen"]  # 1 % of error.
    assert [line.split()[-1] for line in printed(choice).splitlines() if line.startswith("int8       gemm+7")] == ["over"]


def test_a_variant_beyond_the_bound_is_not_chosen(tmp_path: Path) -> None:
    """In int8 one way of rounding may be too much where another one is not."""
    ERRORS.update({"gemm": float("inf")})
    choice = exported(tmp_path / "a.clipstep", Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}), None).manifest.choices[0]
    assert choice.chosen.variant == "direct" and [one.fault for one in choice.chosen.variants] == ["too much", None]


def test_the_error_is_that_of_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "check_artifact", check_artifact)
    manifest = exported(tmp_path / "a.clipstep", Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}), 15).manifest
    (choice,) = manifest.choices
    errors = {one.max_relative_error for one in choice.chosen.variants if one.cost <= 15}
    assert len(choice.chosen.variants) == 6 and {None, 0.0}.isdisjoint(errors)
    assert manifest.artifacts[0].parity.max_relative_error == choice.chosen.own.max_relative_error == min(filter(None, errors))


def printed(choice: Choice) -> str:
    out = io.StringIO()
    console = new_console(out)
    for line in choice_lines(choice):
        console.print(line, soft_wrap=True) if isinstance(line, str) else print_table(console, line)
    return out.getvalue()


def test_more_layers_in_float32_are_nearer_to_float32(tmp_path: Path) -> None:
    costs = Costs({"gemm": 10, "direct": 99}, {"gemm": 1, "direct": 1})
    few, many = (exported(tmp_path / f"{most}.clipstep", costs, most) for most in (10, 18))
    assert [name for name in tried(few) if "gemm" in name] == ["gemm", "gemm+4", "gemm+2", "gemm+1"]
    assert few.manifest.choices[0].chosen.variant == "gemm"
    assert many.manifest.choices[0].chosen.variant == "gemm+8" and tried(many)["gemm+8"] == LAYERS - 1
    assert error(many) < 0.5 * error(few)


def error(result: ExportResult) -> float:
    """The mean error of the logits on the golden steps."""
    golden = GoldenSteps.of(Bundle.open(result.bundle))
    with StepModel.load(result.bundle, "executorch", precision="int8") as model:
        logits = [model.step(frames, {})[0] for frames in golden.subclips]
    return float(np.abs(np.stack(logits) - golden.logits[: len(logits)]).mean())


NOT_MORE: dict[str, tuple[float | None, tuple[str, ...], dict[str, Any]]] = {
    "no budget": (None, ("int8",), {}),
    "the user says how many": (50, ("int8",), {"float32_layers": 2}),
    "the user says none": (50, ("int8",), {"float32_layers": 0}),
    "float32 fits, and is chosen": (50, ("float32", "int8"), {}),
    "float16 has no layers in int8": (50, ("float16",), {}),
}


@pytest.mark.parametrize("case", NOT_MORE)
def test_when_no_more_layers_are_tried(case: str, tmp_path: Path) -> None:
    most, precisions, options = NOT_MORE[case]
    costs = Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}, exact=40)
    result = exported(tmp_path / "a.clipstep", costs, most, *precisions, **options)
    assert costs.calls == [["gemm", "direct"]] * len(precisions) and set(tried(result, precisions[-1]).values()) == {0}
    assert result.manifest.choices[0].precision == precisions[0]


def test_a_layer_in_float32_may_bring_a_variant_within_the_budget(tmp_path: Path) -> None:
    """Its conversions fall away; here both variants cost most without such layers."""
    costs = Costs({"gemm": 20, "direct": 20}, {"gemm": -1, "direct": 3})
    choice = exported(tmp_path / "a.clipstep", costs, 19.5).manifest.choices[0]
    assert choice.chosen.variant == "gemm+8" and {"gemm", "direct", "direct+4"} <= {one.variant for one in choice.chosen.variants}


def test_a_budget_that_nothing_is_within(tmp_path: Path) -> None:
    costs = Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1})
    with pytest.raises(ClipstepError, match=r"nothing that was tried is within .*; got int8 \(gemm\): a step takes 10"):
        exported(tmp_path / "a.clipstep", costs, 5)
    assert costs.calls[1:] == [["gemm+4", "direct+4"], ["gemm+2", "direct+2"], ["gemm+1", "direct+1"]]
    assert not (tmp_path / "a.clipstep").exists()


def test_layers_that_cure_a_fault(tmp_path: Path) -> None:
    """What is wrong on the platform in int8 alone is not given up."""
    costs = Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}, wrong=("gemm", "direct"))
    choice = exported(tmp_path / "a.clipstep", costs, 15).manifest.choices[0]
    assert choice.chosen.variant == "gemm+5" and [one.variant for one in choice.chosen.variants if one.fault] == ["gemm", "direct"]


def test_ranges_are_measured_once_for_each_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if many files are written of it. The file is that of an export which is told how many layers."""
    measured = list[int]()
    monkeypatch.setattr(int8, "run_calibration", lambda *given: (measured.append(1), common.run_calibration(*given)))
    one = exported(tmp_path / "a.clipstep", Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}), 13.5).manifest
    assert len(measured) == 2 and one.choices[0].chosen.variant == "gemm+3"
    other = exported(tmp_path / "b" / "a.clipstep", Costs({"gemm": 10, "direct": 20}, {"gemm": 1, "direct": 1}), 13.5, float32_layers=3).manifest
    assert len(measured) == 4 and other.artifacts[0].sha256 == one.artifacts[0].sha256
