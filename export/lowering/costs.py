"""The constants by which strategies decide what is cheaper, with the measurement behind each.

The figures are of the home network (`slowfast_causal_shufflenet`, the architecture that is trained by default, on 16 frames of 112x112) and of
single operators. They are instructions counted under QEMU on ARM64, and milliseconds on x86_64 (AVX2); `docs/measurements.md` says how they were
measured. If a constant's own value was never compared with others, its comment says that it "was not measured alone".
"""

FEW_CHANNELS = 4
"""A convolution of at most this many input channels is computed as im2col and a GEMM. It is meant for first convolutions of RGB and flow.
XNNPACK on x86: convolution kernels larger than 1x1 reach 16 G multiply-accumulates a second, GEMMs 29 to 45 G. The home network without
any GEMM takes 146.5 M ARM64 instructions in ExecuTorch instead of 108.3 M. The limit itself was not measured: 4 covers both inputs."""

CHANNEL_TILE = 8
"""The number of output channels that the engines' kernels compute at a time on ARM64 (XNNPACK on x86: 16)."""

TILE_USE = 0.8
"""A convolution whose output channels fill at most this share of their tiles is called ragged, and is computed as a GEMM. In XNNPACK on x86 a 1x1
convolution of 12 output channels reaches 12 G multiply-accumulates a second, one of 16 channels 29 G, of 20 channels 15 G, and of 48 channels 36 G.
12 channels fill 0.75 of two tiles of 8, and 20 channels 0.83 of three; the limit between them was not measured alone."""

IM2COL_LIMIT = 2**20
"""The most elements of an im2col matrix: 4 MB of float32. It bounds the memory of a step; the limit was not measured alone."""

BATCHED_IM2COL_LIMIT = 2**20
"""The most elements of the im2col matrices of all output frames for which one batch of products computes all of them. In onnxruntime on ARM64 a first
convolution of 3x3x3, stride 2, on 8 frames of 32x32 (2^17 elements) takes 0.85 of the instructions of a product for each frame, one of 1x3x3 on 16
frames of 64x64 (2^19) 0.93, one of 3x3x3 on them (2^20) 1.02, and one of 1x7x7 on 8 frames of 112x112 (2^22) 0.99."""

BATCHED_WINOGRAD_LIMIT = 2**17
"""The most elements of a value that Winograd's filtering transforms by a matrix product over time instead of additions frame by frame. In onnxruntime
on ARM64 two convolutions of 3x3x3 take 0.99 of the instructions with 2^15 elements (32 channels, 16 frames of 8x8), 1.01 with 2^17, and 1.04 to
1.05 with 2^18 and 2^19. Small networks of five convolutions on 8 frames of 32x32 take 0.96 (3x3x3) and 0.81 (3x1x1)."""

NARROW_DEPTHWISE = 64
"""A depthwise 3x3x3 convolution of at most this many channels is computed with the frames side by side on the channel axis, which
makes it wide. The limit was not measured alone."""

BANDED_LIMIT = 2**7
"""A strided depthwise convolution is computed as one banded 2D convolution if the number of its input frames times that of its output frames is at
most this. With more frames most of the banded weights would be zeros. The limit was not measured alone."""

SHARED_WEIGHT_ELEMENTS = 2**16
"""The most elements of a weight that may be stored a second time. The first and last output frames have fewer temporal taps than the others. If a
convolution's taps are concatenated, these frames need a smaller copy of its weights. A convolution with more elements is computed tap by tap
instead, so that all frames share the same weights and the file of a large network stays small."""

ADDITION_COST = 8
"""The number of multiply-accumulates that take as long as adding two numbers in memory. Winograd's F(2, 3) is used if the multiplications that it
saves cost more than the additions that it needs. In onnxruntime on ARM64 an addition takes 1.8 instructions an element, and a vector FMA (four
multiply-accumulates) takes 1.36 to 1.41, so that by instructions an addition costs about 5 multiply-accumulates. The value itself was not measured
alone."""
