"""Single operations after the lowering, compared with torch, and those that have no lowering."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from clipstep.export.lowering import costs, values
from clipstep.export.lowering.decompositions import indexing
from clipstep.export.lowering.lazy import LazyPermutation
from clipstep.export.lowering.lower import LoweringError, lower, lower_graph, simplified
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules import RULES
from clipstep.export.targets import TARGETS, coreml, executorch, onnx

aten = torch.ops.aten


class Wrap(nn.Module):
    """A function of one rank-5 value as a module whose input and output are of rank 4, as states are."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor]:
        y = self.function(x[None], *self.layers)
        return (y.reshape(y.shape[1:]) if y.ndim == 5 else y,)


PROFILES: tuple[EngineProfile, ...] = (
    replace(onnx.PROFILE, batch_limit=0),
    replace(coreml.PROFILE, batch_limit=0),
    coreml.PROFILE,
    executorch.PROFILE,
    replace(executorch.PROFILE, gemm_per_tap=True),
    onnx.PROFILE,
)
"""With the first two values are computed frame by frame, with the others all frames in one batch, with the last one in their original order."""


KNOWN_OPERATORS = {operator for target in TARGETS.values() for operator in target.load_writer().OPERATORS}
"""The operators of docs/operators.md."""


def check(module: nn.Module, x: Tensor) -> None:
    """Check that a lowered module computes what the module does, without a value of rank 5."""
    graph = simplified(module, (x,))
    for profile in PROFILES:
        lowered = lower_graph(graph, (x,), profile)
        value, expected = lowered(x + 1)[0], module(x + 1)[0].detach()
        assert value.shape == expected.shape
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        assert not any(str(node.target).startswith(("aten.conv3d", "aten.max_pool3d", "aten.avg_pool3d")) for node in lowered.graph.nodes)
        assert {node.target for node in lowered.graph.nodes if node.op == "call_function"} <= KNOWN_OPERATORS


@pytest.mark.parametrize("function", [lambda y: y.mean((2, 3), keepdim=True).squeeze()])
def test_operators_on_values_of_four_axes_are_written_as_ones_that_every_writer_takes(function: Callable[[Tensor], Tensor]) -> None:
    module, x = Wrap(lambda y: function(y[:, :, 0])), torch.randn(3, 2, 4, 4)
    for target in TARGETS.values():
        lowered = lower(module, (x,), next(iter(target.variants.values())))
        torch.testing.assert_close(lowered(x)[0], module(x)[0])
        assert {node.target for node in lowered.graph.nodes if node.op == "call_function"} <= target.load_writer().OPERATORS.keys()


class Ranks(TorchDispatchMode):
    """Records the largest rank of any operation's result."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and func != aten.full.default:  # A constant is folded.
            self.largest = max(self.largest, result.ndim)
        return result


def agree(operation: Callable[..., Any], x: Tensor, *arguments: Any, framed: bool = True, **settings: Any) -> None:
    """An operation's rule, on frames one by one, batched, or in another order of axes, gives what the operation gives,
    without a tensor of rank 5."""
    expected = operation(x, *arguments, **settings)
    expected = expected[0] if isinstance(expected, tuple) else expected
    lazy = LazyPermutation.of(x[0], x.shape)
    batch = values.from_batch(values.to_batch(lazy))
    given = (*[values.to_frames(lazy)] * 2, *[batch] * 3, lazy) if framed else [lazy] * len(PROFILES)
    for value, profile in zip(given, PROFILES, strict=True):
        with Ranks() as ranks:
            got = RULES[operation](profile, value, *arguments, **settings)
            got = got[0] if isinstance(got, tuple) else got
            assert got.shape == tuple(expected.shape)
            flat = values.to_lazy(got).tensor()
        torch.testing.assert_close(flat, expected.flatten(), rtol=1e-5, atol=1e-5)
        assert ranks.largest <= 4


SMALL = st.integers(1, 3)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(SMALL, SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL, SMALL),
    padding=st.tuples(*[st.integers(0, 2)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    groups=SMALL,
    share=SMALL,
    out_share=st.integers(1, 11),
    length=st.integers(1, 6),
    bias=st.booleans(),
)
def test_any_convolution(
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    share: int,
    out_share: int,
    length: int,
    bias: bool,
) -> None:
    size = (length, 5, 6)
    assume(all(s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    conv = nn.Conv3d(share * groups, out_share * groups, kernel, stride, padding, dilation, groups, bias)
    agree(aten.conv3d.default, torch.randn(1, share * groups, *size), conv.weight, conv.bias, stride, padding, dilation, groups)


@settings(max_examples=20, deadline=None)
@given(kernel=st.tuples(*[st.integers(1, 4)] * 3), dilation=st.tuples(*[st.integers(1, 2)] * 3), groups=st.integers(1, 2))
def test_convolutions_that_keep_the_size(kernel: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> None:
    weight = torch.randn(6, 4 // groups, *kernel)
    agree(aten.conv3d.padding, torch.randn(1, 4, 3, 5, 6), weight, torch.randn(6), (1, 1, 1), "same", dilation, groups)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(SMALL, SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL, SMALL),
    padding=st.tuples(*[st.integers(0, 1)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    length=st.integers(1, 6),
    bias=st.booleans(),
)
def test_any_depthwise_convolution(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], length: int, bias: bool
) -> None:
    assume(all(s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip((length, 5, 6), padding, dilation, kernel, strict=True)))
    conv = nn.Conv3d(2, 2, kernel, stride, padding, dilation, 2, bias)
    agree(aten.conv3d.default, torch.randn(1, 2, length, 5, 6), conv.weight, conv.bias, stride, padding, dilation, 2)


@pytest.mark.parametrize("size", [(3, 5, 6), (5, 1, 4), (2, 7, 1)])
def test_a_depthwise_convolution_of_three_by_three_by_three(size: tuple[int, int, int]) -> None:
    agree(aten.conv3d.default, torch.randn(1, 4, *size), torch.randn(4, 1, 3, 3, 3), torch.randn(4), (1, 1, 1), (1, 1, 1), (1, 1, 1), 4)


@pytest.mark.parametrize("kernel", [(3, 1, 1), (3, 3, 3), (3, 1, 2)])
@pytest.mark.parametrize(("length", "padding"), [(1, 1), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (7, 0), (7, 1)])
def test_winograd_saves_a_third_of_the_products(kernel: tuple[int, int, int], length: int, padding: int) -> None:
    """For several frames, if it saves more multiplications than it adds additions."""
    conv = nn.Conv3d(24, 32, kernel, (1, 2, 1), (padding, 0, 1))
    agree(aten.conv3d.default, torch.randn(1, 24, length, 5, 6), conv.weight, conv.bias, (1, 2, 1), (padding, 0, 1))
    count = length + 2 * padding - 2
    inputs = (torch.randn(24, length, 5, 6),)
    whole = simplified(Wrap(conv.forward), inputs)
    for profile in PROFILES:
        graph = lower_graph(whole, inputs, profile).graph
        if profile.winograd and length > 1:
            assert len(graph.find_nodes(op="call_function", target=aten.conv2d.default)) <= 2 * count + count % 2


def test_large_weights_are_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last frames have fewer taps, and use slices of the same weights."""
    monkeypatch.setattr(costs, "SHARED_WEIGHT_ELEMENTS", 0)
    conv = Wrap(nn.Conv3d(5, 6, 3, stride=(2, 1, 1), padding=1).forward)
    for profile in PROFILES:
        lowered = lower(conv, (torch.randn(5, 4, 5, 6),), profile)
        assert sum(value.numel() for value in lowered.buffers()) <= 6 * 5 * 27 + 6
    check(conv, torch.randn(5, 4, 5, 6))


POOL = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    kernel=POOL,
    stride=POOL,
    halves=st.tuples(*[st.booleans()] * 3),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    divisor=st.sampled_from([None, 3]),
    size=st.tuples(*[st.integers(3, 7)] * 3),
)
def test_any_average_pool(
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    halves: tuple[bool, ...],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    size: tuple[int, ...],
) -> None:
    padding = tuple(k // 2 * half for k, half in zip(kernel, halves, strict=True))
    assume(all(n >= k for n, k in zip(size, kernel, strict=True)))  # torch demands it.
    agree(aten.avg_pool3d.default, torch.randn(1, 3, *size), kernel, stride, padding, ceil_mode, count_include_pad, divisor)


@settings(max_examples=60, deadline=None)
@given(
    kernel=POOL,
    stride=POOL,
    halves=st.tuples(*[st.booleans()] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3),
    ceil_mode=st.booleans(),
    size=st.tuples(*[st.integers(3, 7)] * 3),
)
def test_any_max_pool(
    kernel: tuple[int, ...], stride: tuple[int, ...], halves: tuple[bool, ...], dilation: tuple[int, ...], ceil_mode: bool, size: tuple[int, ...]
) -> None:
    padding = tuple(k // 2 * half for k, half in zip(kernel, halves, strict=True))
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    agree(aten.max_pool3d.default, torch.randn(1, 3, *size) - 3, kernel, stride, padding, dilation, ceil_mode)


@settings(max_examples=30, deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 6)] * 3), largest=st.booleans())
def test_any_adaptive_pool(sizes: tuple[int, ...], largest: bool) -> None:
    agree(aten.adaptive_max_pool3d.default if largest else aten.adaptive_avg_pool3d.default, torch.randn(1, 3, 4, 6, 5), sizes)


@settings(max_examples=40, deadline=None)
@given(
    amounts=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    mode=st.sampled_from(["constant", "replicate"]),
    value=st.sampled_from([0.0, 1.5]),
    framed=st.booleans(),
)
def test_any_padding(amounts: list[int], mode: str, value: float, framed: bool) -> None:
    agree(aten.pad.default, torch.randn(1, 3, 4, 5, 6), amounts, mode, value if mode == "constant" else None, framed=framed)


@settings(max_examples=40, deadline=None)
@given(amounts=st.lists(st.integers(-2, 3), min_size=2, max_size=3).map(lambda few: [*few, *few[::-1]]), value=st.sampled_from([0.0, 1.5]))
def test_any_padding_that_cuts(amounts: list[int], value: float) -> None:
    x = torch.randn(1, 3, 4, 5, 6)
    padded = indexing.pad(x, amounts, value=value)
    assert (padded is NotImplemented) == (min(amounts) >= 0)
    torch.testing.assert_close(F.pad(x, amounts, value=value) if padded is NotImplemented else padded, F.pad(x, amounts, value=value))


REDUCTIONS = [aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default]


@settings(max_examples=100, deadline=None)
@given(operation=st.sampled_from(REDUCTIONS), dims=st.sets(st.integers(0, 4), min_size=1, max_size=5), keepdim=st.booleans(), framed=st.booleans())
def test_any_reduction(operation: Any, dims: set[int], keepdim: bool, framed: bool) -> None:
    axes = [dim - 5 if dim % 2 else dim for dim in dims]
    agree(operation, torch.randn(1, 3, 4, 5, 6), axes, keepdim, framed=framed)


@pytest.mark.parametrize("channels", [(5, 13), pytest.param((8, 16), marks=pytest.mark.heavy), pytest.param((3, 9), marks=pytest.mark.heavy)])
def test_any_number_of_channels_before_other_operations(channels: tuple[int, int]) -> None:
    first, second, third = nn.Conv3d(2, channels[0], 3, padding=1), nn.Conv3d(channels[0], channels[1], (2, 3, 3)), nn.Conv3d(channels[1], 4, 1)
    x = torch.randn(2, 4, 8, 8)
    check(Wrap(lambda x, a, b, c: c(F.relu(b(F.max_pool3d(a(x), (1, 2, 2))))), first, second, third), x)
    check(Wrap(lambda x, a: a(x).mean(dim=(2, 3, 4)), first), x)
    check(Wrap(lambda x, a: torch.cat([a(x), x], 1), first), x)
    check(Wrap(lambda x, a: F.avg_pool3d(a(x), 2), first), x)
    check(Wrap(lambda x, a: a(x) + a(x), first), x)
    check(Wrap(lambda x, a: a(x).reshape(1, -1, 8, 8), first), x)


X = (6, 5, 8, 8)
WIDE = torch.arange(48.0).reshape(8, 6, 1, 1, 1)
EYE = torch.eye(6) + 0.1


def shifted(x: Tensor) -> Tensor:
    """A temporal shift, as the published module writes it."""
    out = torch.zeros_like(x)
    out[:, :2, :-1] = x[:, :2, 1:]
    out[:, 2:4, 1:] = x[:, 2:4, :-1]
    out[:, 4:] = x[:, 4:]
    return out


def attended(x: Tensor) -> Tensor:
    """Attention over time at each pixel, in two heads."""
    tokens = x.permute(0, 3, 4, 2, 1).reshape(64, 5, 2, 3).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
    return mixed.transpose(1, 2).reshape(1, 8, 8, 5, 6).permute(0, 4, 3, 1, 2)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg_pool3d": lambda x: F.avg_pool3d(x, 3, 2, 1),
    "avg_pool3d, a kernel alone": lambda x: F.avg_pool3d(x, (2, 3, 1)),
    "avg_pool3d, another divisor": lambda x: F.avg_pool3d(x, 2, divisor_override=5),
    "avg_pool3d of padded frames": lambda x: F.avg_pool3d(F.pad(x, (1, 1, 1, 1, 1, 1)), 3, 2),
    "max_pool3d": lambda x: F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    "max_pool3d, no stride": lambda x: F.max_pool3d(x, (1, 2, 4)),
    "max_pool3d, dilated, ceil": lambda x: F.max_pool3d(x, (1, 2, 2), (1, 3, 3), dilation=(1, 2, 2), ceil_mode=True),
    "max_pool3d over time": lambda x: F.max_pool3d(x, 3, 2, 1),
    "max_pool3d over time, dilated": lambda x: F.max_pool3d(x, (2, 1, 1), 1, dilation=(3, 1, 1)),
    "max_pool3d over frames of zeros": lambda x: F.max_pool3d(F.pad(x[:, :3], (0, 0, 0, 0, 2, 1)), (2, 1, 1), 1),
    "mean over time": lambda x: x.mean(dim=2),
    "mean over one frame": lambda x: x[:, :, 1:2].mean(dim=2),
    "a frame put before the others": lambda x: torch.cat([x.mean(dim=2)[:, :, None], x], 2),
    "cat along time": lambda x: torch.cat([x, x[:, :, :2], F.relu(x)], 2),
    "cat along channels": lambda x: torch.cat([x, F.relu(x)[:, :4]], 1),
    "cat along height": lambda x: torch.cat([x, F.relu(x)], 3),
    "cat along a negative axis": lambda x: torch.cat([x, F.relu(x)], -1),
    "pad in front": lambda x: torch.cat([F.pad(x, (0, 0, 0, 0, 2, 0)), F.relu(x)], 2),
    "pad of one side": lambda x: F.pad(x, (1, 0, 0, 2)),
    "every second frame": lambda x: x[:, :, ::2],
    "every third frame from the second on": lambda x: x[:, :, 1::3],
    "the last two frames": lambda x: x[:, :, -2:],
    "a window of channels and rows": lambda x: x[:, 1:5, :, 2:-1],
    "mean": lambda x: x.mean(dim=(2, 3, 4)),
    "mean over negative axes": lambda x: x.mean(dim=(-3, -2, -1)),
    "flatten": lambda x: F.relu(x).flatten(1),
    "reshape there and back": lambda x: F.relu(F.relu(x).reshape(1, 30, 8, 8).reshape(1, 6, 5, 8, 8)),
    "reshape of channels into time": lambda x: F.max_pool3d(x.reshape(1, 3, 10, 8, 8), (1, 2, 2)),
    "unflatten": lambda x: F.relu(x.flatten(1, 2).unflatten(1, (5, 6)))[:, :, :4],
    "permute": lambda x: F.avg_pool3d(x.permute(0, 2, 1, 4, 3), (1, 2, 2)),
    "movedim": lambda x: F.relu(x.movedim(1, -1)).movedim(-1, 2),
    "batch norm alone": lambda x: F.batch_norm(F.relu(x), torch.arange(6.0), torch.arange(6.0) + 1, torch.arange(6.0), -torch.arange(6.0)),
    "batch norm of padded channels": lambda x: F.batch_norm(F.conv3d(x, torch.ones(5, 6, 3, 1, 1)), torch.arange(5.0), torch.arange(5.0) + 1),
    "group norm": lambda x: F.group_norm(x, 3, torch.arange(6.0), -torch.arange(6.0)),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 4, 1), (8, 6), torch.arange(48.0).reshape(8, 6)),
    "instance norm": lambda x: F.instance_norm(x),
    "activations": lambda x: sum(f(x) for f in (F.relu6, F.hardswish, F.silu, torch.sigmoid, F.gelu, F.hardsigmoid, torch.tanh, F.leaky_relu, F.elu)),
    "activations of frames": lambda x: sum(f(F.max_pool3d(x, 1)) for f in (F.relu6, F.hardswish, F.silu, torch.sigmoid, F.gelu, torch.exp)),
    "activations of padded frames": lambda x: torch.sigmoid(F.pad(x, (0, 0, 0, 0, 2, 1))) + F.pad(F.max_pool3d(x, 1), (0, 0, 0, 0, 1, 2)).exp(),
    "in place": lambda x: F.relu(x + 1, inplace=True).mul_(2).add_(0.5),
    "arithmetic with numbers": lambda x: 3 - (2 * x + 1) / 4 - 1 / (x * x + 1),
    "powers": lambda x: (x**2 + 1) ** -0.5 + x.square() + (x.abs() + 1).rsqrt() + (x.abs() + 1).log(),
    "a gate of one number a channel": lambda x: F.max_pool3d(x, 1) * torch.sigmoid(x.mean(dim=(2, 3, 4), keepdim=True)),
    "a gate of one number a frame": lambda x: x * F.max_pool3d(x, 1).mean(dim=(1, 3, 4), keepdim=True),
    "a gate from a linear layer": lambda x: x * torch.sigmoid(F.linear(x.mean(dim=(2, 3, 4)), EYE))[:, :, None, None, None],
    "broadcasting a smaller tensor": lambda x: x + torch.arange(6.0).reshape(6, 1, 1, 1) * F.max_pool3d(x, 1) - torch.arange(8.0),
    "broadcasting of what was moved": lambda x: x.permute(0, 2, 3, 1, 4) * x.mean(dim=1)[:, :, :, None],
    "difference of frames": lambda x: x[:, :, 1:] - F.max_pool3d(x, 1)[:, :, :-1],
    "a running sum": lambda x: F.max_pool3d(x, 1).cumsum(2) + x.cumsum(3),
    "a running mean": lambda x: F.max_pool3d(x, 1).cumsum(2) / torch.arange(1.0, 6.0).reshape(5, 1, 1),
    "softmax": lambda x: x.softmax(1) + F.max_pool3d(x, 1).softmax(2) + x.softmax(-1),
    "a shift of channels in time": lambda x: torch.cat(
        [F.pad(x[:, :4], (0,) * 4 + (1, 0))[:, :, :-1], F.pad(x[:, 4:], (0,) * 4 + (0, 1))[:, :, 1:]], 1
    ),
    "a shift written in place": lambda x: shifted(x),
    "a shift of batched frames": lambda x: shifted(x[0].transpose(0, 1).reshape(1, 5, 6, 8, 8).transpose(1, 2))[0].transpose(0, 1).contiguous(),
    "roll": lambda x: x.roll(1, 2) + F.max_pool3d(x, 1).roll((-1, 3), (2, 4)) + x.roll(7),
    "flip": lambda x: x.flip(2) + F.max_pool3d(x, 1).flip((2, 4)) + F.max_pool3d(x, 1).flip(1),
    "select, stack and unbind": lambda x: torch.stack([F.max_pool3d(x, 1).select(2, -1), *x.unbind(2)], 2) + x[:, :, 2][:, :, None],
    "split and chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1) + torch.cat(F.max_pool3d(x, 1).split([2, 3], 2)[::-1], 2),
    "chosen frames": lambda x: x.index_select(2, torch.tensor([4, 0, 2])) + F.max_pool3d(x, 1)[:, :, 1:4],
    "expand": lambda x: x.mean(dim=2, keepdim=True).expand(-1, -1, 5, -1, -1) + x[:, :1].expand_as(x),
    "squeeze": lambda x: F.max_pool3d(x, 1)[:, :, 3:4].squeeze(2) + x[:, :, :1].squeeze(),
    "every second row": lambda x: x[:, :, :, ::2] + F.max_pool3d(x, 1)[:, :, :, 1::2],
    "channel shuffle": lambda x: F.channel_shuffle(x, 3) + F.channel_shuffle(F.max_pool3d(x, 1), 2),
    "channel shuffle by hand": lambda x: x.reshape(1, 3, 2, 5, 8, 8).transpose(1, 2).reshape(1, 6, 5, 8, 8),
    "channel shuffle by hand of a convolution": lambda x: (
        F.conv3d(x, WIDE).view(1, 2, 4, 5, 8, 8).permute(0, 2, 1, 3, 4, 5).contiguous().view(1, 8, 5, 8, 8)
    ),
    "windows of rank 8": lambda x: x.reshape(1, 6, 5, 2, 4, 4, 2).permute(0, 3, 5, 2, 4, 6, 1).reshape(8, 40, 6).softmax(1),
    "linear over channels": lambda x: F.linear(x.movedim(1, -1), EYE, torch.arange(6.0)).movedim(-1, 1),
    "matrices": lambda x: x @ x.transpose(-1, -2),
    "attention over time": lambda x: attended(x),
    "interpolation in space": lambda x: F.interpolate(x, scale_factor=(1, 2, 1.5)) + F.interpolate(x, size=(5, 16, 12), mode="trilinear"),
    "interpolation with corners": lambda x: F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear", align_corners=True),
    "nearest frames": lambda x: F.interpolate(x, scale_factor=2),
    "to and clone": lambda x: F.relu(x.clone().contiguous()).to(torch.float64).to(torch.float32),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str) -> None:
    torch.manual_seed(1)
    check(Wrap(OPERATIONS[name]), torch.randn(X))


@pytest.mark.parametrize(("kernel", "padding"), [((1, 3, 3), (0, 1, 1)), ((3, 3, 3), (1, 1, 1))])
def test_max_pool_pads_below_every_value(kernel: tuple[int, ...], padding: tuple[int, ...]) -> None:
    check(Wrap(lambda x: F.max_pool3d(x, kernel, 2, padding)), -torch.rand(X) - 2)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "no rule": (lambda x: torch.histc(x).reshape(-1, 1, 1), "histc", "it has no rule"),
    "a setting": (
        lambda x: F.max_pool3d(x, 3, 2, ceil_mode=True, return_indices=True)[1].float(),
        "max_pool3d_with_indices",
        "a max pool with places and a kernel of more than 64 entries, or with ceil_mode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_a_lowering_is_named_with_its_shapes_and_line(name: str) -> None:
    function, operation, reason = REFUSED[name]
    with pytest.raises(LoweringError) as error:
        lower(Wrap(function), (torch.randn(X),), onnx.PROFILE)
    text = str(error.value)
    assert text.startswith(f"no lowering for aten.{operation}") and reason in text
    assert "shapes [(" in text
    assert f'it comes from File "{__file__}", line {line_of(function)}, in <lambda>' in text


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno


def pool_with_places(x: Tensor, layer: nn.Module) -> Tensor:
    return layer(x)[1].float()  # type: ignore[no-any-return]


def test_a_refused_layer_of_torch_is_traced_to_the_line_that_calls_it() -> None:
    """It is in a helper of the method `forward`."""
    line = f'File "{__file__}", line {line_of(pool_with_places) + 1}, in pool_with_places'
    with pytest.raises(LoweringError, match=rf"max_pool3d_with_indices.*it comes from {line}"):
        lower(Wrap(pool_with_places, nn.MaxPool3d(3, 2, return_indices=True, ceil_mode=True)), (torch.randn(X),), onnx.PROFILE)


def under_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.float16):
        return torch.matmul(x, x.mT).float()


def derivative(x: Tensor) -> Tensor:
    return torch.func.grad(lambda y: (y**2).sum())(x)  # type: ignore[no-any-return]


def with_gradients(x: Tensor) -> Tensor:
    with torch.enable_grad():
        return torch.histc(x)


@pytest.mark.parametrize(
    ("function", "below", "reason"),
    [
        (under_autocast, 2, r"no lowering for torch\.autocast: it computes numbers of float16; compute in float32"),
        pytest.param(derivative, 1, r"torch\.export cannot capture the network", marks=pytest.mark.filterwarnings("ignore:A model attribute")),
        (with_gradients, 2, r"no lowering for aten\.histc"),
    ],
)
def test_what_is_refused_in_a_block_is_traced_to_a_line_in_it(function: Callable[[Tensor], Tensor], below: int, reason: str) -> None:
    with pytest.raises(LoweringError, match=rf'{reason}.*it comes from File "{__file__}", line {line_of(function) + below}, '):
        lower(Wrap(function), (torch.randn(X),), onnx.PROFILE)


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(LoweringError) as error:
        lower(Wrap(lambda x: F.max_pool3d(x, 3, 2, return_indices=True, ceil_mode=True)[1].float()), (torch.randn(X),), onnx.PROFILE)
    assert len(str(error.value).splitlines()) == 1
