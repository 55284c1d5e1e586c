"""`clipstep run BUNDLE VIDEO`, after its arguments were checked and the model was loaded: one video, to its end."""

from collections.abc import Sequence
from pathlib import Path

from clipstep.runtime.command_line.run_lines import line_of, note, say
from clipstep.runtime.command_line.run_progress import duration_of, progress_bar
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.model import StepModel
from clipstep.runtime.outputs.json_lines import values_of
from clipstep.runtime.outputs.output import Source
from clipstep.runtime.outputs.saving import saving
from clipstep.runtime.video_predictions import predictions


def run_video(
    model: StepModel, source: Source, files: Sequence[tuple[Path, str]], *, every_frame: bool, partial: bool, force: bool, as_json: bool
) -> None:
    """Run a model on a video, print its predictions, and write the files, each given with its suffix in `FORMATS`.

    Raises:
        ClipstepError: see `clipstep.runtime.video_predictions.predict_video`.
    """
    total = duration_of(source.video)
    with saving(files, source, force=force) as outputs, progress_bar(total, "s", shown=not as_json) as advance:
        read = predictions(
            model, source.video, outputs, every_frame=every_frame, partial=partial, note=note, watch=lambda seconds: advance(seconds, seconds)
        )
        for said in read:
            if as_json:
                print_json(values_of(said, source.top), indent=None)
            else:
                say(line_of(said, source.top))
