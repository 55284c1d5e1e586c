"""A 3D convolution and its settings, as strategies read them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from clipstep.export.lowering.operators import Triple
from clipstep.export.lowering.values import TIME, Frames, Value


@dataclass(frozen=True, eq=False)
class Convolution:
    """A 3D convolution of a value `(1, C, T, H, W)` with a weight `(O, C / groups, kT, kH, kW)`, and properties that follow from its settings."""

    x: Value
    weight: Any
    """A tensor; or a `Value` if the step computes it, and only the strategy for such weights applies."""
    bias: Tensor | None
    stride: Triple
    padding: Triple
    dilation: Triple
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @cached_property
    def sources(self) -> list[list[tuple[int, int]]]:
        """For each output frame the pairs (temporal tap, index of the input frame that it reads), without taps on the padding."""
        return tap_sources(self.x.shape[TIME], self.kernel[0], self.stride[0], self.padding[0], self.dilation[0])

    @cached_property
    def nonzero_sources(self) -> list[list[tuple[int, int]]]:
        """The same without taps on input frames of zeros (None in `Frames`)."""
        if not isinstance(self.x, Frames):
            return self.sources
        items = self.x.items
        return [[(tap, source) for tap, source in row if items[source] is not None] for row in self.sources]

    @cached_property
    def taps(self) -> list[dict[int, int]]:
        """For each temporal tap `{output frame: input frame that the tap reads}`."""
        return [{t: source for t, row in enumerate(self.sources) for tap, source in row if tap == k} for k in range(self.kernel[0])]

    @property
    def spatial_settings(self) -> dict[str, Any]:
        """The settings of the 2D convolution of one temporal tap."""
        return {"stride": self.stride[1:], "padding": self.padding[1:], "dilation": self.dilation[1:], "groups": self.groups}

    @cached_property
    def spatial_size(self) -> list[int]:
        """The rows and columns of an output frame."""
        return spatial_size(self.x.shape[3:], self.kernel[1:], self.stride[1:], self.padding[1:], self.dilation[1:])

    @property
    def is_temporal(self) -> bool:
        """Whether it is 1x1 spatially, without a spatial stride."""
        return (self.kernel[1:], tuple(self.stride[1:]), tuple(self.padding[1:])) == ((1, 1), (1, 1), (0, 0))

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel has one kernel and gives one output channel."""
        return self.x.shape[1] == self.groups == len(self.weight)

    @property
    def is_depthwise_3x3x3(self) -> bool:
        """Whether it is a depthwise 3x3x3 convolution that keeps the size."""
        ones = (1, 1, 1)
        return self.is_depthwise and (self.kernel, *map(tuple, (self.stride, self.padding, self.dilation))) == ((3, 3, 3), ones, ones, ones)


def tap_sources(length: int, taps: int, stride: int, padding: int, dilation: int) -> list[list[tuple[int, int]]]:
    """Return for each output frame the pairs (temporal tap, index of the input frame that it reads), without taps on the padding."""
    count = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    sources = [[(tap, t * stride - padding + tap * dilation) for tap in range(taps)] for t in range(count)]
    return [[(tap, source) for tap, source in row if 0 <= source < length] for row in sources]


def spatial_size(sizes: Triple, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> list[int]:
    """Return the rows and columns of the output of a 2D convolution or pool."""
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)]
