"""Loops over the frames, which torch.export unrolls: finds them in a clip network's graph and puts one operation in their place.

A cell by hand, `for t in range(x.shape[2]): h = cell(x[:, :, t], h)`, and a network called on each frame,
`torch.stack([cnn(x[:, :, t]) for t in range(x.shape[2])], 1)`, are T copies of the same operations. What copy t takes of copy t - 1 is carried
from frame to frame, and is a state of the stream.
"""

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from clipstep.export.compat.torch_internals import tree_flatten
from clipstep.export.lowering.passes.editing import clean
from clipstep.export.stream.interpreter import Chunk, StreamInterpreter
from clipstep.export.unsupported import Unsupported

aten = torch.ops.aten
SHORTEST = 3
"""The number of copies from which on operations count as a loop."""
MOST_BEFORE = 8
"""How many nodes of a copy may come before the first one that takes the frame, if frames are selected before the loop."""
BEFORE = -1
"""The level of a node that needs no single frame."""


class Loop(nn.Module):
    """`(x, *initial values, *others) -> (*values after the last frame, *stacked outputs)`, by a body that is run on each frame of x."""

    def __init__(self, body: fx.GraphModule, axis: int, carried: int, stacks: Sequence[tuple[Any, int]]) -> None:
        """Describe the loop.

        Args:
            body: `(frame, *carried, *others) -> (*carried, *outputs)`.
            axis: the axis of time of x.
            carried: the number of values that are carried.
            stacks: for each output the operator that joins those of all frames, and its axis.
        """
        super().__init__()
        self.body, self.axis, self.carried, self.stacks = body, axis, carried, tuple(stacks)

    def forward(self, x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        carried, others = values[: self.carried], values[self.carried :]
        outputs = []
        for frame in x.unbind(self.axis):
            results = self.body(frame, *carried, *others)
            carried = results[: self.carried]
            outputs.append(results[self.carried :])
        return (*carried, *self.joined(outputs))

    def joined(self, outputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Join the outputs of several frames."""
        return [join(list(parts), dim) for (join, dim), parts in zip(self.stacks, zip(*outputs, strict=True), strict=True)]


def roll_loops(graph: fx.GraphModule) -> None:
    """Put a `Loop` in place of each loop over the frames of a value, if its copies are the same."""
    _merge_equal(graph)
    for x in list(graph.graph.nodes):
        for axis, frames in _frames(x).items():
            if (found := _Unrolled.find(graph, axis, frames)) is not None:
                found.roll(graph, x)
    clean(graph)


def _merge_equal(graph: fx.GraphModule) -> None:
    """Keep one of several equal operations, so that copies of a loop that make the same constant take the same node; and drop checks of types."""
    known: dict[Any, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.target == aten._assert_tensor_metadata.default:
            graph.graph.erase_node(node)
        elif node.op in ("call_function", "get_attr"):
            same = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node:
                node.replace_all_uses_with(same)
                graph.graph.erase_node(node)


def _frames(x: fx.Node) -> dict[int, list[fx.Node]]:
    """Return, by axis, the nodes that select each entry of that axis of a value, in order."""
    value, found = x.meta.get("val"), dict[int, dict[int, fx.Node]]()
    if not isinstance(value, Tensor):
        return {}
    for user in x.users:
        if user.target == aten.select.int and user.args[0] is x:
            dim, index = (int(str(number)) for number in user.args[1:3])
            found.setdefault(dim % value.ndim, {})[index % value.shape[dim]] = user
        elif user.target == aten.unbind.int:
            dim = _dim(user) % value.ndim
            found.setdefault(dim, {}).update({int(str(part.args[1])): part for part in user.users})
    return {dim: [places[index] for index in sorted(places)] for dim, places in found.items() if len(places) == value.shape[dim] >= SHORTEST}


def _dim(node: fx.Node) -> int:
    """Return the axis of an operator whose second argument it is, 0 by default."""
    return int(str(node.args[1])) if len(node.args) > 1 else 0


def _starts(graph: fx.GraphModule, frames: list[fx.Node]) -> Iterator[dict[fx.Node, int]]:
    """Return guesses of the first node of each copy.

    It is the node that selects the frame. If frames are selected before the loop, it is the first one that takes the frame, or one of a few nodes
    before that, which take what is carried.
    """
    nodes = list(graph.graph.nodes)
    place = {node: index for index, node in enumerate(nodes)}
    if not all(frame.users for frame in frames):
        return
    users = [min(frame.users, key=place.__getitem__) for frame in frames]
    if all(place[user] < place[frame] for user, frame in zip(users, frames[1:], strict=False)):
        yield {node: index for index, node in enumerate(frames)}
    else:
        for earlier in range(MOST_BEFORE):
            yield {nodes[max(0, place[user] - earlier)]: index for index, user in enumerate(users)}


class _Mismatch(Exception):
    """The copies of a loop are not the same."""


@dataclass
class _Unrolled:
    """The copies of a loop's body in a graph."""

    axis: int
    frames: list[fx.Node]
    level: dict[fx.Node, int]
    """The copy that each node is in, or BEFORE if it needs no single frame."""
    bodies: list[list[fx.Node]]
    """The nodes of each copy from the second one on, and those of the first one, which need not be as many."""
    after: list[fx.Node]
    """The nodes after the loop."""
    carried: dict[fx.Node, int] = field(default_factory=dict)
    """For each value of the first copy that the second one takes: its place in the second one; BEFORE for the frame itself."""
    first: dict[fx.Node, Any] = field(default_factory=dict)
    """What stands in the first copy for a node of the second one, or for a value that it takes of the first one."""

    @classmethod
    def find(cls, graph: fx.GraphModule, axis: int, frames: list[fx.Node]) -> "_Unrolled | None":
        """Return the copies of the loop over the given frames; None if they are not the same."""
        for starts in _starts(graph, frames):
            found = cls._of(graph, axis, frames, starts)
            with contextlib.suppress(_Mismatch):
                found._compare()
                return found
        return None

    @classmethod
    def _of(cls, graph: fx.GraphModule, axis: int, frames: list[fx.Node], starts: Mapping[fx.Node, int]) -> "_Unrolled":
        level: dict[fx.Node, int] = {}
        bodies: list[list[fx.Node]] = [[] for _ in frames]
        copy = 0
        for node in graph.graph.nodes:
            copy = starts.get(node, copy)
            if node in frames:
                level[node] = frames.index(node)
            elif any(level[source] > BEFORE for source in node.all_input_nodes):
                level[node] = copy
                if node.op == "call_function":
                    bodies[copy].append(node)
            else:
                level[node] = BEFORE
        size = len(bodies[1])
        return cls(axis, frames, level, [*bodies[:-1], bodies[-1][:size]], bodies[-1][size:])

    def _compare(self) -> None:
        """Check that all copies are the same, and find what is carried, and from which initial values."""
        if not self.bodies[1] or any(len(body) != len(self.bodies[1]) for body in self.bodies[1:]):
            raise _Mismatch
        for t in range(2, len(self.bodies)):
            for one, other in zip(self.bodies[1], self.bodies[t], strict=True):
                self._same(one, other, lambda a, b, t=t: self._same_argument(a, b, t))
        for node, place in self.carried.items():
            self._in_first(self.frames[1] if place == BEFORE else self.bodies[1][place], node)

    def _same(self, one: fx.Node, other: fx.Node, compare: Any) -> None:
        if one.target != other.target:
            raise _Mismatch
        mine, its = (tree_flatten((node.args, dict(node.kwargs))) for node in (one, other))
        if mine[1] != its[1]:
            raise _Mismatch
        for a, b in zip(mine[0], its[0], strict=True):
            if isinstance(a, fx.Node) and isinstance(b, fx.Node):
                compare(a, b)
            elif isinstance(a, fx.Node) or isinstance(b, fx.Node) or a != b:
                raise _Mismatch

    def _same_argument(self, a: fx.Node, b: fx.Node, t: int) -> None:
        """Compare an argument of the second copy with that of copy t."""
        if self.level[a] == BEFORE:
            same = a is b
        elif self.level[a] == 1:
            same = b is self._counterpart(a, t)
        else:
            place = self._place(b, t - 1)
            same = place is not None and self.carried.setdefault(a, place) == place
        if not same:
            raise _Mismatch

    def _counterpart(self, node: fx.Node, t: int) -> fx.Node:
        """Return the node of copy t for a node of the second copy, or for its frame."""
        return self.frames[t] if node is self.frames[1] else self.bodies[t][self.bodies[1].index(node)]

    def _place(self, node: fx.Node, t: int) -> int | None:
        if node is self.frames[t]:
            return BEFORE
        return self.bodies[t].index(node) if node in self.bodies[t] else None

    def _in_first(self, node: fx.Node, its: fx.Node) -> None:
        """Note that `its` stands in the first copy for a node of the second one, and what stands there for its arguments."""
        if node in self.first:
            if self.first[node] is not its:
                raise _Mismatch
            return
        self.first[node] = its
        if self.level[node] == BEFORE or node is self.frames[1]:
            if its is not (node if self.level[node] == BEFORE else self.frames[0]):
                raise _Mismatch
        elif self.level[node] == 0:
            if self.level[its] != BEFORE:
                raise _Mismatch
        else:
            self._same(node, its, self._in_first)

    def roll(self, graph: fx.GraphModule, x: fx.Node) -> None:
        """Replace the copies by a `Loop`, if what follows them takes either the outputs of all frames in order or those of the last one."""
        last, uses = self.bodies[-1], list[tuple[fx.Node, int]]()
        stacked: dict[fx.Node, int] = {}
        inside = {node for body in self.bodies for node in body} | set(self.frames)
        outputs = [node for node in graph.graph.nodes if node.op == "output"]
        for node in (*self.after, *outputs):
            taken = [source for source in node.all_input_nodes if source in inside]
            if (place := self._stacked(node)) is not None:
                stacked[node] = place
            elif all(source in last for source in taken):
                uses += [(node, last.index(source)) for source in taken]
            else:
                return
        self._build(graph, x, uses, stacked)

    def _stacked(self, node: fx.Node) -> int | None:
        """Return the place in the body of the value that a node joins for all frames in order; None if it does something else."""
        if node.target not in (aten.stack.default, aten.cat.default):
            return None
        parts: Any = node.args[0]
        dim = _dim(node)
        if len(parts) != len(self.bodies) or parts[1] not in self.bodies[1]:
            return None
        if node.target == aten.cat.default and parts[1].meta["val"].shape[dim] != 1:
            return None
        place = self.bodies[1].index(parts[1])
        if any(part is not body[place] for part, body in zip(parts[1:], self.bodies[1:], strict=True)):
            return None
        try:
            self._in_first(parts[1], parts[0])
        except _Mismatch:
            return None
        return place

    def _build(self, graph: fx.GraphModule, x: fx.Node, uses: list[tuple[fx.Node, int]], stacked: dict[fx.Node, int]) -> None:
        copy, body = self.bodies[1], fx.Graph()
        inner: dict[fx.Node, fx.Node] = {self.frames[1]: body.placeholder("frame")}
        finals = [place for place in sorted({place for _, place in uses}) if place not in self.carried.values()]
        for index, node in enumerate(self.carried):
            inner[node] = body.placeholder(f"carried_{index}")
        for place in finals:
            body.placeholder(f"final_{place}")
        others = list(dict.fromkeys(source for node in copy for source in node.all_input_nodes if self.level[source] == BEFORE))
        for index, node in enumerate(others):
            inner[node] = body.placeholder(f"other_{index}")
        for node in copy:
            inner[node] = body.node_copy(node, inner.__getitem__)
        following = [inner[self.frames[1] if place == BEFORE else copy[place]] for place in self.carried.values()]
        body.output((*following, *(inner[copy[place]] for place in finals), *(inner[copy[place]] for place in stacked.values())))
        name = f"loop_{x.name}_{self.axis}"
        stacks = [(torch.stack if node.target == aten.stack.default else torch.cat, _dim(node)) for node in stacked]
        graph.add_submodule(name, Loop(fx.GraphModule(nn.Module(), body), self.axis, len(following) + len(finals), stacks))
        with graph.graph.inserting_before(min((*self.after, *(node for node, _ in uses)), key=list(graph.graph.nodes).index)):
            zeros = [graph.graph.call_function(torch.zeros, (tuple(copy[place].meta["val"].shape),)) for place in finals]
            initial = [self.first[node] for node in self.carried]
            loop = graph.graph.call_module(name, (x, *initial, *zeros, *others))
            results = [graph.graph.call_function(operator.getitem, (loop, index)) for index in range(len(following) + len(finals) + len(stacked))]
        places = [*self.carried.values(), *finals]
        for node, place in uses:
            result = results[places.index(place)]
            result.meta["val"] = copy[place].meta["val"]
            node.replace_input_with(self.bodies[-1][place], result)
        for node, result in zip(stacked, results[len(places) :], strict=True):
            result.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(result)
        clean(graph)


def loop(stream: StreamInterpreter, node: fx.Node, x: Any, *values: Any) -> tuple[Any, ...]:
    """Run a `Loop` on the frames of a step, from the carried values of the step before, as `recurrent` does."""
    module: Any = stream.fetch_attr(str(node.target))
    if not isinstance(x, Chunk) or any(isinstance(value, Chunk) for value in values) or x.axis != module.axis:
        raise Unsupported("is a loop over another axis than time, or joins values of single frames with those of the clip")
    (x,) = stream.align([x])
    stream.fixed_length = True
    starts, others = values[: module.carried], values[module.carried :]
    carried = [start + stream.past.read(start.shape).reshape(start.shape) for start in starts]
    inside = stream.inside(x, 0, before=x.delay > 0, after=x.pending > 0)
    outputs = []
    for index, frame in enumerate(x.data.unbind(x.axis)):
        results = module.body(frame, *carried, *others)
        after = results[: module.carried]
        share = None if inside is None else inside[index : index + 1]
        carried = list(after) if share is None else [old + share * (new - old) for old, new in zip(carried, after, strict=True)]
        outputs.append(results[module.carried :])
    for start, value in zip(starts, carried, strict=True):
        stream.past.write((value - start).reshape(1, -1))
    joined = [replace(x, data=data, axis=dim % data.ndim) for data, (_, dim) in zip(module.joined(outputs), module.stacks, strict=True)]
    stream.sources[node] = x
    return (*carried, *joined)
