"""The step function of a bundle, loaded into an engine. It is immutable; any number of streams and threads can share it."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from clipstep.runtime.artifact_io import DescribesIO
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.bundle.embedded_metadata import check_embedded_metadata, parse_interface
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.engines import engine_info, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.io_check import as_array, check_io, check_outputs, expected_tensors
from clipstep.runtime.isolated_engine import IsolatedEngine, artifact_for, checked_file, load_isolated
from clipstep.runtime.wording import counted

if TYPE_CHECKING:
    from clipstep.runtime.stream import Stream

States = tuple[Array, ...]


@dataclass(frozen=True)
class StepOutputs:
    """All that a step returns."""

    logits: Array
    """`(classes,)` float32."""
    states: States
    """The next states, in the manifest's order."""
    kept: Mapping[str, Array]
    """The other outputs that the export kept, by name, each of the shape that `interface.kept_outputs` says; empty if it kept none."""


class StepModel:
    """One artifact, loaded into one engine: `step(frames, states) -> (logits, next_states)`.

    Example:
        ```python
        with StepModel.load("gestures.clipstep", engine="onnxruntime", threads=1) as model:
            logits, states = model.step(frames, model.initial_states())
        ```
    """

    def __init__(self, interface: Interface, engine: Engine, description: str, opened: Bundle | None = None, precision: str = "float32") -> None:
        self.interface = interface
        self.precision = precision
        """The precision of the artifact, such as `float16`, which decides how exact its outputs are; they are float32 in any case."""
        self._opened = opened
        self.description = description
        """The artifact, the processor that it was made for, the engine, and its threads."""
        self._engine = engine
        self._lock = threading.Lock()
        self._closed = False
        self._outputs = expected_tensors(interface)[1]
        self._under_way = 0
        if isinstance(engine, DescribesIO) and (io := engine.describe_io()) is not None:
            try:
                check_io(io, interface, description)
                if (metadata := io.get("metadata")) is not None:
                    check_embedded_metadata(interface, parse_interface(metadata, description)[0], description)
            except ClipstepError:
                engine.close()
                raise

    @classmethod
    def load(
        cls,
        path: "str | Path | Bundle",
        engine: str = "onnxruntime",
        threads: int = 1,
        *,
        spinning: bool = False,
        isolated: bool | IsolatedEngine = False,
        signer: Path | None = None,
        precision: str | None = None,
    ) -> "StepModel":
        """Open a bundle and load its artifact for an engine on this processor. There is no fallback to another engine or thread count.

        Args:
            path: the bundle, a folder or a pack; or an open `Bundle`, which stays open. Its other artifacts may be missing.
            engine: one of `ENGINES`.
            threads: how many threads the engine computes with.
            spinning: let onnxruntime's threads wait busily for the next step, as is its own default. That is a little faster for steps that
                follow each other at once, and wastes processor time and battery between the steps of a live stream.
            isolated: run the engine in a process of its own, so that a file that crashes or blocks it is a `ClipstepError`. A step then takes
                about a millisecond more. Or such an engine, which has loaded the artifact already; the model closes it.
            signer: a PEM file with the public key that must have signed the bundle.
            precision: the artifact's, such as `float16`. By default the one that `clipstep export --tune` chose for this processor, and
                float32 in other bundles. If the processor does not compute in float16, the float32 artifact is loaded in place of that one;
                `description` and `precision` say which it is.

        Raises:
            ClipstepError: the bundle is damaged or has no artifact of that precision for the engine; the engine or the thread count is not
                available; or the artifact's inputs, outputs or embedded metadata are not those of the manifest.
        """
        engine_info(engine)
        if isinstance(path, Bundle):
            if signer is not None:
                raise ClipstepError("the bundle is open already", fix="give the signer to Bundle.open")
            return cls._of(path, engine, threads, precision, None, spinning=spinning, isolated=isolated)
        opened = Bundle.open(path, lazily=True, signer=signer)
        try:
            return cls._of(opened, engine, threads, precision, opened, spinning=spinning, isolated=isolated)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def _of(
        cls,
        bundle: Bundle,
        engine: str,
        threads: int,
        precision: str | None,
        opened: Bundle | None,
        *,
        spinning: bool,
        isolated: bool | IsolatedEngine,
    ) -> "StepModel":
        artifact, kind = artifact_for(bundle, engine_info(engine).target, precision)
        loaded: Engine
        if isinstance(isolated, IsolatedEngine):
            loaded = isolated
        elif isolated:
            loaded = load_isolated(checked_file(bundle, artifact), engine, threads, spinning=spinning)
        else:
            loaded = load_engine(engine, checked_file(bundle, artifact), threads, spinning=spinning)
        description = f"{artifact.file} ({artifact.form}, {kind}for {artifact.platform}) in {engine}, {counted(threads, 'thread')}"
        return cls(bundle.manifest.interface(artifact.input_dtype), loaded, description, opened, artifact.precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.interface.labels

    def initial_states(self) -> States:
        """Return the states before a video's first step, in the manifest's order."""
        return tuple(np.full(state.shape, state.initial, state.dtype) for state in self.interface.states)

    def step(self, frames: Array, states: Sequence[Array]) -> tuple[Array, States]:
        """Run one step. Inputs are not changed.

        Args:
            frames: `(T, H, W, 3)` of a video, `(T, V, C)` of joints: of the shape and type in `interface.input`.
            states: the states that the last step returned, or `initial_states()`.

        Returns:
            The logits `(classes,)` float32, and the next states.

        Raises:
            ClipstepError: frames or states have another shape, type or number; the engine fails; or the model is closed.
        """
        outputs = self.step_outputs(frames, states)
        return outputs.logits, outputs.states

    def step_outputs(self, frames: Array, states: Sequence[Array]) -> StepOutputs:
        """Run one step, and return the kept outputs, too; see `step`."""
        spec = self.interface.input
        if len(states) != len(self.interface.states):
            raise ClipstepError("wrong number of states", got=len(states), expected=len(self.interface.states))
        inputs = [as_array(frames, spec.dtype, spec.shape, "frames")]
        inputs += [as_array(s, i.dtype, i.shape, i.name) for s, i in zip(states, self.interface.states, strict=True)]
        with self._use() as engine:
            outputs = engine.run(inputs)
        check_outputs(outputs, self._outputs, self.description)
        kept = 1 + len(states)
        named = zip((output.name for output in self.interface.kept_outputs), outputs[kept:], strict=True)
        return StepOutputs(outputs[0][0], tuple(outputs[1:kept]), dict(named))

    def stream(self, smoothing: float = 0.0) -> "Stream":
        """Return a new stream, which holds the states and the position of one video source.

        Args:
            smoothing: the weight of the probabilities before in those of each prediction, from 0 (none) to below 1, as in Kotlin. With
                `1 - 2 / (k + 1)` they are as old on average as in a mean of the last k.

        Raises:
            ClipstepError: the model is closed; or `smoothing` is out of range.
        """
        from clipstep.runtime.stream import Stream

        with self._use():
            return Stream(self, smoothing)

    def close(self) -> None:
        """Free the engine's memory. It may be called twice.

        Steps that other threads are running are finished first; the last of them frees the memory.
        """
        with self._lock:
            if not self._closed and not self._under_way:
                self._release()
            self._closed = True

    @contextmanager
    def _use(self) -> Iterator[Engine]:
        with self._lock:
            if self._closed:
                raise ClipstepError("the model is closed", fix="load it again")
            self._under_way += 1
        try:
            yield self._engine
        finally:
            with self._lock:
                self._under_way -= 1
                if self._closed and not self._under_way:
                    self._release()

    def _release(self) -> None:
        self._engine.close()
        if self._opened is not None:
            self._opened.close()

    def __repr__(self) -> str:
        spec = self.interface.input
        numbers = f"{counted(len(self.interface.states), 'state')}, {counted(len(self.labels), 'label')}"
        facts = f"{spec.shape[0]} frames of {spec.frame_size} a step, {numbers}"
        return f"<StepModel {self.interface.name}: {self.description}; {facts}{'; closed' if self._closed else ''}>"

    def __enter__(self) -> "StepModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
