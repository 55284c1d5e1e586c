"""Run bundles: load one, push the frames of a video into a stream, and get predictions.

It needs numpy, PyAV and an engine. Importing the package never imports PyTorch.

Example:
    ```python
    with StepModel.load("fight.clipstep", engine="onnxruntime", threads=1) as model:
        stream = model.stream()
        for frame in read_frames("video.mp4", fps=model.interface.input.fps):
            if prediction := stream.push(frame):  # None, or a prediction once every T frames
                print(prediction.top(3))
    ```
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from clipstep.runtime.artifact_info import ArtifactInfo
    from clipstep.runtime.bundle import Bundle, BundleError
    from clipstep.runtime.bundle.manifest import Manifest
    from clipstep.runtime.engines import ENGINES
    from clipstep.runtime.errors import ClipstepError, EngineError
    from clipstep.runtime.golden import GoldenSteps, ParityError, check_golden
    from clipstep.runtime.inspection import inspect
    from clipstep.runtime.live import LiveVideo
    from clipstep.runtime.model import StepModel, StepOutputs
    from clipstep.runtime.outputs.choice_plot import plot_choices
    from clipstep.runtime.outputs.output import VideoPrediction
    from clipstep.runtime.stream import Prediction, Stream
    from clipstep.runtime.video import DamagedVideoError, TimedFrame, VideoError, frame_rate, read_frames, read_timed_frames
    from clipstep.runtime.video_predictions import predict_video

__all__ = [
    "ENGINES",
    "ArtifactInfo",
    "Bundle",
    "BundleError",
    "ClipstepError",
    "DamagedVideoError",
    "EngineError",
    "GoldenSteps",
    "LiveVideo",
    "Manifest",
    "ParityError",
    "Prediction",
    "StepModel",
    "StepOutputs",
    "Stream",
    "TimedFrame",
    "VideoError",
    "VideoPrediction",
    "check_golden",
    "frame_rate",
    "inspect",
    "plot_choices",
    "predict_video",
    "read_frames",
    "read_timed_frames",
]

__getattr__ = lazy_names(  # Lazily: the process of an engine, in which a stream waits for its first prediction, needs next to nothing of it.
    __name__,
    {
        "artifact_info": ("ArtifactInfo",),
        "bundle": ("Bundle", "BundleError"),
        "bundle.manifest": ("Manifest",),
        "engines": ("ENGINES",),
        "errors": ("ClipstepError", "EngineError"),
        "golden": ("GoldenSteps", "ParityError", "check_golden"),
        "inspection": ("inspect",),
        "live": ("LiveVideo",),
        "model": ("StepModel", "StepOutputs"),
        "outputs.choice_plot": ("plot_choices",),
        "outputs.output": ("VideoPrediction",),
        "stream": ("Prediction", "Stream"),
        "video": ("DamagedVideoError", "TimedFrame", "VideoError", "frame_rate", "read_frames", "read_timed_frames"),
        "video_predictions": ("predict_video",),
    },
)
