"""Parse protocol buffers without generated code, which the base install does not have for ONNX.

A generated parser keeps only the last value of a field that occurs several times. A check has to see all of them, as this one does.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from clipstep.runtime.errors import ClipstepError

DEPTH = 100
"""How deep messages may be nested: protobuf's own limit."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Schema = Mapping[str, Mapping[int, str]]
"""For each kind of message, which of its fields hold messages: the field's number, and the kind of message in it. Other fields are not parsed
further."""


class Field(NamedTuple):
    """A field of a message: a number, or bytes."""

    number: int
    value: int | memoryview

    @property
    def text(self) -> str:
        """The value as a string; empty if it is a number."""
        return bytes(self.value).decode("utf-8", "replace") if isinstance(self.value, memoryview) else ""


class Message(NamedTuple):
    """A message, its kind, and its fields in order."""

    kind: str
    fields: tuple[Field, ...]

    def all(self, number: int) -> list[Field]:
        return [field for field in self.fields if field.number == number]

    def text(self, number: int) -> str:
        """Return the last string in that field, which is the one that readers use."""
        return next((field.text for field in reversed(self.fields) if field.number == number), "")


def messages(data: bytes | memoryview, kind: str, schema: Schema, depth: int = 0) -> Iterator[Message]:
    """Yield the message in `data`, and then all messages that the schema finds within it.

    Raises:
        ClipstepError: a field ends outside its message, or messages are nested too deep.
    """
    if depth > DEPTH:
        raise ClipstepError("messages are nested too deep", expected=f"at most {DEPTH}")
    message = Message(kind, tuple(_fields(memoryview(data))))
    yield message
    kinds = schema.get(kind, {})
    for field in message.fields:
        inner = kinds.get(field.number)
        if inner is not None:
            if not isinstance(field.value, memoryview):
                raise ClipstepError(f"field {field.number} of {kind} is no message")
            yield from messages(field.value, inner, schema, depth + 1)


def _fields(data: memoryview) -> Iterator[Field]:
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield Field(number, value)
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ClipstepError("not a protocol buffer", got=f"wire type {wire} at byte {at}")
        if at + size > end:
            raise ClipstepError(f"field {number} ends outside its message", got=f"{size} bytes", expected=f"at most {end - at}")
        yield Field(number, data[at : at + size])
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:  # Most numbers have one byte.
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ClipstepError("not a protocol buffer", got=f"a number without an end at byte {at}")
