"""Convolutions and pools of all frames at once, against PyTorch's own, and the number of nodes of a network, which does not grow with its frames."""

import pytest
import torch
from input_networks import OfFrames
from torch import Tensor, fx, nn

from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.targets import onnx
from clipstep.export.targets.onnx_model import onnx_model

STEM, MIDDLE = (3, 5), (24, 32)
"""Input and output channels of a first convolution, and of one in the middle of a network."""


class Whole(nn.Module):
    """A network as a step module: it returns a tuple, without a batch axis."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.network(x)[0],)


def lowered(network: nn.Module, clip: Tensor) -> tuple[fx.GraphModule, set[str]]:
    """Return the network lowered for onnxruntime, and the strategies of its convolutions."""
    strategies: dict[str, str] = {}
    graph = simplified(Whole(network).eval(), (clip,))
    return lower_graph(graph, (clip,), onnx.PROFILE, strategies=strategies), set(strategies.values())


@pytest.mark.parametrize(
    ("channels", "kernel", "settings", "strategy"),
    [
        (STEM, (3, 3, 3), {"padding": 1, "stride": (1, 2, 2)}, "batched-im2col-gemm"),
        (STEM, (3, 3, 3), {"padding": 1, "stride": (1, 3, 3)}, "batched-im2col-gemm"),
        (STEM, (3, 5, 4), {"padding": (1, 2, 3), "dilation": (1, 2, 1), "bias": False}, "batched-im2col-gemm"),
        (STEM, (1, 7, 7), {"padding": (0, 3, 3), "stride": (1, 2, 2)}, "batched-im2col-gemm"),
        (STEM, (2, 3, 3), {"stride": (2, 1, 1), "dilation": (2, 1, 1)}, "batched-im2col-gemm"),
        (STEM, (3, 3, 3), {"padding": (2, 1, 1), "dilation": (2, 1, 1)}, "batched-im2col-gemm"),
        (STEM, (3, 3, 3), {"padding": 1, "stride": (1, 2, 1)}, "im2col-gemm"),
        (MIDDLE, (3, 3, 3), {"padding": 1}, "batched-winograd-over-time"),
        (MIDDLE, (3, 3, 3), {"padding": (0, 1, 1), "bias": False}, "batched-winograd-over-time"),
        (MIDDLE, (3, 1, 1), {"padding": (1, 0, 0)}, "batched-winograd-over-time"),
        (MIDDLE, (3, 5, 3), {"padding": (1, 2, 1), "stride": (1, 2, 2)}, "batched-winograd-over-time"),
    ],
)
@pytest.mark.parametrize("frames", [5, 6])
def test_all_frames_at_once_are_the_convolution(
    channels: tuple[int, int], kernel: tuple[int, ...], settings: dict[str, object], strategy: str, frames: int
) -> None:
    torch.manual_seed(0)
    network, clip = nn.Conv3d(*channels, kernel, **settings), torch.randn(1, channels[0], frames, 11, 13)  # type: ignore[arg-type]
    graph, strategies = lowered(network, clip)
    torch.testing.assert_close(graph(clip)[0], network(clip)[0], atol=2e-6, rtol=1e-5)
    assert strategies == {strategy}


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 5), (6, 3, 4), (4, 2, 2)])
def test_all_frames_at_once_are_the_adaptive_pool(pool: type[nn.Module], size: tuple[int, int, int]) -> None:
    """Of 6 frames of 10x12; windows of 4 frames in time would differ in length."""
    torch.manual_seed(0)
    network, clip = nn.Sequential(nn.Conv3d(*STEM, 1), pool(size)), torch.randn(1, 3, 6, 10, 12)
    graph, _ = lowered(network, clip)
    torch.testing.assert_close(graph(clip)[0], network(clip)[0], atol=2e-6, rtol=1e-5)


def test_the_number_of_nodes_does_not_grow_with_the_frames() -> None:
    """Frames of 32x32: small values, whose frames are computed together. 18 layers are at most three times as many nodes; one frame after the other
    they were 475."""
    counts = []
    for count in (4, 8):
        layers = [
            layer
            for inside, outside, stride in ((3, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2))
            for layer in (nn.Conv3d(inside, outside, 3, (1, stride, stride), 1, bias=False), nn.BatchNorm3d(outside), nn.ReLU())
        ]
        network = OfFrames(nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(64, 4))).eval()
        frames = torch.randn(count, 32, 32, 3)
        graph = lower_graph(simplified(network, (frames,)), (frames,), onnx.PROFILE)
        torch.testing.assert_close(graph(frames)[0], network(frames)[0], atol=1e-6, rtol=1e-5)
        counts.append(len(onnx_model(graph, ["frames"], ["logits"], 20).graph.node))
    assert counts[0] == counts[1] <= 3 * 18
