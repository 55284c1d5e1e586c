"""What a lone artifact says of itself, read by its own format's tools; with the facts that clipstep embeds, if it has them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clipstep.runtime.checks.present import check_present
from clipstep.runtime.declared import METADATA
from clipstep.runtime.embedded import interface_in
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.fits import expected_tensors
from clipstep.runtime.hashes import tree_size
from clipstep.runtime.install import install_extra
from clipstep.runtime.manifest import Interface
from clipstep.runtime.terminal import quiet_stderr


class Tensor(BaseModel):
    """An input or an output; ExecuTorch's have no names."""

    model_config = ConfigDict(frozen=True)
    name: str | None
    dtype: str
    shape: tuple[int | str, ...]


class FileFacts(BaseModel):
    """What is in a file: ``operations`` counts nodes by their type, those of an ExecuTorch delegate as one call."""

    model_config = ConfigDict(frozen=True)
    file: str
    target: str
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operations: dict[str, int]
    weights_bytes: int | None
    """None where the format does not say."""
    written_by: str
    interface: Interface | None


def read_file(path: Path) -> FileFacts:
    """The facts of a ``.onnx``, ``.pte`` or ``.mlpackage``.

    Raises:
        ClipstepError: there is no such file, it is damaged or of another kind, the tools to read it are not installed, or what
            clipstep embedded in it is not what the file is.
    """
    if path.suffix not in READERS:
        raise ClipstepError(f"{path}: is not an artifact", expected=f"a bundle, or a file that ends in {', '.join(READERS)}")
    check_present(path, "check the path")
    try:
        with quiet_stderr():
            values = READERS[path.suffix](path)
    except ModuleNotFoundError as error:
        raise ClipstepError(f"reading {path.suffix} needs {error.name}, which is not installed", fix=install_extra("export")) from error
    except Exception as error:  # Each format's tools raise what they like on a damaged file.
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ClipstepError(f"{path}: cannot be read", got=f"{type(error).__name__}: {reason}", expected=f"a {path.suffix} file") from error
    text = values.pop("metadata")
    interface = None if text is None else interface_in(text, path)
    facts = FileFacts(file=path.name, size_bytes=tree_size(path), interface=interface, **values)
    if interface is not None:
        _check(path, facts, interface)
    return facts


def facts_of(path: Path) -> str:
    """:func:`read_file` as JSON, as a process of its own is asked for it."""
    return read_file(path).model_dump_json()


def _check(path: Path, facts: FileFacts, interface: Interface) -> None:
    """Compares the embedded facts with the file's inputs and outputs: names where it has them, types, shapes."""
    inputs, outputs = expected_tensors(interface)
    for what, said, found in (("input", inputs, facts.inputs), ("output", outputs, facts.outputs)):
        got = [(value.name or name, value.dtype, value.shape) for value, (name, _, _) in zip(found, said, strict=False)]
        if len(found) != len(said) or got != said:
            wrong = next((pair for pair in zip(got, said, strict=False) if pair[0] != pair[1]), (f"{len(found)} {what}s", f"{len(said)} {what}s"))
            raise ClipstepError(
                f"{path}: the clipstep facts in it do not fit the file's {what}s", got=_words(wrong[0]), expected=_words(wrong[1]),
                fix="export it again",
            )  # fmt: skip


def _words(value: Any) -> str:
    return value if isinstance(value, str) else f"{value[0]} {value[1]} {value[2]}"


def _read_onnx(path: Path) -> dict[str, Any]:
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
    return {
        "target": "onnx",
        "inputs": tensors(value for value in graph.input if value.name not in weights),
        "outputs": tensors(graph.output),
        "operations": _sorted(node.op_type for node in graph.node),
        "weights_bytes": sum(weights.values()),
        "written_by": f"{model.producer_name} {model.producer_version}, opset {opset}",
        "metadata": {entry.key: entry.value for entry in model.metadata_props}.get(METADATA),
    }


def _read_executorch(path: Path) -> dict[str, Any]:
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
        "target": "executorch", "inputs": tensors(forward.inputs), "outputs": tensors(forward.outputs), "operations": _sorted(calls),
        "weights_bytes": None, "written_by": "ExecuTorch", "metadata": value.string_val if isinstance(value, String) else None,
    }  # fmt: skip


def _read_coreml(path: Path) -> dict[str, Any]:
    import coremltools

    spec = coremltools.utils.load_spec(str(path))
    if not spec.HasField("mlProgram"):
        raise ValueError("it is no ML Program")
    kinds = {value.number: name.lower() for name, value in _array_types(spec).items()}

    def tensors(features: Any) -> list[Tensor]:
        arrays = [(feature.name, feature.type.multiArrayType) for feature in features]
        return [Tensor(name=name, dtype=kinds[array.dataType], shape=tuple(array.shape)) for name, array in arrays]

    function = spec.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    return {
        "target": "coreml", "inputs": tensors(spec.description.input), "outputs": tensors(spec.description.output),
        "operations": _sorted(operation.type for operation in operations if operation.type != "const"),
        "weights_bytes": sum(file.stat().st_size for file in path.rglob("weight.bin")), "written_by": f"Core ML, {function.opset}",
        "metadata": dict(spec.description.metadata.userDefined).get(METADATA),
    }  # fmt: skip


def _array_types(spec: Any) -> Mapping[str, Any]:
    array = spec.description.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["type"].message_type.fields_by_name["multiArrayType"]
    values: Mapping[str, Any] = array.message_type.enum_types_by_name["ArrayDataType"].values_by_name
    return values


def _sorted(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())


FACTS = "clipstep.runtime.files:facts_of"
"""What a process of its own is asked for."""
READERS: dict[str, Callable[[Path], dict[str, Any]]] = {".onnx": _read_onnx, ".pte": _read_executorch, ".mlpackage": _read_coreml}
IMPORTS = {".onnx": ["onnx"], ".pte": ["executorch.exir._serialize._program"], ".mlpackage": ["coremltools"]}
"""What the process that reads a file imports first."""
