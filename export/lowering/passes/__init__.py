"""The passes over a graph, in their order. Each changes a graph module in place, or returns a new one; none changes what it computes.

`docs/lowering.md` shows what each does to a graph, and `clipstep.export.lowering.debug.graphs` gives the graph after each of them.
"""

from collections.abc import Callable, Iterable

from torch import fx

from clipstep.export.lowering.passes.batch_norms import fold_batch_norms
from clipstep.export.lowering.passes.batches import join_clips
from clipstep.export.lowering.passes.channel_shuffles import find_channel_shuffles, fold_channel_shuffles, sink_channel_shuffles
from clipstep.export.lowering.passes.constants import fold_constants, merge_duplicates
from clipstep.export.lowering.passes.doubles import narrow_doubles
from clipstep.export.lowering.passes.early_slices import slice_early
from clipstep.export.lowering.passes.execution_order import depth_first
from clipstep.export.lowering.passes.masks import fold_masks
from clipstep.export.lowering.passes.relus import move_relus
from clipstep.export.lowering.passes.reshapes import join_reshapes
from clipstep.export.lowering.passes.scales import fold_scales
from clipstep.export.lowering.passes.strides_and_paddings import fold_paddings, fold_temporal_strides
from clipstep.export.lowering.passes.whole_values import add_batch_axes, simplify_pools_and_strides
from clipstep.export.lowering.profile import EngineProfile

Pass = Callable[[fx.GraphModule], fx.GraphModule | None]
"""A pass; reports call it by the name of its function."""

BEFORE_LOWERING: tuple[Pass, ...] = (
    fold_constants,
    narrow_doubles,
    simplify_pools_and_strides,
    add_batch_axes,
    find_channel_shuffles,
    fold_batch_norms,
    join_clips,
    fold_channel_shuffles,
    sink_channel_shuffles,
    fold_paddings,
    fold_temporal_strides,
    move_relus,
    fold_scales,
)
"""The passes on the rank-5 graph, in order, for all engines."""


def after_lowering(profile: EngineProfile) -> tuple[Pass, ...]:
    """Return the passes on the rank-4 graph, in order."""
    return (fold_constants, fold_masks, merge_duplicates, join_reshapes, *([slice_early] if profile.slice_early else []), depth_first)


def run(passes: Iterable[Pass], graph: fx.GraphModule, report: Callable[[str, fx.GraphModule], None] = lambda *_: None) -> fx.GraphModule:
    """Run passes in order and return the graph after them; `report` is called after each, with its name and the graph."""
    for one in passes:
        graph = one(graph) or graph
        report(one.__name__, graph)
    return graph
