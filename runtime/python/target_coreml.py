"""The target `coreml`: a `.mlpackage` folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipstep.runtime.artifact_io import METADATA
from clipstep.runtime.target import FileContent, TargetInfo, Tensor, counted_by_type


def read_coreml(path: Path) -> FileContent:
    from clipstep.runtime.coremltools_files import load_spec

    spec = load_spec(path)
    if not spec.HasField("mlProgram"):
        raise ValueError("it is not an ML Program")
    kinds = {value.number: name.lower() for name, value in _array_types(spec).items()}

    def tensors(features: Any) -> list[Tensor]:
        arrays = [(feature.name, feature.type.multiArrayType) for feature in features]
        return [Tensor(name=name, dtype=kinds[array.dataType], shape=tuple(array.shape)) for name, array in arrays]

    function = spec.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    return FileContent(
        inputs=tensors(spec.description.input),
        outputs=tensors(spec.description.output),
        operations=counted_by_type(operation.type for operation in operations if operation.type != "const"),
        weights_bytes=sum(file.stat().st_size for file in path.rglob("weight.bin")),
        written_by=f"Core ML, {function.opset}",
        metadata=dict(spec.description.metadata.userDefined).get(METADATA),
    )


def _array_types(spec: Any) -> Mapping[str, Any]:
    array = spec.description.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["type"].message_type.fields_by_name["multiArrayType"]
    values: Mapping[str, Any] = array.message_type.enum_types_by_name["ArrayDataType"].values_by_name
    return values


COREML = TargetInfo(
    name="coreml",
    display_name="Core ML",
    suffix=".mlpackage",
    read=read_coreml,
    imports=("clipstep.runtime.coremltools_files",),
    destinations=("ios",),
)
