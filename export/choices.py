"""What the commands' options may be, without PyTorch, which the tables behind these names need; a test holds both together."""

TARGETS = ("onnx", "executorch", "coreml")
FORMS = ("auto", "lowered", "3d")
PLATFORMS = ("any", "arm64", "x86_64")
INPUT_DTYPES = ("auto", "uint8", "float32")
OUTPUTS = ("logits", "probabilities", "multilabel")
