"""Every artifact of a bundle against the eager network, each in its own runtime."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from clipstep.export.interface import check_embedded
from clipstep.export.mlprogram import MlProgram
from clipstep.export.output_kind import check_output_kind
from clipstep.export.step import StepProgram
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.engines import ENGINES, Engine, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.executorch_internals import BINDING
from clipstep.runtime.golden import BOUNDS, Errors, GoldenSteps, ParityError, check_golden, flush_points, scale_of, shortest_steps
from clipstep.runtime.isolated import Child, IsolatedEngine, fresh_child
from clipstep.runtime.manifest import Artifact, Interface
from clipstep.runtime.model import StepModel
from clipstep.runtime.targets import check_file
from clipstep.runtime.terminal import Doing, not_told

GOLDEN_STEPS = 16
IMPORTS = {"onnx": "onnxruntime", "executorch": BINDING, "coreml": "clipstep.export.mlprogram"}
"""What the process that runs artifacts of a target imports first."""
GOLDEN_STATE_BYTES = 8_000_000
"""Larger states are recorded after the last steps only."""


@torch.no_grad()
def record_golden(program: StepProgram, subclips: torch.Tensor, steps: int | None = None) -> GoldenSteps:
    """Runs the eager network for ``steps`` steps of one stream over ``subclips`` ``(S, T, H, W, 3)``, again from the
    first when they are used up; after a few of them also to the end that a video would have there, where it has one.

    Unless given, there are ``GOLDEN_STEPS``, or as many as the shortest video has.
    """
    frames = len(program.frames)
    steps = steps or max(GOLDEN_STEPS, shortest_steps(program.flush, frames) if program.flush else 0)
    points, flushed = flush_points(program.flush, frames, program.delay, steps), dict[int, np.ndarray]()
    states = list(program.states.values())
    size = sum(state.nbytes for state in states)
    logits: list[np.ndarray] = []
    kept: deque[list[np.ndarray]] = deque(maxlen=max(1, min(steps, GOLDEN_STATE_BYTES // max(1, size))))
    for step in range(steps):
        out, *states = program.step(subclips[step % len(subclips)], *states)
        logits.append(out[0].numpy())
        kept.append([state.numpy() for state in states])
        if step + 1 in points:
            flushed[step + 1] = flush(program, states)[0].numpy()
    after = {name: np.stack(values) for name, values in zip(program.states, zip(*kept, strict=True), strict=True)}
    return GoldenSteps(subclips[:steps].numpy(), np.stack(logits), after, flushed)


@torch.no_grad()
def check_steps(program: StepProgram, subclips: torch.Tensor) -> tuple[int, float]:
    """Compares the eager steps of a stream with the clip network on all the frames so far, after 1, 2, 4, ... steps and the last one;
    and, where a stream is flushed, on the shortest video and on all of this one.

    ``subclips`` ``(S, T, H, W, 3)`` are taken again from the first where they are shorter than the delay, or than a window. Gives
    the number of steps and the largest error, a share of the logits' range.

    Raises:
        ParityError: they differ.
    """
    assert program.clip is not None
    states, pairs, frames = list(program.states.values()), [], len(program.frames)
    count = max(GOLDEN_STEPS, len(subclips), program.delay // frames + 4, (program.window or 0) // frames + 2)
    video = subclips[torch.arange(count) % len(subclips)]
    flushed = {shortest_steps(program.flush, frames), count} if program.flush else set()
    for step, subclip in enumerate(video, 1):
        logits, *states = program.step(subclip, *states)
        so_far = f"after {step} steps of {frames} frames"
        if not step & (step - 1) or step == count:
            pairs.append((so_far, logits, program.clip(video[:step].flatten(0, 1), False)))
        if step in flushed:
            pairs.append((f"{so_far}, flushed,", flush(program, states), program.clip(video[:step].flatten(0, 1), True)))
    return count, _largest_difference([(when, logits, expected) for when, logits, expected in pairs if expected is not None])


def flush(program: StepProgram, states: Sequence[torch.Tensor], *, told: bool = True) -> torch.Tensor:
    """The logits ``(1, classes)`` of the whole video, from the states after its last step; unless the network is ``told`` that it has
    ended, they are what a network that ignores it would give."""
    assert program.flush is not None
    ended, names = program.flush.state if told else None, program.input_names[1:]
    states = tuple(torch.ones_like(state) if name == ended else state for name, state in zip(names, states, strict=True))
    for _ in range(program.flush.steps):
        outputs: tuple[torch.Tensor, ...] = program.step(torch.zeros_like(program.frames), *states)
        states = outputs[1:]
    return outputs[0]


def _largest_difference(pairs: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> float:
    """The largest difference of logits from expected ones, each pair with the moment it is of, as a share of the range of all expected ones."""
    scale = scale_of(torch.stack([expected for _, _, expected in pairs]).numpy())
    errors = []
    for when, logits, expected in pairs:
        errors.append(float((logits - expected).abs().max()) / scale)
        if not errors[-1] <= BOUNDS["float32"]:
            raise ParityError(
                f"{when} the logits are not those of the network on all of them",
                got=f"an error of {errors[-1]:.3g} of their range",
                expected=f"at most {BOUNDS['float32']:g}",
                fix="export it without --stream",
            )
    return max(errors)


def load_for_verification(target: str, path: Path, exact: Path | None = None, child: Child | None = None) -> Engine:
    """The artifact in its own runtime; a Core ML one in our evaluator, for want of Core ML, with the weights of ``exact`` if given.

    ``child`` is the process that it is loaded into, if not this one.
    """
    check_file(target, path)
    if target == "coreml":
        if child is not None:
            given = None if exact is None else str(exact.absolute())
            return IsolatedEngine("clipstep.export.mlprogram:load_mlprogram", path, "the evaluator of ML Programs", child, exact=given)
        return MlProgram(path, exact)
    engine = next(name for name, info in ENGINES.items() if info.target == target)
    if child is not None:
        return IsolatedEngine("clipstep.runtime.engines:load_engine", path, engine, child, name=engine, threads=1)
    return load_engine(engine, path, 1)


def check_artifact(target: str, path: Path, precision: str, interface: Interface, golden: GoldenSteps, child: Child | None = None) -> Errors:
    """The artifact's largest errors over the golden steps, run in the process ``child`` if it is given.

    A float16 one is also checked to be the float32 one, which lies beside it, with rounded weights.

    Raises:
        ParityError: it is off, named by its file.
    """
    try:
        if precision == "float16":
            exact = path.with_name(TARGETS[target].file.format("float32"))
            _check(load_for_verification(target, path, exact, child), path, "float32", interface, golden)
        return _check(load_for_verification(target, path, None, child), path, precision, interface, golden)
    except ClipstepError as error:
        raise ParityError(f"{path.name}: {error}") from error


def _check(engine: Engine, path: Path, precision: str, interface: Interface, golden: GoldenSteps) -> Errors:
    with StepModel(interface, engine, path.name) as model:
        return check_golden(model, golden, precision)


def verify_bundle(bundle: Bundle, golden: GoldenSteps, doing: Doing = not_told) -> Iterator[tuple[Artifact, Errors]]:
    """Checks the artifacts that are there, one after the other, in a process of their own: the facts that they carry, and what they compute.

    Each is checked inside what ``doing`` gives for its name.

    Raises:
        ParityError: at the first one that is off or carries other facts than the manifest, or if the golden steps are too few to say,
            or are not what the manifest says of the output.
    """
    check_output_kind(bundle.manifest.output, golden.logits)
    if len(golden.logits) + bundle.manifest.golden.left_out_steps < GOLDEN_STEPS:
        raise ParityError("too few golden steps", got=len(golden.logits), expected=f"at least {GOLDEN_STEPS}", fix="export it again")
    targets = sorted({artifact.target for artifact in bundle.manifest.artifacts if artifact.file not in bundle.missing})
    with fresh_child([IMPORTS[target] for target in targets]) as child:
        for artifact in bundle.manifest.artifacts:
            if artifact.file in bundle.missing:
                continue
            interface = bundle.manifest.interface(artifact.input_dtype)
            with doing(f"verifying {artifact.file}", False):
                check_embedded(bundle, artifact, child)
                errors = check_artifact(artifact.target, bundle.file(artifact), artifact.precision, interface, golden, child)
            yield artifact, errors


def same_golden(recorded: GoldenSteps, computed: GoldenSteps) -> None:
    """Checks that golden steps in a bundle are what the eager network gives today; states of those last steps that both have.

    Raises:
        ParityError: they are not.
    """
    for (name, new), old in zip(computed.outputs.items(), recorded.outputs.values(), strict=True):
        both = min(len(old), len(new))
        difference = np.abs(old[len(old) - both :] - new[len(new) - both :]).max(initial=0)
        if not difference <= BOUNDS["float32"] * scale_of(new):
            raise ParityError(f"the bundle's golden {name} are not what the eager network computes", fix="export it again")
    for steps in recorded.flushed.keys() & computed.flushed.keys():
        if not np.abs(recorded.flushed[steps] - computed.flushed[steps]).max() <= BOUNDS["float32"] * computed.scale("logits"):
            raise ParityError(f"the bundle's golden logits of a flushed video of {steps} steps are not the eager network's", fix="export it again")
