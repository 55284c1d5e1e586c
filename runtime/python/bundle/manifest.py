"""The models of `manifest.json`, which describes a bundle. Its JSON Schema is `manifest.schema.json` in this folder."""

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from clipstep.runtime.bundle.format_version import OF_THIS_MAJOR, SCHEMA_VERSION
from clipstep.runtime.checks.limits import check_files, check_labels, check_shapes, check_states
from clipstep.runtime.output_kind import OutputKind
from clipstep.runtime.targets import TARGETS
from clipstep.runtime.wording import counted, either

CHANNEL_LENGTH = 80
"""The largest number of characters in the name of a channel."""
LAYOUTS = {"video": ("THWC",), "images": ("THWC",), "joints": ("TVC", "TMVC")}
"""The layouts of each kind of input; a letter is an axis: time, height, width, channels, persons (M), joints (V)."""
RESERVED = ("manifest.json", "signature.json")
"""The files of the bundle format itself, which cannot be artifacts."""


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
PerChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=256)]
Target = Annotated[str, AfterValidator(_target), WithJsonSchema({"enum": list(TARGETS), "type": "string"})]
"""The name of a target, an entry of `clipstep.runtime.targets.TARGETS`."""


FrameSource = Literal["run_sample", "sample", "video", "synthetic"]
"""Where sample frames are from: the training videos of a run, a tensor given to `export` in Python, a video given at export, or
drawn scenes (`clipstep.runtime.synthetic_frames`)."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(_Model):
    """The frames of one step. They are not normalised: the artifact does that itself.

    | `kind` | `layout` | a frame |
    |---|---|---|
    | `video` | `THWC` | RGB in 0..255, or optical flow of two channels, shifted and scaled to 0..255 |
    | `images` | `THWC` | an image of other channels, such as depth, on the network's own scale |
    | `joints` | `TVC` | the V joints of a skeleton, C numbers each; in the layout `TMVC` those of M persons |
    """

    name: Literal["frames"] = "frames"
    kind: Literal["video", "images", "joints"] = "video"
    shape: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=4)]
    dtype: Literal["uint8", "float32"]
    layout: Literal["THWC", "TVC", "TMVC"] = "THWC"
    color: Literal["RGB", "flow"] | None = "RGB"
    """What the channels of a video are; None for other kinds."""
    channels: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """The names of the channels of images, or of the numbers of a joint; empty for a video, whose `color` says it."""
    mean: PerChannel
    """What the artifact subtracts from each channel, on the scale of the frames: 0..255 for a video."""
    std: PerChannel
    """What the artifact then divides each channel by, on the same scale."""
    fps: Annotated[float, Field(ge=1e-3, le=1e4)]
    """The nominal frame rate: that of the training videos."""
    frame_stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    """One frame of the video in this many is used: with 2, every second frame."""
    crop: Literal["center_square"] | None = "center_square"
    """How frames of a video become square; None for other kinds, whose frames have the shape of `shape` already."""
    resize: Literal["triangle"] | None = "triangle"
    """How frames of a video get the network's size; None for other kinds."""
    tail: Literal["drop"] = "drop"
    """What happens to the last frames of a video if they do not fill a step: they are dropped."""

    @model_validator(mode="after")
    def _kind_agrees(self) -> "Input":
        video = self.kind == "video"
        if self.layout not in LAYOUTS[self.kind] or len(self.layout) != len(self.shape):
            raise ValueError(f"a shape of {len(self.shape)} numbers and the layout {self.layout} are not those of {self.kind}")
        if any((value is not None) != video for value in (self.color, self.crop, self.resize)) or bool(self.channels) == video:
            raise ValueError(f"color, crop and resize are given for a video, and channels for other kinds, but this is {self.kind}")
        if self.kind == "joints" and self.dtype != "float32":
            raise ValueError("joints are float32")
        if len(set(self.channels)) < len(self.channels) or not all(name.strip() and len(name) <= CHANNEL_LENGTH for name in self.channels):
            raise ValueError(f"the names of channels must differ from each other, and have 1 to {CHANNEL_LENGTH} characters")
        return self

    @model_validator(mode="after")
    def _channels_agree(self) -> "Input":
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        channels = {"RGB": 3, "flow": 2}[self.color] if self.color is not None else len(self.channels)
        if {self.shape[-1], len(self.mean), len(self.std)} != {channels}:
            raise ValueError(f"the channels of shape, mean and std must be {channels} for {self.color or self.kind}")
        return self

    @property
    def takes_video(self) -> bool:
        """Whether the frames are RGB, as decoders and cameras give them."""
        return self.color == "RGB"

    @property
    def frame_size(self) -> str:
        """The size of a frame in a few words, such as `112x112` or `2 x 25 joints`."""
        if self.kind == "joints":
            return f"{' x '.join(map(str, self.shape[1:-1]))} joints"
        return f"{self.shape[2]}x{self.shape[1]}"

    @property
    def content(self) -> str:
        """What the frames are in a few words, such as `RGB frames` or `joints (x, y, score)`."""
        if self.color is not None:
            return "RGB frames" if self.color == "RGB" else "optical flow"
        return f"{self.kind} ({', '.join(self.channels)})"


class State(_Model):
    """A tensor passed from step to step. The output that holds its next value is called `NAME_out`."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(max_length=4)]
    dtype: Literal["float32"]
    initial: float
    """The value of every element before a video's first step."""


class KeptOutput(_Model):
    """An output of a step beside its logits and its next states, such as an embedding or the logits of another head."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4)]
    dtype: Literal["float32"] = "float32"


class Flush(_Model):
    """How to get the prediction for the last frames of a video from a network with a delay."""

    state: str
    """The state that the caller sets to 1 after the last step of the video."""
    steps: Annotated[int, Field(ge=1, le=10_000)]
    """How many more steps to run after that, on frames of zeros, which are ignored; then the logits are those of the whole video."""
    min_frames: Positive
    """How many frames the shortest video has for which the network gives a prediction."""


class Interface(_Model):
    """What a caller needs to know to run an artifact. It is part of the manifest, and embedded in each artifact as metadata."""

    schema_version: Version = SCHEMA_VERSION
    """The version of the format, MAJOR.MINOR."""
    name: str
    input: Input
    states: tuple[State, ...]
    outputs: tuple[str, ...]
    """The names of the outputs in the order in which artifacts give them: `logits`, then each next state, then each of `kept_outputs`."""
    kept_outputs: tuple[KeptOutput, ...] = ()
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    delay_frames: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """By how many frames predictions lag behind the newest frame. The first prediction comes once more frames than that were seen."""
    output_kind: OutputKind = "logits"
    """What the first output, `logits`, holds, which decides whether the runtime applies softmax, sigmoid or nothing to get probabilities."""
    flush: Flush | None = None
    """What to do at the end of a video. None if there is nothing to do: the last step's prediction is final, or the network cannot flush."""
    temporal_average: Literal["cumulative", "sliding_window"] | None = None
    """Which frames a prediction is the mean over, if that is known. `cumulative`: all frames so far, so that after a camera has run for long, a
    new scene hardly changes the prediction. `sliding_window`: the newest `window_frames`."""
    window_frames: Positive | None = None
    """The size of the sliding window, in frames."""

    @model_validator(mode="after")
    def _flush_names_a_state(self) -> "Interface":
        if self.flush is not None and self.flush.state not in {state.name for state in self.states}:
            raise ValueError(f"flush names the state {self.flush.state}, which is not among the states")
        if (self.window_frames is not None) != (self.temporal_average == "sliding_window"):
            raise ValueError("window_frames is given if, and only if, temporal_average is sliding_window")
        return self

    @property
    def frames_needed(self) -> int:
        """The least number of frames that a video must have for a prediction, including those that the frame stride skips."""
        frames = self.input.shape[0]
        used = (self.delay_frames // frames + 1) * frames if self.flush is None else -(-self.flush.min_frames // frames) * frames
        return (used - 1) * self.input.frame_stride + 1

    @model_validator(mode="after")
    def _can_be_run(self) -> "Interface":
        check_shapes(self.input.shape, [*(state.shape for state in self.states), *(output.shape for output in self.kept_outputs)])
        names, kept = [state.name for state in self.states], [output.name for output in self.kept_outputs]
        check_states(names, self.outputs, [state.initial for state in self.states], kept)
        check_labels(self.labels)
        return self

    def summary(self) -> str:
        """Return a step's frames, states and labels in a few words."""
        frames = self.input.shape[0]
        numbers = f"{counted(len(self.states), 'state')}, {counted(len(self.labels), 'label')}"
        kept = f", {counted(len(self.kept_outputs), 'kept output')}" if self.kept_outputs else ""
        return f"{counted(frames, 'frame')} of {self.input.frame_size} a step, {numbers}{kept}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.summary()}>"

    def __str__(self) -> str:
        return repr(self)


class NotDelegated(_Model):
    """An operator of the lowered graph that no delegate runs."""

    operator: str
    """Its name, such as `aten.sort`."""
    count: Positive
    """How often it is outside for this reason."""
    reason: str


class Placement(_Model):
    """Which delegates run the nodes of an artifact's graph."""

    delegated: dict[str, int]
    """The number of nodes by delegate, or by execution provider. A delegate that is called several times in a step has an entry for each call."""
    not_delegated: tuple[str, ...]
    """The names of the nodes that no delegate runs."""
    reasons: tuple[NotDelegated, ...] = ()
    """Why no delegate runs them. An engine may run several nodes for one operator of the lowered graph. Empty if it is not known."""

    def summary(self) -> str:
        """Return the number of nodes in each delegate call, what is outside of them and why, in a few words."""
        inside = [f"{count} nodes in {name}" for name, count in self.delegated.items()]
        calls = [f"{len(inside)} delegate calls"] if len(inside) > 1 else []
        return ", ".join([*inside, *calls, *([f"outside: {self._outside()}"] if self.not_delegated else [])])

    def _outside(self) -> str:
        if not self.reasons:
            return _listed(Counter(self.not_delegated))
        reasons = dict.fromkeys(one.reason for one in self.reasons)
        return "; ".join(f"{_listed({one.operator: one.count for one in self.reasons if one.reason == reason})} ({reason})" for reason in reasons)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(name if count == 1 else f"{name} x {count}" for name, count in counts.items())


class Parity(_Model):
    """The errors of an artifact against its reference over the golden steps, and the bound that they had to stay within."""

    reference: str
    steps: Positive
    max_absolute_error: float
    max_relative_error: float
    """The largest error of an output divided by the range of that output in the golden steps."""
    bound: str


class Accuracy(_Model):
    """The accuracy of an artifact in its own engine on the videos of a test list."""

    dataset: str
    """The folder of the data set and the test list, as they were named on the command line."""
    engine: str
    videos: Positive
    crops: Positive
    """How many crops of a video the probabilities were averaged over."""
    top1: Share
    top5: Share | None


class Arm64Step(_Model):
    """What an engine executes on ARM64 for one step of an artifact with one thread: counts, not times."""

    engine: str
    engine_version: str
    golden_steps: Positive
    """How many steps were run and compared with the golden steps. The counts are those of the median step after the first."""
    instructions: Positive
    vector_fmas: Count
    """Vector instructions of single precision that do four multiply-accumulates each."""
    loads: Count
    stores: Count


class Tuning(_Model):
    """The variants of an artifact that `--tune` measured, and the one that was kept."""

    unit: Literal["ms", "M ARM64 instructions"]
    """The unit of `measured`."""
    chosen: str
    measured: dict[str, float]
    """The cost of a step on one thread, by variant."""

    def __str__(self) -> str:
        return f"{self.chosen} chosen of {', '.join(f'{way} {cost:.4g}' for way, cost in self.measured.items())} {self.unit}"


AtLeast = Annotated[str, Field(pattern=r"^>=[0-9]+(\.[0-9]+)*$")]


class Requires(_Model):
    """The format versions of an artifact's file, and the lowest versions of the engines and systems that run it."""

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
    """One artifact: a file, or for Core ML a folder, of one target."""

    target: Target
    platform: Literal["any", "arm64", "x86_64"]
    form: Literal["3d", "lowered"]
    precision: Literal["float32", "float16"]
    file: Annotated[str, AfterValidator(_inside)]
    size_bytes: Positive
    sha256: Sha256
    """The SHA-256 of the file, or of a folder as a whole; see `clipstep.runtime.bundle.tree_sha256`."""
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
    """The file of the golden steps."""

    file: Annotated[str, AfterValidator(_inside)]
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


class _Origin(_Model):
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


class Export(_Model):
    """How the bundle was made."""

    clipstep_version: str
    stream_frames: Positive | None = None
    """The number of new frames a step, if a clip network was exported with `--stream`."""
    multiply_accumulates: Count | None = None
    """The multiply-accumulates of the convolutions and linear layers in one step of the network, before it is lowered."""
    adapters: tuple[str, ...] = ()
    """The adapters that the network was wrapped in by `--adapter`, in their order, such as `pathways:4`."""
    network_outputs: dict[str, str] = {}
    """Where the logits and the kept outputs are in what the network returns, if it returns more than its logits and its states: by the name of
    the output, its key or its position, such as `logits` or `1`; parts of nested values are joined by dots. Empty if it returns no more."""


class Manifest(Interface):
    """The content of `manifest.json`: the interface of the step, the artifacts, the golden steps, and where the network came from."""

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
        return f"<Manifest {self.name}: {self.summary()}; {', '.join(artifact.file for artifact in self.artifacts)}>"

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
