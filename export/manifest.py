"""Makes the manifest of a new bundle, which describes each artifact, the golden steps and the network."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from clipstep.export.golden_faults import AssessedGolden
from clipstep.export.step import StepProgram
from clipstep.export.targets.target import Target
from clipstep.export.variants import Written
from clipstep.network.count import count_macs
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.manifest import Artifact, Export, Golden, Interface, Manifest, Parity
from clipstep.runtime.golden import GoldenErrors, bound_text


def artifact_of(target: Target, platform: str, precision: str, input_dtype: str, path: Path, written: Written, errors: GoldenErrors) -> Artifact:
    """Describe an artifact that was written to `path`, and verified with those errors."""
    return Artifact.model_validate(
        {
            "target": target.name,
            "platform": platform,
            "form": written.variant.form,
            "precision": precision,
            "file": path.name,
            "size_bytes": tree_size(path),
            "sha256": tree_sha256(path),
            "tool_versions": target.tool_versions(),
            "placement": written.placement,
            "input_dtype": input_dtype,
            "parity": Parity(
                reference=f"eager PyTorch {torch.__version__}, float32",
                steps=errors.steps,
                max_absolute_error=errors.absolute,
                max_relative_error=errors.relative,
                bound=bound_text(precision),
            ),
            "tuning": written.tuning,
            "requires": target.load_writer().requires(path, precision),
        }
    )


def manifest_of(
    spec: NetworkSpec,
    program: StepProgram,
    stream_frames: int | None,
    interface: Interface,
    artifacts: Sequence[Artifact],
    recorded: AssessedGolden,
    golden_file: Path,
) -> Manifest:
    """Describe a bundle: the network, its artifacts, and the golden steps, which are in `golden_file`."""
    return Manifest(
        **interface.model_dump(),
        artifacts=tuple(artifacts),
        golden=Golden(
            file=golden_file.name,
            size_bytes=tree_size(golden_file),
            sha256=tree_sha256(golden_file),
            frame_sources=recorded.frame_sources,
            undetected_faults=recorded.undetected_faults,
        ),
        provenance=spec.provenance,
        export=Export(
            clipstep_version=version("clipstep"),
            stream_frames=stream_frames,
            multiply_accumulates=count_macs(program.step, *program.inputs),
            adapters=spec.adapters,
            network_outputs=program.choice.paths,
        ),
    )
