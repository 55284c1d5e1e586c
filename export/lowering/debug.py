"""Shows the graph after each pass, to find out where an operation comes from."""

import copy

from torch import Tensor, fx, nn

from clipstep.export.lowering.lower import lower_graph, simplified
from clipstep.export.lowering.profile import EngineProfile


def graphs(step: nn.Module, inputs: tuple[Tensor, ...], profile: EngineProfile) -> list[tuple[str, fx.GraphModule]]:
    """Return the name of each stage and pass of a lowering, in order, and a copy of the graph after it.

    The first stage is `export` (the graph of torch.export), followed by the passes on that graph. Then comes `lower` (the graph in which each
    operation is replaced by what its rule does), followed by the passes on the lowered graph.

    Example:
        >>> for name, module in graphs(program.step, program.inputs, onnx.PROFILE):
        ...     print(name, module.graph)

    Raises:
        LoweringError: as `clipstep.export.lowering.lower.lower`.
    """
    seen: list[tuple[str, fx.GraphModule]] = []

    def keep(name: str, graph: fx.GraphModule) -> None:
        seen.append((name, copy.deepcopy(graph)))

    lower_graph(simplified(step, inputs, keep), inputs, profile, keep)
    return seen
