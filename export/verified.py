"""A bundle compared with its network: what ``clipstep verify`` and ``clipstep.export.verify`` do."""

from dataclasses import dataclass
from pathlib import Path

import torch

from clipstep.export.interface import check_network
from clipstep.export.reference import reference_program_of
from clipstep.export.verification import GOLDEN_STEPS, check_steps, record_golden, same_golden, verify_bundle
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS, GoldenSteps
from clipstep.runtime.terminal import Doing, not_told

RUNTIMES = {"onnx": "onnxruntime", "executorch": "ExecuTorch", "coreml": "own evaluator"}
"""What runs the artifacts of a target here; Core ML itself runs on Apple devices only."""


@dataclass(frozen=True)
class VerifiedArtifact:
    """An artifact that computes what the eager network does, and its largest errors over all steps and outputs."""

    file: str
    target: str
    runtime: str
    max_absolute_error: float
    max_relative_error: float
    """A share of the output's range."""
    bound: float
    """What the relative error may be at most."""


@dataclass(frozen=True)
class StreamCheck:
    """Steps of a stream compared with the clip network on all frames so far, or on the newest ``window`` of them."""

    steps: int
    frames: int
    """New frames a step."""
    window: int | None
    delay: int
    """How many frames a prediction is behind the newest one."""
    flushed: bool
    """Whether the end of a video was compared, too."""
    max_relative_error: float


@dataclass(frozen=True)
class VerifyResult:
    """What was verified of a bundle."""

    bundle: Path
    steps: int
    """Consecutive steps of one stream; a reset comes after them."""
    artifacts: tuple[VerifiedArtifact, ...]
    missing: tuple[str, ...]
    """Artifacts of the manifest that are not there, and so were not verified."""
    extra: tuple[str, ...]
    """Files that the manifest does not name, and nothing reads."""
    flushed_after_steps: tuple[int, ...] | None
    """After how many steps the end of a video was compared; None if the network has nothing to say of it."""
    undetected_faults: tuple[str, ...]
    """Faults that the golden steps do not detect."""
    stream: StreamCheck | None = None

    def check_whole(self) -> None:
        """Raises:
        ClipstepError: an artifact is missing.
        """
        if self.missing:
            raise ClipstepError(
                f"{self.bundle}: not verified, for it is missing: {', '.join(self.missing)}", fix="copy the bundle again, whole, or export it without"
            )


@dataclass(frozen=True)
class Reference:
    """The golden steps that artifacts are compared with, and what was found out while they were computed."""

    golden: GoldenSteps
    stream: StreamCheck | None = None


def fresh_reference(bundle: Bundle, spec: NetworkSpec, video: Path | None) -> Reference:
    """Golden steps of the eager network, computed anew: on the bundle's golden frames, where they have to be what was recorded, or on
    those of a video.

    Raises:
        ParityError: the network does not compute the bundle's golden steps, or is not what the manifest says of it.
        VideoError: the video cannot be used.
    """
    golden = GoldenSteps.of(bundle)
    program = reference_program_of(bundle, spec, check=True)
    subclips = torch.from_numpy(golden.subclips)
    fresh = record_golden(program, subclips, len(golden.logits))
    check_network(bundle.manifest, spec, program, fresh.logits)
    same_golden(golden, fresh)
    if video is not None:
        frames, size, _, channels = program.frames.shape
        subclips = read_subclips(video, frames, size, channels)
    stream = None
    if program.clip is not None:
        steps, error = check_steps(program, subclips)
        stream = StreamCheck(steps, len(program.frames), program.window, program.delay, program.flush is not None, error)
    return Reference(fresh if video is None else record_golden(program, subclips, max(GOLDEN_STEPS, len(subclips))), stream)


def verify_opened(bundle: Bundle, reference: Reference, doing: Doing = not_told) -> VerifyResult:
    """Verifies the artifacts that are there, each inside what ``doing`` gives for its name.

    Raises:
        ParityError: one is not what the reference is.
    """
    manifest, golden = bundle.manifest, reference.golden
    verified = tuple(
        VerifiedArtifact(artifact.file, artifact.target, RUNTIMES[artifact.target], errors.absolute, errors.relative, BOUNDS[artifact.precision])
        for artifact, errors in verify_bundle(bundle, golden, doing)
    )
    return VerifyResult(
        bundle.path,
        len(golden.logits),
        verified,
        tuple(artifact.file for artifact in manifest.artifacts if artifact.file in bundle.missing),
        tuple(bundle.extra),
        tuple(golden.flushed) if manifest.flush else None,
        tuple(manifest.golden.undetected_faults),
        reference.stream,
    )
