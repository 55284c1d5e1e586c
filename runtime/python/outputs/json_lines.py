"""Predictions as JSON: `--jsonl`, and what `clipstep run --json` prints."""

import json
from pathlib import Path

from clipstep.runtime.outputs.output import Output, Source, VideoPrediction


class JsonLines(Output):
    """One JSON object a line for each prediction."""

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(path, source)
        self._file = path.open("w", encoding="utf-8")

    def add(self, said: VideoPrediction) -> None:
        self._file.write(json.dumps(values_of(said, self.source.top), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


def values_of(said: VideoPrediction, top: int) -> dict[str, object]:
    """Return a prediction as JSON has it, with its `top` likeliest classes; `seconds` is when its last frame ends."""
    ranked = [{"label": label, "probability": float(probability)} for label, probability in said.prediction.top(top)]
    return {"seconds": round(said.end, 6), "frames_seen": said.prediction.frames_seen, "at_end": said.at_end, "top": ranked}
