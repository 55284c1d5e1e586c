"""What XNNPACK's ARM64 kernels make of small numbers in float16: they take those below 6e-5 for zero, which those of x86_64 do not.

Needs ``make arm64``; runs with ``make test-arm64``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clipstep.benchmarks.arm64.emulate import GUESTS, run_guest
from clipstep.benchmarks.arm64.kit import Kit
from clipstep.benchmarks.arm64.processor import CPU, Processor
from clipstep.export.targets import executorch_writer
from clipstep.export.targets.float16 import TOO_SMALL
from tests.export.test_float16 import program, traced

pytestmark = pytest.mark.arm64

RANDOM = torch.Generator().manual_seed(5)
FRAMES = torch.randint(256, (2, 16, 16, 3), generator=RANDOM).to(torch.uint8)
STEM = (torch.rand(64, 3, 7, 7, generator=RANDOM) - 0.5) * 2 / 147**0.5 / 255
"""The weights that a first convolution of 147 products starts from, divided by the standard deviation of frames."""
NUMBERS = torch.randn(2, 32, 8, 8, generator=RANDOM)
SMALL = torch.randn(32, 32, 3, 3, generator=RANDOM) * 1e-4


def on_arm64(function: Callable[[Tensor], Tensor], x: Tensor, folder: Path) -> tuple[str, float]:
    """What stays in float32, and the largest error of what the engine's ARM64 build computes, as a share of the range."""
    graph = traced(function, x)
    placement = executorch_writer.write(graph, program(x[None]), "float16", "{}", folder / "step.pte")
    (expected,) = graph(x)
    (folder / "inputs.bin").write_bytes(x.numpy().tobytes())
    kit = Kit.open()
    command = [*GUESTS["executorch"].command(kit), folder / "step.pte", folder, 1]
    run_guest(kit, Processor.read(kit.path, CPU), command, folder / "counts.txt", "step.pte")
    got = torch.from_numpy(np.fromfile(folder / "outputs.bin", np.float32)).reshape(-1, *expected.shape)
    return placement.summary(), float((got - expected).abs().max() / (expected.max() - expected.min()))


def test_weights_of_frames_are_no_small_numbers(tmp_path: Path) -> None:
    """Of these weights a fifth is below 6e-5. Without them the error is 4 %."""
    summary, error = on_arm64(lambda x: F.conv2d(x.float().permute(0, 3, 1, 2), STEM, stride=2, padding=3), FRAMES, tmp_path)
    assert "float32" not in summary and error < 3e-3


def test_products_of_small_weights_are_computed_in_float32(tmp_path: Path) -> None:
    """Of these weights almost half is below 6e-5, and of the results a twentieth."""
    summary, error = on_arm64(lambda x: F.conv2d(x.sigmoid(), SMALL, padding=1) * 1000, NUMBERS, tmp_path)
    assert f"in float32: aten.conv2d, aten.mul.Tensor ({TOO_SMALL})" in summary and error < 3e-3
