"""Benchmark records: one JSON object a measurement, every key with its unit."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, computed_field

LANES = 4
"""Single-precision numbers in an ARM64 vector register."""


SPINNING = ", spinning threads"
"""Ends the name of an artifact that is measured a second time, with threads that wait busily between steps."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Subject(_Model):
    """What is measured: an artifact of a bundle in its engine, or the network as it was trained in some engine, with a thread count."""

    name: str
    target: str
    form: str
    precision: str
    engine: str
    threads: int
    file: str | None
    """The artifact inside the bundle, or the engine's own file of the network as it was trained; None for PyTorch."""
    spinning: bool = False
    """Whether the engine's threads wait busily between steps."""

    @property
    def is_artifact(self) -> bool:
        return self.file is not None and self.name in (self.file, f"{self.file}{SPINNING}")


class Device(_Model):
    """Where it was measured."""

    cpu_model: str
    cores: int
    os: str
    machine: str


class Phone(_Model):
    """What only a phone has, as the app says it."""

    model: str
    build_fingerprint: str
    temperature_before_c: float | None
    """The battery's; None where the phone does not say."""
    temperature_after_c: float | None
    thermal_status_after: int | None
    """Android's, from 0 (none) to 6 (shutdown); None before Android 10."""


class Start(_Model):
    """What a worker reports once it is loaded."""

    load_s: float
    first_step_ms: float
    threads_used: int
    largest_error: float
    """The largest error of the first step's logits against the golden steps, as a share of the golden logits' range; see ``scale_of``."""


class Record(_Model):
    """One configuration in a process of its own."""

    bundle: str
    manifest_sha256: str
    artifact_sha256: str | None
    weights_sha256: str | None = None
    """Which network is behind the bundle, by the hash of its weights; None in records of earlier versions."""
    subject: Subject
    start: Start
    device: Device
    tool_versions: dict[str, str]
    placement: dict[str, int]
    outside: tuple[str, ...]
    file_bytes: int | None
    subclip_s: float
    """Seconds of video in one step, at the nominal frame rate."""
    peak_memory_bytes: int
    memory_before_load_bytes: int
    step_ms: tuple[float, ...]
    pause_ms: float = 0
    """Before each step: 0 for steps that follow each other at once."""
    processor_ms: float | None = None
    """Processor time that all threads of the process took a step, the pause before it included, median; None where it was not noted."""
    phone: Phone | None = None

    def __repr__(self) -> str:
        what = f"{self.subject.name} in {self.subject.engine}, threads {self.subject.threads}"
        return f"<Record {self.bundle}: {what}: {self.percentile_ms(50):.2f} ms, the median of {len(self.step_ms)} steps>"

    def __str__(self) -> str:
        return repr(self)

    def percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.step_ms, percent))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def percentiles_ms(self) -> dict[str, float]:
        return {f"p{p}": round(self.percentile_ms(p), 4) for p in (10, 50, 90, 99)}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def steps_per_s(self) -> float:
        return 1000 / self.percentile_ms(50)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def real_time_factor(self) -> float:
        """Seconds of video per second of work."""
        return self.subclip_s * self.steps_per_s


class Counts(_Model):
    """ARM64 instructions executed, and those among them that multiply and add vectors, read memory and write it."""

    instructions: int
    vector_fmas: int
    """Single-precision FMLA: four multiply-accumulates each."""
    loads: int
    """A pair or a structure of registers is one."""
    stores: int

    def __sub__(self, other: "Counts") -> "Counts":
        return self._with(other, -1)

    def __add__(self, other: "Counts") -> "Counts":
        return self._with(other, 1)

    def _with(self, other: "Counts", sign: int) -> "Counts":
        return Counts(**{key: getattr(self, key) + sign * getattr(other, key) for key in Counts.model_fields})

    @classmethod
    def zero(cls) -> "Counts":
        return cls(instructions=0, vector_fmas=0, loads=0, stores=0)


class OperatorCount(Counts):
    """One operator of a step, as its engine runs it after its own fusions."""

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    """None where the engine does not say."""


class InstructionRecord(_Model):
    """What one configuration's step costs on ARM64: instructions, not time."""

    arch: Literal["arm64"] = "arm64"
    bundle: str
    manifest_sha256: str
    artifact_sha256: str | None
    weights_sha256: str | None = None
    """As in ``Record``."""
    subject: Subject
    emulator: str
    cpu_model: str
    """The processor that the emulator plays."""
    tool_versions: dict[str, str]
    file_bytes: int
    needed_multiply_accumulates: int | None
    """Multiply-accumulates of the network's convolutions and linear layers in one step; None if the bundle does not say."""
    largest_error: float
    """The largest error of logits and states over the golden steps, each as a share of its own range; see ``scale_of``."""
    first_step: Counts
    """The first step of a process, in which engines also set themselves up."""
    steps: Annotated[tuple[Counts, ...], Field(min_length=1)]
    """Each later step."""
    operators: tuple[OperatorCount, ...] = ()
    """The operators of one step in the order in which they ran, less what profiling added; empty unless they were asked for."""

    def __repr__(self) -> str:
        what = f"{self.subject.name} in {self.subject.engine} on {self.arch}"
        return f"<InstructionRecord {self.bundle}: {what}: {self.step.instructions / 1e6:.1f} M, the median of {len(self.steps)} steps>"

    def __str__(self) -> str:
        return repr(self)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def step(self) -> Counts:
        """The median of the later steps."""
        return Counts(**{key: round(float(np.median([getattr(step, key) for step in self.steps]))) for key in Counts.model_fields})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def needed_fmas(self) -> float | None:
        """The vector FMAs that the network's arithmetic takes at least."""
        return None if self.needed_multiply_accumulates is None else self.needed_multiply_accumulates / LANES

    @computed_field  # type: ignore[prop-decorator]
    @property
    def needed_fmas_per_vector_fma(self) -> float | None:
        """The share of the executed arithmetic that the network asks for."""
        return _share(self.needed_fmas, self.step.vector_fmas)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def needed_fmas_per_instruction(self) -> float | None:
        """The share of all that is executed which is arithmetic that the network asks for."""
        return _share(self.needed_fmas, self.step.instructions)


def _share(part: float | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole


def naive_instructions(records: Sequence[InstructionRecord]) -> int | None:
    """A step of the naive rank-5 ONNX, where it was counted."""
    return next((r.step.instructions for r in records if r.subject.form == "3d" and r.artifact_sha256 is None), None)


def naive_ms(records: Sequence[Record]) -> dict[int, float]:
    """The median step of the naive rank-5 ONNX for each thread count that it was measured with."""
    return {r.subject.threads: r.percentile_ms(50) for r in records if r.artifact_sha256 is None and r.subject.engine == "onnxruntime"}


def record_lines(records: Sequence[BaseModel]) -> str:
    """Records as a file has them, one JSON object a line."""
    return "".join(record.model_dump_json() + "\n" for record in records)


def this_device() -> Device:
    """Facts about this computer."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return Device(cpu_model=model, cores=os.cpu_count() or 1, os=platform.platform(), machine=platform.machine())
