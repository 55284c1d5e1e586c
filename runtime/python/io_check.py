"""Compare an artifact's inputs and outputs with the manifest: what its file declares at load, what a step is given, and what it returns."""

from collections.abc import Sequence

import numpy as np

from clipstep.runtime.artifact_io import ArtifactIO
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError, EngineError

SHOWN = 4
Described = tuple[str | None, str, tuple[int, ...]]


def as_array(value: object, dtype: str, shape: tuple[int, ...], name: str) -> Array:
    """Return `value` as a contiguous array.

    Raises:
        ClipstepError: it is not an array of exactly that type and shape.
    """
    if not isinstance(value, np.ndarray):
        raise ClipstepError(f"{name} must be a numpy array", got=type(value).__name__, expected=f"{dtype} {shape}")
    if value.dtype != dtype or value.shape != shape:
        raise ClipstepError(f"{name} has the wrong shape or type", got=f"{value.dtype} {value.shape}", expected=f"{dtype} {shape}")
    return np.ascontiguousarray(value)


def expected_tensors(interface: Interface) -> tuple[list[Described], list[Described]]:
    """Return the name, type and shape of each input of a step, and of each output, as the manifest states them."""
    spec = interface.input
    inputs: list[Described] = [(spec.name, spec.dtype, spec.shape), *((s.name, s.dtype, s.shape) for s in interface.states)]
    states: list[Described] = [(f"{s.name}_out", s.dtype, s.shape) for s in interface.states]
    kept: list[Described] = [(output.name, output.dtype, output.shape) for output in interface.kept_outputs]
    return inputs, [("logits", "float32", (1, len(interface.labels))), *states, *kept]


def check_io(declared: ArtifactIO, interface: Interface, file: str) -> None:
    """Compare what a file declares with the manifest. Names are compared if its format has them.

    Raises:
        ClipstepError: they differ.
    """
    for what, expected, found in zip(("input", "output"), expected_tensors(interface), (declared["inputs"], declared["outputs"]), strict=True):
        if len(found) != len(expected):
            raise ClipstepError(f"{file}: does not fit the manifest", got=f"{len(found)} {what}s", expected=f"{len(expected)}", fix="export it again")
        for (name, dtype, shape), wanted in zip(found, expected, strict=True):
            got = (name or wanted[0], dtype, tuple(shape))
            if got != wanted:
                raise ClipstepError(f"{file}: an {what} does not fit the manifest", got=_words(got), expected=_words(wanted), fix="export it again")


def check_outputs(outputs: Sequence[Array], expected: Sequence[Described], file: str) -> None:
    """Compare the outputs of a step with the manifest: a file may return something else than it declares.

    Raises:
        ClipstepError: the number of outputs, a type or a shape differs.
    """
    if len(outputs) != len(expected):
        raise ClipstepError(f"{file}: a step gave another number of outputs", got=len(outputs), expected=len(expected), fix="export it again")
    for value, (name, dtype, shape) in zip(outputs, expected, strict=True):
        if value.shape != shape or value.dtype != dtype:
            got, wanted = _words((name, str(value.dtype), value.shape)), _words((name, dtype, shape))
            raise ClipstepError(f"{file}: a step gave another output than the manifest says", got=got, expected=wanted, fix="export it again")


def check_finite(logits: Array, file: str) -> None:
    """Check that logits are finite.

    Raises:
        EngineError: one of them is infinite or NaN.
    """
    if not np.isfinite(logits).all():
        raise EngineError(
            f"{file}: a step gave logits that are not finite",
            got=", ".join(f"{value:g}" for value in logits[:SHOWN]),
            fix="run clipstep verify: the file is damaged, or its precision is too small for these frames",
        )


def _words(value: Described) -> str:
    return f"{value[0]} {value[1]} {value[2]}"
