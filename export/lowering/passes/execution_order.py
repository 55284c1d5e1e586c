"""A pass that orders the operations of a graph."""

from torch import fx


def depth_first(module: fx.GraphModule) -> fx.GraphModule:
    """Return the same graph with each value computed as late as its first use allows.

    Engines run nodes in the order of the graph. In this order a frame goes through several operations while it is in the
    processor's cache, instead of each operation going through all frames.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    pending = list(reversed([*module.graph.find_nodes(op="placeholder"), module.graph.output_node()]))
    while pending:
        node = pending[-1]
        waiting = [source for source in node.all_input_nodes if source not in copies]
        if waiting:
            pending += reversed(waiting)
            continue
        pending.pop()
        if node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)
