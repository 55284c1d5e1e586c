"""The models of what `clipstep export --tune` tried for a platform: precisions and variants, what each costs, and which was chosen."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clipstep.runtime.bundle.artifacts import Accuracy, AgainstFloat32, Count, NotNegative, Platform, Target
from clipstep.runtime.bundle.interface import Model, Positive
from clipstep.runtime.precision import Precision
from clipstep.runtime.wording import either

CostUnit = Literal["ms", "M ARM64 instructions"]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Points = Annotated[float, Field(ge=0, le=100)]


class Budget(Model):
    """The most that an artifact may take. What is None has no limit."""

    latency_ms: Above0 | None = None
    """Of a step on one thread, on x86_64."""
    memory_bytes: Positive | None = None
    """The peak memory of a process that loads the artifact and runs steps, over what it had before."""
    size_bytes: Positive | None = None
    """Of the file."""
    instructions: Positive | None = None
    """Of a step on one thread, on ARM64."""

    def __str__(self) -> str:
        parts = (
            ("latency", self.latency_ms, 1, "ms"),
            ("memory", self.memory_bytes, 1e6, "MB"),
            ("size", self.size_bytes, 1e6, "MB"),
            ("instructions", self.instructions, 1e6, "M"),
        )
        return ",".join(f"{name}={value / scale:.6g}{unit}" for name, value, scale, unit in parts if value is not None)


class MeasuredVariant(Model):
    """A variant of an artifact, which was written and measured."""

    variant: str
    cost: NotNegative
    """Of a step on one thread, in the unit of the choice."""
    size_bytes: Positive
    peak_memory_bytes: Count | None = None
    """As in `Budget`; None if it was not measured."""
    fault: str | None = None
    """How its outputs are beyond the bound of its precision on the golden steps, as the platform computes them or, of int8, the computer that
    exported; it is not chosen. None if they are within it; what is chosen is always verified on that computer."""
    max_relative_error: NotNegative | None = None
    """Of int8: its largest error on the golden steps, as in `Parity`, on the computer that exported. None if it was not measured."""
    float32_layers: Count = 0
    """How many of the layers that int8 could compute are in float32 because the budget allows it."""


class TriedPrecision(Model):
    """A precision that was tried, in each variant."""

    precision: Precision
    variant: str
    """The variant that stands for it: the cheapest or, with a budget, the cheapest that fits, in int8 the one with the smallest error that fits; if
    none fits, the one nearest to the budget."""
    accuracy: Accuracy | None = None
    """What that variant reached on labelled videos; None if it was not evaluated. The others differ from it by rounding and, in int8, by the layers
    that are in float32."""
    verdict: str
    """Why it was chosen, or why it was not."""
    variants: Annotated[tuple[MeasuredVariant, ...], Field(min_length=1)]

    @property
    def against_float32(self) -> AgainstFloat32 | None:
        """What its accuracy is against that of float32; None if that was not measured."""
        return None if self.accuracy is None else self.accuracy.against_float32

    @property
    def own(self) -> MeasuredVariant:
        """The variant that stands for it, as it was measured."""
        return next(one for one in self.variants if one.variant == self.variant)

    @model_validator(mode="after")
    def _measured_its_variant(self) -> "TriedPrecision":
        if self.variant not in (names := [one.variant for one in self.variants]):
            raise ValueError(f"the variant must be {either(names)}, not {self.variant}")
        return self


class Choice(Model):
    """What was tried for a target on a platform, and what was chosen, which runtimes there take unless they are asked for another precision.

    The bundle has the artifact that was chosen and the one of float32, if that was tried, and none of the others.
    """

    target: Target
    platform: Platform
    precision: Precision
    """The precision that was chosen."""
    unit: CostUnit
    """The unit of each `cost`."""
    measured_on: Platform
    """The processor of the computer on which memory was measured, whatever the platform is."""
    budget: Budget | None = None
    max_accuracy_drop: Points | None = None
    """By how many percentage points top-1 was allowed to fall against float32."""
    tried: Annotated[tuple[TriedPrecision, ...], Field(min_length=1)]

    @property
    def chosen(self) -> TriedPrecision:
        """The precision that was chosen, as it was tried."""
        return next(one for one in self.tried if one.precision == self.precision)

    @model_validator(mode="after")
    def _tried_its_precision(self) -> "Choice":
        names = [one.precision for one in self.tried]
        if names.count(self.precision) != 1 or len(set(names)) != len(names):
            raise ValueError(f"each precision must be tried once, and {self.precision} among them, not {', '.join(names)}")
        return self
