"""An ONNX file of a bundle names no other file and no foreign operator, wherever in it that could be."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipstep.runtime import ClipstepError, StepModel
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.checks.onnx import check_onnx
from clipstep.runtime.targets import check_artifact_file

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def changed(bundle_path: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """The bundle's model, changed."""

    def change(how: Change) -> Path:
        model = onnx.load(bundle_path / "model.onnx")
        how(model)
        (tmp_path / "changed.onnx").write_bytes(model.SerializeToString())
        return tmp_path / "changed.onnx"

    return change


def _external(name: str = "secret") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def _node_of(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def in_the_initializers(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(_external())


def in_a_node(model: onnx.ModelProto) -> None:
    model.graph.node.append(_node_of(_external()))


def in_a_list_of_tensors(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["m"], ["x"])
    node.attribute.append(onnx.AttributeProto(name="tensors", type=onnx.AttributeProto.TENSORS, tensors=[_external()]))
    model.graph.node.append(node)


def in_a_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([_node_of(_external())], "inner", [], [])
    outer = helper.make_graph([helper.make_node("If", ["m"], ["i"], then_branch=inner, else_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["m"], ["i"], then_branch=outer, else_branch=outer))


def in_a_subgraphs_initializers(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [_external()])
    model.graph.node.append(helper.make_node("If", ["m"], ["i"], then_branch=inner, else_branch=inner))


def in_a_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("f", "g", [], ["c"], [_node_of(_external())], [helper.make_opsetid("", 18)]))


def in_sparse_values(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=_external(), dims=[1]))


def in_sparse_indices(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.zeros(1, np.float32))
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=_external(), dims=[1]))


def in_the_training_graph(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(_external())


def by_location_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def by_data_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="x")


PLACES = [
    in_the_initializers,
    in_a_node,
    in_a_list_of_tensors,
    in_a_subgraph,
    in_a_subgraphs_initializers,
    in_a_function,
    in_sparse_values,
    in_sparse_indices,
    in_the_training_graph,
    by_location_alone,
    by_data_alone,
]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused(changed: Callable[[Change], Path], place: Change) -> None:
    with pytest.raises(ClipstepError, match=r"changed\.onnx: \w+ lies in another file; expected one file with all its weights"):
        check_onnx(changed(place))


def test_one_of_two_values_of_a_field_is_enough(changed: Callable[[Change], Path]) -> None:
    """protobuf's readers give the last of several values; an empty graph after the first one must not hide it."""
    path = changed(in_the_initializers)
    path.write_bytes(path.read_bytes() + bytes([7 << 3 | 2, 0]))
    with pytest.raises(ClipstepError, match="lies in another file"):
        check_onnx(path)


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def foreign_operator_in_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Run", [], ["c"], domain="com.evil")
    model.functions.append(helper.make_function("f", "g", [], ["c"], [node], [helper.make_opsetid("com.evil", 1)]))


@pytest.mark.parametrize("place", [foreign_operator, foreign_operator_in_a_function])
def test_an_operator_of_another_domain_is_refused(changed: Callable[[Change], Path], place: Change) -> None:
    with pytest.raises(ClipstepError, match=r"operators that are not ONNX's own; got com\.evil::\w+; expected only standard operators"):
        check_onnx(changed(place))


def test_a_function_of_the_file_is_its_own_operator(changed: Callable[[Change], Path]) -> None:
    def define(model: onnx.ModelProto) -> None:
        node = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(helper.make_function("inner.ops", "Rectify", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]))
        model.graph.node.append(helper.make_node("Rectify", ["m"], ["r"], domain="inner.ops"))

    check_onnx(changed(define))


@pytest.mark.parametrize("dims", [[2**40], [2**16, 2**16], [-1]])
def test_a_tensor_of_more_numbers_than_a_file_holds(changed: Callable[[Change], Path], dims: list[int]) -> None:
    with pytest.raises(ClipstepError, match="claims more numbers than a file can hold"):
        check_onnx(changed(lambda model: model.graph.initializer.append(TensorProto(name="big", data_type=1, dims=dims))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x3a\xff\xff\xff\xff\x0f", "field 7 ends outside its message; got 4294967295 bytes; expected at most 0"),
        (b"\x3a\x80", "a number without an end"),
        (b"\xff" * 20, "a number without an end"),
        (b"\x3b", "wire type 3"),
        (b"\x38\x01", "field 7 of ModelProto is no message"),
    ],
)
def test_what_is_no_protocol_buffer(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(ClipstepError, match=f"is not an ONNX file; got .*{message}"):
        check_onnx(tmp_path / "x.onnx")


def test_an_absent_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=r"x\.onnx: no such file; export it again"):
        check_artifact_file("onnx", tmp_path / "x.onnx")
    for target in ("onnx", "executorch"):
        (tmp_path / "x").write_bytes(b"")
        with pytest.raises(ClipstepError, match=r"x: is empty; export it again"):
            check_artifact_file(target, tmp_path / "x")


def test_graphs_in_graphs_without_end(tmp_path: Path) -> None:
    """Each level is a node with an attribute that is a graph; the innermost one of 200."""

    def field(number: int, data: bytes) -> bytes:
        size, rest = b"", len(data)
        while rest >= 128:
            size, rest = size + bytes([rest % 128 + 128]), rest // 128
        return bytes([number << 3 | 2]) + size + bytes([rest]) + data

    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(field(7, graph))
    with pytest.raises(ClipstepError, match="messages are nested too deep; expected at most 100"):
        check_onnx(tmp_path / "deep.onnx")


def test_a_bundle_whose_file_names_another_is_refused_before_the_engine_sees_it(copied_bundle: Path) -> None:
    path = copied_bundle / "model.onnx"
    model = onnx.load(path)
    in_the_initializers(model)
    path.write_bytes(model.SerializeToString())
    values = json.loads((copied_bundle / "manifest.json").read_text())
    values["artifacts"][0].update(sha256=tree_sha256(path), size_bytes=tree_size(path))
    (copied_bundle / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(ClipstepError, match="secret lies in another file"):
        StepModel.load(copied_bundle)
