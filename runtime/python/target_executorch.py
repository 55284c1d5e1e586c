"""The target `executorch`: a `.pte` file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.executorch_internals import READER, program_reader
from clipstep.runtime.target import FileContent, TargetInfo, Tensor, counted_by_type


def read_executorch(path: Path) -> FileContent:
    read, schema = program_reader()
    plans = {plan.name: plan for plan in read(path.read_bytes()).execution_plan}
    forward = plans["forward"]
    names = {"byte": "uint8", "float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"}

    def tensors(indices: Sequence[int]) -> list[Tensor]:
        values: list[Any] = [forward.values[index].val for index in indices]
        kinds = [value.scalar_type.name.lower() for value in values]
        return [Tensor(name=None, dtype=names.get(kind, kind), shape=tuple(value.sizes)) for kind, value in zip(kinds, values, strict=True)]

    calls: list[str] = []
    for instruction in (step.instr_args for chain in forward.chains for step in chain.instructions):
        if isinstance(instruction, schema.DelegateCall):
            calls.append(forward.delegates[instruction.delegate_index].id)
        elif isinstance(instruction, schema.KernelCall):
            calls.append(forward.operators[instruction.op_index].name)
    constant = plans.get(METADATA)
    value = constant.values[constant.outputs[0]].val if constant else None
    return FileContent(
        inputs=tensors(forward.inputs),
        outputs=tensors(forward.outputs),
        operations=counted_by_type(calls),
        weights_bytes=None,
        written_by="ExecuTorch",
        metadata=value.string_val if isinstance(value, schema.String) else None,
    )


EXECUTORCH = TargetInfo(
    name="executorch",
    display_name="ExecuTorch",
    suffix=".pte",
    read=read_executorch,
    imports=(READER,),
    destinations=("android", "python"),
    nodes="calls",
)
