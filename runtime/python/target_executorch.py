"""The target ``executorch``: a ``.pte`` file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipstep.runtime.declared import METADATA
from clipstep.runtime.target import TargetInfo, Tensor, counted_by_type


def read_executorch(path: Path) -> dict[str, Any]:
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall, String

    plans = {plan.name: plan for plan in deserialize_pte_binary(path.read_bytes()).program.execution_plan}
    forward = plans["forward"]
    names = {"byte": "uint8", "float": "float32", "half": "float16", "double": "float64", "int": "int32", "long": "int64"}

    def tensors(indices: Sequence[int]) -> list[Tensor]:
        values: list[Any] = [forward.values[index].val for index in indices]
        kinds = [value.scalar_type.name.lower() for value in values]
        return [Tensor(name=None, dtype=names.get(kind, kind), shape=tuple(value.sizes)) for kind, value in zip(kinds, values, strict=True)]

    calls: list[str] = []
    for instruction in (step.instr_args for chain in forward.chains for step in chain.instructions):
        if isinstance(instruction, DelegateCall):
            calls.append(forward.delegates[instruction.delegate_index].id)
        elif isinstance(instruction, KernelCall):
            calls.append(forward.operators[instruction.op_index].name)
    constant = plans.get(METADATA)
    value = constant.values[constant.outputs[0]].val if constant else None
    return {
        "target": "executorch",
        "inputs": tensors(forward.inputs),
        "outputs": tensors(forward.outputs),
        "operations": counted_by_type(calls),
        "weights_bytes": None,
        "written_by": "ExecuTorch",
        "metadata": value.string_val if isinstance(value, String) else None,
    }


EXECUTORCH = TargetInfo("ExecuTorch", ".pte", read_executorch, ("executorch.exir._serialize._program",), ("android", "python"), operations="calls")
