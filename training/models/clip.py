"""What every clip network needs to be rebuilt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipConfig:
    """``channels`` is 3 for RGB frames, 2 for optical flow."""

    classes: int
    frames: int = 16
    size: int = 112
    channels: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
