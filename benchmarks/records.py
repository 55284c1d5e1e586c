"""Benchmark records: one JSON object for each measurement. The name of a key ends in the unit of its value, if it has one."""

import math
import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field, model_validator

SPINNING = ", spinning threads"
"""Suffix of the name of an artifact that is measured a second time, with threads that wait busily between steps."""

WHOLE_STREAM = ", whole stream"
"""Suffix of the name of an artifact that is measured a second time with all that a stream does."""


Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Configuration(_Model):
    """What is measured: an artifact of a bundle in its engine, or the network as it was trained in some engine, with a number of threads."""

    name: str
    target: str
    form: str
    precision: str
    engine: str
    threads: int
    file: str | None
    """The artifact's file in the bundle, or the file of the network as it was trained that the engine loads; None for PyTorch."""
    spinning: bool = False
    """Whether the engine's threads wait busily between steps."""

    providers: tuple[str, ...] | None = None
    """onnxruntime's execution providers on a phone, in their order; None for other engines, on a computer, and in records of earlier versions."""

    video: str | None = None
    """The video whose whole stream is measured, from decoding to prediction; None for steps on the golden frames."""

    @property
    def is_artifact(self) -> bool:
        """Whether it is an artifact of a bundle."""
        name = f"{self.file}{self._others}"
        return self.file is not None and self.name in (name, f"{name}{SPINNING}", f"{name}{WHOLE_STREAM}")

    @property
    def is_plain(self) -> bool:
        """Whether it is an artifact's steps alone, as clipstep loads it."""
        return self.is_artifact and not self.spinning and not self._others and self.video is None

    @property
    def _others(self) -> str:
        """What the name has after the file if other providers than the CPU's alone run it."""
        return "" if self.providers is None or self.providers == ("cpu",) else f", on {' and '.join(self.providers)}"


class Device(_Model):
    """The computer or phone that was measured on."""

    cpu_model: str
    cores: int
    os: str
    machine: str


class Phone(_Model):
    """What a record holds only if a phone was measured; the app reports it."""

    model: str
    build_fingerprint: str
    temperature_before_c: float | None
    """The battery's temperature before the measurement, in degrees Celsius; None if the phone does not report it."""
    temperature_after_c: float | None
    thermal_status_after: int | None
    """Android's thermal status, from 0 (none) to 6 (shutdown); None before Android 10."""


class ColdStart(_Model):
    """The cold start of a configuration: loading it in a fresh process, and its first step."""

    load_s: float
    first_step_ms: float
    threads_used: int
    largest_error: float
    """The largest error of the first step's logits, as a share of the range of the golden logits; see ``scale_of``."""


class Parts(_Model):
    """The milliseconds of a subclip's parts in a whole stream."""

    decode_ms: float
    resize_ms: float
    """Cropping, resizing and the conversion to RGB."""
    step_ms: float


class Record(_Model):
    """The measurement of one configuration in a process of its own.

    Example:
        ```python
        print(record.configuration.name, record.percentile_ms(50), record.cold_start.load_s, record.real_time_factor)
        ```
    """

    bundle: str
    manifest_sha256: str
    artifact_sha256: str | None
    weights_sha256: str | None = None
    """The hash of the weights of the network behind the bundle; None in records of earlier versions."""
    configuration: Configuration
    cold_start: ColdStart
    device: Device
    tool_versions: dict[str, str]
    placement: dict[str, int]
    not_delegated: tuple[str, ...]
    file_bytes: int | None
    subclip_s: float
    """Seconds of video in one step, at the nominal frame rate."""
    peak_memory_bytes: int
    memory_before_load_bytes: int
    step_ms: tuple[float, ...]
    """The milliseconds of each step; of a whole stream, those of each subclip from decoding to prediction."""
    turn_steps: Annotated[int, Field(ge=1)] | None = None
    """How many steps a turn had; None in records of earlier versions."""
    parts: Parts | None = None
    """The medians of the parts of a whole stream; None for steps alone."""
    pause_ms: float = 0
    """Milliseconds waited before each step; 0 for steps that follow each other at once."""
    processor_ms: float | None = None
    """Median processor time of a step in all threads of the process, the pause before it included; None if it was not measured."""
    phone: Phone | None = None
    measured_utc: AwareDatetime | None = None
    """When the measurement ended, in UTC, such as `2026-11-28T12:00:00Z`; None in records of earlier versions."""

    def __repr__(self) -> str:
        what = f"{self.configuration.name} in {self.configuration.engine}, threads {self.configuration.threads}"
        return f"<Record {self.bundle}: {what}: {self.percentile_ms(50):.2f} ms, the median of {len(self.step_ms)} steps>"

    def __str__(self) -> str:
        return repr(self)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the step times, in milliseconds; 50 is the median."""
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
    """Executed ARM64 instructions, how many of them are vector multiply-adds, loads and stores, and the multiply-accumulates that they did."""

    instructions: int
    vector_fmas: int
    """Instructions that multiply and add vectors: FMLA, and of integers dot products, matrix products and multiply-adds."""
    loads: int
    """Load instructions; one that loads a pair or a structure of registers counts once."""
    stores: int
    float32_macs: int = 0
    """Multiply-accumulates in float32, one for each number of a vector; a multiplication alone is one, too. 0 in records of earlier versions."""
    float16_macs: int = 0
    """The same in float16."""
    integer_macs: int = 0
    """The same of integers of 8 or 16 bits."""
    scalable: int = 0
    """Instructions of SVE and SME. Their multiply-accumulates, loads and stores are not known, and not among the numbers above."""

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.float32_macs + self.float16_macs + self.integer_macs

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
    """The cost of one operator of a step, as the engine runs it after its own fusions."""

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    """None if the engine does not report it."""


class InstructionRecord(_Model):
    """The ARM64 instructions of a configuration's step, which are counted, not timed."""

    arch: Literal["arm64"] = "arm64"
    bundle: str
    manifest_sha256: str
    artifact_sha256: str | None
    weights_sha256: str | None = None
    """The same as in `Record`."""
    configuration: Configuration
    emulator: str
    cpu_model: str
    """The processor that the emulator emulates."""
    cpu_features: tuple[str, ...] | None = None
    """What it can do, by the names that Linux has in /proc/cpuinfo, as the emulated process sees it; None in records of earlier versions."""
    tool_versions: dict[str, str]
    file_bytes: int
    needed_multiply_accumulates: int | None
    """Multiply-accumulates of the network's convolutions and linear layers in one step; None if the bundle does not hold them."""
    largest_error: float
    """The largest error of logits and states over the golden steps, each as a share of its range; see ``scale_of``."""
    first_step: Counts
    """The first step of a process, in which an engine also initialises itself."""
    steps: Annotated[tuple[Counts, ...], Field(min_length=1)]
    """The later steps."""
    operators: tuple[OperatorCount, ...] = ()
    """The operators of one step in the order in which they ran, without the cost of profiling; empty unless they were asked for."""
    measured_utc: AwareDatetime | None = None
    """When the count ended; the same as in `Record`."""

    def __repr__(self) -> str:
        what = f"{self.configuration.name} in {self.configuration.engine} on {self.arch}"
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
    def needed_per_mac(self) -> float | None:
        """The network's multiply-accumulates as a share of the executed ones; None if they are not known, or SVE or SME executed some."""
        return None if self.needed_multiply_accumulates is None or self.step.scalable else _share(self.needed_multiply_accumulates, self.step.macs)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def useful(self) -> float | None:
        """The part of the vector FMAs that does the needed multiply-accumulates, as a share of all executed instructions."""
        return None if self.needed_per_mac is None else self.needed_per_mac * self.step.vector_fmas / self.step.instructions


class OperatorTime(_Model):
    """An operator of a step as the engine runs it, after its own fusions."""

    kind: str
    output_shape: tuple[int, ...] | None
    """None if the engine does not report it."""
    median_ms: float


class ProfileRecord(_Model):
    """The time of each operator of an artifact's step, by its engine's own profiler."""

    bundle: str
    manifest_sha256: str
    artifact_sha256: str
    weights_sha256: str | None
    configuration: Configuration
    device: Device
    tool_versions: dict[str, str]
    profiled_steps: int
    """The steps whose medians the times are."""
    operators: Annotated[tuple[OperatorTime, ...], Field(min_length=1)]
    """The operators in the order in which they ran."""
    measured_utc: AwareDatetime | None
    """The same as in `Record`."""

    def __repr__(self) -> str:
        what = f"{self.configuration.name} in {self.configuration.engine}, threads {self.configuration.threads}"
        return f"<ProfileRecord {self.bundle}: {what}: {self.total_ms:.2f} ms in {len(self.operators)} operators>"

    def __str__(self) -> str:
        return repr(self)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_ms(self) -> float:
        """The sum of all operators' times."""
        return sum(operator.median_ms for operator in self.operators)

    def by_kind(self) -> dict[str, float]:
        """Return the milliseconds of each kind of operator."""
        sums: dict[str, float] = defaultdict(float)
        for operator in self.operators:
            sums[operator.kind] += operator.median_ms
        return dict(sums)


class Bucket(_Model):
    """About a second of a sustained run: it ends with the first step that is done a second or more after its start; the last one may be shorter."""

    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds after the run's begin, as `end_s`."""
    end_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    steps: Annotated[int, Field(ge=1)]
    p50_ms: Milliseconds
    p95_ms: Milliseconds
    thermal_status: Annotated[int, Field(ge=0)] | None
    """Android's thermal status at the bucket's end, from 0 (none) to 6 (shutdown); None before Android 10."""


class Headroom(_Model):
    """An answer of Android's thermal headroom."""

    at_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Seconds after the run's begin."""
    share: Annotated[float, Field(allow_inf_nan=False)] | None
    """The heat as a share of that at which Android slows the phone down severely; None if the phone did not say."""


class StepCount(_Model):
    """How many steps of a sustained run took so many milliseconds, rounded to three digits."""

    ms: Milliseconds
    steps: Annotated[int, Field(ge=1)]


class SustainedRecord(_Model):
    """The steps of one configuration that ran on a phone without pause for minutes, with the phone's heat; the demo app writes it."""

    bundle: str
    manifest_sha256: str
    artifact_sha256: str
    weights_sha256: str | None = None
    """The same as in `Record`; None, because the app does not know it."""
    configuration: Configuration
    device: Device
    tool_versions: dict[str, str]
    subclip_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """The same as in `Record`."""
    sustained_s: Annotated[int, Field(ge=1)]
    """The seconds that were asked for."""
    complete: bool
    """Whether it went on for all of them."""
    left_app: bool
    """Whether the app was not on the screen for a part of it; Android may give an app less of the processor then."""
    phone: Phone
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)]
    headrooms: tuple[Headroom, ...]
    """Asked for every ten seconds; empty before Android 11."""
    histogram: Annotated[tuple[StepCount, ...], Field(min_length=1)]
    """All step times, the shortest first."""
    measured_utc: AwareDatetime
    """The same as in `Record`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        in_buckets, in_histogram = (sum(entry.steps for entry in entries) for entries in (self.buckets, self.histogram))
        if in_buckets != in_histogram:
            raise ValueError(f"buckets hold {in_buckets} steps, but histogram {in_histogram}")
        times = [count.ms for count in self.histogram]
        if times != sorted(set(times)):
            raise ValueError("histogram must hold each time once, the shortest first")
        if any(later.start_s < earlier.end_s for earlier, later in pairwise(self.buckets)) or any(b.end_s <= b.start_s for b in self.buckets):
            raise ValueError("buckets must follow each other in time")
        return self

    def __repr__(self) -> str:
        what = f"{self.configuration.name} in {self.configuration.engine}, threads {self.configuration.threads}"
        return f"<SustainedRecord {self.bundle}: {what}: {self.percentile_ms(50):.2f} ms, the median of {self.duration_s:.0f} s>"

    def __str__(self) -> str:
        return repr(self)

    @property
    def duration_s(self) -> float:
        """The seconds that were measured."""
        return self.buckets[-1].end_s

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of all step times, in milliseconds, as `Record.percentile_ms`."""
        ends = np.cumsum([count.steps for count in self.histogram])
        position = percent / 100 * (int(ends[-1]) - 1)
        below, above = (self.histogram[int(np.searchsorted(ends, index, side="right"))].ms for index in (int(position), math.ceil(position)))
        return below + (position - int(position)) * (above - below)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def percentiles_ms(self) -> dict[str, float]:
        return {f"p{p}": round(self.percentile_ms(p), 4) for p in (50, 90, 95, 99)}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def steps_per_s(self) -> float:
        return sum(bucket.steps for bucket in self.buckets) / self.duration_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def last_over_first(self) -> float | None:
        """A step's time in the last minute over that in the first one, medians of the buckets' medians; None if there is but one bucket.

        Of a run that is shorter than two minutes it compares halves.
        """
        if len(self.buckets) < 2:
            return None
        window = min(60, self.duration_s / 2)
        first = [b.p50_ms for b in self.buckets if b.end_s <= window] or [self.buckets[0].p50_ms]
        last = [b.p50_ms for b in self.buckets if b.start_s >= self.duration_s - window] or [self.buckets[-1].p50_ms]
        return float(np.median(last) / np.median(first))


AnyRecord = Record | InstructionRecord | ProfileRecord | SustainedRecord


class Records(NamedTuple):
    """Records by what they hold, each in the order in which they were given."""

    timed: list[Record]
    counted: list[InstructionRecord]
    profiled: list[ProfileRecord]
    sustained: list[SustainedRecord]

    @classmethod
    def of(cls, records: Sequence[AnyRecord]) -> "Records":
        """Sort records by what they hold."""
        timed = [record for record in records if isinstance(record, Record)]
        counted = [record for record in records if isinstance(record, InstructionRecord)]
        profiled = [record for record in records if isinstance(record, ProfileRecord)]
        return cls(timed, counted, profiled, [record for record in records if isinstance(record, SustainedRecord)])

    def every(self) -> list[AnyRecord]:
        """Return all of them."""
        return [*self.timed, *self.counted, *self.profiled, *self.sustained]


def _share(part: float | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole


def naive_instructions(records: Sequence[InstructionRecord]) -> dict[str, int]:
    """Return the instructions of a step of the naive rank-5 ONNX for each processor on which it was counted."""
    return {r.cpu_model: r.step.instructions for r in records if r.configuration.form == "3d" and r.artifact_sha256 is None}


def named(records: Sequence[InstructionRecord]) -> list[tuple[str, InstructionRecord]]:
    """Return the records with the names of their configurations, and of their processors if there are several."""
    several = len({r.cpu_model for r in records}) > 1
    return [(f"{r.configuration.name}, {r.cpu_model}" if several else r.configuration.name, r) for r in records]


def naive_ms(records: Sequence[Record]) -> dict[int, float]:
    """Return the median step time of the naive rank-5 ONNX for each thread count that it was measured with."""
    return {r.configuration.threads: r.percentile_ms(50) for r in records if r.artifact_sha256 is None and r.configuration.engine == "onnxruntime"}


def record_lines(records: Sequence[BaseModel]) -> str:
    """Return records as text, one JSON object a line."""
    return "".join(record.model_dump_json() + "\n" for record in records)


def now_utc() -> datetime:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def this_device() -> Device:
    """Describe this computer."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return Device(cpu_model=model, cores=os.cpu_count() or 1, os=platform.platform(), machine=platform.machine())
