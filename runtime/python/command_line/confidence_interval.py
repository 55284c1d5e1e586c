"""The confidence intervals of a proportion, such as an accuracy, and of a change of it, that were counted on a few videos."""

from math import sqrt

NORMAL_95 = 1.959964
"""The 97.5th percentile of the standard normal distribution."""


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion of `count` independent videos: Wilson's score interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z2 = NORMAL_95**2 / count
    centre, half = share + z2 / 2, NORMAL_95 * sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max((centre - half) / (1 + z2), 0.0), min((centre + half) / (1 + z2), 1.0)


def paired_interval(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the change of a proportion, both of which were counted on the same independent videos.

    The change is `(gained - lost) / videos`. Also where no video differs the interval has a width, which shrinks as videos are added.
    Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data" (1998), method 10.

    Args:
        both: the videos that count in both proportions.
        gained: those that count in the new one alone.
        lost: those that count in the old one alone.
        neither: those that count in none.
    """
    count = both + gained + lost + neither
    new, old = (both + gained) / count, (both + lost) / count
    (new_low, new_high), (old_low, old_high) = wilson_interval(new, count), wilson_interval(old, count)
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    excess = both * neither - gained * lost
    corrected = max(excess - count / 2, 0) if excess > 0 else excess
    phi = corrected / sqrt(product) if product else 0.0

    def distance(one: float, other: float) -> float:
        return sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))  # Rounding may take it below 0 where phi is almost 1.

    change = new - old
    return max(change - distance(new - new_low, old_high - old), -1.0), min(change + distance(new_high - new, old - old_low), 1.0)


def proportion_text(share: float, count: int) -> str:
    """Return a proportion with its interval, such as `64.5% of 62 videos (95% interval 52% to 75%)`."""
    low, high = wilson_interval(share, count)
    return f"{share:.1%} of {count} videos (95% interval {low:.0%} to {high:.0%})"
