"""What a target is to an export: how its files are named, written and verified, and what it can be asked for."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from clipstep.export.lowering.profile import EngineProfile
from clipstep.runtime.target import TargetInfo

if TYPE_CHECKING:  # The table of targets is read by the command line's help, which loads no PyTorch.
    from torch import nn

    from clipstep.export.step import StepProgram
    from clipstep.runtime.bundle.manifest import Placement, Requires

PALETTES_REFUSED = dict.fromkeys(("palette8", "palette6", "palette4"), "its format has no palettes of weights; that of Core ML has them")
"""The precisions of `Target.refused_precisions` for a target that has no palettes."""
DYNAMIC_REFUSED = {"dynamic8": "convolutions whose ranges are found in each step are written for ExecuTorch alone"}
"""The same for a target other than ExecuTorch."""
W8A8_REFUSED = {"w8a8": "its int8 has integers for weights and values already; w8a8 is that of Core ML"}
"""The same for a target other than Core ML."""
ANY = "any"
"""The platform of an artifact that is the same for all processors."""


class Writer(Protocol):
    """A module that writes a target's files; importing it loads PyTorch and the target's own tools."""

    @property
    def OPERATORS(self) -> Mapping[Any, Callable[..., Any]]:
        """The ATen operators of a lowered graph that it writes, each with the function that does."""

    def write(
        self, graph: "nn.Module", program: "StepProgram", precision: str, metadata: str, path: Path, format_version: int | None = None
    ) -> "Placement":
        """Write an artifact and return where its nodes will run.

        Args:
            graph: the step in the form that the artifact has: the module as trained, or a lowered `torch.fx.GraphModule`.
            program: the step's inputs and outputs.
            precision: one of the target's.
            metadata: the interface to embed, as JSON.
            path: the file or folder to write.
            format_version: one of the target's `FormatVersion`; None for its default.

        Raises:
            ClipstepError: the target's tools cannot write the step.
        """

    def requires(self, path: Path, precision: str) -> "Requires":
        """Read a written file of that precision and return what is needed to run it: the versions of the format and of the software, and whether
        the processor must compute in float16."""


@dataclass(frozen=True, kw_only=True)
class FormatVersion:
    """A version of a file format that users choose with an option."""

    option: str
    """The option's name, without dashes."""
    numbers: Sequence[int]
    default: int
    meaning: str
    """What the number is, for the option's help."""
    advice: str = ""
    """Why one would choose another number than the default, for the option's help."""


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Clipstep's own evaluator of a target's files, for a target that no engine on this computer runs."""

    load: str
    """The function that loads a file, as `module:function`. It takes `path` and `exact` and returns a `clipstep.runtime.engine.Engine`. `exact` is
    None, or the path of the float32 artifact, whose weights are then used in place of rounded ones. The process that verifies imports it."""
    name: str
    """What messages call it."""
    display_name: str
    note: str
    """A note that is shown beside its verdict."""

    @property
    def module(self) -> str:
        return self.load.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target, as an entry of `clipstep.export.targets.TARGETS`."""

    info: TargetInfo
    """The runtime's entry: its name, the suffix of its files, how they are read and checked."""
    writer: str
    """The name of the module that writes its files, a `Writer`."""
    precisions: tuple[str, ...] = ("float32",)
    """The precisions that its artifacts can have, in the order in which they are written."""
    default_precisions: tuple[str, ...] = ("float32",)
    """Those of them that are written unless others are asked for."""
    refused_precisions: Mapping[str, str] = field(default_factory=dict)
    """Precisions that it is not written in although other targets are, each with the reason, for the error."""
    weight_precisions: tuple[str, ...] = ()
    """The precisions in which only weights are held in less than float16, so that no ranges of values are needed."""
    least_format_versions: Mapping[str, int] = field(default_factory=dict)
    """The first version of its format that a precision can be written in, for those that the default version allows and the lowest does not."""
    forms: tuple[str, ...] = ("lowered",)
    """The forms of a step that it takes, its default first."""
    input_dtypes: tuple[str, ...] = ("uint8", "float32")
    """The types of frames that it takes, its default first."""
    variants: Mapping[str, EngineProfile]
    """The variants of its lowered form by name, the default first: the engine profile of each."""
    platforms: Mapping[str, str]
    """The processors for which an artifact may differ, and the default variant for each; empty if artifacts are the same for all."""
    precision_variants: Mapping[str, str] = field(default_factory=dict)
    """The precisions for which another variant is the default, on every processor."""
    tools: tuple[str, ...]
    """The distributions whose versions an artifact records."""
    format_version: FormatVersion | None = None
    """The version of its format that can be chosen, if there is one."""
    weight_limit: int | None = None
    """The most bytes of weights that its files hold; None if there is no limit."""
    evaluator: Evaluator | None = None
    """What runs its files for verification; None if an engine on this computer runs the target."""

    @property
    def name(self) -> str:
        return self.info.name

    def load_writer(self) -> Writer:
        """Import the module that writes its files."""
        return cast(Writer, importlib.import_module(self.writer))

    def file_name(self, precision: str, platform: str = ANY) -> str:
        """Return the name of an artifact's file: `step.onnx`, `step-arm64.onnx`, `step-float16.mlpackage`.

        The precision is not named if it is the only one by default.
        """
        parts = ["step", *([precision] if self.default_precisions != (precision,) else []), *([platform] if platform != ANY else [])]
        return "-".join(parts) + self.info.suffix

    def default_variant(self, platform: str, precision: str = "float32") -> str:
        return self.precision_variants.get(precision, self.platforms.get(platform, next(iter(self.variants))))

    def tool_versions(self) -> dict[str, str]:
        return {tool: version(tool) for tool in self.tools}
