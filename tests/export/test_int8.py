"""Artifacts of int8: which operations are computed in it, that they compute what integers do, and with which ranges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor, fx, nn
from torch.nn import functional as F

from clipstep.export import export
from clipstep.export.targets import executorch_writer
from clipstep.export.targets.int8 import COMPUTED_WEIGHTS, INFINITE, KEPT, NOT_BETWEEN, NOT_WRITTEN, TOO_DIFFERENT, quantize
from clipstep.export.targets.quantization import HIGHEST, LOWEST, QUANTIZATION, Quantization, quantized_weight
from clipstep.export.targets.xnnpack_graph import xnnpack_graph
from clipstep.runtime import Bundle, GoldenSteps, StepModel
from clipstep.runtime.bundle.manifest import Placement
from tests.export.test_float16 import program, traced

WriteVideo = Callable[..., Path]
Cli = Callable[..., tuple[int, str, str]]
X = torch.linspace(-2, 3, 60).reshape(1, 3, 4, 5)
WEIGHT = torch.linspace(-1, 1.5, 24).reshape(2, 3, 2, 2)
BIAS = torch.tensor([0.5, -1.0])
SQUARE = torch.linspace(-1, 1, 9).reshape(3, 3, 1, 1)


def test_the_numbers_of_a_range() -> None:
    """256 numbers of the same distance, with 0 among them: -1 to 1.55 in steps of 0.01."""
    found = Quantization.of_range(-1.0, 1.55)
    assert (found.scale, found.zero_point) == (pytest.approx(0.01), -28)
    integers = found.integers(torch.tensor([-9.0, -1.0, 0.0, 0.014, 0.016, 1.55, 9.0]))
    assert integers.dtype == torch.int8 and integers.tolist() == [-128, -128, -28, -27, -26, 127, 127]
    assert found.numbers(integers).tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.01, 0.02, 1.55, 1.55])
    assert Quantization.of_range(2.0, 5.1).zero_point == -128 and Quantization.of_range(-5.1, -2.0).zero_point == 127
    assert Quantization.of_range(0.0, 0.0) == Quantization(1.0, 0)


def test_each_output_channel_of_a_weight_has_its_own_scale() -> None:
    integers, scales = quantized_weight(torch.tensor([[0.5, -1.27], [0.0, 0.0], [254.0, 2.0]]), 0)
    assert integers.tolist() == [[50, -127], [0, 0], [127, 1]] and scales.tolist() == pytest.approx([0.01, 1.0, 2.0])


def test_a_bias_beside_small_weights_is_a_whole_number() -> None:
    """The scale of a channel of small weights is larger than they need; so is that of one of zeros, which has none of its own."""
    weight, bias = torch.tensor([[1.0, -1.27], [1e-15, 1e-16], [0.0, 0.0], [1e-36, 0.0], [1e-38, 0.0]]), torch.tensor([0.5, -0.5, 0.25, 0.125, 0.0])
    integers, scales = quantized_weight(weight, 0, bias=bias, of_input=0.5)
    assert integers.tolist() == [[100, -127], [0, 0], [0, 0], [0, 0], [0, 0]] and scales[[0, 4]].tolist() == pytest.approx([0.01, 1.0])
    numbers = torch.round(bias.double() / (scales.double() * 0.5))
    assert (numbers * scales.double() * 0.5).tolist() == pytest.approx(bias.tolist(), rel=1e-3) and float(numbers.abs().max()) <= 2**30
    for of_input in (1.0, 1e-30):
        _, scales = quantized_weight(torch.tensor([[1e-38], [1e-30], [1e-20]]), 0, bias=torch.zeros(3), of_input=of_input)
        assert float((scales * of_input).min()) >= torch.finfo(torch.float32).smallest_normal


class Pruned(nn.Module):
    """A network with channels whose weights became zeros or almost, with biases as they were."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.Conv3d(8, 12, (1, 3, 3), padding=(0, 1, 1))
        self.last = nn.Linear(12, 4)
        with torch.no_grad():
            for layer in (self.first, self.second):
                for channel, factor in enumerate((0.0, 1e-12, 1e-20, 1e-36, 1e-38)):
                    layer.weight[channel] *= factor
                    layer.bias[channel] = 0.3  # type: ignore[index]

    def forward(self, frames: Tensor) -> Tensor:
        x = self.second(self.first(frames).relu()).relu()
        return self.last(x.mean((2, 3, 4)))  # type: ignore[no-any-return]


def test_channels_of_almost_zeros_keep_their_biases(tmp_path: Path) -> None:
    """Of each target that rounds weights: none is refused by its engine, and the biases still count."""
    given = ["executorch=float32", "executorch=int8", "executorch=dynamic8", "onnx=int8", "coreml=int8", "coreml=w8a8"]
    bundle = exported(tmp_path / "x.clipstep", Pruned(), targets=["executorch", "onnx", "coreml"], precisions=given)
    errors = {(a.target, a.precision): a.parity.max_relative_error for a in bundle.manifest.artifacts}
    assert len(errors) == 6 and max(errors.values()) < 0.02


def written(function: Callable[..., Any], folder: Path, *inputs: Tensor) -> tuple[fx.GraphModule, Placement, list[Tensor]]:
    """The graph, its placement, and what the engine computes."""
    graph = traced(function, *inputs)
    placement = executorch_writer.write(graph, program(inputs[0][None], *inputs[1:]), "int8", "{}", folder / "step.pte")
    return graph, placement, list(portable_lib._load_for_executorch(str(folder / "step.pte")).forward(list(inputs)))


def integer_convolution(x: Tensor, of_x: Quantization, weight: Tensor, bias: Tensor, of_result: Quantization, groups: int = 1) -> Tensor:
    """A convolution of integers as it is defined, in numpy's int64: the sums are exact, and the result is rounded once."""
    integers, scales = quantized_weight(weight, 0)
    q = of_x.integers(x).numpy().astype(np.int64) - of_x.zero_point
    w, s = integers.numpy().astype(np.int64), scales.numpy().astype(np.float64) * of_x.scale
    count, each, down, right = w.shape
    rows, columns = q.shape[2] - down + 1, q.shape[3] - right + 1
    result = np.zeros((1, count, rows, columns))
    for o in range(count):
        first = o // (count // groups) * each
        for i, j in np.ndindex(rows, columns):
            total = (q[0, first : first + each, i : i + down, j : j + right] * w[o]).sum() + round(float(bias[o]) / s[o])
            result[0, o, i, j] = total * s[o]
    return of_result.numbers(of_result.integers(torch.from_numpy(result).float()))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_is_one_of_integers(tmp_path: Path, depthwise: bool) -> None:
    weight, bias, groups = (WEIGHT[:, :1].repeat(2, 1, 1, 1)[:3], torch.tensor([0.5, -1.0, 0.0]), 3) if depthwise else (WEIGHT, BIAS, 1)
    _, placement, (got,) = written(lambda x: F.conv2d(x, weight, bias, groups=groups).relu(), tmp_path, X)
    exact = F.conv2d(X, weight, bias, groups=groups).relu()
    of_result = Quantization.of(exact)
    expected = integer_convolution(X, Quantization.of(X), weight, bias, of_result, groups)
    assert placement.in_float32 == ()
    assert float((got - expected).abs().max()) <= of_result.scale * 1.001 and float((got == expected).float().mean()) > 0.9
    assert float((got - exact).abs().max()) <= 6 * of_result.scale


MIXED: dict[str, tuple[Callable[[Tensor], Any], dict[str, str]]] = {
    "all of it": (lambda x: F.max_pool2d(F.pad(F.conv2d(x, WEIGHT, BIAS), (1, 0)), 2)[:, :1], {}),
    "sums": (lambda x: F.conv2d(x, SQUARE) + x, {}),
    "a matrix product": (lambda x: x.flatten(1) @ torch.ones(60, 4), {}),
    "a product with a constant first": (lambda x: (torch.linspace(-1, 1, 12).reshape(4, 3) @ x.reshape(3, 20)).relu(), {}),
    "a product with a constant second": (lambda x: x.reshape(20, 3) @ torch.tensor([[1e-3, 9.0], [2e-3, 1.0], [1e-3, -5.0]]), {}),
    "a batch of constants": (lambda x: x[0] @ torch.ones(3, 5, 2), {"select": NOT_BETWEEN, "matmul": NOT_WRITTEN}),
    "strides, dilation and padding": (lambda x: F.conv2d(x, torch.linspace(-1, 1, 54).reshape(2, 3, 3, 3), None, (1, 2), 2, (2, 1)), {}),
    "groups of several channels": (lambda x: F.conv2d(torch.cat([x, x[:, :1]], 1), torch.linspace(-1, 2, 12).reshape(6, 2, 1, 1), groups=2), {}),
    "two output channels for each input channel": (lambda x: F.conv2d(x, torch.linspace(-1, 2, 24).reshape(6, 1, 2, 2), torch.ones(6), groups=3), {}),
    "a small number that is added": (lambda x: F.conv2d(x * 1000, SQUARE) + 1e-4, {"mul": NOT_WRITTEN, "add": TOO_DIFFERENT}),
    "a number that is subtracted from": (lambda x: 2.5 - F.conv2d(x, SQUARE), {}),
    "an operator that is not written": (lambda x: F.conv2d(x, SQUARE).softmax(1), {"softmax": NOT_WRITTEN}),
    "computed weights": (lambda x: F.conv2d(x, SQUARE)[0, 0] @ x[0, 0].transpose(0, 1), {"matmul": COMPUTED_WEIGHTS}),
    "an infinity": (lambda x: F.conv2d(x, SQUARE) + torch.full((5,), -torch.inf), {"add": INFINITE}),
    "a range beyond the kernels": (lambda x: F.conv2d(x, SQUARE) * 1e-4 + F.conv2d(x, SQUARE), {"mul": NOT_WRITTEN, "add": TOO_DIFFERENT}),
    "moves between others": (lambda x: F.conv2d(x.exp().transpose(2, 3).exp(), SQUARE), {"exp": NOT_WRITTEN, "transpose": NOT_BETWEEN}),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_stays_in_float32_and_why(name: str, tmp_path: Path) -> None:
    function, expected = MIXED[name]
    _, placement, (got,) = written(function, tmp_path, X)
    assert {one.operator.split(".")[1]: one.reason for one in placement.in_float32} == expected
    exact = function(X)
    scale = float(exact[exact.isfinite()].abs().max()) if bool(exact.isfinite().any()) else 1.0
    torch.testing.assert_close(got, exact, rtol=0, atol=0.04 * scale)


def test_what_only_moves_is_rounded_once() -> None:
    """Two convolutions between which values are padded, cut, joined and pooled: conversions only where frames enter and the result leaves."""

    def function(x: Tensor) -> Tensor:
        y = F.conv2d(x, SQUARE).relu()
        return F.conv2d(F.max_pool2d(torch.cat([y[:, :2], F.pad(y, (1, 1))[:, :1, :, 1:-1]], 1), 2).transpose(2, 3), SQUARE)

    graph = traced(function, X)
    quantize(graph, program(X[None]))
    kinds = [type(node.xnode_union).__name__.removeprefix("XNN") for node in xnnpack_graph(graph).nodes]
    assert kinds.count("Convert") == 2 and "Clamp" not in kinds
    moved = {node.meta[QUANTIZATION] for node in graph.graph.nodes if node.op == "call_function" and "conv2d" not in str(node.target)}
    assert moved == {Quantization.of(F.conv2d(X, SQUARE).relu())}


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_frames_of_bytes_become_numbers_inside_and_are_not_rounded(tmp_path: Path, precision: str) -> None:
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    graph = traced(lambda x: F.conv2d(x.float(), torch.full((1, 1, 1, 1), 0.5)), frames)
    placement = executorch_writer.write(graph, program(frames[None]), precision, "{}", tmp_path / "step.pte")
    (got,) = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([frames])
    assert torch.equal(got, frames * 0.5) and placement.not_delegated == () and placement.in_float32 == ()


def test_frames_have_the_range_of_all_bytes_whatever_the_sample_holds() -> None:
    frames = torch.tensor([[[[3, 9], [20, 200]]]], dtype=torch.uint8)
    graph, _ = executorch_writer.prepared(traced(lambda x: F.conv2d(F.pad(x.float(), (1, 1)), torch.ones(1, 1, 1, 1)), frames), (frames,))
    quantize(graph, program(frames[None]))
    found = {str(node.target).split(".")[1]: node.meta[QUANTIZATION] for node in graph.graph.nodes if node.op == "call_function"}
    assert found["to"] == found["pad"] == Quantization(1.0, -128) != found["conv2d"]


def test_a_value_that_is_also_used_before_its_clamp_keeps_its_whole_range(tmp_path: Path) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = F.conv2d(x, SQUARE)
        return y.relu(), F.conv2d(y, SQUARE)

    _, _, got = written(function, tmp_path, X)
    for value, exact in zip(got, function(X), strict=True):
        torch.testing.assert_close(value, exact, rtol=0, atol=0.03 * float(exact.abs().max()))


def test_what_a_clamp_after_sums_cuts_off_needs_no_numbers() -> None:
    """Of `relu(a + b)` with `b` up to 3, `a` is needed from -3 on. What is used elsewhere too, or added to what is not known, is needed whole."""

    def step(frames: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        a, b, c = (F.linear(frames, torch.eye(2) * factor) for factor in (100.0, 1.0, 50.0))
        used = [F.linear(value, torch.eye(2)) for value in ((a + b).relu(), b, c)]
        return *used, (c + other.sigmoid()).relu(), (c + b).clamp(-2, 9)

    graph = traced(step, torch.tensor([[3.0, -3.0]]), torch.zeros(2))
    quantize(graph, program(torch.tensor([[[3.0, -3.0]]]), torch.zeros(2)))
    a, b, c = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)[:3]
    ends = [(LOWEST - q.zero_point, HIGHEST - q.zero_point) for q in (node.meta[QUANTIZATION] for node in (a, b, c))]
    scales = [node.meta[QUANTIZATION].scale for node in (a, b, c)]
    found = [(low * scale, high * scale) for (low, high), scale in zip(ends, scales, strict=True)]
    assert found[0] == pytest.approx((-3, 300), abs=1.5) and found[1] == pytest.approx((-3, 3), abs=0.05)
    assert found[2] == pytest.approx((-150, 150), abs=1)


class Dead(nn.Module):
    """A network with channels that are far below 0 before their ReLU, with sums over time in between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first, self.second, self.third = nn.Conv3d(3, 24, 3, (1, 2, 2), 1), nn.Conv3d(24, 48, 3, (1, 2, 2), 1), nn.Conv3d(48, 48, 3, 1, 1)
        self.last = nn.Linear(48, 4)
        with torch.no_grad():
            self.second.bias[:4] = -100  # type: ignore[index]

    def forward(self, frames: Tensor) -> Tensor:
        x = self.third(self.second(self.first(frames).relu()).relu()).relu()
        return self.last(x.mean((2, 3, 4)))  # type: ignore[no-any-return]


def test_channels_that_a_relu_cuts_off_take_nothing_of_the_others(tmp_path: Path) -> None:
    given = ["executorch=int8", "onnx=int8", "coreml=float32", "coreml=w8a8"]
    bundle = exported(tmp_path / "x.clipstep", Dead(), targets=["executorch", "onnx", "coreml"], precisions=given)
    assert max(artifact.parity.max_relative_error for artifact in bundle.manifest.artifacts) < 0.01


def test_ranges_are_those_of_all_steps_and_of_the_states() -> None:
    """The state grows by 3 with each of four steps: 0, 3, 6, 9, and leaves the last one as 12."""

    def step(frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(state, torch.ones(1, 2)), F.linear(state, torch.eye(2)) + frames  # Not simply a sum, which would stay in float32.

    graph = traced(step, torch.full((2,), 3.0), torch.zeros(2))
    quantize(graph, program(torch.full((4, 2), 3.0), torch.zeros(2)))
    frames, state = graph.graph.find_nodes(op="placeholder")
    (grown,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    assert [node.meta[QUANTIZATION].scale * 255 for node in (frames, state, grown)] == pytest.approx([3, 9, 12])


class Small(nn.Module):
    """A network with a state, of two convolutions with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv3d(3, 8, 3, 2, 1), nn.Conv3d(8, 16, (1, 3, 3), 1, 1)
        self.last = nn.Linear(16, 4)

    def initial_states(self) -> dict[str, Tensor]:
        return {"past": torch.zeros(1, 8, 8, 8)}

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(frames).relu()
        y = self.second(torch.cat([past[:, :, None], x], 2)).relu()
        return self.last(y.mean((2, 3, 4))), x[:, :, -1]


LABELS = ["a", "b", "c", "d"]


def exported(out: Path, network: nn.Module | None = None, **options: Any) -> Bundle:
    facts: dict[str, Any] = {"frames": 4, "size": 16, "labels": LABELS, "mean": [110.0] * 3, "std": [58.0] * 3, "fps": 25}
    given = facts | {"targets": ["executorch"], "keep_going": False} | options
    return Bundle.open(export((network or Small()).eval(), out, **given).bundle)


def test_an_artifact_of_int8_is_verified_smaller_and_run_if_asked_for(tmp_path: Path, clipstep: Cli) -> None:
    bundle = exported(tmp_path / "x.clipstep", precisions=["float32", "int8"])
    _, narrow = bundle.manifest.artifacts
    assert (narrow.file, narrow.precision, narrow.parity.bound[:3]) == ("step-int8.pte", "int8", "0.3") and narrow.requires is not None
    assert 1e-3 < narrow.parity.max_relative_error < 0.1 and narrow.requires.float16_processor is None
    assert [line.split()[2] for line in clipstep("verify", bundle.path)[1].splitlines() if line.startswith("step")] == ["equal", "near"]
    golden = GoldenSteps.of(bundle)
    with StepModel.load(bundle, "executorch", precision="int8") as model:
        assert model.precision == "int8" and "int8" in model.description
        logits, _ = model.step(golden.subclips[0], model.initial_states())
    assert 0 < np.abs(logits - golden.logits[0]).max() <= narrow.parity.max_absolute_error


def test_calibration_on_other_videos_gives_other_ranges(tmp_path: Path, write_video: WriteVideo) -> None:
    video = write_video(8)
    given: list[list[Path]] = [[], [video], [video.parent]]
    files = []
    for index, paths in enumerate(given):
        (tmp_path / str(index)).mkdir()
        files.append(exported(tmp_path / str(index) / "x.clipstep", precisions=["int8"], calibration=paths))
    default, one, folder = (bundle.file(bundle.manifest.artifacts[0]).read_bytes() for bundle in files)
    assert default != one == folder


def test_ranges_end_at_a_percentile_of_each_step(tmp_path: Path) -> None:
    """Of 60 numbers, the 90th percentile leaves out the six largest and the six smallest; of two steps the wider ends count."""
    graph, given = traced(lambda x: F.conv2d(x, torch.eye(3)[:, :, None, None]), X), program(torch.stack([X, X + 1]))
    given.calibration_percentile = 90
    quantize(graph, given)
    inputs = next(node for node in graph.graph.nodes if node.op == "placeholder")
    ordered = X.flatten().sort().values
    assert inputs.meta[QUANTIZATION] == Quantization.of_range(float(ordered[6]), float(ordered[53] + 1))
    cut, whole = (exported(tmp_path / f"{percentile}.clipstep", precisions=["int8"], calibration_percentile=percentile) for percentile in (99, 100))
    assert cut.file(cut.manifest.artifacts[0]).read_bytes() != whole.file(whole.manifest.artifacts[0]).read_bytes()


class Uneven(Small):
    """The same, but one channel's numbers are a thousand times as large as those of the others, with which they share 256 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first.weight.data[0] *= 1000
        self.second.weight.data[:, 0] /= 1000


def test_the_sensitivity_of_a_layer_is_what_its_own_rounding_moves() -> None:
    """Of a network without anything curved, the first order is exact: the margin is computed again with rounded weights of one product, and a rounded
    result of the last one. That of the first one would be rounded for the second one in any case."""
    weights = {"linear": torch.linspace(-1, 2, 12).reshape(4, 3), "mm": torch.linspace(-2, 1.1, 8).reshape(4, 2)}

    def margin(x: Tensor, rounded: str = "") -> float:
        for name, weight in weights.items():
            product = F.linear if name == "linear" else torch.mm
            y = product(x, weight)
            if name == rounded:
                integers, scales = quantized_weight(weight, int(name == "mm"))
                y = product(x, integers * (scales[:, None] if name == "linear" else scales))
                if name == "mm":
                    quantization = Quantization.of(product(x, weight))
                    y = quantization.numbers(quantization.integers(y))
            x = y
        largest = x.flatten().topk(2).values
        return float(largest[0] - largest[1])

    x = torch.tensor([[0.31, -0.72, 1.0]])
    graph = traced(lambda x: torch.mm(F.linear(x, weights["linear"]), weights["mm"]), x)
    found = quantize(graph, program(x[None])).sensitivities
    moved = {name: abs(margin(x, name) - margin(x)) for name in weights}
    expected = {name: change / sum(moved.values()) for name, change in moved.items()}
    assert found == pytest.approx(expected, rel=1e-3) and list(found) == sorted(expected, key=lambda name: -expected[name])


def error_of_margin(bundle: Bundle, engine: str) -> float:
    """The mean error of the difference of the two largest logits, on the golden steps."""
    golden = GoldenSteps.of(bundle)
    with StepModel.load(bundle, engine, precision="int8") as model:
        states, errors = model.initial_states(), []
        for step, expected in enumerate(golden.logits):
            logits, states = model.step(golden.subclips[step % len(golden.subclips)], states)
            second, first = np.argsort(expected.ravel())[-2:]
            errors.append(abs(np.diff(logits.ravel()[[second, first]]) - np.diff(expected.ravel()[[second, first]])))
    return float(np.mean(errors))


@pytest.mark.parametrize(("target", "engine"), [("executorch", "executorch"), ("onnx", "onnxruntime")])
def test_the_most_sensitive_layer_stays_in_float32(target: str, engine: str, tmp_path: Path) -> None:
    """Weights of a channel that is always 0 are so large that nothing is left of the others in that layer."""
    network = Small()
    with torch.no_grad():
        network.first.weight[0], network.first.bias[0], network.second.weight[:, 0] = 0, 0, 10
    whole, mixed = (exported(tmp_path / f"{n}.clipstep", network, targets=[target], precisions=["int8"], float32_layers=n) for n in (0, 1))
    before, after = (bundle.manifest.artifacts[0].placement for bundle in (whole, mixed))
    first, *others = before.sensitive_layers
    assert first.layer == "second" and first.share > 0.8
    rest = sum(one.share for one in others)
    assert [one.layer for one in after.sensitive_layers] == [one.layer for one in others]
    assert [one.share for one in after.sensitive_layers] == pytest.approx([one.share / rest for one in others], abs=0.01)
    assert (before.int8_layers, after.int8_layers) == (len(others) + 1, len(others))
    assert KEPT not in {one.reason for one in before.in_float32} and KEPT in {one.reason for one in after.in_float32}
    assert error_of_margin(mixed, engine) < 0.3 * error_of_margin(whole, engine)
