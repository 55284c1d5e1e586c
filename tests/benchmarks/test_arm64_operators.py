"""How the marks of the counter and the engines' profiles become counts of steps and of operators."""

import json
from pathlib import Path
from typing import Any

import pytest

from clipstep.benchmarks.arm64.marks import Mark, step_counts
from clipstep.benchmarks.arm64.operators import executorch_operators, onnxruntime_operators, without_profiling
from clipstep.benchmarks.arm64.table import instruction_table, operator_table, processor_lines
from clipstep.benchmarks.records import Counts, InstructionRecord, OperatorCount
from clipstep.runtime.errors import ClipstepError


def counts(i: int, f: int = 0, loads: int = 0, stores: int = 0) -> Counts:
    return Counts(instructions=i, vector_fmas=f, loads=loads, stores=stores)


def write_marks(path: Path, marks: list[tuple[int, int]]) -> list[Mark]:
    path.write_text("".join(f"{call} {instructions} {instructions // 10} 0 0 0 0 0 0\n" for call, instructions in marks))
    return Mark.read(path)


def test_a_step_lies_between_two_calls_of_getppid(tmp_path: Path) -> None:
    marks = write_marks(tmp_path / "counts.txt", [(172, 5), (173, 100), (113, 150), (173, 300), (113, 350), (173, 400), (173, 470)])
    assert step_counts(marks) == [counts(200, 20), counts(70, 7)]


def test_onnxruntime_nodes_lie_between_clocks_before_getpid(tmp_path: Path) -> None:
    """Two steps of two nodes: the nodes of the second step are read, and the executor's own clock readings are skipped."""
    step = [(173, 0), (113, 10), (113, 20), (113, 30), (113, 70), (172, 75), (113, 80), (113, 90), (172, 95), (113, 97), (172, 98), (173, 100)]
    marks = write_marks(tmp_path / "counts.txt", step + [(call, 1000 + 2 * at) for call, at in step])

    def node(name: str, kind: str) -> dict[str, Any]:
        args = {"op_name": kind, "output_type_shape": [{"float": [1, 2]}]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}

    (tmp_path / "operators.json").write_text(json.dumps([{"cat": "Session"}, *[node("a", "Conv"), node("b", "Relu")] * 2]))
    first, second = onnxruntime_operators(tmp_path, marks)
    assert (first.name, first.kind, first.output_shape, first.instructions, first.vector_fmas) == ("a", "Conv", (1, 2), 80, 8)
    assert (second.name, second.kind, second.instructions) == ("b", "Relu", 20)
    with pytest.raises(ClipstepError, match="onnxruntime's operators cannot be told apart; got 2 marks; expected 4"):
        onnxruntime_operators(tmp_path, marks[:12])


def test_executorch_operators_in_several_parts(tmp_path: Path) -> None:
    """A kernel outside delegates, then a delegate whose first operator runs in two parts."""
    begin = [(173, 0), (174, 1), (174, 2), (174, 3), (174, 53), (174, 54)]  # a step, the method, a call and its kernel
    marks = write_marks(
        tmp_path / "counts.txt", [*begin, (174, 60), (172, 61), (172, 70), (172, 80), (172, 100), (172, 400), (174, 410), (174, 411), (173, 412)]
    )
    lines = ["start Method::execute", "start OPERATOR_CALL", "start native_call_cast.out", "end", "end", "start DELEGATE_CALL"]
    lines += ["inside 2000000 Copy (NC) #1", "inside 1000000 Convolution (NHWC, F32) GEMM #1", "end", "end"]
    (tmp_path / "operators.txt").write_text("\n".join(["start Method::init", "end", *lines]) + "\n")
    found = executorch_operators(tmp_path, marks)
    assert [(o.kind, o.instructions) for o in found] == [("cast.out", 50), ("Copy (NC)", 30), ("Convolution (NHWC, F32) GEMM", 300)]
    (tmp_path / "operators.txt").write_text("\n".join(lines).replace("2000000", "3000000"))
    with pytest.raises(ClipstepError, match="XNNPACK's operators cannot be told apart; got 3 marks; expected 4"):
        executorch_operators(tmp_path, marks)


def test_profiling_overhead_is_subtracted_in_equal_parts() -> None:
    operators = [
        OperatorCount(name=n, kind="k", output_shape=None, instructions=i, vector_fmas=8, loads=0, stores=0) for n, i in (("a", 100), ("b", 500))
    ]
    assert [o.instructions for o in without_profiling(operators, counts(500, 16))] == [50, 450]
    assert [o.instructions for o in without_profiling(operators, counts(700, 16))] == [100, 500]


def record(**values: Any) -> InstructionRecord:
    configuration = {"name": "x", "target": "onnx", "form": "3d", "precision": "float32", "engine": "onnxruntime", "threads": 1, "file": None}
    shared = {
        "bundle": "b",
        "manifest_sha256": "0",
        "artifact_sha256": None,
        "configuration": configuration,
        "emulator": "e",
        "cpu_model": "c",
        "tool_versions": {},
        "file_bytes": 1,
        "needed_multiply_accumulates": None,
        "largest_error": 0,
        "first_step": counts(0),
    }
    return InstructionRecord.model_validate({**shared, **values})


def test_multiply_accumulates_are_shown_by_type_and_processor() -> None:
    """240 of 320 M are needed: 75 %, and so 15 of 20 M vector FMAs in 100 M instructions. SVE executes others, which are not known."""
    step = Counts(instructions=100_000_000, vector_fmas=20_000_000, loads=0, stores=0, float32_macs=20_000_000, integer_macs=300_000_000)
    known = record(steps=[step], needed_multiply_accumulates=240_000_000, cpu_features=("fp", "asimdhp", "i8mm"))
    scalable = record(steps=[step.model_copy(update={"scalable": 1})], needed_multiply_accumulates=240_000_000, cpu_model="d", emulator="f")
    table = instruction_table([known, scalable])
    cells = {" ".join(str(column.header).split()): list(column.cells) for column in table.columns}
    assert (cells["what runs"], cells["times naive"]) == (["x, c", "x, d"], ["1.00", "1.00"])
    assert cells["f32 MACs M"][0] == "20.0" and cells["int MACs M"][0] == "300.0" and "f16 MACs M" not in cells
    assert (cells["MACs needed"], cells["useful"]) == (["75%", "-"], ["15%", "-"])
    of_c, of_d, unknown = processor_lines([known, scalable])
    assert (of_c, of_d) == ("c in e: fp16, no dot product, i8mm, no SVE, no SME", "d in f: unknown features")
    assert unknown.startswith("x, d: instructions of SVE or SME ran, whose multiply-accumulates, loads and stores are not counted")


def test_operators_of_one_kind_and_shape_are_one_row() -> None:
    shapes = [(1, 8), (1, 8), (1, 4)]
    operators = tuple(
        OperatorCount(name=str(n), kind="Conv", output_shape=shape, instructions=10_000_000, vector_fmas=5_000_000, loads=0, stores=0)
        for n, shape in enumerate(shapes)
    )
    table = operator_table(record(steps=[counts(40_000_000, 15_000_000)], operators=operators))
    assert list(table.columns[0].cells) == ["Conv", "Conv", "between operators"]
    assert list(table.columns[3].cells) == ["20.0", "10.0", "10.0"]
    assert list(table.columns[4].cells) == ["50%", "25%", "25%"]
    assert list(table.columns[6].cells) == ["2.00", "2.00", "-"]
