"""How the threads that PyTorch computes with wait for each other: the commands let them sleep.

By default each waits busily after every operation. Where another program needs one of the processors, that has made a check of a second take
one and a half minutes. OpenMP's library reads the setting once, when it is loaded, from the environment.
"""

import os

VARIABLE = "OMP_WAIT_POLICY"
_set_here = False


def wait_asleep() -> None:
    """To be called before PyTorch is imported, by a command, whose process is its own. What the user has set stays."""
    global _set_here
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "PASSIVE"
        _set_here = True


def engines_environment() -> dict[str, str]:
    """The environment for a process that is timed: what is measured waits as it does elsewhere."""
    return {name: value for name, value in os.environ.items() if not (_set_here and name == VARIABLE)}
