"""The target `onnx`: a `.onnx` file."""

from pathlib import Path
from typing import Any

from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.checks.onnx import check_onnx
from clipstep.runtime.target import FileContent, TargetInfo, Tensor, counted_by_type


def read_onnx(path: Path) -> FileContent:
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    graph = model.graph
    weights = {value.name: onnx.numpy_helper.to_array(value).nbytes for value in graph.initializer}

    def tensors(values: Any) -> list[Tensor]:
        found = []
        for value in values:
            kind = value.type.tensor_type
            shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
            found.append(Tensor(name=value.name, dtype=str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape=tuple(shape)))
        return found

    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), "?")
    return FileContent(
        inputs=tensors(value for value in graph.input if value.name not in weights),
        outputs=tensors(graph.output),
        operations=counted_by_type(node.op_type for node in graph.node),
        weights_bytes=sum(weights.values()),
        written_by=f"{model.producer_name} {model.producer_version}, opset {opset}",
        metadata={entry.key: entry.value for entry in model.metadata_props}.get(METADATA),
    )


ONNX = TargetInfo(
    name="onnx",
    display_name="ONNX",
    suffix=".onnx",
    read=read_onnx,
    imports=("onnx",),
    destinations=("android", "python"),
    check=check_onnx,
)
