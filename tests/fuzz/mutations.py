"""Mutations: seeded damage to bytes, and to the values of a JSON document."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEAD = 2048
"""The length of a file's start, which holds its structure and gets half of the damage."""


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to four mutations."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if found:
            rng.choice(BYTES)(found, _place(found, rng), rng)
    return bytes(found)


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), HEAD) if rng.random() < 0.5 else len(data))


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _word(data: bytearray, at: int, rng: random.Random) -> None:
    at -= at % 4
    value = struct.pack("<I", rng.choice(EDGES) if rng.random() < 0.7 else rng.randrange(1 << 32))
    data[at : at + 4] = value[: len(data) - at]


def _cut(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at : at + rng.randrange(1, 65)]


def _insert(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = rng.randbytes(rng.randrange(1, 65))


def _repeat(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = data[at : at + rng.randrange(1, 257)]


def _zeros(data: bytearray, at: int, rng: random.Random) -> None:
    size = min(rng.randrange(1, 65), len(data) - at)
    data[at : at + size] = bytes(size)


def _swap(data: bytearray, at: int, rng: random.Random) -> None:
    size, other = rng.randrange(1, 17), rng.randrange(len(data))
    one, two = data[at : at + size], data[other : other + size]
    data[at : at + size], data[other : other + size] = two[: len(one)].ljust(len(one), b"\0"), one[: len(two)].ljust(len(two), b"\0")


BYTES: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    _flip,
    _flip,
    _flip,
    _byte,
    _byte,
    _word,
    _word,
    _word,
    _cut,
    _remove,
    _insert,
    _repeat,
    _zeros,
    _swap,
)

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2,
    3,
    10**3,
    10**5,
    10**6,
    2**31 - 1,
    2**31,
    2**32,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(2**63),
    0.5,
    -0.0,
    1e-320,
    1e-45,
    1e30,
    1e38,
    1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
    10**400,
)
STRINGS = (
    "",
    " ",
    "a",
    "\n",
    "a\nb",
    "\0",
    "\x1b[2J\x1b[31m",
    "\u202egnp.exe",
    "[/bold]",
    "[bold",
    "[link=http://x]y[/link]",
    "%s%n",
    "{0}",
    "../x",
    "/etc/passwd",
    "a/../../b",
    "C:\\x",
    "manifest.json",
    "golden.safetensors",
    "step.onnx",
    "x" * 5000,
    "é" * 300,
    "\ud800",
    "\ufeffa",
    "frames",
    "logits",
    "nan",
    "1",
    "os:abort",
    "any",
    "onnx",
    "float16",
    "float64",
    "uint8",
    "RGB",
    "flow",
    "0" * 64,
)

DEEP = "nested too deep for any reader"


def damaged_json(text: str, rng: random.Random) -> bytes:
    """Return a JSON document with one to four values changed, or sometimes with its text damaged."""
    if rng.random() < 0.15:
        return damaged(text.encode(), rng)
    document = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        document = _changed(document, rng)
    out = json.dumps(document, ensure_ascii=rng.random() < 0.5).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    if rng.random() < 0.03:
        out = out.replace("{", '{"name": "twice", "name": "twice",', 1)
    return out.encode("utf-8", "surrogatepass")


def _changed(document: Any, rng: random.Random) -> Any:
    """Walk down from the root to a random value and replace it."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice(list(document))
        what = rng.random()
        if what < 0.06:
            del document[key]
        elif what < 0.1:
            document[rng.choice(STRINGS)] = document[key]
        else:
            document[key] = _changed(document[key], rng)
        return document
    if isinstance(document, list) and document and rng.random() < 0.8:
        index = rng.randrange(len(document))
        what = rng.random()
        if what < 0.1:
            del document[index]
        elif what < 0.2:
            document.insert(index, document[rng.randrange(len(document))])
        elif what < 0.25:
            document.extend(document * rng.choice((1, 10, 1000)))
        else:
            document[index] = _changed(document[index], rng)
        return document
    return _other(document, rng)


def _other(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return rng.choice((None, True, [], {}, [[]], {"a": 1}, DEEP, _deep(rng.choice((10, 40, 150))), *NUMBERS[:5], *STRINGS[:5]))
    if isinstance(value, bool | int | float):
        return rng.choice((value * 2, value + 1, value - 1, -value, str(value), *NUMBERS))
    if isinstance(value, str):
        return rng.choice((value + "x", value[1:], value.upper(), value + rng.choice(STRINGS), *STRINGS))
    return rng.choice((value, None, *NUMBERS, *STRINGS))


def _deep(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value
