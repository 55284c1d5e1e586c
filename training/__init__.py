"""Videos in, checkpoint out: data sets in UCF101's layout, the architectures, training, and the run that it leaves."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipstep.training.data.lists import Clip, DataSet, read_data_set
    from clipstep.training.data.subclips import normalise, read_subclips
    from clipstep.training.models import ARCHITECTURES, SlowFastCausalShuffleNet, SlowFastConfig, build
    from clipstep.training.run import Run, RunInfo, load_run, save_run

__all__ = [
    "ARCHITECTURES", "Clip", "DataSet", "Run", "RunInfo", "SlowFastCausalShuffleNet", "SlowFastConfig",
    "build", "load_run", "normalise", "read_data_set", "read_subclips", "save_run",
]  # fmt: skip

_MODULES = {
    "data.lists": ("Clip", "DataSet", "read_data_set"),
    "data.subclips": ("normalise", "read_subclips"),
    "models": ("ARCHITECTURES", "SlowFastCausalShuffleNet", "SlowFastConfig", "build"),
    "run": ("Run", "RunInfo", "load_run", "save_run"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name's module when the name is first used: the command line's help must not load PyTorch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
