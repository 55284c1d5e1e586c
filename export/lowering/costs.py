"""The constants by which strategies decide what is cheaper, with the measurement behind each.

The figures are of the home network (16 frames of 112x112) and of single operators, in instructions counted under QEMU on ARM64 and in
milliseconds on x86_64 (AVX2); `docs/measurements.md` says how. Where no measurement of a constant alone was kept, its comment says so.
"""

FEW_CHANNELS = 4
"""A convolution of at most this many input channels is computed as im2col and a GEMM. It is meant for first convolutions of RGB and flow.
XNNPACK on x86: convolution kernels larger than 1x1 reach 16 G multiply-accumulates a second, GEMMs 29 to 45 G. The home network without
any GEMM takes 146.5 M ARM64 instructions in ExecuTorch instead of 108.3 M. The limit itself was not measured: 4 covers both inputs."""

CHANNEL_TILE = 8
"""The number of output channels that the engines' kernels compute at a time on ARM64 (XNNPACK on x86: 16)."""

TILE_USE = 0.8
"""A convolution that uses at most this share of its tiles of output channels is ragged, and is computed as a GEMM. XNNPACK on x86, 1x1
convolutions by output channels: 12 reach 12 G multiply-accumulates a second, 16: 29 G, 20: 15 G, 48: 36 G. 12 of 16 and 20 of 24 channels are 0.75
and 0.83 of their tiles; the limit between them was not measured alone."""

IM2COL_LIMIT = 2**20
"""The most elements of an im2col matrix: 4 MB of float32. It bounds the memory of a step; the limit was not measured alone."""

NARROW_DEPTHWISE = 64
"""A depthwise 3x3x3 convolution of at most this many channels is computed with the frames side by side on the channel axis, which
makes it wide. The limit was not measured alone."""

BANDED_LIMIT = 2**7
"""The most pairs of an input and an output frame for a strided depthwise convolution as one banded 2D convolution, whose weights are
mostly zeros beyond it. The limit was not measured alone."""

SHARED_WEIGHT_ELEMENTS = 2**16
"""Weights of more elements than this are not copied for the first and last frames, which have fewer taps than the others: these are computed
tap by tap instead, with slices of the same weights. It keeps files small: the weights of a large network would otherwise be stored twice."""

ADDITION_COST = 8
"""The number of multiply-accumulates that take as long as adding two numbers in memory; Winograd's F(2, 3) is used where it saves more than it
adds. An addition costs 1.8 instructions an element in onnxruntime on ARM64, a vector FMA, which is four multiply-accumulates, 1.36 to
1.41: about 5 multiply-accumulates by that count. The value itself was not measured alone."""
