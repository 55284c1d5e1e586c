"""What a network's first output holds: logits, or what softmax or sigmoid has made of them already."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipstep.export.compat.torch_internals import TorchDispatchMode
from clipstep.export.step import StepProgram
from clipstep.runtime.engines import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import ParityError
from clipstep.runtime.outputs import Output

SUM_TOLERANCE = 1e-4
MOST_DOUBLINGS = 24
"""How often the contrast of the frames is doubled: outputs that are not bounded are large by then."""
AT_AN_END = 1e-3
aten = torch.ops.aten
SQUASHING = (aten.sigmoid, aten.sigmoid_, aten.hardsigmoid, aten.hardsigmoid_)
KEEPING = (
    aten.view,
    aten._unsafe_view,
    aten.reshape,
    aten.squeeze,
    aten.unsqueeze,
    aten.permute,
    aten.transpose,
    aten.t,
    aten.clone,
    aten.detach,
    aten.alias,
    aten.slice,
    aten.select,
    aten.expand,
    aten.mean,
    aten.amax,
    aten._adaptive_avg_pool2d,
    aten._adaptive_avg_pool3d,
)
"""Operations that leave numbers between 0 and 1 there."""


def settle_output(asked: str | None, program: StepProgram, logits: Array) -> Output:
    """Decides what the first output holds: by its values over the golden steps, ``(N, classes)``, and by the network's last operations.

    ``asked`` is one of ``~clipstep.export.choices.OUTPUTS``, or None for what is recognised.

    Raises:
        ClipstepError: the outputs cannot be what was asked for.
    """
    rows, exclusive = logits.sum(axis=1), _sum_to_one(logits)
    if asked == "probabilities" and not exclusive:
        raise ClipstepError(
            "--output probabilities: the network's outputs are none",
            got=f"values from {logits.min():.3g} to {logits.max():.3g}, which sum to {rows.min():.4g} to {rows.max():.4g} over the classes",
            expected="values of at least 0 that sum to 1, as softmax gives them",
            fix="leave --output away, or add the softmax to the network",
        )
    if asked == "multilabel" and exclusive:
        raise ClipstepError(
            "--output multilabel: the network's outputs always sum to 1",
            expected="classes that do not exclude each other",
            fix="leave --output away",
        )
    if asked == "logits":
        return "logits"
    if exclusive:
        return "probabilities"
    if _are_shares(logits) and (_ends_in(SQUASHING, program) or _saturates(program)):
        return "multilabel_probabilities"
    return "multilabel_logits" if asked == "multilabel" else "logits"


def check_output_kind(said: Output, logits: Array) -> None:
    """Makes sure that outputs ``(N, classes)`` may be what a manifest says of them.

    Raises:
        ParityError: they are called probabilities, and are none.
    """
    if (said == "probabilities" and not _sum_to_one(logits)) or (said == "multilabel_probabilities" and not _are_shares(logits)):
        got = f"golden logits from {logits.min():.3g} to {logits.max():.3g}"
        raise ParityError(f"the manifest's output is {said}, which the golden steps are not", got=got, fix="export it again")


def _are_shares(logits: Array) -> bool:
    return bool((logits >= 0).all() and (logits <= 1).all())


def _sum_to_one(logits: Array) -> bool:
    return logits.shape[1] > 1 and bool((logits >= 0).all() and (abs(logits.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


@torch.no_grad()
def _ends_in(operations: Sequence[Any], program: StepProgram) -> bool:
    """Whether one of the operations makes the logits, but for those that keep numbers between 0 and 1 there."""
    with _Makers():  # type: ignore[no-untyped-call]
        logits = program.step(*program.inputs)[0]
    maker = getattr(logits, "clipstep_maker", None)
    while maker is not None and maker[0] in KEEPING:
        maker = maker[1]
    return maker is not None and maker[0] in operations


@torch.no_grad()
def _saturates(program: StepProgram) -> bool:
    """Whether frames of ever more contrast drive each output to 0 or 1 and none beyond, as a sigmoid does however it is written;
    logits that happen to lie between 0 and 1 leave that range."""
    frames, *states = program.inputs
    arrived = torch.zeros(1, len(program.labels), dtype=torch.bool)
    for doubled in range(MOST_DOUBLINGS):
        try:
            outputs = program.step(frames.float() * 2**doubled, *states)[0]
        except Exception:  # The network refuses such frames: no more can be known of it.
            break
        if not bool(outputs.isfinite().all()):  # exp(x) / (1 + exp(x)) overflows.
            break
        if bool((outputs < 0).any() or (outputs > 1).any()):
            return False
        arrived |= torch.minimum(outputs, 1 - outputs) <= AT_AN_END
    return bool(arrived.all())


class _Makers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in each tensor the operation that made it, and the same of its first input."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        before = getattr(args[0], "clipstep_maker", None) if args and isinstance(args[0], torch.Tensor) else None
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            result.clipstep_maker = (func.overloadpacket, before)  # type: ignore[attr-defined]
        return result
