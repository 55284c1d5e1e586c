"""The engine profile: which operations are fast in an engine, as a value that rules and passes read."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """What is fast in the engine that will run a lowered graph.

    Each target defines its own profile, and variations of it to measure, beside its writer: `PROFILE` and `VARIANTS` in
    `export/targets/*.py`. A profile changes how fast a lowered graph is, never what it computes (up to rounding).
    """

    batch_limit: float
    """The largest value, in elements, whose frames are computed together, in one operation. Up to this size a value fits in the
    processor's cache, and one large operation costs less than many small ones. Infinite: always together; 0: always frame by frame."""
    gemm: bool
    """Direct convolution kernels are slow for few input channels, or for a number of output channels that is no multiple of 8. Such
    convolutions are written as im2col and matrix products (GEMM), whose kernels compute several pixels at a time."""
    linear_layers: bool = False
    """A convolution written as a GEMM is a linear layer with a bias, whose input has a row for each pixel. Otherwise the im2col matrix has a
    column for each pixel, and a row of ones for the bias."""
    gemm_per_tap: bool
    """A convolution written as a GEMM has one product for each temporal tap, and the products are added. Otherwise the im2col matrices
    of all taps are concatenated for a single product."""
    free_permutations: bool
    """Permutations and reshapes cost nothing in this engine, so that time may become a spatial axis of a 2D convolution."""
    channel_major: bool
    """Values whose frames are computed together are kept in channel-major order, `(1, C, T, H * W)`, instead of as a batch. It suits engines
    whose matrix products are fast, and whose convolutions and pools of short rows are slow."""
    padded_average_pools: bool
    """The engine has average pools that pad. Otherwise such a pool becomes a depthwise convolution with equal weights."""
    winograd: bool
    """Convolutions with three temporal taps are computed by Winograd's F(2, 3) along time, where it pays: a third fewer
    multiplications, and more additions."""
    slice_early: bool
    """A value of which only slices are used is sliced before elementwise operations and reshapes instead of after them, so that less memory
    is needed at a time. In other engines the smaller number of operations is faster."""
    recurrent_layers: bool
    """The engine has LSTM, GRU and RNN, which are faster than the many small operations that they are otherwise unrolled into."""
