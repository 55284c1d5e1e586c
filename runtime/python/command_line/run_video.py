"""`clipstep run BUNDLE VIDEO`, after its arguments were checked and the model was loaded: one video, to its end."""

from collections.abc import Sequence
from pathlib import Path

from clipstep.runtime.command_line.run_lines import note, print_prediction
from clipstep.runtime.command_line.run_progress import duration_of, progress_bar
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.output import Output, Source
from clipstep.runtime.outputs.saving import saving
from clipstep.runtime.video_predictions import predictions


def run_video(
    model: StepModel,
    video: Path,
    source: Source,
    files: Sequence[tuple[Path, str]],
    windows: Sequence[Output],
    *,
    every_frame: bool,
    partial: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Run a model on a video, print and show its predictions, and write the files, each given with its suffix in `FORMATS`.

    Raises:
        ClipstepError: see `clipstep.runtime.video_predictions.predict_video`.
    """
    with saving(files, source, force=force) as outputs, progress_bar(duration_of(video), "s", shown=not as_json) as advance:
        kind = {"every_frame": every_frame, "partial": partial}
        read = predictions(model, video, [*outputs, *windows], note=note, watch=lambda seconds: advance(seconds, seconds), **kind)
        for said in read:
            print_prediction(said, source.top, as_json=as_json)
