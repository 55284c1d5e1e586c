"""The interval of an accuracy, against textbook values."""

import pytest

from clipstep.runtime.command_line.confidence_interval import proportion_text, wilson_interval


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


def test_in_words() -> None:
    assert proportion_text(40 / 62, 62) == "64.5% of 62 videos (95% interval 52% to 75%)"
