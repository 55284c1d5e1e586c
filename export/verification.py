"""The verification of a bundle: what `clipstep verify` and `clipstep.export.verify` do."""

from dataclasses import dataclass
from pathlib import Path

import torch

from clipstep.export.golden_steps import GOLDEN_STEPS, check_steps, record_golden, same_golden
from clipstep.export.interface import check_network
from clipstep.export.parity import runtime_of, verify_bundle
from clipstep.export.reference import reference_program_of
from clipstep.export.turns import one_at_a_time
from clipstep.network.spec import NetworkSpec
from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.terminal import ProgressReporter, no_progress
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS, GoldenSteps


@dataclass(frozen=True)
class VerifiedArtifact:
    """An artifact that computes what the eager network computes within its bound, and its largest errors over all steps and outputs."""

    file: str
    target: str
    precision: str
    runtime: str
    """What ran it: an engine, or clipstep's own evaluator."""
    max_absolute_error: float
    max_relative_error: float
    """A share of the output's range."""
    bound: float
    """The largest relative error that is allowed."""


@dataclass(frozen=True)
class StreamCheck:
    """The steps of a stream compared with the clip network on all frames so far, or on the newest `window` of them."""

    steps: int
    frames: int
    """The number of new frames in a step."""
    window: int | None
    delay: int
    """How many of the newest frames a prediction does not take in yet."""
    flushed: bool
    """Whether the flushed logits at the end of a video were compared too."""
    max_relative_error: float


@dataclass(frozen=True)
class VerifyResult:
    """What the verification of a bundle found."""

    bundle: Path
    steps: int
    """How many consecutive steps of one stream were compared; a reset follows them."""
    artifacts: tuple[VerifiedArtifact, ...]
    missing: tuple[str, ...]
    """The files of artifacts that the manifest names and that are missing, so that they were not verified."""
    extra: tuple[str, ...]
    """Files that the manifest does not name and that nothing reads."""
    flushed_after_steps: tuple[int, ...] | None
    """After how many steps flushed logits were compared; None if a stream of this network is not flushed at the end of a video."""
    undetected_faults: tuple[str, ...]
    """The mistakes that the golden steps would not show."""
    stream: StreamCheck | None = None

    def check_whole(self) -> None:
        """Check that no artifact is missing.

        Raises:
            ClipstepError: one is.
        """
        if self.missing:
            raise ClipstepError(
                f"{self.bundle}: not verified, because these are missing: {', '.join(self.missing)}",
                fix="copy the bundle again, whole, or export it without",
            )


@dataclass(frozen=True)
class Reference:
    """The golden steps that artifacts are compared with, and the comparison with the clip network if they were computed anew."""

    golden: GoldenSteps
    stream: StreamCheck | None = None


@one_at_a_time()
def fresh_reference(bundle: Bundle, spec: NetworkSpec, video: Path | None) -> Reference:
    """Compute golden steps anew with the eager network, on the bundle's golden frames or on those of a video.

    On the golden frames the network must compute what was recorded, in either case.

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
        if (given := bundle.manifest.input).kind != "video":
            raise ClipstepError("--video: the bundle takes no videos", got=f"a bundle for {given.content}", fix="verify it on its golden frames")
        frames, size, _, channels = program.frames.shape
        subclips = read_subclips(video, frames, size, channels)
    stream = None
    if program.clip is not None:
        steps, error = check_steps(program, subclips)
        stream = StreamCheck(steps, len(program.frames), program.window, program.delay, program.flush is not None, error)
    return Reference(fresh if video is None else record_golden(program, subclips, max(GOLDEN_STEPS, len(subclips))), stream)


def verify_opened(bundle: Bundle, reference: Reference, progress: ProgressReporter = no_progress) -> VerifyResult:
    """Verify the artifacts that are not missing, each inside the context that `progress` returns for its name.

    Raises:
        ParityError: one does not compute what the reference computes.
    """
    manifest, golden = bundle.manifest, reference.golden
    verified = tuple(
        VerifiedArtifact(
            artifact.file,
            artifact.target,
            artifact.precision,
            runtime_of(artifact.target),
            errors.absolute,
            errors.relative,
            BOUNDS[artifact.precision],
        )
        for artifact, errors in verify_bundle(bundle, golden, progress)
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
