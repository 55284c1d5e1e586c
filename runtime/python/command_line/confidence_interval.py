"""The confidence interval of a proportion, such as an accuracy, that was counted on a few videos."""

from math import sqrt

NORMAL_95 = 1.959964
"""The 97.5th percentile of the standard normal distribution."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion of `count` independent videos: Wilson's score interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z2 = NORMAL_95**2 / count
    centre, half = share + z2 / 2, NORMAL_95 * sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (centre - half) / (1 + z2), (centre + half) / (1 + z2)


def proportion_text(share: float, count: int) -> str:
    """Return a proportion with its interval, such as `64.5% of 62 videos (95% interval 52% to 75%)`."""
    low, high = wilson_interval(share, count)
    return f"{share:.1%} of {count} videos (95% interval {low:.0%} to {high:.0%})"
