"""What an artifact's first output holds, and its conversion to probabilities."""

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from clipstep.runtime.engine import Array

OutputKind = Literal["logits", "probabilities", "multilabel_logits", "multilabel_probabilities"]
"""What the artifact's first output, which is always called `logits`, holds:

| value | classes | the runtime applies |
|---|---|---|
| `logits` | exclude each other | softmax |
| `probabilities` | exclude each other | nothing: softmax is part of the artifact |
| `multilabel_logits` | are independent | sigmoid |
| `multilabel_probabilities` | are independent | nothing: sigmoid is part of the artifact |
"""
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)


def probabilities_of(values: "Array", output: OutputKind) -> "Array":
    """Return probabilities `(..., classes)` from the first output, as a new array."""
    import numpy as np  # Not above: a bundle can then be opened before numpy is imported.

    if output == "logits":
        exponents = np.exp(values - values.max(axis=-1, keepdims=True))
        softmax: Array = exponents / exponents.sum(axis=-1, keepdims=True)
        return softmax
    if output == "multilabel_logits":
        sigmoid: Array = (np.tanh(values / 2) + 1) / 2  # 1 / (1 + exp(-x)) would overflow.
        return sigmoid
    return values.copy()
