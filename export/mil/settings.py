"""What the functions that compute ML Program operations share: reading settings, and refusing those that are not known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clipstep.runtime.errors import ClipstepError

Numbers = Sequence[int] | Tensor
"""A list of integers or booleans, as the evaluator passes constant settings, or a tensor that holds them."""
Value = Tensor | float
"""A tensor, or a number: a constant of rank 0."""


def numbers(values: Numbers) -> list[int]:
    return [int(value) for value in values]


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise ClipstepError(f"a setting this evaluator does not know: {what}")


def paddings(pad_type: str, pad: Numbers, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial axis; `kernel` is its extent with dilation.

    `same` gives ceil(size / stride) outputs, and puts an odd element of padding after the axis, `same_lower` before it.
    """
    expect(pad_type in ("valid", "custom", "same", "same_lower"), f"pad_type {pad_type}")
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        amounts = numbers(pad)
        return list(zip(amounts[::2], amounts[1::2], strict=True))
    totals = [max(0, (-(-size // step) - 1) * step + extent - size) for size, extent, step in zip(sizes, kernel, strides, strict=True)]
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return list(zip(smaller, larger, strict=True) if pad_type == "same" else zip(larger, smaller, strict=True))


def torch_padding(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return paddings in the order of `torch.nn.functional.pad`: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def tensor(value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)
