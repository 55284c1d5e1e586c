"""Each equation of the paper against a few lines of numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from clipstep.training.models.shufflenet3d import ShuffleUnit, shuffle_stages

EPSILON = 1e-5
Make = Callable[..., nn.Module]


def _convolve(x: np.ndarray, w: np.ndarray, stride: tuple[int, int, int], padding: tuple[int, int, int], groups: int = 1) -> np.ndarray:
    """``(C, T, H, W)`` with ``(O, C / groups, t, h, w)``, one kernel offset after the other."""
    x = np.pad(x, ((0, 0), *((p, p) for p in padding)))
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], w.shape[2:], stride, strict=True)]
    out = np.zeros((len(w), *size))
    inputs, outputs = len(x) // groups, len(w) // groups
    for t, h, v in np.ndindex(*w.shape[2:]):
        window = x[:, t :: stride[0], h :: stride[1], v :: stride[2]][:, : size[0], : size[1], : size[2]]
        for g in range(groups):
            rows = slice(g * outputs, (g + 1) * outputs)
            out[rows] += np.einsum("oc,cthw->othw", w[rows, :, t, h, v], window[g * inputs : (g + 1) * inputs])
    return out


def _windows(x: np.ndarray, reduce: Callable[..., np.ndarray], kernel: tuple[int, int, int], fill: float) -> np.ndarray:
    """Pooling with stride 2 where the kernel is 3, padding 1 there; nothing where it is 1."""
    x = np.pad(x, ((0, 0), *((k // 2, k // 2) for k in kernel)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2, 3))
    steps = [1 + k // 2 for k in kernel]
    return reduce(views[:, :: steps[0], :: steps[1], :: steps[2]], axis=(-3, -2, -1))


def _norm(x: np.ndarray, norm: nn.BatchNorm3d) -> np.ndarray:
    mean, var, weight, bias = (v.detach().numpy()[:, None, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / np.sqrt(var + EPSILON) * weight + bias


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _weight(module: nn.Module) -> np.ndarray:
    return module.weight.detach().numpy()


def _unit(x: np.ndarray, unit: ShuffleUnit, stride: int, first_groups: int) -> np.ndarray:
    y = _relu(_norm(_convolve(x, _weight(unit.conv1), (1, 1, 1), (0, 0, 0), first_groups), unit.norm1))
    per_group = len(y) // 3
    y = np.stack([y[(c % 3) * per_group + c // 3] for c in range(len(y))])
    y = _norm(_convolve(y, _weight(unit.depthwise), (stride,) * 3, (1, 1, 1), len(y)), unit.norm2)
    y = _norm(_convolve(y, _weight(unit.conv2), (1, 1, 1), (0, 0, 0), 3), unit.norm3)
    if stride == 1:
        return _relu(x + y)
    return _relu(np.concatenate([_windows(x, np.mean, (3, 3, 3), 0.0), y]))


def _double(module: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm3d):
            for value, low, high in ((m.running_mean, -0.2, 0.2), (m.running_var, 0.1, 0.4), (m.weight, 0.5, 1.5), (m.bias, -0.3, 0.5)):
                nn.init.uniform_(value, low, high)
    return module.double().eval()


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(("T", "H", "W"), [(4, 6, 6), (3, 5, 7), (1, 2, 1)])
@pytest.mark.parametrize(("channels", "out", "stride", "first_groups"), [(24, 24, 1, 3), (12, 24, 2, 1), (12, 24, 2, 3)])
@torch.no_grad()
def test_shuffle_unit(T: int, H: int, W: int, channels: int, out: int, stride: int, first_groups: int) -> None:
    unit = _double(ShuffleUnit(channels, out, stride=stride, groups=3, first_groups=first_groups))
    x = _noise(channels, T, H, W)
    np.testing.assert_allclose(unit(torch.from_numpy(x)[None])[0].numpy(), _unit(x, unit, stride, first_groups), atol=1e-10)


@torch.no_grad()
def test_the_shortcut_counts_the_padding() -> None:
    """A volume of ones, one frame: in a corner 2 * 2 * 1 of 27 cells are ones."""
    unit = _double(ShuffleUnit(12, 24, stride=2, groups=3, first_groups=1))
    shortcut = unit(torch.ones(1, 12, 1, 4, 4, dtype=torch.float64))[0, :12]
    np.testing.assert_allclose(shortcut[:, 0, 0, 0].numpy(), 4 / 27)
    np.testing.assert_allclose(shortcut[:, 0, 1, 1].numpy(), 9 / 27)


def test_stages_have_the_papers_units() -> None:
    units = list(shuffle_stages(12, (120, 240, 480), (4, 8, 4), 3))
    assert [unit.stride for unit in units] == [2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert [unit.conv1.groups for unit in units] == [1] + [3] * 15
    assert [unit.conv1.out_channels for unit in units] == [30] * 4 + [60] * 8 + [120] * 4
    assert {unit.groups for unit in units} == {unit.conv2.groups for unit in units} == {3}


def _path(frames: np.ndarray, buffer: np.ndarray, path: nn.Module, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """One path on ``(3, T, H, W)`` and ``(12, b, H/2, W/2)``: the features and the next buffer."""
    z = _relu(_norm(_convolve(frames[:, ::stride], _weight(path.stem), (1, 2, 2), (1, 1, 1)), path.stem_norm))
    y = _norm(_convolve(np.concatenate([buffer, z], axis=1), _weight(path.causal), (1, 1, 1), (0, 0, 0)), path.causal_norm)
    x = _windows(_relu(y), np.max, (1, 3, 3), -np.inf)
    for index, unit in enumerate(path.stages):
        x = _unit(x, unit, 2 if index in (0, 4, 12) else 1, 3 if index else 1)
    return x.mean(axis=(1, 2, 3)), y[:, -buffer.shape[1] :]


@pytest.mark.parametrize(("alpha", "beta", "b", "frames"), [(2, 1, 1, 4), (2, 1, 2, 5), (4, 2, 1, 7)])
@torch.no_grad()
def test_the_whole_network(small_network: Make, alpha: int, beta: int, b: int, frames: int) -> None:
    network = small_network(frames=frames, alpha=alpha, beta=beta, buffer_frames=b).double()
    x, slow, fast = _noise(3, frames, 32, 32), _noise(12, b, 16, 16), -_noise(12, b, 16, 16)
    inputs = (torch.from_numpy(x)[None], *(torch.from_numpy(buffer.reshape(1, 12 * b, 16, 16)) for buffer in (slow, fast)))
    logits, slow_next, fast_next = (value[0].numpy() for value in network(*inputs))
    slow_features, slow_expected = _path(x, slow, network.slow, alpha)
    fast_features, fast_expected = _path(x, fast, network.fast, beta)
    features = np.concatenate([slow_features, fast_features])
    np.testing.assert_allclose(logits, _weight(network.classifier) @ features + network.classifier.bias.numpy(), atol=1e-8)
    np.testing.assert_allclose(slow_next.reshape(12, b, 16, 16), slow_expected, atol=1e-10)
    np.testing.assert_allclose(fast_next.reshape(12, b, 16, 16), fast_expected, atol=1e-10)
    assert slow_expected.min() < 0  # Before ReLU.
