"""The models of what a manifest says of each artifact: its file, what it needs, what runs it, and how exact and costly it is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from clipstep.runtime.bundle.interface import Model, Positive
from clipstep.runtime.precision import Precision
from clipstep.runtime.targets import TARGETS
from clipstep.runtime.wording import counted, either


def inside(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or path.parts in ((), (".",)) or any(c in "\\:" or ord(c) < 32 for c in file):
        raise ValueError("must name a file inside the bundle")
    return file


def _target(name: str) -> str:
    if name not in TARGETS:
        raise ValueError(f"{name!r} is not {either(tuple(TARGETS))}")
    return name


Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
"""The difference of two shares."""
NotNegative = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AtLeast = Annotated[str, Field(pattern=r"^>=[0-9]+(\.[0-9]+)*$")]
Platform = Literal["any", "arm64", "x86_64"]
"""A processor as manifests call it; `any` is every one, or one that is none of the others."""
Target = Annotated[str, AfterValidator(_target), WithJsonSchema({"enum": list(TARGETS), "type": "string"})]
"""The name of a target, an entry of `clipstep.runtime.targets.TARGETS`."""


class NotDelegated(Model):
    """An operator of the lowered graph that no delegate runs, or that is computed in a higher precision than the artifact's; or, in
    `CompressedWeights`, constants that are not compressed."""

    operator: str
    """Its name, such as `aten.sort`; of constants, what reads them, such as `conv.bias`."""
    count: Positive
    """How often that is so for this reason."""
    reason: str


class SensitiveLayer(Model):
    """A layer whose rounding to int8 moves the prediction."""

    layer: str
    """The path of its module in the network or, if it is in none, its operator and its line, such as `matmul at mine.py:12`."""
    share: Annotated[float, Field(ge=0, le=1)]
    """Its share of what the rounding of all layers in int8 moves on the sample frames, estimated to first order."""


class CompressedWeights(Model):
    """How an artifact holds the weights of its convolutions and matrix products. What it computes with are floating-point numbers made of them."""

    scheme: Literal["linear", "palette"]
    """`linear`: integers, and a scale for each output channel. `palette`: indices into a palette, one for each weight."""
    bits: Literal[4, 6, 8]
    """The bits of an integer or index."""
    count: Count
    """How many weights are held so."""
    share: Share
    """The share of their numbers in the numbers of all constants."""
    as_floats: tuple[NotDelegated, ...] = ()
    """The other constants, by the operation that reads them, and why."""

    def summary(self) -> str:
        """Return how many weights are held how, and which constants are not and why, in a few words."""
        kind = "integers" if self.scheme == "linear" else "indices"
        others = f"; as floats: {_by_reason(self.as_floats)}" if self.as_floats else ""
        return f"{counted(self.count, 'weight')} ({self.share:.1%} of all constants) as {kind} of {self.bits} bits{others}"


class Placement(Model):
    """Which delegates run the nodes of an artifact's graph."""

    delegated: dict[str, int]
    """The number of nodes by delegate, or by execution provider. A delegate that is called several times in a step has an entry for each call."""
    not_delegated: tuple[str, ...]
    """The names of the nodes that no delegate runs."""
    reasons: tuple[NotDelegated, ...] = ()
    """Why no delegate runs them. An engine may run several nodes for one operator of the lowered graph. Empty if it is not known."""
    in_float32: tuple[NotDelegated, ...] = ()
    """The operators inside of delegates that an artifact of lower precision computes in float32, and why. Empty for artifacts of float32."""
    in_float16: tuple[NotDelegated, ...] = ()
    """The products that an artifact of dynamic8 or w8a8 computes in float16, and why. Empty for other artifacts."""
    sensitive_layers: tuple[SensitiveLayer, ...] = ()
    """Up to ten layers that an int8 artifact computes in int8, those first whose rounding moves the prediction most."""
    int8_layers: Count = 0
    """How many layers an int8 artifact computes in int8."""
    compressed_weights: CompressedWeights | None = None
    """How the weights are held, if not as floating-point numbers or as what an int8 artifact computes with."""

    def summary(self) -> str:
        """Return the number of nodes in each delegate call, what is outside of them or in float32, and why, in a few words."""
        inside = [f"{counted(count, 'node')} in {name}" for name, count in self.delegated.items()]
        calls = [f"{len(inside)} delegate calls"] if len(inside) > 1 else []
        outside = [f"outside: {_by_reason(self.reasons) or _listed(Counter(self.not_delegated))}"] if self.not_delegated else []
        wide = [f"in float32: {_by_reason(self.in_float32)}"] if self.in_float32 else []
        wide += [f"products in float16: {_by_reason(self.in_float16)}"] if self.in_float16 else []
        weights = [self.compressed_weights.summary()] if self.compressed_weights else []
        return ", ".join([*inside, *calls, *outside, *wide, *weights])


def _by_reason(operators: Sequence[NotDelegated]) -> str:
    reasons = dict.fromkeys(one.reason for one in operators)
    return "; ".join(f"{_listed({one.operator: one.count for one in operators if one.reason == reason})} ({reason})" for reason in reasons)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(name if count == 1 else f"{name} x {count}" for name, count in counts.items())


class Parity(Model):
    """The errors of an artifact against its reference over the golden steps, and the bound that they had to stay within."""

    reference: str
    steps: Positive
    max_absolute_error: float
    max_relative_error: float
    """The largest error of an output divided by the range of that output in the golden steps."""
    bound: str


class Drift(Model):
    """How far an output of an artifact of lower precision is from that of the float32 artifact, while both run one long stream of frames.

    An error is a share of the range that the output of the float32 artifact has over that run.
    """

    output: str
    """`logits`, or the name of a state or of a kept output."""
    first_tenth: NotNegative
    """The largest error in the first tenth of the steps."""
    last_tenth: NotNegative
    """The largest error in the last tenth of the steps. It is larger than that of the first if errors add up."""


class AgainstFloat32(Model):
    """An artifact of lower precision compared with a float32 artifact in its own engine, on the same videos."""

    file: str
    """The float32 artifact."""
    engine: str
    top1: Share
    """The top-1 accuracy of the float32 artifact."""
    top1_change: Difference
    """The top-1 accuracy of the artifact of lower precision, minus `top1`."""
    top1_change_interval: tuple[Difference, Difference]
    """The 95 % confidence interval of `top1_change`: Newcombe's for paired proportions, his method 10."""
    gained_videos: Count
    """The videos for which only the artifact of lower precision is right."""
    lost_videos: Count
    """The videos for which only the float32 artifact is right."""
    steps: Positive
    """The steps of all videos after which both predict."""
    agreeing_steps: Count
    """Those of them after which both find the same class the most probable."""
    agreement_interval: tuple[Share, Share]
    """The 95 % confidence interval of the share of agreeing steps: Wilson's. It takes steps to be independent, which those of one video are not."""
    drift_steps: Positive
    """The number of consecutive steps of the run over which `drift` was measured."""
    drift: tuple[Drift, ...]


class Accuracy(Model):
    """The accuracy of an artifact in its own engine on the videos of a test list."""

    dataset: str
    """The folder of the data set and the test list, as they were named on the command line."""
    engine: str
    videos: Positive
    crops: Positive
    """How many crops of a video the probabilities were averaged over."""
    top1: Share
    top5: Share | None
    skipped_videos: Count = 0
    """How many other videos of the list could not be used, such as those that are too short."""
    processor: Platform | None = None
    """The processor that it was evaluated on, `any` if it is none of the others. Engines add up in float16 on some and in float32 on others."""
    against_float32: AgainstFloat32 | None = None
    """The comparison with a float32 artifact; None for artifacts of float32, and where it was not measured."""


class Arm64Step(Model):
    """What an engine executes on ARM64 for one step of an artifact with one thread: counts, not times."""

    engine: str
    engine_version: str
    golden_steps: Positive
    """How many steps were run and compared with the golden steps. The counts are those of the median step after the first."""
    instructions: Positive
    vector_fmas: Count
    """Vector instructions that do four multiply-accumulates each in float32, or eight in float16."""
    loads: Count
    stores: Count


class Tuning(Model):
    """The variants of an artifact that `--tune` measured, and the one that was kept."""

    unit: Literal["ms", "M ARM64 instructions"]
    """The unit of `measured`."""
    chosen: str
    measured: dict[str, float]
    """The cost of a step on one thread, by variant."""

    def __str__(self) -> str:
        return f"{self.chosen} chosen of {', '.join(f'{way} {cost:.4g}' for way, cost in self.measured.items())} {self.unit}"


class Requires(Model):
    """The format versions of an artifact's file, and the lowest versions of the engines and systems that run it, and on which processors."""

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
    float16_processor: bool | None = None
    """Whether only processors run it that compute in float16; see `clipstep.runtime.float16_processor`. None is no."""

    def __str__(self) -> str:
        formats = (("opset", self.opset), ("IR version", self.ir_version), ("specification version", self.specification_version))
        runtimes = (("onnxruntime", self.onnxruntime), ("ExecuTorch", self.executorch), ("iOS", self.ios), ("macOS", self.macos))
        processor = ["a processor that computes in float16"] if self.float16_processor else []
        return ", ".join([*(f"{name} {value}" for name, value in (*formats, *runtimes) if value is not None), *processor])


class Artifact(Model):
    """One artifact: a file, or for Core ML a folder, of one target."""

    target: Target
    platform: Platform
    form: Literal["3d", "lowered"]
    precision: Precision
    file: Annotated[str, AfterValidator(inside)]
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

    @property
    def needs_float16(self) -> bool:
        """Whether only processors run it that compute in float16."""
        return self.requires is not None and bool(self.requires.float16_processor)
