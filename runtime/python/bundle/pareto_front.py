"""Finds the Pareto front of what was tried for a platform: what nothing else is better than, or as good as, in every respect."""

from typing import Any

from clipstep.runtime.bundle.choice import MeasuredVariant, TriedPrecision
from clipstep.runtime.precision import PRECISIONS

Point = tuple[TriedPrecision, MeasuredVariant]


def points_of(tried: tuple[TriedPrecision, ...]) -> list[Point]:
    """Return each variant that was measured with its precision."""
    return [(precision, variant) for precision in tried for variant in precision.variants]


def pareto_front(tried: tuple[TriedPrecision, ...]) -> list[Point]:
    """Return the variants of which no other takes less of something and no more of anything: cost, size, peak memory and loss of accuracy. Those with
    a fault are not among them.

    Memory counts if it was measured of all. Loss of accuracy is by how much top-1 falls, if all precisions but float32 were compared with float32; of
    equals, and without that, a higher precision is more accurate, and of one precision the variant with the smaller error on the golden steps, if
    that was measured.
    """
    points = [(precision, variant) for precision, variant in points_of(tried) if variant.fault is None]
    with_memory = all(variant.peak_memory_bytes is not None for _, variant in points)
    falls = {one.precision: _fall(one) for one in tried}
    compared = all(fall is not None for fall in falls.values())

    def takes(point: Point) -> tuple[float, int, int, tuple[float, int, float]]:
        precision, variant = point
        memory, fall = variant.peak_memory_bytes if with_memory else 0, falls[precision.precision] if compared else 0
        accuracy = fall or 0.0, PRECISIONS.index(precision.precision), variant.max_relative_error or 0.0
        return variant.cost, variant.size_bytes, memory or 0, accuracy

    taken = [takes(point) for point in points]
    return [point for point, own in zip(points, taken, strict=True) if not any(_dominates(other, own) for other in taken)]


def _dominates(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _fall(tried: TriedPrecision) -> float | None:
    if tried.precision == "float32":
        return 0.0
    return None if tried.against_float32 is None else max(0.0, -tried.against_float32.top1_change)
