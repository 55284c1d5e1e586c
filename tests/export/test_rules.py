"""Single operations lowered, against torch, and those that have no lowering."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.lowering.lower import LoweringError, lower


class Wrap(nn.Module):
    """A function of one rank-5 value as a module; the value comes and goes as rank 4, as states do."""

    def __init__(self, function: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor]:
        y = self.function(x[None], *self.layers)
        return (y.reshape(y.shape[1:]) if y.ndim == 5 else y,)


def check(module: nn.Module, x: Tensor) -> None:
    """The lowered module does what the module does, without a value of rank 5."""
    lowered = lower(module, (x,))
    value, expected = lowered(x + 1)[0], module(x + 1)[0].detach()
    assert value.shape == expected.shape
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    assert not any(str(node.target).startswith(("aten.conv3d", "aten.max_pool3d", "aten.avg_pool3d")) for node in lowered.graph.nodes)


CALL = Wrap.forward.__code__.co_firstlineno + 1
"""The line on which a wrapped function is called: torch.export keeps the lines of forward functions."""
SMALL = st.integers(1, 3)


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(SMALL, SMALL, SMALL), stride=st.tuples(SMALL, SMALL, SMALL), padding=st.tuples(*[st.integers(0, 2)] * 3),
    dilation=st.tuples(*[st.integers(1, 2)] * 3), groups=SMALL, share=SMALL, out_share=st.integers(1, 11),
    frames=st.integers(1, 6), bias=st.booleans(),
)  # fmt: skip
def test_any_convolution(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int, share: int, out_share: int,
    frames: int, bias: bool,
) -> None:  # fmt: skip
    size = (frames, 5, 6)
    assume(all(s + 2 * p >= d * (k - 1) + 1 for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    conv = nn.Conv3d(share * groups, out_share * groups, kernel, stride, padding, dilation, groups, bias)
    module = Wrap(lambda x, conv: conv(x), conv)
    x = torch.randn(share * groups, *size)
    count = module(x)[0].shape[1]
    taps = [[t * stride[0] - padding[0] + i * dilation[0] for i in range(kernel[0])] for t in range(count)]
    if all(any(0 <= source < frames for source in row) for row in taps):
        check(module, x)
    else:
        with pytest.raises(LoweringError, match="an output frame that lies wholly on padding"):
            lower(module, (x,))


@pytest.mark.parametrize("channels", [(5, 13), (8, 16), (3, 9)])
def test_padded_channels_reach_no_result(channels: tuple[int, int]) -> None:
    """A convolution whose channels are not a multiple of 8, before each kind of operation that could see the padding."""
    first, second, third = nn.Conv3d(2, channels[0], 3, padding=1), nn.Conv3d(channels[0], channels[1], (2, 3, 3)), nn.Conv3d(channels[1], 4, 1)
    x = torch.randn(2, 4, 8, 8)
    check(Wrap(lambda x, a, b, c: c(F.relu(b(F.max_pool3d(a(x), (1, 2, 2))))), first, second, third), x)
    check(Wrap(lambda x, a: a(x).mean(dim=(2, 3, 4)), first), x)
    check(Wrap(lambda x, a: torch.cat([a(x), x], 1), first), x)
    check(Wrap(lambda x, a: F.avg_pool3d(a(x), 2), first), x)
    check(Wrap(lambda x, a: a(x) + a(x), first), x)
    check(Wrap(lambda x, a: a(x).reshape(1, -1, 8, 8), first), x)


X = (6, 5, 8, 8)
WEIGHT = torch.ones(6, 2, 1, 1, 1)
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
    "to and clone": lambda x: F.relu(x.clone().contiguous()).to(torch.float64).to(torch.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str) -> None:
    torch.manual_seed(1)
    check(Wrap(OPERATIONS[name]), torch.randn(X))


@pytest.mark.parametrize(("kernel", "padding"), [((1, 3, 3), (0, 1, 1)), ((3, 3, 3), (1, 1, 1))])
def test_max_pool_pads_below_every_value(kernel: tuple[int, ...], padding: tuple[int, ...]) -> None:
    check(Wrap(lambda x: F.max_pool3d(x, kernel, 2, padding)), -torch.rand(X) - 2)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "max pool over time, ceil": (lambda x: F.max_pool3d(x, 2, ceil_mode=True), "max_pool3d", "a max pool over time with ceil_mode"),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2.0), "upsample_nearest3d", "this operation"),
    "transposed convolution": (lambda x: F.conv_transpose3d(x, WEIGHT), "conv_transpose3d", "this operation"),
    "pad mode replicate": (lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), "replicate"), "pad", "mode 'replicate'"),
    "pad with ones": (lambda x: F.pad(x, (1, 1), value=1.0), "pad", "a value other than 0"),
    "average pool without its padding": (lambda x: F.avg_pool3d(x, 3, 2, 1, count_include_pad=False), "avg_pool3d", "padding that is not counted"),
    "mean over channels": (lambda x: x.mean(dim=1), "mean", "a mean over other axes"),
    "add of a number": (lambda x: x + 1, "add", "an addition of values of different shapes"),
    "every second row": (lambda x: x[:, :, :, ::2], "slice", "a slice with a step outside time"),
    "softmax": (lambda x: x.softmax(1), "softmax", "this operation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_lowering_is_named_with_its_shapes_and_line(name: str) -> None:
    function, operation, reason = REFUSED[name]
    with pytest.raises(LoweringError) as error:
        lower(Wrap(function), (torch.randn(X),))
    text = str(error.value)
    assert text.startswith(f"no lowering for aten.{operation}") and reason in text
    assert "shapes [(1, 6, 5, 8, 8)" in text
    assert f'it comes from File "{__file__}", line {CALL}, in forward' in text


def test_a_refused_layer_of_torch_is_traced_to_the_line_that_calls_it() -> None:
    with pytest.raises(LoweringError, match=rf'conv_transpose3d.*it comes from File "{__file__}", line {CALL}, in forward'):
        lower(Wrap(lambda x, layer: layer(x), nn.ConvTranspose3d(6, 2, 1)), (torch.randn(X),))


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(LoweringError) as error:
        lower(Wrap(lambda x: x.softmax(1)), (torch.randn(X),))
    assert len(str(error.value).splitlines()) == 1
