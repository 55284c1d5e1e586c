"""Writes a step as an artifact of a target, in one of the target's variants.

A variant is a form of the step (lowered or 3d) and an engine profile that it is lowered for. The default variant is written or, with `--tune`,
the one that costs least when all of them are measured.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import fx, nn

from clipstep.export.choosing import Measured, best_variant
from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.options import ExportOptions
from clipstep.export.step import StepProgram
from clipstep.export.targets.equalization import equalized
from clipstep.export.targets.target import Target
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.manifest import Interface, MeasuredVariant, Placement, Tuning
from clipstep.runtime.golden import GoldenSteps

ContextFactory = Callable[[], AbstractContextManager[object]]
"""Returns the context in which converters and engines run, such as `clipstep.runtime.command_line.streams.quiet` for a command."""


@dataclass(frozen=True)
class Variant:
    """One of the ways in which a target can write a step."""

    name: str
    form: str
    profile: EngineProfile


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


@dataclass(frozen=True)
class VariantWriter:
    """Writes one step for targets, platforms and precisions."""

    program: StepProgram
    golden: GoldenSteps
    options: ExportOptions
    library_context: ContextFactory
    graphs: Graphs

    def write(self, target: Target, platform: str, precision: str, interface: Interface, path: Path) -> Written:
        """Write `path` as the default variant or, with `options.tune`, as the cheapest one, within `options.budget` if one is.

        Of variants that give the same file, one is measured.
        """
        variants = {variant.name: variant for variant in variants_of(target, self.options.form, platform, precision)}
        if self.options.tune is None or not target.platforms:
            default = next(iter(variants.values()))
            return Written(default, self._write(target, default, precision, interface, path), None)
        with tempfile.TemporaryDirectory(prefix="clipstep-tune-") as temporary:
            files = {name: Path(temporary) / f"{name}{path.suffix}" for name in variants}
            placements = {name: self._write(target, variant, precision, interface, files[name]) for name, variant in variants.items()}
            different: dict[str, str] = {}
            for name, file in files.items():
                different.setdefault(tree_sha256(file), name)
            measurable = {name: files[name] for name in different.values()}
            unit, measured = self.options.tune(platform, target.name, precision, measurable, interface, self.golden)
            tried = tuple(_noted(name, one, files[name]) for name, one in measured.items())
            chosen = best_variant(tried, self.options.budget, unit).variant
            shutil.move(files[chosen], path)
        tuning = Tuning.model_validate({"unit": unit, "chosen": chosen, "measured": {one.variant: one.cost for one in tried}})
        return Written(variants[chosen], placements[chosen], tuning, tried)

    def _write(self, target: Target, variant: Variant, precision: str, interface: Interface, path: Path) -> Placement:
        version = self.options.format_version(target.name)
        equalize = self.options.equalize and precision == "int8" and precision not in target.weight_precisions
        with self.library_context():
            graph = self.graphs.of(variant, equalize=equalize)
            return target.load_writer().write(graph, self.program, precision, interface.model_dump_json(), path, version)


def _noted(name: str, one: Measured, file: Path) -> MeasuredVariant:
    return MeasuredVariant(
        variant=name, cost=round(one.cost, 3), size_bytes=tree_size(file), peak_memory_bytes=one.peak_memory_bytes, fault=one.fault
    )
