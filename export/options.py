"""What an export writes, and which options contradict each other."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipstep.export.budget import EXAMPLE
from clipstep.export.choices import FORMS, INPUT_DTYPES, OUTPUT_KINDS, PLATFORMS, PRECISIONS
from clipstep.export.choosing import Measured
from clipstep.export.evaluating import EXACT, EvaluationData
from clipstep.export.outputs import AskedOutputs, asked_outputs
from clipstep.export.targets import TARGETS
from clipstep.export.targets.target import ANY
from clipstep.runtime.bundle import this_machine
from clipstep.runtime.bundle.choice import Budget
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.wording import either

Tune = Callable[[str, str, str, Mapping[str, Path], Interface, GoldenSteps], tuple[str, dict[str, Measured]]]
"""A function that measures variants. It takes the platform, the target, the precision, the files by the name of their variant, the interface and the
golden steps, and returns the unit of a step's cost and, by the name of the variant, what was measured for that platform."""

W8A8_OPTIONS = ("--calibrate", "--calibration-percentile", "--float32-layers")
"""The options of int8 that w8a8 has, too: what changes weights would not pass for a rounding of the float32 package's."""


@dataclass(frozen=True)
class ExportOptions:
    """What an export writes. Values that contradict each other are refused.

    Raises:
        ClipstepError: a value is unknown, or has no effect together with the others.
    """

    targets: Sequence[str] = field(default_factory=lambda: tuple(TARGETS))
    form: str = "auto"
    """One of `clipstep.export.choices.FORMS`; `auto` is each target's default."""
    input_dtype: str = "auto"
    """One of `clipstep.export.choices.INPUT_DTYPES`; `auto` is each target's default."""
    stream: int | None = None
    """The number of new frames in a step of a clip network, as `clipstep.export.step.program_of` takes it."""
    platforms: Sequence[str] = (ANY,)
    """The processors to write for: each target that differs by processor gets an artifact for each of them."""
    precisions: Sequence[str] = ()
    """The precisions to write, each `PRECISION` for every target or `TARGET=PRECISION` for one of them. A target for which none is given is written
    in its default ones."""
    calibration: Sequence[Path | str] = ()
    """Videos, or folders of them, on which the ranges of values of int8 artifacts are found, beside the sample frames."""
    calibration_percentile: float = 100.0
    """At which percentile of the numbers that a value has in a step the ranges of int8 artifacts end, and at the same one from below: 99.9 leaves
    out the largest and the smallest thousandth, and 100 none."""
    float32_layers: int | Mapping[str, int] | None = None
    """How many layers int8 artifacts compute in float32, those whose rounding would move the prediction most: a number, or one for each of some
    targets, such as `{"onnx": 3}`. None for none or, with `budget`, as many as fit."""
    equalize: bool = False
    """Whether int8 artifacts are written of weights that are equalised across layers, so that the channels between them have more equal ranges."""
    correct_biases: bool = False
    """Whether int8 artifacts have other biases, so that rounding the weights does not change the mean of a channel on the sample and the calibration
    videos."""
    tune: Tune | None = None
    """If given, it measures all variants of each artifact, of which the cheapest is kept. Of several precisions of a target, the bundle then has for
    each platform the one that `clipstep.export.choosing.choose` chooses, and float32."""
    budget: Budget | None = None
    """The most that an artifact may take which `tune` measures; see `clipstep.export.budget.parse_budget`. The export fails if none is within it."""
    window: float | None = None
    """How many seconds back the predictions of a stream go; None for all frames so far."""
    output_kind: str | None = None
    """What the first output holds, one of `clipstep.export.choices.OUTPUT_KINDS`; None to recognise it."""
    output: str | int | None = None
    """The key or the position of the logits among the values that the network returns; None to find them."""
    keep_outputs: Sequence[str | int] | Mapping[str, str | int] = ()
    """The keys or positions of further outputs to keep, or a dictionary of them by the name that each shall have; see `asked_outputs`."""
    keep_going: bool = False
    """Whether a target that fails is left out of the bundle and listed in `ExportResult.failed`, if at least one other is verified. Otherwise, as on
    the command line, its error ends the export, and nothing is written."""
    format_versions: Mapping[str, int] = field(default_factory=dict)
    """The versions of targets' formats by the name of their option, such as `{"opset": 17, "ios": 16}`; otherwise the defaults."""
    evaluate: EvaluationData | None = None
    """If given, each artifact that this computer can run is evaluated on these labelled videos, and the manifest says what it reached."""
    max_accuracy_drop: float | None = None
    """By how many percentage points the top-1 accuracy of an artifact of lower precision may fall against float32; if it falls by more, nothing is
    written or, with `tune`, another precision is chosen. None for any fall."""

    def format_version(self, target: str) -> int | None:
        """Return the version of the target's format; None where it has none to choose."""
        chosen = TARGETS[target].format_version
        return None if chosen is None else self.format_versions.get(chosen.option, chosen.default)

    def precisions_of(self, target: str) -> tuple[str, ...]:
        """Return the precisions that the target is written in, in its own order."""
        asked = {precision for name, precision in map(_parsed, self.precisions) if name in (None, target)}
        return tuple(name for name in TARGETS[target].precisions if name in (asked or TARGETS[target].default_precisions))

    def float32_layers_of(self, target: str) -> int | None:
        """Return how many layers the target computes in float32 in place of int8; None if nothing is said of it."""
        return self.float32_layers.get(target) if isinstance(self.float32_layers, Mapping) else self.float32_layers

    @property
    def asked(self) -> AskedOutputs:
        """What `output` and `keep_outputs` ask for."""
        return asked_outputs(self.output, self.keep_outputs)

    def __post_init__(self) -> None:
        self._check_values()
        self._check_targets()
        self._check_precisions()
        self._check_calibration()
        self._check_calibration_percentile()
        self._check_float32_layers()
        for option in ("equalize", "correct_biases"):
            if getattr(self, option):
                self._check_has_int8(f"--{option.replace('_', '-')}")
        self._check_tuning()
        self._check_format_versions()
        self._check_evaluation()
        if self.window is not None and self.stream is None:
            raise ClipstepError("--window is for a stream", got="no --stream", fix="add --stream K, the new frames of a step")

    def _check_values(self) -> None:
        """Check each value by itself."""
        for name, names in (("targets", self.targets), ("platforms", self.platforms), ("precisions", self.precisions)):
            if isinstance(names, str):
                raise ClipstepError(f"{name} are a list of names", got=repr(names), expected=f"{[names]!r}")
            if not isinstance(names, Sequence) or not all(isinstance(one, str) for one in names):
                raise ClipstepError(f"{name} are a list of names", got=repr(names)[:80])
        asked_outputs(self.output, self.keep_outputs)
        if not self.platforms:
            raise ClipstepError("unknown platform", got="none", expected=f"some of {', '.join(PLATFORMS)}")
        known = {"platform": PLATFORMS, "form": FORMS, "input_dtype": INPUT_DTYPES, "output_kind": (None, *OUTPUT_KINDS)}
        given = [*(("platform", name) for name in self.platforms), *((name, getattr(self, name)) for name in ("form", "input_dtype", "output_kind"))]
        for name, value in given:
            if value not in known[name]:
                raise ClipstepError(f"unknown {name}", got=value, expected=f"one of {', '.join(filter(None, known[name]))}")
        check_flags(equalize=self.equalize, correct_biases=self.correct_biases, keep_going=self.keep_going)
        if self.stream is not None and (not isinstance(self.stream, int) or isinstance(self.stream, bool) or self.stream < 1):
            raise ClipstepError("stream is a number of new frames a step", got=self.stream, expected="a whole number of at least 1")
        if self.window is not None and not (isinstance(self.window, int | float) and 0 < self.window < math.inf):
            raise ClipstepError("window is a number of seconds", got=self.window, expected="a finite number above 0")

    def _check_targets(self) -> None:
        """Check that the targets exist, and support the form and the type of the frames."""
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets:
            raise ClipstepError("unknown target", got=", ".join(unknown) or "none", expected=f"some of {', '.join(TARGETS)}")
        for name in self.targets:
            for what, asked, takes in (("form", self.form, TARGETS[name].forms), ("input", self.input_dtype, TARGETS[name].input_dtypes)):
                if asked not in ("auto", *takes):
                    raise ClipstepError(
                        f"{name} does not take the {what}", got=asked, expected=f"auto or {' or '.join(takes)}", fix=f"export {name} by itself"
                    )

    def _check_precisions(self) -> None:
        """Check that each precision is one of the targets that it is asked for."""
        for given in self.precisions:
            target, precision = _parsed(given)
            if precision not in PRECISIONS:
                raise ClipstepError("unknown precision", got=given, expected=f"some of {', '.join(PRECISIONS)}, or TARGET=PRECISION")
            if target is not None and target not in self.targets:
                raise ClipstepError("a precision is for a target that is not exported", got=given, expected=f"one of {', '.join(self.targets)}")
            for name in self.targets if target is None else (target,):
                if precision not in TARGETS[name].precisions:
                    reason = TARGETS[name].refused_precisions.get(precision)
                    others = [other for other in self.targets if precision in TARGETS[other].precisions]
                    raise ClipstepError(
                        f"{name} is not written in {precision}{f': {reason}' if reason else ''}",
                        got=f"--precision {given}",
                        expected=f"{name} in {either(TARGETS[name].precisions)}",
                        fix=f"ask for it by target: {' '.join(f'--precision {other}={precision}' for other in others)}" if others else None,
                    )

    def _check_calibration(self) -> None:
        """Check that `calibration` has an effect."""
        if isinstance(self.calibration, str | Path):
            raise ClipstepError("calibration is a list of videos", got=repr(self.calibration), expected=f"[{self.calibration!r}]")
        if not isinstance(self.calibration, Sequence) or not all(isinstance(one, str | Path) for one in self.calibration):
            raise ClipstepError("calibration is a list of videos", got=repr(self.calibration)[:80], expected="paths of videos, or of folders of them")
        if self.calibration:
            self._check_has_int8("--calibrate")

    def _check_calibration_percentile(self) -> None:
        """Check that `calibration_percentile` is one of the upper half, and has an effect."""
        percentile = self.calibration_percentile
        if not isinstance(percentile, int | float) or isinstance(percentile, bool) or not 50 < percentile <= 100:
            raise ClipstepError("--calibration-percentile is the percentile at which ranges end", got=percentile, expected="above 50, up to 100")
        if percentile != 100:
            self._check_has_int8("--calibration-percentile")

    def _check_float32_layers(self) -> None:
        """Check that `float32_layers` is a number of layers, or one for each of some targets, that has an effect."""
        if self.float32_layers is None:
            return
        by_target = self.float32_layers if isinstance(self.float32_layers, Mapping) else {None: self.float32_layers}
        for target, layers in by_target.items():
            if not isinstance(layers, int) or isinstance(layers, bool) or layers < 0:
                raise ClipstepError("--float32-layers is a number of layers", got=layers, expected="a whole number of at least 0")
            if target is not None and target not in self.targets:
                raise ClipstepError(
                    "--float32-layers is for a target that is not exported", got=f"{target}={layers}", expected=either(tuple(self.targets))
                )
            if layers:
                self._check_has_int8("--float32-layers", target)

    def _check_has_int8(self, option: str, target: str | None = None) -> None:
        """Check that int8 is written, by the target if one is given, in which values are rounded too, and not weights alone; the option would have no
        effect otherwise."""
        which = ("executorch=int8", "onnx=int8", *(("coreml=w8a8",) if option in W8A8_OPTIONS else ()))
        which = tuple(name for name in which if target is None or name.startswith(f"{target}="))
        if not any(f"{name}={precision}" in which for name in self.targets for precision in self.precisions_of(name)):
            got = "none of them" if target is None else f"{target} in {either(self.precisions_of(target))}"
            raise ClipstepError(
                f"{option} is for artifacts that compute in int8", got=got, fix=f"add --precision {either(which)}, or leave {option} out"
            )

    def _check_tuning(self) -> None:
        """Check that `platforms` and `tune` have an effect on these targets, and that tuning is for a given processor."""
        if self.tune is not None and ANY in self.platforms:
            raise ClipstepError(
                "--tune needs a platform, because what is cheapest depends on the processor",
                got=ANY,
                expected=f"--platform {either(PLATFORMS[1:])} with --tune",
            )
        if not any(TARGETS[name].platforms for name in self.targets) and (self.tune is not None or set(self.platforms) != {ANY}):
            option = "--tune" if self.tune is not None else "--platform"
            raise ClipstepError(f"{option} does nothing for {', '.join(self.targets)}, which is the same for all", fix=f"leave {option} out")
        if self.budget is not None:
            self._check_budget(self.budget)
        if self.tune is not None and self.form == "3d" and all(len(self.precisions_of(name)) == 1 for name in self.targets):
            raise ClipstepError("--tune does nothing with --form 3d, which has one variant", fix="leave one of them out")

    def _check_budget(self, budget: Budget) -> None:
        """Check that a budget is held to something that is measured on each platform."""
        if not isinstance(budget, Budget):
            raise ClipstepError("budget is a value of Budget", got=repr(budget)[:80], expected="such as parse_budget('size=1.3MB')")
        if self.tune is None:
            raise ClipstepError("--budget needs --tune, which measures what artifacts take", got=f"--budget {budget}", fix="add --tune")
        if not str(budget):
            raise ClipstepError("a budget limits something", got="no limit", expected=EXAMPLE)
        for quantity, limit, measured_on, instead in (
            ("latency", budget.latency_ms, "x86_64", "instructions"),
            ("instructions", budget.instructions, "arm64", "latency"),
        ):
            others = [platform for platform in self.platforms if platform != measured_on]
            if limit is not None and others:
                raise ClipstepError(
                    f"the budget's {quantity} cannot be measured for {either(others)}",
                    got=f"--budget {budget}",
                    expected=f"--platform {measured_on} alone, or {instead} in its place",
                )

    def _check_evaluation(self) -> None:
        """Check that `max_accuracy_drop` is a number of points, and that there will be something to measure and to compare with."""
        if self.evaluate is not None and not isinstance(self.evaluate, EvaluationData):
            raise ClipstepError("evaluate is a value of EvaluationData", got=repr(self.evaluate)[:80], expected="such as EvaluationData('fight')")
        most = self.max_accuracy_drop
        if most is None:
            return
        if not isinstance(most, int | float) or isinstance(most, bool) or not 0 <= most <= 100:
            raise ClipstepError("--max-accuracy-drop is a number of percentage points", got=most, expected="0 to 100")
        if self.evaluate is None:
            raise ClipstepError(
                "--max-accuracy-drop needs labelled videos to measure the accuracy on", got="no --evaluate", fix="add --evaluate DATA"
            )
        evaluated = [name for name in self.targets if self._has_one_for_this_processor(name)]
        precisions = [precision for name in evaluated for precision in self.precisions_of(name)]
        if all(precision == EXACT for precision in precisions):
            got = f"{EXACT} alone" if precisions else "none"
            raise ClipstepError(
                "--max-accuracy-drop is for artifacts of lower precision, and none is written that can be evaluated on this computer",
                got=got,
                fix="add one, such as --precision executorch=float16, or leave --max-accuracy-drop out",
            )
        if EXACT not in precisions:
            raise ClipstepError("--max-accuracy-drop needs a float32 artifact to compare with", got="none", fix="add --precision float32")

    def _has_one_for_this_processor(self, target: str) -> bool:
        return not TARGETS[target].platforms or self.tune is not None or not {ANY, this_machine()}.isdisjoint(self.platforms)

    def _check_format_versions(self) -> None:
        if not isinstance(self.format_versions, Mapping):
            raise ClipstepError("format_versions is a dictionary", got=repr(self.format_versions), expected="such as {'opset': 17}")
        for name in self.targets:
            self._check_least_versions(name)
        known = {target.format_version.option: target for target in TARGETS.values() if target.format_version is not None}
        for option, number in self.format_versions.items():
            if option not in known:
                raise ClipstepError("unknown version of a format", got=option, expected=f"some of {', '.join(known)}")
            target, version = known[option].name, known[option].format_version
            assert version is not None
            if number not in version.numbers:
                raise ClipstepError(f"--{option} is out of range for {target}", got=number, expected=f"{version.numbers[0]} to {version.numbers[-1]}")
            if target not in self.targets:
                raise ClipstepError(f"--{option} is for {target}", got=f"--target {' '.join(self.targets)}", expected=f"--target {target} among them")

    def _check_least_versions(self, name: str) -> None:
        """Check that the version of a target's format has the precisions that it is written in."""
        target, version = TARGETS[name], self.format_version(name)
        for precision in self.precisions_of(name):
            least = target.least_format_versions.get(precision)
            if least is not None and target.format_version is not None and version is not None and version < least:
                raise ClipstepError(
                    f"{name} in {precision} needs a later format", got=f"--{target.format_version.option} {version}", expected=f"at least {least}"
                )


def _parsed(given: str) -> tuple[str | None, str]:
    """Return the target, None for all, and the precision of `PRECISION` or `TARGET=PRECISION`."""
    target, separator, precision = given.rpartition("=")
    return (target if separator else None), precision


def check_flags(**flags: object) -> None:
    """Check that arguments are True or False.

    Raises:
        ClipstepError: one is something else.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ClipstepError(f"{name} is True or False", got=repr(flag)[:80])


def layers_by_target(given: Sequence[str]) -> int | dict[str, int] | None:
    """Read how many layers are in float32, as the command line has it: `N` for all targets, or `TARGET=N` for each of some; None if nothing is given.

    Raises:
        ClipstepError: one of them is something else, or there are several for a target.
    """
    wrong = [text for text in given if not _parsed(text)[1].strip().isdecimal()]
    if wrong:
        raise ClipstepError("--float32-layers is a number of layers", got=wrong[0], expected="N, or TARGET=N, with a whole number of at least 0")
    found = [(target, int(number)) for target, number in map(_parsed, given)]
    by_target = {target: number for target, number in found if target is not None}
    if found and len(found) != (len(by_target) or 1):
        raise ClipstepError("--float32-layers has several numbers for a target", got=" ".join(given), expected="N for all, or TARGET=N for each")
    return by_target or (found[0][1] if found else None)


DEFAULT_OPTIONS = ExportOptions()
"""Every target in its default form, for any processor."""
