"""The choices of the commands' options, in a file that imports no PyTorch; a test checks that they are those of the code."""

TARGETS = ("onnx", "executorch", "coreml")
FORMS = ("auto", "lowered", "3d")
PLATFORMS = ("any", "arm64", "x86_64")
INPUT_DTYPES = ("auto", "uint8", "float32")
OUTPUTS = ("logits", "probabilities", "multilabel")
OPSETS = range(13, 21)
"""ONNX's operator sets that are written, the last one unless another is asked for."""
IOS = (15, 16, 17, 18)
"""The versions of iOS that Core ML models are written for."""
IOS_DEFAULT = 17
