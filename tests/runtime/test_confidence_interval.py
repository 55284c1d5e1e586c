"""The interval of an accuracy, against textbook values."""

import pytest

from clipstep.runtime.command_line.confidence_interval import paired_interval, proportion_text, wilson_interval


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.5, 100, (0.4038, 0.5962)),
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 10, (0.7225, 1.0)),
        (15 / 148, 148, (0.0624, 0.1605)),
    ],
)
def test_wilson_s_interval(share: float, count: int, expected: tuple[float, float]) -> None:
    """The last one is the example of R. G. Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I."""
    assert wilson_interval(share, count) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
        ((1, 1, 7, 12), (-0.507, -0.026)),
        ((0, 0, 4, 0), (-1, -1 + 2**0.5 * 0.48989)),
        ((4, 0, 0, 0), (-0.48989, 0.48989)),
    ],
)
def test_newcombe_s_interval_of_a_change(table: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    """The first two are examples of M. Fagerland, S. Lydersen, P. Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8.

    In the others all four videos change or none does: Wilson's intervals of 0 and of 1 of 4, which end 0.48989 from them, are added as squares.
    """
    assert paired_interval(*table) == pytest.approx(expected, abs=5e-4)


def test_the_interval_of_a_change_is_that_of_the_other_direction_mirrored() -> None:
    low, high = paired_interval(30, 2, 7, 9)
    assert paired_interval(30, 7, 2, 9) == pytest.approx((-high, -low))


def test_in_words() -> None:
    assert proportion_text(40 / 62, 62) == "64.5% of 62 videos (95% interval 52% to 75%)"
