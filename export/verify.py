"""Every artifact of a bundle against the eager network, each in its own runtime."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from clipstep.export.mlprogram import MlProgram
from clipstep.export.step import StepProgram
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engines import ENGINES, Engine, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import Errors, GoldenSteps, ParityError, check_golden
from clipstep.runtime.manifest import Artifact, Interface
from clipstep.runtime.model import StepModel

GOLDEN_STEPS = 16


@torch.no_grad()
def record_golden(program: StepProgram, subclips: torch.Tensor, steps: int = GOLDEN_STEPS) -> GoldenSteps:
    """Runs the eager network for ``steps`` steps of one stream over ``subclips`` ``(S, T, H, W, 3)``, again from the
    first when they are used up."""
    states = list(program.states.values())
    logits, kept = [], []
    for step in range(steps):
        out, *states = program.step(subclips[step % len(subclips)], *states)
        logits.append(out[0].numpy())
        kept.append([state.numpy() for state in states])
    return GoldenSteps(
        subclips.numpy(), np.stack(logits), {name: np.stack(values) for name, values in zip(program.states, zip(*kept, strict=True), strict=True)}
    )


def load_for_verification(target: str, path: Path) -> Engine:
    """The artifact in its own runtime; a Core ML one in our evaluator, for want of Core ML."""
    if target == "coreml":
        return MlProgram(path)
    return load_engine(next(name for name, info in ENGINES.items() if info.target == target), path, 1)


def check_artifact(target: str, path: Path, precision: str, interface: Interface, golden: GoldenSteps) -> Errors:
    """The artifact's largest errors over the golden steps.

    A float16 one is also checked to be the float32 one, which lies beside it, with rounded weights.

    Raises:
        ParityError: it is off, named by its file.
    """
    try:
        if precision == "float16":
            exact = path.with_name(TARGETS[target].file.format("float32"))
            _check(MlProgram(path, exact), path, "float32", interface, golden)
        return _check(load_for_verification(target, path), path, precision, interface, golden)
    except ClipstepError as error:
        raise ParityError(f"{path.name}: {error}") from error


def _check(engine: Engine, path: Path, precision: str, interface: Interface, golden: GoldenSteps) -> Errors:
    with StepModel(interface, engine, path.name) as model:
        return check_golden(model, golden, precision)


def verify_bundle(bundle: Bundle, golden: GoldenSteps) -> Iterator[tuple[Artifact, Errors]]:
    """Checks the artifacts one after the other.

    Raises:
        ParityError: at the first one that is off, or if the golden steps are too few to say.
    """
    if len(golden.logits) < GOLDEN_STEPS:
        raise ParityError("too few golden steps", got=len(golden.logits), expected=f"at least {GOLDEN_STEPS}", fix="export it again")
    for artifact in bundle.manifest.artifacts:
        interface = bundle.manifest.interface(artifact.input_dtype)
        yield artifact, check_artifact(artifact.target, bundle.path / artifact.file, artifact.precision, interface, golden)


def same_golden(recorded: GoldenSteps, computed: GoldenSteps) -> None:
    """Checks that golden steps in a bundle are what the eager network gives today.

    Raises:
        ParityError: they are not.
    """
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]] = [
        ("logits", recorded.logits, computed.logits), *((name, recorded.states[name], computed.states[name]) for name in computed.states),
    ]  # fmt: skip
    for name, old, new in pairs:
        if old.shape != new.shape or not np.allclose(old, new, rtol=0, atol=1e-4):
            raise ParityError(f"the bundle's golden {name} are not what the eager network computes", fix="export it again")
