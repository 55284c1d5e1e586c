"""`clipstep export --explain` against numbers computed by hand, and the graphs after each pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clipstep.export.lowering.debug import graphs
from clipstep.export.lowering.explain import LoweredLayer, explain
from clipstep.export.lowering.lower import simplified
from clipstep.export.lowering.passes import BEFORE_LOWERING, after_lowering
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules.strategies import STRATEGIES
from clipstep.export.targets import coreml, executorch, onnx
from clipstep.runtime.bundle import Bundle
from clipstep.training.run import load_run

Cli = Callable[..., tuple[int, str, str]]

ONNX, XNNPACK, PER_FRAME = onnx.PROFILE, executorch.PROFILE, replace(onnx.PROFILE, batch_limit=0)


class OneConvolution(nn.Module):
    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[None])[0]


class Computed(nn.Conv3d):
    """Scales its weights by a mean of the clip."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * x.mean(), self.bias)


def explained(conv: nn.Conv3d, shape: tuple[int, ...], profile: EngineProfile) -> LoweredLayer:
    inputs = (torch.zeros(shape),)
    (layer,) = explain(simplified(OneConvolution(conv).eval(), inputs), inputs, profile)
    return layer


WIDE = (32, 4, 6, 6)
CASES = {
    "computed-taps": (Computed(32, 20, 3, padding=1), WIDE, ONNX),
    "batched-im2col-gemm": (nn.Conv3d(3, 12, 3, padding=1), (3, 4, 6, 6), ONNX),
    "im2col-gemm": (nn.Conv3d(3, 12, 3, padding=1), (3, 4, 6, 6), PER_FRAME),
    "im2col-gemm-per-tap": (nn.Conv3d(3, 12, 3, padding=1), (3, 4, 6, 6), replace(XNNPACK, gemm_per_tap=True)),
    "batched-winograd-over-time": (nn.Conv3d(32, 32, 3, padding=1), WIDE, ONNX),
    "winograd-over-time": (nn.Conv3d(32, 32, 3, padding=1), WIDE, PER_FRAME),
    "time-as-rows": (nn.Conv3d(32, 32, (2, 1, 1)), WIDE, XNNPACK),
    "channel-major-pointwise": (nn.Conv3d(32, 20, 1, groups=4), WIDE, ONNX),
    "channel-major-depthwise": (nn.Conv3d(32, 32, 3, padding=1, groups=32), WIDE, ONNX),
    "channel-major-banded": (nn.Conv3d(32, 32, 3, stride=2, padding=1, groups=32), WIDE, ONNX),
    "frames-as-channels": (nn.Conv3d(32, 32, 3, padding=1, groups=32), WIDE, XNNPACK),
    "batched-taps": (nn.Conv3d(32, 32, (1, 3, 3)), WIDE, coreml.PROFILE),
    "per-frame-taps": (nn.Conv3d(32, 32, 3, padding=1, groups=2), WIDE, PER_FRAME),
    "taps-as-channels": (nn.Conv3d(32, 32, (2, 3, 3)), WIDE, PER_FRAME),
}


@pytest.mark.parametrize("name", CASES)
def test_each_strategy_is_chosen_where_it_applies(name: str) -> None:
    layer = explained(*CASES[name])
    assert (layer.name, layer.strategy) == ("conv", name)


def test_every_strategy_has_a_case() -> None:
    assert [strategy.name for strategy in sorted(STRATEGIES, key=lambda strategy: strategy.name)] == sorted(CASES)


def test_arithmetic_of_a_gemm() -> None:
    """4 frames of 6x6, 12 output channels, 27 taps of 3 channels; the first and the last frame have 18. The bias is one more column."""
    conv, shape, profile = CASES["im2col-gemm"]
    layer = explained(conv, shape, profile)
    assert layer.fmas_needed == 4 * 36 * 12 * 81
    assert layer.fmas == 36 * 12 * (2 * (81 + 1) + 2 * (54 + 1))
    frames, padded, im2col = 4 * 3 * 36, 4 * 3 * 64, 4 * (27 + 27) * 36  # Slices of the input, paddings; slices and their concatenation.
    assert layer.elements_moved == frames + padded + im2col + 36 * (2 * (81 + 1) + 2 * (54 + 1))  # The taps and a row of ones for each product.


def test_arithmetic_of_winograd() -> None:
    """4 products for two output frames in place of 6."""
    _, shape, profile = CASES["winograd-over-time"]
    layer = explained(nn.Conv3d(32, 32, 3, padding=(0, 1, 1)), shape, profile)
    assert (layer.fmas_needed, layer.fmas) == (6 * 36 * 32 * 32 * 9, 4 * 36 * 32 * 32 * 9)


def test_free_permutations_move_no_elements() -> None:
    assert explained(*CASES["time-as-rows"]).elements_moved == 0


@pytest.mark.long
def test_export_explains_the_artifacts_that_it_wrote(run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    out = tmp_path / "x.clipstep"
    code, text, error = clipstep(
        "export", run_folder, "--out", out, "--target", "executorch", "--platform", "x86_64", "--platform", "any", "--explain"
    )
    assert code == 0, error
    lines = text.splitlines()
    titles = [line.strip() for line in lines if "variant" in line]
    assert titles == ["executorch, variant gemm-per-tap", "executorch, variant gemm"]
    stems = [line.split()[1:4] for line in lines if line.startswith("fast.stem ")]
    assert stems == [["12x3x3x3x3", "1x2x2", "im2col-gemm-per-tap"], ["12x3x3x3x3", "1x2x2", "im2col-gemm"]]
    needed = [float(line.split()[2]) for line in lines if line.startswith("all convolutions")]
    (linear,) = (module for module in load_run(run_folder).network.modules() if isinstance(module, nn.Linear))
    count = Bundle.open(out).manifest.export.multiply_accumulates
    assert count is not None and needed == [pytest.approx((count - linear.weight.numel()) / 1e6, abs=1e-3)] * 2


def test_the_form_as_trained_has_nothing_to_explain(run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    code, _, error = clipstep("export", run_folder, "--out", tmp_path / "x.clipstep", "--target", "onnx", "--form", "3d", "--explain")
    assert code == 2 and error.startswith("error: --explain is about the lowered form; got --form 3d")
    assert list(tmp_path.iterdir()) == []


def test_graphs_after_each_pass() -> None:
    module = OneConvolution(CASES["im2col-gemm"][0]).eval()
    seen = graphs(module, (torch.zeros(3, 4, 6, 6),), PER_FRAME)
    assert [name for name, _ in seen] == [
        "export",
        "fold_constants",
        "narrow_doubles",
        "simplify_pools_and_strides",
        "add_batch_axes",
        "find_channel_shuffles",
        "fold_batch_norms",
        "join_clips",
        "fold_channel_shuffles",
        "sink_channel_shuffles",
        "fold_paddings",
        "fold_temporal_strides",
        "move_relus",
        "fold_scales",
        "lower",
        "fold_constants",
        "fold_masks",
        "merge_duplicates",
        "join_reshapes",
        "slice_early",
        "depth_first",
    ]
    x = torch.randn(3, 4, 6, 6)
    for name, graph in seen:
        torch.testing.assert_close(graph(x), module(x), msg=name)
    code = {name: str(graph.graph) for name, graph in seen}
    assert "aten.conv3d" in code["export"] and "aten.mm" not in code["fold_scales"]
    assert "aten.conv3d" not in code["lower"] and "aten.mm" in code["lower"]


def test_the_page_on_the_lowering_names_every_strategy_pass_and_variant_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs/lowering.md").read_text(encoding="utf-8")
    tables = {heading: [row.split("`")[1] for row in rows if "`" in row.split("|")[1]] for heading, rows in _tables(page)}
    assert tables["strategy"] == [strategy.name for strategy in STRATEGIES]
    assert tables["pass"] == [one.__name__ for one in (*BEFORE_LOWERING, *after_lowering(ONNX))]
    variants = [row.split("|")[2].strip().split(" ")[0].strip("`") for heading, rows in _tables(page) if heading == "target" for row in rows]
    assert variants == [*onnx.VARIANTS, "3d", *executorch.VARIANTS, *coreml.VARIANTS]


def _tables(page: str) -> list[tuple[str, list[str]]]:
    """The first heading and the rows of each table of a page in Markdown; tables with the same heading are joined."""
    tables: dict[str, list[str]] = {}
    for block in page.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if len(lines) > 2:
            tables.setdefault(lines[0].split("|")[1].strip(), []).extend(lines[2:])
    return list(tables.items())
