"""Check that an ONNX file is self-contained: it refers to no other file, and to no operator that onnxruntime does not have itself."""

from collections.abc import Iterator
from pathlib import Path

from clipstep.runtime.checks.protobuf import Field, Message, Schema, messages
from clipstep.runtime.errors import ClipstepError

SCHEMA: Schema = {
    "ModelProto": {7: "GraphProto", 8: "OperatorSetIdProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto", 23: "SparseTensorProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
"""The fields of onnx.proto3 that can contain a tensor or a node, at any depth."""
DIMS, RAW_DATA, TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 9, 8, 13, 14
OP_TYPE, DOMAIN = 4, 7
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
STANDARD = ("", "ai.onnx")
LARGEST_TENSOR = 1 << 31


def check_onnx(path: Path) -> None:
    """Check every graph, subgraph, function and sparse tensor of an ONNX file.

    Raises:
        ClipstepError: a tensor lies in another file, or claims more numbers than a file can hold; an operator is neither standard nor a
            function that the file defines; or the file is not a protocol buffer.
    """
    functions, operators = set(), set()
    for message in _messages(path):
        if message.kind == "TensorProto":
            _check_tensor(path, message)
        elif message.kind == "NodeProto":
            operators.add((message.text(DOMAIN), message.text(OP_TYPE)))
        elif message.kind == "FunctionProto":
            functions.add((message.text(FUNCTION_DOMAIN), message.text(FUNCTION_NAME)))
    foreign = sorted("::".join(operator) for operator in operators - functions if operator[0] not in STANDARD)
    if foreign:
        raise ClipstepError(
            f"{path}: has operators that are not ONNX's own",
            got=", ".join(foreign),
            expected="only standard operators, and functions that the file defines",
            fix="export it again",
        )


def _messages(path: Path) -> Iterator[Message]:
    """Yield the messages one at a time, because all of them would take more memory than the file."""
    try:
        yield from messages(path.read_bytes(), "ModelProto", SCHEMA)
    except ClipstepError as error:
        raise ClipstepError(f"{path}: is not an ONNX file", got=str(error), fix="export it again") from error


def _check_tensor(path: Path, tensor: Message) -> None:
    name = tensor.text(TENSOR_NAME) or "a tensor"
    if tensor.all(EXTERNAL_DATA) or any(field.value for field in tensor.all(DATA_LOCATION)):
        raise ClipstepError(f"{path}: {name} lies in another file", expected="one file with all its weights", fix="save it without external data")
    count = 1
    for size in (size for field in tensor.all(DIMS) for size in _sizes(field)):
        count *= size
        if not 0 <= count < LARGEST_TENSOR:
            raise ClipstepError(f"{path}: {name} claims more numbers than a file can hold", expected=f"less than {LARGEST_TENSOR}")


def _sizes(field: Field) -> list[int]:
    """Return the values of a repeated number: one, or several that are packed into bytes."""
    if isinstance(field.value, int):
        return [field.value]
    packed, sizes = bytes(field.value), []
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            sizes.append(value)
            value = shift = 0
    return sizes
