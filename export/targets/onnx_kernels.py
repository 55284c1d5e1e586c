"""Which operations of a step are computed in int8 in onnxruntime: those that are faster so, as counted in ARM64 instructions.

Each integer of a result takes about ten instructions, and three or four more where it is made of a number of float32 or into one, but each product
takes a quarter of those of float32. So int8 pays where a number of a result is the sum of many products, and for what is between two such operations.
"""

from collections.abc import Sequence

import torch
from torch import fx

from clipstep.export.targets.accumulation import SUMS
from clipstep.export.targets.int8 import NOT_BETWEEN, NOT_WRITTEN, WEIGHTED, Kernels, constants_of, operands_of
from clipstep.export.targets.quantization import MATRIX_PRODUCTS
from clipstep.export.targets.xnnpack_elementwise import CLAMPS

aten = torch.ops.aten
FEWEST_PRODUCTS = 48
"""The fewest products in a sum for which a convolution or a matrix product is computed in int8. A step of the home network takes 127 M ARM64
instructions with 36, 122.1 with 48, and 124.3 with 64. A matrix product (12, 81) @ (81, 3136) takes 0.64 M in int8 and 1.05 in float32."""
FEW_PRODUCTS = f"onnxruntime is faster in float32 where fewer than {FEWEST_PRODUCTS} products are added up"
PAIR_LEVELS = 64
"""Weights that are multiplied as int8 are of -64 to 64. x86_64 processors without VNNI add the products of two neighbours up in 16 bits: at most
2 * 64 * 255, so that nothing is cut off there, and all processors compute the same."""
NO_KERNEL = "onnxruntime has no such operator in int8"
SLOW_POOL = "onnxruntime's max pool of integers takes six times the instructions"


def _slower(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> dict[fx.Node, str]:
    """Return the operations that stay in float32, each with the reason.

    What only moves values is in int8 on the way to a product in int8, and a sum if it also gets values of one. The clamp after one costs nothing.
    """
    reasons = {node: reason for node in nodes if (reason := _reason(graph, node)) is not None}
    products = {node for node in nodes if node not in reasons and node.target in WEIGHTED | MATRIX_PRODUCTS}
    others = [node for node in nodes if node not in reasons and node not in products]
    of_products = set(products)
    for node in others:
        if not of_products.isdisjoint(node.all_input_nodes):
            of_products.add(node)
    kept = set(products)
    for node in reversed(others):
        if not kept.isdisjoint(node.users) and (node.target not in SUMS or node in of_products):
            kept.add(node)
    kept |= {node for node in others if node.target in CLAMPS and not kept.isdisjoint(node.all_input_nodes)}
    return reasons | {node: NOT_BETWEEN for node in others if node not in kept}


def _reason(graph: fx.GraphModule, node: fx.Node) -> str | None:
    if node.target is aten.to.dtype:
        return NOT_WRITTEN
    if node.target is aten.max_pool2d.default:
        return SLOW_POOL
    if node.target in SUMS:
        return None if node.target is aten.add.Tensor else NO_KERNEL
    if node.target in WEIGHTED | MATRIX_PRODUCTS:
        return FEW_PRODUCTS if _products(graph, node) < FEWEST_PRODUCTS else None
    return None


def _products(graph: fx.GraphModule, node: fx.Node) -> int:
    """Return how many products are added up for an element of the result."""
    if node.target in WEIGHTED:
        (weight,) = constants_of(graph, node.args[1:2])
        return weight[0].numel()
    (matrix,) = constants_of(graph, node.args[:2])
    return int(matrix.shape[0 if node.args[0] in operands_of(node) else 1])


KERNELS = Kernels("onnx", limited=False, weight_levels=PAIR_LEVELS, slower=_slower)
"""Those of onnxruntime."""
