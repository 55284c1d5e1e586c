"""Writes a step as an artifact of a target, in one of the target's variants.

A variant is a form of the step (lowered or 3d) and an engine profile that it is lowered for. The default variant is written or, with `--tune`,
the one that costs least when all of them are measured. In int8, as many of its layers are computed in float32 as a budget allows.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import fx, nn

from clipstep.export.choosing import Measured, best_variant, within
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.options import ExportOptions
from clipstep.export.parity import check_artifact
from clipstep.export.step import StepProgram
from clipstep.export.targets.equalization import equalized
from clipstep.export.targets.target import Target
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.choice import Budget
from clipstep.runtime.bundle.manifest import Interface, MeasuredVariant, Placement, Tuning
from clipstep.runtime.golden import GoldenSteps, ParityError

ContextFactory = Callable[[], AbstractContextManager[object]]
"""Returns the context in which converters and engines run, such as `clipstep.runtime.command_line.streams.quiet` for a command."""


@dataclass(frozen=True)
class Variant:
    """One of the ways in which a target can write a step."""

    name: str
    form: str
    profile: EngineProfile
    float32_layers: int = 0
    """How many layers a budget allows in float32 in place of int8, which its name says, too."""

    def with_layers_in_float32(self, count: int) -> "Variant":
        """Return the variant with this many layers in float32."""
        return replace(self, name=f"{self.name}+{count}", float32_layers=count)


def variants_of(target: Target, form: str, platform: str, precision: str = "float32") -> list[Variant]:
    """Return a target's variants of that form (`auto` for any) on a platform in a precision, the default first."""
    forms = target.forms if form == "auto" else (form,)
    default = target.default_variant(platform, precision)
    names = [default, *(name for name in target.variants if name != default)]
    lowered = [Variant(name, "lowered", target.variants[name]) for name in names] if "lowered" in forms else []
    as_trained = "3d" in forms and (precision != "int8" or form == "3d")  # In int8 only lowered graphs are written; who asks for it is told so.
    return [*lowered, *([Variant("3d", "3d", target.variants[default])] if as_trained else [])]


class Graphs:
    """Holds a step in each form; the lowered graph for an engine profile is made when it is first asked for, and kept."""

    def __init__(self, program: StepProgram) -> None:
        self._program = program
        self._simplified: dict[bool, fx.GraphModule] = {}
        self._lowered: dict[tuple[EngineProfile, bool], fx.GraphModule] = {}

    def of(self, variant: Variant, *, equalize: bool = False) -> nn.Module:
        """Return the step in the variant's form: the module as trained, or the lowered graph, which may be of equalised weights."""
        if variant.form == "3d":
            return self._program.step
        if False not in self._simplified:
            self._simplified[False] = simplified(self._program.step, self._program.inputs)
        if equalize not in self._simplified:
            self._simplified[True] = equalized(self._simplified[False], self._program)
        if (variant.profile, equalize) not in self._lowered:
            self._lowered[variant.profile, equalize] = lower_graph(self._simplified[equalize], self._program.inputs, variant.profile)
        return self._lowered[variant.profile, equalize]


@dataclass(frozen=True)
class Written:
    """The variant that was written, where its nodes run, and what was measured if it was chosen by tuning."""

    variant: Variant
    placement: Placement
    tuning: Tuning | None
    tried: tuple[MeasuredVariant, ...] = ()
    """The variants that were measured, if it was chosen by tuning."""
    fits: bool = False
    """Whether it was measured to be right and within the budget."""
    note: str | None = None
    """Why it is another variant than the default, or than the cheapest, if that is beyond the bound or none is within the budget."""


@dataclass(frozen=True)
class _Trial:
    """A variant that was written into a file of its own and measured."""

    variant: Variant
    file: Path
    placement: Placement
    unit: str
    measured: MeasuredVariant


@dataclass(frozen=True)
class VariantWriter:
    """Writes one step for targets, platforms and precisions."""

    program: StepProgram
    golden: GoldenSteps
    options: ExportOptions
    library_context: ContextFactory
    graphs: Graphs

    def write(self, target: Target, platform: str, precision: str, interface: Interface, path: Path, *, exact_fits: bool = False) -> Written:
        """Write `path` as the default variant or, with `options.tune`, as the cheapest one, within `options.budget` if one is.

        In int8 it is in place of the default one the first variant that is within the bound, if there is one: they round in different ways.
        Of variants that give the same file, one is measured. In int8 they are also tried with layers in float32, as many as the budget allows, unless
        `options.float32_layers` says how many or an artifact of float32 is within the budget (`exact_fits`), which is then chosen.
        """
        variants = variants_of(target, self.options.form, platform, precision)
        if self.options.tune is None or not target.platforms:
            return self._written(target, variants, precision, interface, path)
        with tempfile.TemporaryDirectory(prefix="clipstep-tune-") as temporary:
            measure = partial(self._measure, target, platform, precision, interface, Path(temporary) / path.name)
            trials = measure(variants)
            budget, asked = self.options.budget, self.options.float32_layers_of(target.name)
            if self._computes_in_int8(target, precision) and budget is not None and asked is None and not exact_fits:
                trials += self._with_layers_in_float32(trials, budget, measure)
            measured = [one.measured for one in trials]
            best = trials[measured.index(best_variant(measured, budget, trials[0].unit))]
            shutil.move(best.file, path)
        tuning = Tuning.model_validate({"unit": best.unit, "chosen": best.variant.name, "measured": {one.variant: one.cost for one in measured}})
        is_within = within(best.measured, budget, best.unit)
        fits = is_within and best.measured.fault is None
        over = None if is_within else f"no variant is within {budget}: {best.variant.name} is the nearest"
        return Written(best.variant, best.placement, tuning, tuple(measured), fits, over)

    def _written(self, target: Target, variants: Sequence[Variant], precision: str, interface: Interface, path: Path) -> Written:
        """Write the first variant, in int8 the first one within the bound; if none is, the first one, whose verification will say so."""
        note: str | None = None
        for variant in variants if self._computes_in_int8(target, precision) else ():
            placement = self._write(target, variant, precision, interface, path)
            try:
                self._error(target, precision, interface, path)
            except ParityError as error:
                note = note or f"{variants[0].name} is beyond the bound: {error.__cause__}"
            else:
                return Written(variant, placement, None, note=note and f"written as {variant.name}: {note}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Written(variants[0], self._write(target, variants[0], precision, interface, path), None)

    def _error(self, target: Target, precision: str, interface: Interface, path: Path) -> float:
        """Return the largest error of an artifact on the golden steps, as a share of the range of an output.

        Raises:
            ParityError: it is beyond the bound.
        """
        with self.library_context():
            return check_artifact(target.name, path, precision, interface, self.golden).relative

    def _measure(self, target: Target, platform: str, precision: str, interface: Interface, path: Path, variants: Sequence[Variant]) -> list[_Trial]:
        """Write each variant as a file beside `path`, which is not written itself, and measure those whose files differ."""
        assert self.options.tune is not None
        written: dict[str, tuple[Variant, Path, Placement]] = {}
        for variant in variants:
            file = path.with_stem(variant.name)
            placement = self._write(target, variant, precision, interface, file)
            written.setdefault(tree_sha256(file), (variant, file, placement))
        files = {variant.name: file for variant, file, _ in written.values()}
        unit, measured = self.options.tune(platform, target.name, precision, files, interface, self.golden)
        trials = [_Trial(*one, unit, _noted(one[0], measured[one[0].name], one[1])) for one in written.values()]
        return [self._verified(one, target, precision, interface) for one in trials] if self._computes_in_int8(target, precision) else trials

    def _verified(self, trial: _Trial, target: Target, precision: str, interface: Interface) -> _Trial:
        """Return a trial with its largest error on the golden steps: of int8, one way of rounding is not as good as another."""
        try:
            error = self._error(target, precision, interface, trial.file)
        except ParityError as reason:
            return replace(trial, measured=trial.measured.model_copy(update={"fault": trial.measured.fault or str(reason.__cause__)}))
        return replace(trial, measured=trial.measured.model_copy(update={"max_relative_error": error}))

    def _with_layers_in_float32(self, trials: Sequence[_Trial], budget: Budget, measure: Callable[[Sequence[Variant]], list[_Trial]]) -> list[_Trial]:
        """Find by bisection how many layers the budget allows in float32 in any of the variants, and return what was tried for it.

        A variant that is not within the budget may be with a layer in float32, whose conversions fall away.
        """
        bases, tried = [one.variant for one in trials], list[_Trial]()
        fewest, most = 0, min(one.placement.int8_layers for one in trials)
        while most - fewest > 1:
            layers = (fewest + most) // 2
            found = measure([base.with_layers_in_float32(layers) for base in bases])
            tried += found
            profiles = [one.variant.profile for one in found if within(one.measured, budget, one.unit)]
            if profiles:
                fewest, bases = layers, [base for base in bases if base.profile in profiles]
            else:
                most = layers
        return tried

    def _write(self, target: Target, variant: Variant, precision: str, interface: Interface, path: Path) -> Placement:
        version = self.options.format_version(target.name)
        equalize = self.options.equalize and self._computes_in_int8(target, precision)
        program = replace(self.program, float32_layers=(self.options.float32_layers_of(target.name) or 0) + variant.float32_layers)
        with self.library_context():
            graph = self.graphs.of(variant, equalize=equalize)
            return target.load_writer().write(graph, program, precision, interface.model_dump_json(), path, version)

    def _computes_in_int8(self, target: Target, precision: str) -> bool:
        """Whether values are rounded too, and not weights alone."""
        return precision == "int8" and precision not in target.weight_precisions


def _noted(variant: Variant, one: Measured, file: Path) -> MeasuredVariant:
    return MeasuredVariant(
        variant=variant.name,
        cost=round(one.cost, 3),
        size_bytes=tree_size(file),
        peak_memory_bytes=one.peak_memory_bytes,
        fault=one.fault,
        float32_layers=variant.float32_layers,
    )
