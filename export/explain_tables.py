"""The tables of `clipstep export --explain`: how each convolution of a network is lowered for each target."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from clipstep.export.lowering.explain import LoweredLayer, explain
from clipstep.export.lowering.lower import simplified
from clipstep.export.step import StepProgram
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle.manifest import Artifact
from clipstep.runtime.command_line.terminal import new_table


def explanations(program: StepProgram, artifacts: Sequence[Artifact]) -> Iterator[Table]:
    """Yield a table for each target and variant among the lowered artifacts of a step.

    Raises:
        LoweringError: an operation has no lowering.
    """
    graph = simplified(program.step, program.inputs)
    for name, variant in dict.fromkeys((artifact.target, _variant(artifact)) for artifact in artifacts if artifact.form == "lowered"):
        yield table_of(f"{name}, variant {variant}", explain(graph, program.inputs, TARGETS[name].variants[variant]))


def _variant(artifact: Artifact) -> str:
    """Return the variant that tuning chose, or else the default of the artifact's platform."""
    target = TARGETS[artifact.target]
    return artifact.tuning.chosen if artifact.tuning else target.default_variant(artifact.platform, artifact.precision)


def table_of(title: str, layers: Sequence[LoweredLayer]) -> Table:
    """Return a table with a row for each convolution and one for their sums; multiply-accumulates (FMAs) and elements are in millions."""
    table = new_table("convolution", "weight", "stride", "strategy", "FMAs\nneeded M", "FMAs M", "moved M", texts=4, title=title)
    for layer in layers:
        name, weight, stride = layer.name.removeprefix("network."), "x".join(map(str, layer.weight)), "x".join(map(str, layer.stride))
        numbers = map(_millions, (layer.fmas_needed, layer.fmas, layer.elements_moved))
        table.add_row(name, weight, stride, layer.strategy, *numbers)
    needed, fmas, moved = (sum(getattr(layer, key) for layer in layers) for key in ("fmas_needed", "fmas", "elements_moved"))
    table.add_row("all convolutions", "", "", "", *map(_millions, (needed, fmas, moved)))
    return table


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}"
