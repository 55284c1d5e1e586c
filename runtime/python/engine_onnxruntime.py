"""The engine `onnxruntime`: onnxruntime on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipstep.runtime.artifact_io import METADATA, ArtifactIO, Tensor
from clipstep.runtime.engine_info import EngineInfo
from clipstep.runtime.errors import EngineError, error_summary
from clipstep.runtime.fork_safety import OwnerProcess, make_fork_safe


def onnxruntime_session(path: Path, threads: int, *, spinning: bool = False, **options: Any) -> Any:
    """Open a session of onnxruntime on the CPU; `options` are further attributes of its `SessionOptions`.

    With `spinning`, onnxruntime's own default, its threads wait busily for the next step: a step is a little shorter, and
    processor time goes into waiting (docs/measurements.md says how much). With `threads` 1 it starts no threads of its own.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    settings.enable_mem_pattern = False  # It would allocate one block for all values of a step: a quarter more memory.
    for name, value in options.items():
        setattr(settings, name, value)
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _declared(values: Sequence[Any]) -> list[Tensor]:
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16"}
    dtypes = [kinds.get(value.type, value.type.removeprefix("tensor(").removesuffix(")")) for value in values]
    shapes = [[size if isinstance(size, int) else -1 for size in value.shape] for value in values]
    return [(value.name, dtype, shape) for value, dtype, shape in zip(values, dtypes, shapes, strict=True)]


class OnnxRuntime:
    """An artifact in onnxruntime."""

    def __init__(self, path: Path, threads: int, spinning: bool = False) -> None:
        import onnxruntime  # noqa: F401  Outside the try, so that a missing library is not blamed on the file.

        self._path = path
        self._loaded = OwnerProcess() if threads > 1 else None
        try:
            self._session: Any = onnxruntime_session(path, threads, spinning=spinning)
            self._names = [value.name for value in self._session.get_inputs()]
        except Exception as error:  # onnxruntime's exceptions have no common base class but Exception.
            raise EngineError(f"{path}: onnxruntime cannot load it", got=error_summary(error)) from error
        make_fork_safe(self)

    def describe_io(self) -> ArtifactIO:
        inputs, outputs = _declared(self._session.get_inputs()), _declared(self._session.get_outputs())
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map.get(METADATA)
        except Exception as error:  # Such as text that is not UTF-8.
            raise EngineError(f"{self._path}: its metadata cannot be read", got=error_summary(error), fix="export it again") from error
        return {"inputs": inputs, "outputs": outputs, "metadata": metadata}

    def threaded_resource(self) -> Any:
        """Return the session if it has threads of its own, else None; see `clipstep.runtime.fork_safety.make_fork_safe`."""
        return None if self._loaded is None else self._session

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        if self._loaded is not None:
            self._loaded.check(self._path)
        session = self._session
        if session is None:
            raise EngineError(f"{self._path}: the engine is closed", fix="load it again")
        try:
            return list(session.run(None, dict(zip(self._names, inputs, strict=True))))
        except Exception as error:  # As above: they have no common base class.
            raise EngineError(f"{self._path}: onnxruntime failed in a step", got=error_summary(error)) from error

    def close(self) -> None:
        self._session = None


ONNXRUNTIME = EngineInfo(
    name="onnxruntime",
    display_name="onnxruntime",
    target="onnx",
    load=OnnxRuntime,
    spins=True,
    libraries=("onnxruntime",),
    module="onnxruntime",
    extra=None,
)
