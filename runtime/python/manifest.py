"""``manifest.json``: what a bundle says of itself. Its JSON Schema is ``manifest.schema.json`` beside this file."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from clipstep.runtime.checks.limits import check_files, check_labels, check_shapes, check_states
from clipstep.runtime.format_version import OF_THIS_MAJOR, SCHEMA_VERSION
from clipstep.runtime.outputs import Output
from clipstep.runtime.targets import TARGETS
from clipstep.runtime.wording import counted, either

RESERVED = ("manifest.json", "signature.json")
"""The bundle's own files."""


def _inside(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or path.parts in ((), (".",)) or any(c in "\\:" or ord(c) < 32 for c in file):
        raise ValueError("must name a file inside the bundle")
    return file


def _target(name: str) -> str:
    if name not in TARGETS:
        raise ValueError(f"{name!r} is not {either(tuple(TARGETS))}")
    return name


Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=OF_THIS_MAJOR)]
PerChannel = Annotated[tuple[float, ...], Field(min_length=2, max_length=3)]
Target = Annotated[str, AfterValidator(_target), WithJsonSchema({"enum": list(TARGETS), "type": "string"})]
"""The name of a target, an entry of ``clipstep.runtime.targets.TARGETS``."""


GoldenContent = Literal["run sample", "given", "video", "synthetic"]
"""Frames of the run's training videos, of a video that was given at export, or moving patterns that were drawn for the purpose."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(_Model):
    """The frames of one step in 0..255: ``(T, H, W, 3)`` RGB, or ``(T, H, W, 2)`` optical flow, pixels to the right and down.

    Normalisation happens inside the artifact, once.
    """

    name: Literal["frames"] = "frames"
    shape: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    dtype: Literal["uint8", "float32"]
    layout: Literal["THWC"] = "THWC"
    color: Literal["RGB", "flow"] = "RGB"
    mean: PerChannel
    """Subtracted inside the artifact, a channel, in 0..255."""
    std: PerChannel
    """Divided by inside the artifact, a channel, in 0..255."""
    fps: Annotated[float, Field(ge=1e-3, le=1e4)]
    """The nominal frame rate: that of the training videos."""
    frame_stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Every how many frames of a video one is used."""
    crop: Literal["center_square"] = "center_square"
    resize: Literal["triangle"] = "triangle"
    tail: Literal["drop"] = "drop"
    """What becomes of a video's last frames that do not fill a subclip."""

    @model_validator(mode="after")
    def _channels_agree(self) -> "Input":
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        channels = {"RGB": 3, "flow": 2}[self.color]
        if {self.shape[-1], len(self.mean), len(self.std)} != {channels}:
            raise ValueError(f"the channels of shape, mean and std must be {channels} for {self.color}")
        return self


class State(_Model):
    """A tensor that carries the past from step to step. The output of the next one is called ``NAME_out``."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(max_length=4)]
    dtype: Literal["float32"]
    initial: float
    """The value of every element before a video's first step."""


class Flush(_Model):
    """How a step is told that the video has ended, so that what it still has to say of the last frames is said."""

    state: str
    """The state that the caller sets to 1 after the video's last step."""
    steps: Annotated[int, Field(ge=1, le=10_000)]
    """After so many more steps, on frames of zeros that are not looked at, the logits are those of the whole video."""
    min_frames: Positive
    """The shortest video of which the network says something."""


class Interface(_Model):
    """What a lone artifact needs to be used; also embedded in each artifact."""

    schema_version: Version = SCHEMA_VERSION
    """The version of the format, MAJOR.MINOR."""
    name: str
    input: Input
    states: tuple[State, ...]
    outputs: tuple[str, ...]
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    delay_frames: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many frames the newest output that a prediction takes in is behind the newest frame; before, there is none."""
    output: Output = "logits"
    """What the first output holds, and so what the runtime still applies to get probabilities: softmax, sigmoid, or nothing."""
    flush: Flush | None = None
    """What a stream does at the end of a video; None is nothing, because the last step has said everything, or cannot."""
    average: Literal["all", "window"] | None = None
    """What predictions are the mean of, as far as is known: all frames so far, so that a camera that runs for long shows no new
    scene any more; or a window of the newest ones."""
    window_frames: Positive | None = None
    """How many frames that window has."""

    @model_validator(mode="after")
    def _flush_names_a_state(self) -> "Interface":
        if self.flush is not None and self.flush.state not in {state.name for state in self.states}:
            raise ValueError(f"flush names the state {self.flush.state}, which is not among the states")
        if (self.window_frames is not None) != (self.average == "window"):
            raise ValueError("window_frames is given if, and only if, average is window")
        return self

    @property
    def frames_needed(self) -> int:
        """How many frames a video must have for a prediction, those that the frame stride leaves out among them."""
        frames = self.input.shape[0]
        used = (self.delay_frames // frames + 1) * frames if self.flush is None else -(-self.flush.min_frames // frames) * frames
        return (used - 1) * self.input.frame_stride + 1

    @model_validator(mode="after")
    def _can_be_run(self) -> "Interface":
        check_shapes(self.input.shape, [state.shape for state in self.states])
        check_states([state.name for state in self.states], self.outputs, [state.initial for state in self.states])
        check_labels(self.labels)
        return self

    def facts(self) -> str:
        """What a step takes and gives, in a few words."""
        frames, height, width, _ = self.input.shape
        numbers = f"{counted(len(self.states), 'state')}, {counted(len(self.labels), 'label')}"
        return f"{counted(frames, 'frame')} of {width}x{height} a step, {numbers}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.facts()}>"

    def __str__(self) -> str:
        return repr(self)


class Placement(_Model):
    """Where the nodes of an artifact run: how many in which delegate, and the names of those outside all of them."""

    delegated: dict[str, int]
    outside: tuple[str, ...]


class Parity(_Model):
    """How close an artifact is to its reference over the golden steps, and the bound that it was held to."""

    reference: str
    steps: Positive
    max_absolute_error: float
    max_relative_error: float
    """Largest error of an output divided by its range over the golden steps, in the reference."""
    bound: str


class Accuracy(_Model):
    """How right an artifact is, run by its own engine on the videos of a test list."""

    data: str
    """The data set's folder and the list, as they were named."""
    engine: str
    videos: Positive
    crops: Positive
    """Over how many crops of a video the probabilities were averaged."""
    top1: Share
    top5: Share | None


class Arm64Step(_Model):
    """What one step of an artifact costs on ARM64 in its engine, one thread: what was executed, not time."""

    engine: str
    engine_version: str
    golden_steps: Positive
    """Over how many steps the outputs were compared; the counts are of the median step after the first."""
    instructions: Positive
    vector_fmas: Count
    """Single-precision, four multiply-accumulates each."""
    loads: Count
    stores: Count


class Tuning(_Model):
    """How an artifact was written in several ways, measured, and the cheapest kept."""

    unit: Literal["ms", "M ARM64 instructions"]
    """The unit of ``measured``, for a step on one thread."""
    chosen: str
    measured: dict[str, float]

    def __str__(self) -> str:
        return f"{self.chosen} chosen of {', '.join(f'{way} {cost:.4g}' for way, cost in self.measured.items())} {self.unit}"


AtLeast = Annotated[str, Field(pattern=r"^>=[0-9]+(\.[0-9]+)*$")]


class Requires(_Model):
    """What an artifact's file is written in, and the lowest versions of what runs it."""

    opset: Positive | None = None
    """ONNX's operator set."""
    ir_version: Positive | None = None
    """The version of the ONNX file format."""
    specification_version: Positive | None = None
    """The version of the Core ML file format."""
    onnxruntime: AtLeast | None = None
    executorch: AtLeast | None = None
    ios: AtLeast | None = None
    macos: AtLeast | None = None

    def __str__(self) -> str:
        formats = (("opset", self.opset), ("IR version", self.ir_version), ("specification version", self.specification_version))
        runtimes = (("onnxruntime", self.onnxruntime), ("ExecuTorch", self.executorch), ("iOS", self.ios), ("macOS", self.macos))
        return ", ".join(f"{name} {value}" for name, value in (*formats, *runtimes) if value is not None)


class Artifact(_Model):
    """One file of one target."""

    target: Target
    platform: Literal["any", "arm64", "x86_64"]
    form: Literal["3d", "lowered"]
    precision: Literal["float32", "float16"]
    file: Annotated[str, AfterValidator(_inside)]
    size_bytes: Positive
    sha256: Sha256
    """The SHA-256 of the file; of a folder, that of its ``sha256  path`` lines in order of path."""
    tool_versions: dict[str, str]
    placement: Placement
    input_dtype: Literal["uint8", "float32"]
    parity: Parity
    accuracy: Accuracy | None = None
    arm64_step: Arm64Step | None = None
    tuning: Tuning | None = None
    requires: Requires | None = None
    """None in bundles of earlier versions."""


class Golden(_Model):
    """The golden steps' file."""

    file: Annotated[str, AfterValidator(_inside)]
    size_bytes: Positive
    sha256: Sha256
    content: tuple[GoldenContent, ...] = ()
    """What the frames are, in their order; empty where nobody noted it."""
    undetected_faults: tuple[str, ...] = ()
    """The faults, of those that export tries, that these steps do not detect: they leave every output within the bound."""
    outputs_by: str | None = None
    """What computed the expected outputs, where it was not the eager network at export."""
    left_out_steps: Count = 0
    """How many of the last steps were left out when the bundle was packed."""


class _Origin(_Model):
    """What is said of any network that was exported."""

    source: str
    """Where it came from, for people: nothing opens or imports it."""
    weights_sha256: Sha256
    """The SHA-256 of the network's weights: of each tensor of its state_dict, in order of name, ``NAME DTYPE SHAPE`` and its bytes."""
    config: dict[str, int]
    """The numbers that the network was built with; ``frames`` are those of a subclip."""
    weights: str | None = None
    """Where the weights are from, if not from training here: a file's name, ``factory`` (the user's own code), ``module`` (in
    memory), or ``random``."""
    weights_key: str | None = None
    """The key of that file that was chosen."""


class RunProvenance(_Origin):
    """A run of ``clipstep train`` or ``clipstep convert``; ``source`` is its folder as it was named at export."""

    kind: Literal["run"]
    architecture: str
    training: dict[str, Any]
    """The summary of the training; empty where there was none."""


class FactoryProvenance(_Origin):
    """What a factory made; ``source`` is ``package.module:factory``."""

    kind: Literal["factory"]


class ModuleProvenance(_Origin):
    """A module that was in memory; ``source`` is the name of its class."""

    kind: Literal["module"]


Provenance = Annotated[RunProvenance | FactoryProvenance | ModuleProvenance, Field(discriminator="kind")]
"""Where the network came from."""


class Export(_Model):
    """How the bundle was made of the network."""

    clipstep_version: str
    stream_frames: Positive | None = None
    """The new frames a step, where a clip network was made into steps."""
    multiply_accumulates: Count | None = None
    """Multiply-accumulates of the network's convolutions and linear layers in one step, before any rewriting."""


class Manifest(Interface):
    """``manifest.json``."""

    schema_version: Version
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    golden: Golden
    provenance: Provenance
    export: Export

    @model_validator(mode="after")
    def _names_each_file_once(self) -> "Manifest":
        kinds = [(artifact.target, artifact.platform, artifact.precision) for artifact in self.artifacts]
        check_files([*(artifact.file for artifact in self.artifacts), self.golden.file], kinds, RESERVED)
        return self

    def __repr__(self) -> str:
        return f"<Manifest {self.name}: {self.facts()}; {', '.join(artifact.file for artifact in self.artifacts)}>"

    @property
    def architecture(self) -> str:
        """The name of the network: a run's architecture, else where it came from."""
        return self.provenance.architecture if isinstance(self.provenance, RunProvenance) else self.provenance.source

    @property
    def training(self) -> dict[str, Any]:
        """The summary of the training; empty where clipstep did not train the network."""
        return self.provenance.training if isinstance(self.provenance, RunProvenance) else {}

    def text(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=2) + "\n"

    def interface(self, input_dtype: str) -> Interface:
        """The part that is embedded in an artifact with that input type."""
        values = self.model_dump(include=set(Interface.model_fields))
        values["input"]["dtype"] = input_dtype
        return Interface.model_validate(values)
