"""What an export writes, and which of it contradicts itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipstep.export.choices import FORMS, INPUT_DTYPES, IOS, OPSETS, OUTPUTS, PLATFORMS
from clipstep.export.targets import TARGETS
from clipstep.export.targets.common import Versions
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.manifest import Interface

Tune = Callable[[str, str, Mapping[str, Path], Interface, GoldenSteps], tuple[str, dict[str, float]]]
"""``(platform, target, files by the variant they hold, facts, golden steps)`` gives what a step of each costs there, and the unit."""


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes.

    ``form`` and ``input_dtype`` ``"auto"`` are each target's usual ones; ``stream`` is the number of new frames a step, as
    ``clipstep.export.step.program_of`` takes it, and ``window`` how many seconds its predictions go back, None for all.
    For each of ``platforms`` a target that may differ by processor gets an artifact: by ``tune``, if it is given,
    the cheapest of all its variants. ``opset`` is ONNX's operator set,
    and ``ios`` the lowest iOS of Core ML models; None stands for those of ``clipstep.export.targets.common.Versions``.
    """

    targets: Sequence[str] = tuple(TARGETS)
    form: str = "auto"
    input_dtype: str = "auto"
    stream: int | None = None
    platforms: Sequence[str] = ("any",)
    tune: Tune | None = None
    window: float | None = None
    output: str | None = None
    """What the first output holds, one of ``clipstep.export.choices.OUTPUTS``; None for what is recognised."""
    opset: int | None = None
    ios: int | None = None

    @property
    def versions(self) -> Versions:
        return Versions(**{name: value for name, value in (("opset", self.opset), ("ios", self.ios)) if value is not None})

    def __post_init__(self) -> None:
        self._check_values()
        if self.window is not None and self.stream is None:
            raise ClipstepError("--window is for a stream", got="no --stream", fix="add --stream K, the new frames of a step")
        if self.tune is not None and "any" in self.platforms:
            raise ClipstepError("what is cheapest depends on the processor", got="any", expected="--platform arm64 or x86_64 beside --tune")
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise ClipstepError("unknown target", got=", ".join(unknown) or "none", expected=f"some of {', '.join(TARGETS)}")
        if not any(TARGETS[name].platforms for name in self.targets) and (self.tune is not None or set(self.platforms) != {"any"}):
            option = "--tune" if self.tune is not None else "--platform"
            raise ClipstepError(f"{option} does nothing for {', '.join(self.targets)}, which is the same for all", fix=f"leave {option} out")
        if self.tune is not None and self.form == "3d":
            raise ClipstepError("--tune does nothing with --form 3d, which has one variant", fix="leave one of them out")
        for option, number, known, target in (("--opset", self.opset, OPSETS, "onnx"), ("--ios", self.ios, IOS, "coreml")):
            if number is not None and number not in known:
                raise ClipstepError(f"{option} is not one that {target} is written for", got=number, expected=f"{known[0]} to {known[-1]}")
            if number is not None and target not in self.targets:
                raise ClipstepError(f"{option} is for {target}", got=f"--target {' '.join(self.targets)}", expected=f"--target {target} among them")
        for name in self.targets:
            for what, asked, takes in (("form", self.form, TARGETS[name].forms), ("input", self.input_dtype, TARGETS[name].input_dtypes)):
                if asked not in ("auto", *takes):
                    raise ClipstepError(
                        f"{name} does not take the {what}", got=asked, expected=f"auto or {' or '.join(takes)}", fix=f"export {name} by itself"
                    )

    def _check_values(self) -> None:
        """Each by itself."""
        for name, names in (("targets", self.targets), ("platforms", self.platforms)):
            if isinstance(names, str):
                raise ClipstepError(f"{name} are a list of names", got=repr(names), expected=f"{[names]!r}")
        if not self.platforms:
            raise ClipstepError("unknown platform", got="none", expected=f"some of {', '.join(PLATFORMS)}")
        known = {"platform": PLATFORMS, "form": FORMS, "input_dtype": INPUT_DTYPES, "output": (None, *OUTPUTS)}
        given = [*(("platform", name) for name in self.platforms), *((name, getattr(self, name)) for name in ("form", "input_dtype", "output"))]
        for name, value in given:
            if value not in known[name]:
                raise ClipstepError(f"unknown {name}", got=value, expected=f"one of {', '.join(filter(None, known[name]))}")
        if self.stream is not None and (not isinstance(self.stream, int) or self.stream < 1):
            raise ClipstepError("stream is a number of new frames a step", got=self.stream, expected="a whole number of at least 1")
        if self.window is not None and not 0 < self.window < math.inf:
            raise ClipstepError("window is a number of seconds", got=self.window, expected="a finite number above 0")


USUAL = ExportOptions()
"""Every target in its usual form, for any processor."""
