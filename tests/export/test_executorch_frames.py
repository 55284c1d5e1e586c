"""Where frames of uint8 become floats in ExecuTorch programs, and that they are the right ones, against eager PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.extension.pybindings import portable_lib
from torch import Tensor
from torch.nn import functional as F

from clipstep.export.targets import executorch_writer
from tests.export.test_float16 import program, traced

FRAMES = torch.arange(4 * 6 * 8 * 3).mul(37).remainder(256).to(torch.uint8).reshape(4, 6, 8, 3)
KERNEL = torch.linspace(-1, 1, 4 * 3 * 3 * 3).reshape(4, 3, 3, 3) / 20
ERRORS = {"float32": 1e-5, "float16": 2e-3, "dynamic8": 2e-2, "int8": 2e-2}
"""Shares of the range of a result."""


def convolved(frames: Tensor) -> Tensor:
    return F.conv2d(frames.float().permute(0, 3, 1, 2), KERNEL, padding=1)


CASES: dict[str, tuple[Callable[[Tensor], Any], list[int]]] = {
    "each frame by itself": (lambda frames: torch.cat([convolved(frames[i : i + 1]) for i in range(4)]), [1, 1, 1, 1]),
    "some frames": (lambda frames: convolved(frames[1:3]) + convolved(frames[3:]), [2, 1]),
    "a frame in two slices": (lambda frames: convolved(frames[:2]) + convolved(frames[1:3]), [4]),
    "all of them, too": (lambda frames: convolved(frames[:1]) + frames.float().mean(), [4]),
    "every second frame": (lambda frames: convolved(frames[::2]) + convolved(frames[1::2]), [4]),
    "rows, not frames": (lambda frames: convolved(frames[:, :3]) + convolved(frames[:, 3:]), [4]),
    "rows of a frame": (lambda frames: (lambda one: convolved(one[:, :3]) + convolved(one[:, 3:]))(frames[:1]) + convolved(frames[1:2, :3]), [1, 1]),
    "each multiplied by the same": (lambda frames: convolved(frames[:1].float() * 0.25) + convolved(frames[1:2].float() * 0.25), [1, 1]),
    "each multiplied by another": (lambda frames: convolved(frames[:1].float() * 0.25) + convolved(frames[1:2].float() * 0.5), [1, 1]),
    "one of them multiplied": (lambda frames: convolved(frames[:1].float() * 0.25) + convolved(frames[1:2]), [1, 1]),
    "something between that XNNPACK does not take": (lambda frames: convolved(frames[1:2]) + convolved(frames[:1]).cumsum(-1), [1, 1]),
}


@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("name", CASES)
def test_frames_become_floats_where_they_are_needed(name: str, precision: str, tmp_path: Path) -> None:
    """Each slice of frames by itself, unless a frame would be converted twice; so that the floats of all frames need no memory at once."""
    function, expected = CASES[name]
    graph, _ = executorch_writer.prepared(traced(function, FRAMES), (FRAMES,))
    converted = [node for node in graph.graph.nodes if node.target is torch.ops.aten.to.dtype]
    assert [len(node.meta["val"]) for node in converted] == expected and all(node.users for node in converted)
    executorch_writer.write(traced(function, FRAMES), program(FRAMES[None]), precision, "{}", tmp_path / "step.pte")
    (got,) = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([FRAMES])
    exact = function(FRAMES)
    assert float((got - exact).abs().max()) < ERRORS[precision] * float(exact.max() - exact.min())


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda frames: (convolved(frames[:1]), frames[1:2].flip(1)), id="moved"),
        pytest.param(lambda frames: (convolved(frames[:1]), frames[1:2].long() * 3), id="as whole numbers"),
        pytest.param(lambda frames: (convolved(frames[:1]), frames[1:2].double().sum().float()), id="as doubles"),
    ],
)
def test_frames_that_are_read_as_they_are(function: Callable[[Tensor], Any], tmp_path: Path) -> None:
    """Outside of XNNPACK, which gives no bytes."""
    executorch_writer.write(traced(function, FRAMES), program(FRAMES[None]), "float32", "{}", tmp_path / "step.pte")
    got = portable_lib._load_for_executorch(str(tmp_path / "step.pte")).forward([FRAMES])
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(got, function(FRAMES), strict=True))
