"""Makes biases that are a column of a matrix of weights smaller, so that integers of 8 bits have numbers left for the weights beside them.

Where a convolution is a product of matrices, its bias is a column of the weights, which multiplies a row of ones. All weights of an output channel
share one scale: those of frames of 0..255 are much smaller than a bias, and would become 0.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from clipstep.export.lowering.passes.editing import constant
from clipstep.export.targets.quantization import MATRIX_PRODUCTS

aten = torch.ops.aten


def balance_bias_columns(graph: fx.GraphModule, ranges: Mapping[fx.Node, tuple[float, float]]) -> None:
    """Divide columns that multiply rows of ones by a power of two, and multiply these rows by it, which changes nothing in floats.

    Before: `mm([W, b], cat([x, 1]))`. After: `mm([W, b / 64], cat([x, 64]))`, with a number in the row that is within the range of `x`.

    Args:
        graph: the step, lowered; it is changed.
        ranges: the range of each value.
    """
    made = dict[Any, fx.Node]()
    for rows in graph.graph.find_nodes(op="call_function", target=aten.cat.default):
        products = list(rows.users)
        along_rows = rows.meta["val"].ndim == 2 and (*rows.args, 0)[1] == 0
        if not along_rows or rows not in ranges or not all(_is_of_weights(product, rows) for product in products):
            continue
        factor = 2.0 ** math.floor(math.log2(max(ranges[rows][1], 1.0)))
        start, parts = 0, list[fx.Node]()
        for part in rows.args[0]:
            assert isinstance(part, fx.Node)
            end = start + part.meta["val"].shape[0]
            if _is_ones(graph, part) and any(_is_outweighed(constant(graph, product.args[0]), slice(start, end)) for product in products):
                parts.append(_scaled(graph, part, (part, factor), constant(graph, part) * factor, made))
                for product in products:
                    weight = constant(graph, product.args[0]).clone()
                    weight[:, start:end] /= factor
                    product.args = (_scaled(graph, product.args[0], (product.args[0], start, factor), weight, made), rows)
            else:
                parts.append(part)
            start = end
        rows.args = (parts, *rows.args[1:])
    graph.recompile()


def _is_of_weights(product: fx.Node, rows: fx.Node) -> bool:
    """Whether an operation is a product of a constant matrix with `rows`."""
    return product.target in MATRIX_PRODUCTS and product.args[1] is rows and isinstance(product.args[0], fx.Node) and product.args[0].op == "get_attr"


def _is_ones(graph: fx.GraphModule, part: fx.Node) -> bool:
    return part.op == "get_attr" and bool((constant(graph, part) == 1).all())


def _is_outweighed(weight: Tensor, columns: slice) -> bool:
    """Whether these columns are larger than all others in a row of a matrix."""
    others = weight.abs().clone()
    others[:, columns] = 0
    return bool((weight[:, columns].abs().amax(1) > others.amax(1)).any())


def _scaled(graph: fx.GraphModule, node: Any, key: Any, value: Tensor, made: dict[Any, fx.Node]) -> fx.Node:
    """Return the node of a new constant that stands for another one; the same for the same `key`."""
    if key not in made:
        name = f"balanced_{len(made)}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(next(iter(graph.graph.nodes))):
            made[key] = graph.graph.get_attr(name)
        made[key].meta["val"] = node.meta["val"]
    return made[key]
