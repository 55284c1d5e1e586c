"""What is computed in a lower precision, and how numbers are held as integers of 8 bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

COMPUTED_IN = "computed_in"
"""The key in the metadata of nodes that are not computed in float32: `torch.float16` or `torch.int8`."""
DYNAMIC = "dynamic"
"""The key in the metadata of convolutions that are of integers of 8 bits: of constant weights, and of a value that is rounded in each step."""
QUANTIZATION = "quantization"
"""The key in the metadata of nodes that are computed in int8, or used by such nodes: the `Quantization` of their value."""
MATRIX_PRODUCTS = frozenset((torch.ops.aten.mm.default, torch.ops.aten.matmul.default))
"""Products of two operands, of which the output channels of a constant are rows if it is the first, and columns if it is the second."""
LOWEST, HIGHEST = -128, 127
"""The numbers that int8 holds."""
LARGEST_BIAS = 2**30
"""The largest integer of a bias, which leaves as much again for the products."""
SMALLEST_SCALE = 2.0**-100
SMALLEST_PRODUCT = 2.0**-120
"""The smallest scale of a weight, and of a weight times an input. Engines refuse scales that are no normal numbers of float32."""
WEIGHT_LEVELS = 127
"""Weights are symmetric: of -127 to 127."""


@dataclass(frozen=True)
class Narrowed:
    """What of a graph stays in float32 where the rest is computed in a lower precision."""

    in_float32: Mapping[fx.Node, str]
    """The operations that stay, each with the reason."""
    in_float16: Mapping[fx.Node, str] = field(default_factory=dict)
    """For dynamic8, the convolutions and matrix products of floats, each with the reason."""
    sensitivities: Mapping[str, float] = field(default_factory=dict)
    """For int8, what `clipstep.export.targets.sensitivity.layer_sensitivities` returns of the layers that are computed in it."""


@dataclass(frozen=True)
class Quantization:
    """A scale and a zero point for a whole tensor: an integer stands for the number `scale * (integer - zero_point)`."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, lowest: float, highest: float) -> "Quantization":
        """Return the quantization whose 256 numbers reach from the lowest to the highest, with 0 among them, which stands for padding.

        Of a range that is nothing but 0 the scale is 1.
        """
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        scale = float(torch.tensor((highest - lowest) / (HIGHEST - LOWEST), dtype=torch.float32))
        if scale < torch.finfo(torch.float32).tiny:
            return cls(1.0, 0)
        return cls(scale, round(LOWEST - lowest / scale))

    @classmethod
    def of(cls, tensor: Tensor) -> "Quantization":
        """Return the quantization whose numbers reach from the least to the greatest element."""
        least, greatest = tensor.detach().aminmax()
        return cls.of_range(float(least), float(greatest))

    def integers(self, numbers: Tensor) -> Tensor:
        """Return the nearest integers, of int8; what is beyond the range becomes its end."""
        return (torch.round(numbers / self.scale) + self.zero_point).clamp(LOWEST, HIGHEST).to(torch.int8)

    def numbers(self, integers: Tensor) -> Tensor:
        return (integers.to(torch.float32) - self.zero_point) * self.scale


def quantized_weight(
    weight: Tensor, axis: int, levels: int = WEIGHT_LEVELS, bias: Tensor | None = None, of_input: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return a weight as symmetric integers of int8, up to `levels`, and the scale of each entry of `axis`, its output channels.

    The scales of a `bias` are those of the weight times that of the input, `of_input`. So that a bias is a number of 32 bits, the scale of a channel
    may be larger than its weights need. That of a channel of nothing but zeros, or of numbers that are too small for a scale, is 1.
    """
    scales = weight.detach().abs().amax([other for other in range(weight.ndim) if other != axis]) / levels
    if bias is not None:
        scales = torch.maximum(scales, bias.detach().abs() / (of_input * LARGEST_BIAS))
    scales = torch.where(scales >= max(SMALLEST_SCALE, SMALLEST_PRODUCT / of_input), scales, torch.ones_like(scales))
    return torch.round(weight.detach() / along_axis(scales, axis, weight.ndim)).to(torch.int8), scales


def along_axis(scales: Tensor, axis: int, rank: int) -> Tensor:
    """Return a scale for each entry of an axis in the shape in which they multiply a tensor of that rank."""
    return scales.reshape([-1 if place == axis else 1 for place in range(rank)])
