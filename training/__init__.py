"""Train video networks: data sets in the usual layouts, the architectures, and the runs that a training writes.

Example:
    ```python
    run = load_run(Path("runs/fight"))
    print(run.info.architecture, run.info.labels, run.info.training["test_top1"])
    ```
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from clipstep.training.data.lists import Clip, DataSet, read_data_set
    from clipstep.training.evaluation import Evaluation, evaluate
    from clipstep.training.models import ARCHITECTURES, SlowFastCausalShuffleNet, SlowFastConfig, build
    from clipstep.training.run import Run, RunInfo, load_run, save_run

__all__ = [
    "ARCHITECTURES",
    "Clip",
    "DataSet",
    "Evaluation",
    "Run",
    "RunInfo",
    "SlowFastCausalShuffleNet",
    "SlowFastConfig",
    "build",
    "evaluate",
    "load_run",
    "read_data_set",
    "save_run",
]

__getattr__ = lazy_names(
    __name__,
    {
        "data.lists": ("Clip", "DataSet", "read_data_set"),
        "evaluation": ("Evaluation", "evaluate"),
        "models": ("ARCHITECTURES", "SlowFastCausalShuffleNet", "SlowFastConfig", "build"),
        "run": ("Run", "RunInfo", "load_run", "save_run"),
    },
)
