"""How the accuracy of an artifact, and what it loses against float32, are said in words."""

from clipstep.runtime.bundle.manifest import AgainstFloat32


def against_text(against: AgainstFloat32) -> str:
    """Return the whole comparison with float32."""
    return f"top-1 {change_text(against)}; the same class after {agreement_text(against)}; {drift_text(against)}"


def change_text(against: AgainstFloat32) -> str:
    """Return by how much top-1 differs from that of float32, such as `-1.6 points (95% interval -8.2 to +4.7)`."""
    return f"{points(against.top1_change)} points (95% interval {change_interval_text(against)})"


def change_interval_text(against: AgainstFloat32) -> str:
    low, high = against.top1_change_interval
    return f"{points(low)} to {points(high)}"


def points(change: float) -> str:
    """Return a change of a share in percentage points, with its sign."""
    return f"{100 * change:+.1f}"


def agreement_text(against: AgainstFloat32) -> str:
    """Return after how many steps the most probable class is that of float32, such as `511 of 512 steps, 99.8% (95% interval 98.9% to 100.0%)`."""
    low, high = against.agreement_interval
    share = against.agreeing_steps / against.steps
    return f"{against.agreeing_steps} of {against.steps} steps, {share:.1%} (95% interval {low:.1%} to {high:.1%})"


def drift_text(against: AgainstFloat32) -> str:
    """Return the largest errors of the outputs over a long run, those of its first tenth beside those of its last."""
    each = "; ".join(f"{one.output} {one.first_tenth:.2%}, {one.last_tenth:.2%}" for one in against.drift)
    return f"largest errors in the first and in the last tenth of {against.drift_steps} steps in a row, as shares of the output's range: {each}"
