"""Videos in, checkpoint out: data sets in UCF101's layout, the architectures, training, and the run that it leaves."""

from clipstep.training.data.lists import Clip, DataSet, read_data_set
from clipstep.training.data.subclips import normalise, read_subclips
from clipstep.training.models import ARCHITECTURES, SlowFastCausalShuffleNet, SlowFastConfig, build
from clipstep.training.run import Run, RunInfo, load_run, save_run

__all__ = [
    "ARCHITECTURES", "Clip", "DataSet", "Run", "RunInfo", "SlowFastCausalShuffleNet", "SlowFastConfig",
    "build", "load_run", "normalise", "read_data_set", "read_subclips", "save_run",
]  # fmt: skip
