"""What `clipstep run` prints. It is `print`, not `click.echo`, which may write past the progress bar."""

import sys

from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.outputs.json_lines import values_of
from clipstep.runtime.outputs.output import VideoPrediction


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def print_prediction(said: VideoPrediction, top: int, *, as_json: bool) -> None:
    """Print a prediction with its `top` likeliest classes, as a line for people or as a JSON object."""
    if as_json:
        print_json(values_of(said, top), indent=None)
    else:
        say(line_of(said, top))


def note(text: str) -> None:
    """Print on standard error what the user should know and what is no error."""
    print(f"note: {text}", file=sys.stderr)


def line_of(said: VideoPrediction, top: int) -> str:
    """Return when a prediction is known, and its likeliest classes, as one line."""
    when = "     end " if said.at_end else f"{said.end:7.2f} s"
    return f"{when}  {ranked(said, top)}"


def ranked(said: VideoPrediction, top: int) -> str:
    """Return the likeliest classes and their probabilities as one line."""
    return "  ".join(f"{label} {probability:.3f}" for label, probability in said.prediction.top(top))
