"""Compares the artifacts of a bundle with golden steps, each in its own runtime."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from clipstep.export.golden_steps import GOLDEN_STEPS
from clipstep.export.interface import check_embedded
from clipstep.export.output_kind import check_output_kind
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle import Bundle, this_machine
from clipstep.runtime.bundle.manifest import Artifact, Interface
from clipstep.runtime.command_line.terminal import ProgressReporter, no_progress
from clipstep.runtime.engine import Engine
from clipstep.runtime.engine_info import EngineInfo
from clipstep.runtime.engines import engine_of, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.float16_processor import computes_float16
from clipstep.runtime.golden import GoldenErrors, GoldenSteps, ParityError, check_golden
from clipstep.runtime.isolated_engine import IsolatedEngine
from clipstep.runtime.model import StepModel
from clipstep.runtime.precision import FLOAT16_ARITHMETIC, FLOATS
from clipstep.runtime.targets import check_artifact_file
from clipstep.runtime.worker_process import WorkerProcess, fresh_worker


def runtime_of(target: str) -> str:
    """Return the name of the runtime that verifies artifacts of a target: an engine, or clipstep's own evaluator."""
    evaluator = TARGETS[target].evaluator
    return _engine(target).display_name if evaluator is None else evaluator.display_name


def runtime_name(target: str) -> str:
    """Return the name of the runtime that runs artifacts of a target on this computer, as manifests have it."""
    evaluator = TARGETS[target].evaluator
    return _engine(target).name if evaluator is None else evaluator.display_name


def runtime_module(target: str) -> str:
    """Return the module that a process imports before it verifies artifacts of that target."""
    evaluator = TARGETS[target].evaluator
    return _engine(target).module if evaluator is None else evaluator.module


def _engine(target: str) -> EngineInfo:
    info = engine_of(target)
    assert info is not None, f"{target} has neither an engine nor an evaluator"
    return info


def load_for_verification(target: str, path: Path, exact: Path | None = None, worker: WorkerProcess | None = None) -> Engine:
    """Load an artifact into the engine on this computer that runs its target, or into the target's own evaluator.

    An evaluator uses the weights of the float32 artifact `exact`, if given. `worker` is the process that loads it, if not this one.

    Raises:
        ClipstepError: it cannot be loaded.
    """
    check_artifact_file(target, path)
    evaluator = TARGETS[target].evaluator
    if evaluator is None:
        engine = _engine(target).name
        if worker is None:
            return load_engine(engine, path, 1)
        return IsolatedEngine("clipstep.runtime.engines:load_engine", path, engine, worker, name=engine, threads=1)
    given = None if exact is None else str(exact.absolute())
    if worker is not None:
        return IsolatedEngine(evaluator.load, path, evaluator.name, worker, exact=given)
    module, _, function = evaluator.load.partition(":")
    loaded: Engine = getattr(importlib.import_module(module), function)(path, given)
    return loaded


def check_artifact(
    target: str, path: Path, precision: str, interface: Interface, golden: GoldenSteps, worker: WorkerProcess | None = None
) -> GoldenErrors:
    """Return the largest errors of an artifact over the golden steps, run in the process `worker` if it is given.

    An artifact of lower precision of a target with an evaluator is first run without rounding, with the weights of the float32 artifact if that is
    beside it, and must then stay within the float32 bound: the two may differ by rounding alone, and compressed weights must be what those of float32
    give. An engine rounds in any case.

    Raises:
        ParityError: the artifact is off; the message names its file.
    """
    try:
        if precision in FLOAT16_ARITHMETIC and TARGETS[target].evaluator is None and not computes_float16(this_machine()):
            raise ClipstepError("it cannot be verified here, because this processor does not compute in float16", fix="do it on one that does")
        exact = path.with_name(path.name.replace(precision, "float32"))
        if precision != "float32" and TARGETS[target].evaluator is not None and exact.exists():
            _check(load_for_verification(target, path, exact, worker), path, "float32", interface, golden)
        return _check(load_for_verification(target, path, None, worker), path, precision, interface, golden)
    except ClipstepError as error:
        too_few = "256 numbers are too few for the ranges of this network's values: take float16, or --float32-layers N for its worst layers"
        if precision == "dynamic8":
            too_few = "256 numbers are too few for the values of a frame in this network: take float16"
        elif precision in TARGETS[target].weight_precisions:
            too_few = "so few bits are too few for the weights of this network: take more, or float16"
        fix = too_few if precision not in FLOATS else None
        raise ParityError(f"{path.name}: {error}", fix=fix) from error


def _check(engine: Engine, path: Path, precision: str, interface: Interface, golden: GoldenSteps) -> GoldenErrors:
    with StepModel(interface, engine, path.name) as model:
        return check_golden(model, golden, precision)


def verify_bundle(bundle: Bundle, golden: GoldenSteps, progress: ProgressReporter = no_progress) -> Iterator[tuple[Artifact, GoldenErrors]]:
    """Check the artifacts that are not missing, one after the other, in another process: the metadata embedded in them, and what they compute.

    Each is checked inside the context that `progress` returns for its name.

    Raises:
        ParityError: an artifact is off, or its embedded metadata is not the manifest's; there are too few golden steps, or they do not fit
            what the manifest says of the output.
    """
    check_output_kind(bundle.manifest.output_kind, golden.logits)
    if len(golden.logits) + bundle.manifest.golden.omitted_steps < GOLDEN_STEPS:
        raise ParityError("too few golden steps", got=len(golden.logits), expected=f"at least {GOLDEN_STEPS}", fix="export it again")
    targets = sorted({artifact.target for artifact in bundle.manifest.artifacts if artifact.file not in bundle.missing})
    with fresh_worker([runtime_module(target) for target in targets]) as worker:
        for artifact in bundle.manifest.artifacts:
            if artifact.file in bundle.missing:
                continue
            interface = bundle.manifest.interface(artifact.input_dtype)
            with progress(f"verifying {artifact.file}", False):
                check_embedded(bundle, artifact, worker)
                errors = check_artifact(artifact.target, bundle.file(artifact), artifact.precision, interface, golden, worker)
            yield artifact, errors
