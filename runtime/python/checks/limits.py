"""Check the numbers and names in a manifest, whose types are checked elsewhere, so that no manifest can exhaust memory or be ambiguous."""

import math
from collections.abc import Iterable, Sequence

TENSOR_BYTES = 1 << 30
"""The largest size of a step's frames and states together, which a runtime keeps for each stream."""
BYTES_PER_NUMBER = 4
LARGEST_FLOAT32 = 3.4028235e38
STATES, LABELS, LABEL_LENGTH, FILE_LENGTH = 256, 100_000, 1000, 80


def check_shapes(frames: Sequence[int], states: Iterable[Sequence[int]]) -> None:
    """Check the memory that the frames and states of one stream need, and raise ValueError if it is too much for any phone."""
    needed = sum(math.prod(shape) for shape in (frames, *states)) * BYTES_PER_NUMBER
    if needed > TENSOR_BYTES:
        raise ValueError(f"frames and states must fit into {TENSOR_BYTES} bytes, not {float(needed):.3g}")


def check_states(names: Sequence[str], outputs: Sequence[str], initials: Sequence[float], kept: Sequence[str] = ()) -> None:
    """Check names and initial values, and raise ValueError unless the names of all inputs and outputs differ, the outputs are the logits,
    then each next state and then each of `kept`, and the initial values are float32 numbers."""
    for what, given in (("states", names), ("kept outputs", kept)):
        if len(given) > STATES:
            raise ValueError(f"there may be {STATES} {what}, not {len(given)}")
    expected = ("logits", *(f"{name}_out" for name in names), *kept)
    if tuple(outputs) != expected:
        raise ValueError(f"outputs must be {', '.join(expected)[:200]}")
    if "" in (*names, *kept) or len({"frames", *names, *expected}) != 2 + 2 * len(names) + len(kept):
        raise ValueError("the names of frames, states and outputs must not be empty, and differ from each other")
    if any(abs(value) > LARGEST_FLOAT32 for value in initials):
        raise ValueError("an initial value must be a float32 number")


def check_labels(labels: Sequence[str]) -> None:
    """Check the labels, and raise ValueError if one is empty or too long, or if there are too many."""
    if len(labels) > LABELS:
        raise ValueError(f"there may be {LABELS} labels, not {len(labels)}")
    for index, label in enumerate(labels):
        if not label.strip() or len(label) > LABEL_LENGTH:
            raise ValueError(f"label {index} must have 1 to {LABEL_LENGTH} characters, not {len(label.strip())}")


def check_files(files: Sequence[str], kinds: Sequence[tuple[str, str, str]], reserved: Sequence[str]) -> None:
    """Check the files of a manifest, of which the last is that of the golden steps.

    Raises:
        ValueError: a file has a reserved or too long name, or lies inside another file; an artifact and the golden steps have the same file; or
            two artifacts are for the same target, platform and precision.
    """
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


def check_choices(choices: Sequence[tuple[str, str, str]], kinds: Sequence[tuple[str, str, str]]) -> None:
    """Check the choices of a manifest, each a target, platform and precision as those of its artifacts are.

    Raises:
        ValueError: one is not an artifact of the manifest, or there are two for the same target and platform.
    """
    for choice in choices:
        if choice not in kinds:
            raise ValueError(f"there is no artifact for {', '.join(choice)}, which was chosen")
        if [other[:2] for other in choices].count(choice[:2]) > 1:
            raise ValueError(f"there are two choices for {', '.join(choice[:2])}")
