"""The interface of a step: what the manifest says of it, and what is embedded in each artifact as metadata.

It is made from the network at export, and compared with the artifacts and the network by `clipstep verify`.
"""

from collections.abc import Mapping
from typing import Any

from clipstep.export.output_kind import infer_output_kind
from clipstep.export.step import StepProgram
from clipstep.export.stream.averaging import averages_over_all_frames
from clipstep.network.preprocess import RGB
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.artifact_info import READER, ArtifactInfo
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.embedded_metadata import check_embedded_metadata, differences
from clipstep.runtime.bundle.manifest import Artifact, Input, Interface, KeptOutput, Manifest, State
from clipstep.runtime.engine import Array
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import ParityError
from clipstep.runtime.output_kind import OutputKind
from clipstep.runtime.targets import check_artifact_file
from clipstep.runtime.worker_process import WorkerProcess


def interface_of(spec: NetworkSpec, program: StepProgram, name: str, output_kind: OutputKind) -> Interface:
    """Return the interface of a step: its inputs, states, outputs and labels.

    The manifest has one number for all elements of an initial state, as the step contract asks for.
    """
    states = [
        State(name=state, shape=tuple(value.shape), dtype="float32", initial=float(value.flatten()[0])) for state, value in program.states.items()
    ]
    return Interface(
        name=name,
        input=_input_of(spec, program),
        states=tuple(states),
        outputs=tuple(program.output_names),
        kept_outputs=tuple(KeptOutput(name=output, shape=output_shape) for output, output_shape in program.kept.items()),
        labels=program.labels,
        delay_frames=program.delay,
        flush=program.flush,
        temporal_average=program.temporal_average or ("cumulative" if averages_over_all_frames(program) else None),
        window_frames=program.window,
        output_kind=output_kind,
    )


def _input_of(spec: NetworkSpec, program: StepProgram) -> Input:
    given, shape = spec.input, tuple(program.frames.shape)
    if given.kind == "video":
        return Input(shape=shape, dtype="uint8", color="RGB" if shape[-1] == RGB else "flow", mean=spec.mean, std=spec.std, fps=spec.fps)
    return Input(
        kind=given.kind,
        shape=shape,
        dtype=given.dtype,
        layout=given.layout,
        color=None,
        channels=given.channels,
        mean=spec.mean,
        std=spec.std,
        fps=spec.fps,
        crop=None,
        resize=None,
    )


def check_embedded(bundle: Bundle, artifact: Artifact, worker: WorkerProcess) -> None:
    """Check that the metadata embedded in an artifact, which describes the file where it is used without its bundle, says what the manifest says.

    The process `worker` reads the file.

    Raises:
        ParityError: there is no such metadata, or it differs.
        ClipstepError: the file cannot be read, or the metadata does not fit its inputs and outputs.
    """
    path = bundle.file(artifact)
    check_artifact_file(artifact.target, path)
    embedded = ArtifactInfo.model_validate_json(worker.call(READER, path, f"the reader of {path.suffix} files")).interface
    if embedded is None:
        raise ParityError(f"{artifact.file}: carries no clipstep metadata", expected="that of the manifest", fix="export it again")
    try:
        check_embedded_metadata(bundle.manifest.interface(artifact.input_dtype), embedded, artifact.file)
    except ClipstepError as error:
        raise ParityError(str(error)) from error


def check_network(manifest: Manifest, spec: NetworkSpec, program: StepProgram, logits: Array) -> None:
    """Check that the interface in the manifest is the network's.

    `logits` `(N, classes)` are the network's over the golden steps; from them it is inferred whether its output is logits or probabilities.

    Raises:
        ParityError: something differs.
    """
    requested = {"logits": "logits", "probabilities": "probabilities"}.get(manifest.output_kind, "multilabel")
    try:
        output_kind = infer_output_kind(requested, program, logits)
    except ClipstepError as error:
        raise ParityError(f"the manifest says that the outputs are {manifest.output_kind}, but the network's are not: {error}") from error
    own = interface_of(spec, program, manifest.name, output_kind)
    if manifest.temporal_average is None:  # Written by an earlier version.
        own = own.model_copy(update={"temporal_average": None})
    for key, got, expected in differences(manifest.interface(own.input.dtype), own):
        raise ParityError(f"the manifest's {key} is not the network's", got=got, expected=expected, fix="export it again")


def check_given(manifest: Manifest, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Compare what a user gives of their own network with the manifest, and return the names of the values that are None.

    `given` holds `labels`, `mean`, `std` and `fps`.

    Raises:
        ParityError: one differs.
    """
    recorded = {"labels": manifest.labels, "mean": manifest.input.mean, "std": manifest.input.std, "fps": manifest.input.fps}
    for name, value in given.items():
        if value is not None and value != recorded[name]:
            raise ParityError(f"the manifest's {name} is not what --{name} says", got=recorded[name], expected=value, fix="export it again")
    return tuple(name for name, value in given.items() if value is None)
