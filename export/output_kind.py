"""Infers what a network's first output holds: logits, or probabilities that softmax or sigmoid has made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipstep.export.compat.torch_internals import TorchDispatchMode
from clipstep.export.step import StepProgram
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import ParityError
from clipstep.runtime.output_kind import OutputKind

SUM_TOLERANCE = 1e-4
MOST_DOUBLINGS = 24
"""How many times the contrast of the frames is doubled at most. By then, outputs that have no bound have become large."""
SATURATED = 1e-3
"""The largest distance from 0 or 1 of an output that counts as saturated."""
aten = torch.ops.aten
SIGMOIDS = (aten.sigmoid, aten.sigmoid_, aten.hardsigmoid, aten.hardsigmoid_)
RANGE_PRESERVING = (
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
"""Operations whose results lie between 0 and 1 if their inputs do."""


def infer_output_kind(requested: str | None, program: StepProgram, logits: Array) -> OutputKind:
    """Infer what the first output holds from its values over the golden steps and from the network's last operations.

    Args:
        requested: one of `clipstep.export.choices.OUTPUT_KINDS`, or None to infer it.
        program: the step.
        logits: `(N, classes)`, the first outputs of the golden steps.

    Raises:
        ClipstepError: the outputs cannot be what was requested.
    """
    rows, exclusive = logits.sum(axis=1), _sum_to_one(logits)
    if requested == "probabilities" and not exclusive:
        raise ClipstepError(
            "--output-kind probabilities: the network's outputs are not probabilities",
            got=f"values from {logits.min():.3g} to {logits.max():.3g}, which sum to {rows.min():.4g} to {rows.max():.4g} over the classes",
            expected="values of at least 0 that sum to 1, as softmax gives them",
            fix="leave --output-kind away, or add the softmax to the network",
        )
    if requested == "multilabel" and exclusive:
        raise ClipstepError(
            "--output-kind multilabel: the network's outputs always sum to 1",
            expected="classes that do not exclude each other",
            fix="leave --output-kind away",
        )
    if requested == "logits":
        return "logits"
    if exclusive:
        return "probabilities"
    if _lie_between_0_and_1(logits) and (_ends_in(SIGMOIDS, program) or _saturates(program)):
        return "multilabel_probabilities"
    return "multilabel_logits" if requested == "multilabel" else "logits"


def check_output_kind(output: OutputKind, logits: Array) -> None:
    """Check that golden logits `(N, classes)` can be the `output` that a manifest declares.

    Raises:
        ParityError: they are declared to be probabilities, but are not.
    """
    if (output == "probabilities" and not _sum_to_one(logits)) or (output == "multilabel_probabilities" and not _lie_between_0_and_1(logits)):
        got = f"golden logits from {logits.min():.3g} to {logits.max():.3g}"
        raise ParityError(f"the manifest's output is {output}, which the golden steps are not", got=got, fix="export it again")


def _lie_between_0_and_1(logits: Array) -> bool:
    return bool((logits >= 0).all() and (logits <= 1).all())


def _sum_to_one(logits: Array) -> bool:
    return logits.shape[1] > 1 and bool((logits >= 0).all() and (abs(logits.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


@torch.no_grad()
def _ends_in(operations: Sequence[Any], program: StepProgram) -> bool:
    """Whether the last operation of the network, those in `RANGE_PRESERVING` aside, is one of `operations`."""
    with _OriginMode():  # type: ignore[no-untyped-call]
        logits = program.step(*program.inputs)[0]
    origin = getattr(logits, "clipstep_origin", None)
    while origin is not None and origin[0] in RANGE_PRESERVING:
        origin = origin[1]
    return origin is not None and origin[0] in operations


@torch.no_grad()
def _saturates(program: StepProgram) -> bool:
    """Whether frames of growing contrast drive each output to 0 or 1 and none beyond.

    A sigmoid does so, however it is written; logits that happen to lie between 0 and 1 leave that range.
    """
    frames, *states = program.inputs
    saturated = torch.zeros(1, len(program.labels), dtype=torch.bool)
    for doubled in range(MOST_DOUBLINGS):
        try:
            outputs = program.step(frames.float() * 2**doubled, *states)[0]
        except Exception:  # The network refuses such frames.
            break
        if not bool(outputs.isfinite().all()):  # exp(x) / (1 + exp(x)) overflows.
            break
        if bool((outputs < 0).any() or (outputs > 1).any()):
            return False
        saturated |= torch.minimum(outputs, 1 - outputs) <= SATURATED
    return bool(saturated.all())


class _OriginMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stores in each tensor its origin: the operation that computed it, and the origin of that operation's first input."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        before = getattr(args[0], "clipstep_origin", None) if args and isinstance(args[0], torch.Tensor) else None
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            result.clipstep_origin = (func.overloadpacket, before)  # type: ignore[attr-defined]
        return result
