"""What an artifact's first output holds, and how it becomes probabilities."""

from typing import Literal, get_args

import numpy as np

from clipstep.runtime.engine import Array

Output = Literal["logits", "probabilities", "multilabel_logits", "multilabel_probabilities"]
"""What the artifact's first output, which is always called ``logits``, holds:

| value | the classes | the runtime still applies |
|---|---|---|
| `logits` | exclude each other | softmax |
| `probabilities` | exclude each other | nothing: softmax is inside |
| `multilabel_logits` | each is there or not | sigmoid |
| `multilabel_probabilities` | each is there or not | nothing: sigmoid is inside |
"""
OUTPUTS: tuple[Output, ...] = get_args(Output)


def probabilities_of(values: Array, output: Output) -> Array:
    """Probabilities ``(..., classes)`` from what the first output holds; a new array, also where nothing is to be applied."""
    if output == "logits":
        exponents = np.exp(values - values.max(axis=-1, keepdims=True))
        softmax: Array = exponents / exponents.sum(axis=-1, keepdims=True)
        return softmax
    if output == "multilabel_logits":
        sigmoid: Array = (np.tanh(values / 2) + 1) / 2  # The form 1 / (1 + exp(-x)) overflows.
        return sigmoid
    return values.copy()
