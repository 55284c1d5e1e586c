"""A bundle's step function, loaded: immutable, and shared by any number of streams and threads."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.declared import Declares
from clipstep.runtime.embedded import check_embedded_facts, interface_in
from clipstep.runtime.engine import Array, Engine
from clipstep.runtime.engines import as_array, engine_info, load_engine
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.fits import check_declared, check_outputs, expected_tensors
from clipstep.runtime.isolated import IsolatedEngine
from clipstep.runtime.manifest import Interface
from clipstep.runtime.targets import check_file
from clipstep.runtime.wording import counted

if TYPE_CHECKING:
    from clipstep.runtime.stream import Stream

States = tuple[Array, ...]


class StepModel:
    """``step(frames, states) -> (logits, next_states)`` of one artifact in one engine."""

    def __init__(self, interface: Interface, engine: Engine, description: str, opened: Bundle | None = None) -> None:
        self.interface = interface
        self._opened = opened
        self.description = description
        """The artifact and the engine that run, and for which processor the artifact was made."""
        self._engine = engine
        self._lock = threading.Lock()
        self._closed = False
        self._outputs = expected_tensors(interface)[1]
        self._under_way = 0
        if isinstance(engine, Declares) and (declared := engine.declared()) is not None:
            try:
                check_declared(declared, interface, description)
                if (facts := declared.get("facts")) is not None:
                    check_embedded_facts(interface, interface_in(facts, description)[0], description)
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
        isolated: bool = False,
        signer: Path | None = None,
    ) -> "StepModel":
        """Opens a bundle, a folder or a pack, and loads its artifact for ``engine``, on this processor, with ``threads`` threads.

        Only that artifact needs to be whole. A ``Bundle`` that is open already stays so.

        With ``spinning``, onnxruntime's threads wait busily for the next step, as is its own default: for steps that follow each
        other at once. Between the steps of a live stream that is processor time and battery for nothing.

        ``isolated``: in a process of its own, so that a file that crashes the engine, or never comes back, is a ClipstepError;
        a step then takes about a millisecond more. ``signer`` is the public key, PEM, that must have signed the bundle.

        Raises:
            ClipstepError: the bundle is damaged, has no artifact for the engine, or the engine or the thread count is
                not available; the artifact's inputs, outputs or the facts that it carries are not those of the manifest.
                Nothing falls back.
        """
        engine_info(engine)
        if isinstance(path, Bundle):
            if signer is not None:
                raise ClipstepError("the bundle is open already", fix="give the signer to Bundle.open")
            return cls._of(path, engine, threads, None, spinning=spinning, isolated=isolated)
        opened = Bundle.open(path, lazily=True, signer=signer)
        try:
            return cls._of(opened, engine, threads, opened, spinning=spinning, isolated=isolated)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def _of(cls, bundle: Bundle, engine: str, threads: int, opened: Bundle | None, *, spinning: bool, isolated: bool) -> "StepModel":
        artifact = bundle.artifact(engine_info(engine).target)
        file = bundle.file(artifact)
        check_file(artifact.target, file)
        loaded: Engine
        if isolated:
            loaded = IsolatedEngine("clipstep.runtime.engines:load_engine", file, engine, name=engine, threads=threads, spinning=spinning)
        else:
            loaded = load_engine(engine, file, threads, spinning=spinning)
        description = f"{artifact.file} ({artifact.form}, for {artifact.platform}) in {engine}, {counted(threads, 'thread')}"
        return cls(bundle.manifest.interface(artifact.input_dtype), loaded, description, opened)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.interface.labels

    def initial_states(self) -> States:
        """The states before a video's first step, in the manifest's order."""
        return tuple(np.full(state.shape, state.initial, state.dtype) for state in self.interface.states)

    def step(self, frames: Array, states: Sequence[Array]) -> tuple[Array, States]:
        """One step: frames exactly as the manifest says, ``(T, H, W, 3)``, and the states of the step before.

        Returns the logits ``(classes,)`` float32 and the next states. No input is written to.

        Raises:
            ClipstepError: frames or states of another shape, type or number; the model is closed.
        """
        spec = self.interface.input
        if len(states) != len(self.interface.states):
            raise ClipstepError("wrong number of states", got=len(states), expected=len(self.interface.states))
        inputs = [as_array(frames, spec.dtype, spec.shape, "frames")]
        inputs += [as_array(s, i.dtype, i.shape, i.name) for s, i in zip(states, self.interface.states, strict=True)]
        with self._use() as engine:
            outputs = engine.run(inputs)
        check_outputs(outputs, self._outputs, self.description)
        logits, *following = outputs
        return logits[0], tuple(following)

    def stream(self) -> "Stream":
        """A new stream: the states and the position of one video source.

        Raises:
            ClipstepError: the model is closed, or takes no RGB frames.
        """
        from clipstep.runtime.stream import Stream

        with self._use():
            return Stream(self)

    def close(self) -> None:
        """Gives the engine's memory back. Closing twice is allowed.

        Steps that are under way in other threads go on to their end; the last one gives the memory back.
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
        frames, height, width, _ = self.interface.input.shape
        facts = f"{frames} frames of {width}x{height} a step, {counted(len(self.interface.states), 'state')}, {counted(len(self.labels), 'label')}"
        return f"<StepModel {self.interface.name}: {self.description}; {facts}{'; closed' if self._closed else ''}>"

    def __enter__(self) -> "StepModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
