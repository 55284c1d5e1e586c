"""What numbers and names in a manifest may be, beyond their types: a manifest that passes cannot exhaust memory or be taken for another."""

import math
from collections.abc import Iterable, Sequence

TENSOR_BYTES = 1 << 30
"""The most that a step's frames and states may take together: a runtime keeps them for each stream."""
BYTES_PER_NUMBER = 4
LARGEST_FLOAT32 = 3.4028235e38
STATES, LABELS, LABEL_LENGTH, FILE_LENGTH = 256, 100_000, 1000, 80


def check_shapes(frames: Sequence[int], states: Iterable[Sequence[int]]) -> None:
    """Raises ValueError if the frames and states of one stream need more memory than any phone would give them."""
    needed = sum(math.prod(shape) for shape in (frames, *states)) * BYTES_PER_NUMBER
    if needed > TENSOR_BYTES:
        raise ValueError(f"frames and states must fit into {TENSOR_BYTES} bytes, not {float(needed):.3g}")


def check_states(names: Sequence[str], outputs: Sequence[str], initials: Sequence[float]) -> None:
    """Raises ValueError unless the names of all inputs and outputs differ, the outputs are the logits and then each next state, and
    the initial values are float32 numbers."""
    if len(names) > STATES:
        raise ValueError(f"there may be {STATES} states, not {len(names)}")
    expected = ("logits", *(f"{name}_out" for name in names))
    if tuple(outputs) != expected:
        raise ValueError(f"outputs must be {', '.join(expected)[:200]}")
    if "" in names or len({"frames", *names, *expected}) != 2 + 2 * len(names):
        raise ValueError("the names of frames, states and outputs must not be empty, and differ from each other")
    if any(abs(value) > LARGEST_FLOAT32 for value in initials):
        raise ValueError("an initial value must be a float32 number")


def check_labels(labels: Sequence[str]) -> None:
    """Raises ValueError if a label is empty or longer than any name, or there are too many."""
    if len(labels) > LABELS:
        raise ValueError(f"there may be {LABELS} labels, not {len(labels)}")
    for index, label in enumerate(labels):
        if not label.strip() or len(label) > LABEL_LENGTH:
            raise ValueError(f"label {index} must have 1 to {LABEL_LENGTH} characters, not {len(label.strip())}")


def check_files(files: Sequence[str], kinds: Sequence[tuple[str, str, str]], reserved: Sequence[str]) -> None:
    """Raises ValueError if a file is one of the bundle's own, or lies in another one; if the last one, the golden steps, is an artifact too;
    or if two artifacts are for the same target, platform and precision."""
    *artifacts, golden = (tuple(part for part in file.split("/") if part not in ("", ".")) for file in files)
    distinct = [*dict.fromkeys(artifacts), golden]
    for one, this in enumerate(distinct):
        if len("/".join(this)) > FILE_LENGTH:
            raise ValueError(f"a file's name may have {FILE_LENGTH} characters, not {len('/'.join(this))}")
        if this[0] in reserved:
            raise ValueError(f"{this[0]} cannot be an artifact")
        if any(other[: len(this)] == this for two, other in enumerate(distinct) if one != two):
            raise ValueError(f"{'/'.join(this)} is named twice")
    twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two artifacts for {', '.join(twice)}")
