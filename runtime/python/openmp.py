"""Let PyTorch's OpenMP threads sleep while they wait for each other, in place of spinning.

By default they spin after every operation. While another program kept one of the cores busy, that made a check which otherwise takes a second
take one and a half minutes. OpenMP reads the setting from the environment, once, when its library is loaded.
"""

import os

VARIABLE = "OMP_WAIT_POLICY"
_set_here = False


def use_passive_waiting() -> None:
    """Set OpenMP's wait policy, unless the user has set it. Commands call this, in their own process, before PyTorch is imported."""
    global _set_here
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "PASSIVE"
        _set_here = True


def environment_for_timing() -> dict[str, str]:
    """Return the environment for a process that is timed: without that setting, so that threads wait as they do outside clipstep."""
    return {name: value for name, value in os.environ.items() if not (_set_here and name == VARIABLE)}
