"""What is kept of a network of the family ``zoo``, so that an interrupted run goes on where it was."""

from pydantic import BaseModel, ConfigDict


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Exported(_Kept):
    """The export of a network in a process of its own. Without a bundle, `failed` says why under the name ``network``."""

    input: str
    """What `Entry.input` was: results of another input are refused."""
    seconds: float
    peak_bytes: int
    parameters: int = 0
    weights_bytes: int = 0
    float32_error: float | None = None
    """The largest error of eager float32 against float64; None if there is no network to compute it with."""
    failed: dict[str, str] = {}
    """Why there are no artifacts of a target, by its name."""


class NotMeasured(_Kept):
    """Why configurations could not be measured, by their names."""

    reasons: dict[str, str] = {}
