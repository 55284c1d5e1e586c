"""The models of `manifest.json`, which describes a bundle. Its JSON Schema is `manifest.schema.json` in this folder."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from clipstep.runtime.bundle.artifacts import (
    Accuracy,
    AgainstFloat32,
    Arm64Step,
    Artifact,
    CompressedWeights,
    Count,
    Drift,
    NotDelegated,
    Parity,
    Placement,
    Requires,
    SensitiveLayer,
    Sha256,
    Target,
    Tuning,
    inside,
)
from clipstep.runtime.bundle.choice import Budget, Choice, MeasuredVariant, TriedPrecision
from clipstep.runtime.bundle.interface import CHANNEL_LENGTH, LAYOUTS, Flush, Input, Interface, KeptOutput, Model, Positive, State, Version
from clipstep.runtime.checks.limits import check_choices, check_files

__all__ = [
    "CHANNEL_LENGTH",
    "LAYOUTS",
    "RESERVED",
    "Accuracy",
    "AgainstFloat32",
    "Arm64Step",
    "Artifact",
    "Budget",
    "Choice",
    "CompressedWeights",
    "Drift",
    "Export",
    "FactoryProvenance",
    "Flush",
    "FrameSource",
    "Golden",
    "Input",
    "Interface",
    "KeptOutput",
    "Manifest",
    "MeasuredVariant",
    "ModuleProvenance",
    "NotDelegated",
    "Parity",
    "Placement",
    "Provenance",
    "Requires",
    "RunProvenance",
    "SensitiveLayer",
    "State",
    "Target",
    "TriedPrecision",
    "Tuning",
]

RESERVED = ("manifest.json", "signature.json")
"""The files of the bundle format itself, which cannot be artifacts."""
FrameSource = Literal["run_sample", "sample", "video", "synthetic"]
"""Where sample frames are from: the training videos of a run, a tensor given to `export` in Python, a video given at export, or
drawn scenes (`clipstep.runtime.synthetic_frames`)."""


class Golden(Model):
    """The file of the golden steps."""

    file: Annotated[str, AfterValidator(inside)]
    size_bytes: Positive
    sha256: Sha256
    frame_sources: tuple[FrameSource, ...] = ()
    """Where the frames are from, in their order; empty if it is not known."""
    undetected_faults: tuple[str, ...] = ()
    """The export tests the golden steps with deliberate faults. These are the faults that the steps do not detect, because every output stays
    within the bound."""
    recorded_by: str | None = None
    """What computed the expected outputs, if it was not the eager network at export."""
    omitted_steps: Count = 0
    """How many of the last recorded steps a pack leaves out."""


class _Origin(Model):
    """What the manifest says of the origin of any network."""

    source: str
    """Where the network came from. It is information for people; nothing opens or imports it."""
    weights_sha256: Sha256
    """The SHA-256 of the weights themselves, which does not depend on the file that held them: it is computed over the tensors of the
    state_dict in order of name, over the line `NAME DTYPE SHAPE` and then the bytes of each."""
    config: dict[str, int]
    """The numbers that the network was built with; `frames` is the number of frames of a subclip."""
    weights_source: str | None = None
    """Where the weights are from if clipstep did not train them: the name of a file, `factory` (the user's code set them), `module` (they
    were in memory), or `random`."""
    weights_key: str | None = None
    """The key of the state dict that was chosen, if that file holds several."""


class RunProvenance(_Origin):
    """The network is a run of `clipstep train` or `clipstep convert`; `source` is its folder as it was named at export."""

    kind: Literal["run"]
    architecture: str
    training: dict[str, Any]
    """The summary of the training; empty where there was none."""


class FactoryProvenance(_Origin):
    """The network was made by a factory; `source` is `package.module:factory`."""

    kind: Literal["factory"]


class ModuleProvenance(_Origin):
    """The network was a module in memory; `source` is the name of its class."""

    kind: Literal["module"]


Provenance = Annotated[RunProvenance | FactoryProvenance | ModuleProvenance, Field(discriminator="kind")]
"""Where the network came from."""


class Export(Model):
    """How the bundle was made."""

    clipstep_version: str
    stream_frames: Positive | None = None
    """The number of new frames a step, if a clip network was exported with `--stream`."""
    multiply_accumulates: Count | None = None
    """The multiply-accumulates of the convolutions and linear layers in one step of the network, before it is lowered."""
    adapters: tuple[str, ...] = ()
    """The adapters that the network was wrapped in by `--adapter`, in their order, such as `pathways:4`."""
    network_outputs: dict[str, str] = Field(default={})
    """Where the logits and the kept outputs are in what the network returns, if it returns more than its logits and its states: by the name of
    the output, its key or its position, such as `logits` or `1`; parts of nested values are joined by dots. Empty if it returns no more."""


class Manifest(Interface):
    """The content of `manifest.json`: the interface of the step, the artifacts, the golden steps, and where the network came from."""

    schema_version: Version
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    golden: Golden
    provenance: Provenance
    export: Export
    choices: tuple[Choice, ...] = ()
    """What `clipstep export --tune` tried and chose, for each target and platform."""

    @model_validator(mode="after")
    def _names_each_file_once(self) -> "Manifest":
        kinds = [(artifact.target, artifact.platform, artifact.precision) for artifact in self.artifacts]
        check_files([*(artifact.file for artifact in self.artifacts), self.golden.file], kinds, RESERVED)
        check_choices([(choice.target, choice.platform, choice.precision) for choice in self.choices], kinds)
        return self

    def __repr__(self) -> str:
        return f"<Manifest {self.name}: {self.summary()}; {', '.join(artifact.file for artifact in self.artifacts)}>"

    def with_artifacts(self, artifacts: Sequence[Artifact]) -> "Manifest":
        """Return the manifest with some of its artifacts, and the choices of those that are among them."""
        kinds = {(artifact.target, artifact.platform, artifact.precision) for artifact in artifacts}
        choices = tuple(choice for choice in self.choices if (choice.target, choice.platform, choice.precision) in kinds)
        return self.model_copy(update={"artifacts": tuple(artifacts), "choices": choices})

    @property
    def architecture(self) -> str:
        """The architecture of a run; for other networks their source."""
        return self.provenance.architecture if isinstance(self.provenance, RunProvenance) else self.provenance.source

    @property
    def training(self) -> dict[str, Any]:
        """The summary of the training; empty if clipstep did not train the network."""
        return self.provenance.training if isinstance(self.provenance, RunProvenance) else {}

    def text(self) -> str:
        """Return the text of the file."""
        return self.model_dump_json(indent=2) + "\n"

    def interface(self, input_dtype: str) -> Interface:
        """Return the part that is embedded in an artifact whose input has that type."""
        values = self.model_dump(include=set(Interface.model_fields))
        values["input"]["dtype"] = input_dtype
        return Interface.model_validate(values)
