"""The options `--run`, `--model` and `--weights`, by which a user names the network that a bundle was exported from.

A manifest's provenance names a run or a factory, too, but nothing opens or imports that: whoever made the bundle wrote it, and could
choose the code that would run here. This module imports no PyTorch; `clipstep.export.reference`, which loads the network, does.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from clipstep.runtime.errors import ClipstepError


@dataclass(frozen=True)
class NetworkSource:
    """The network that a bundle was exported from: the folder of a run, or a factory `package.module:name` with a file of weights."""

    run: str | None = None
    model: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.run is not None and self.model is not None:
            raise ClipstepError("--run and --model both name the network", expected="one of them")
        if self.run is None and self.model is None:
            raise ClipstepError("--weights needs the network that they are for", fix="add --model package.module:factory")
        if self.run is not None and self.weights is not None:
            raise ClipstepError("--weights is for --model: a run has its own", fix="leave --weights out")
        if self.run is not None and ":" in self.run and not Path(self.run).exists():
            raise ClipstepError("--run names no folder", got=self.run, fix=f"a factory is given by --model {self.run}")

    def __str__(self) -> str:
        return self.run or str(self.model)

    def values(self) -> dict[str, str | None]:
        """Return the values from which another process makes an equal source: `NetworkSource(**values)`."""
        return asdict(self)


def given_network(run: Path | str | None, model: str | None, weights: Path | str | None) -> NetworkSource | None:
    """Return the network that the options of `network_options` name; None if none of them was given.

    Raises:
        ClipstepError: they contradict each other.
    """
    if run is None and model is None and weights is None:
        return None
    return NetworkSource(None if run is None else str(run), model, None if weights is None else str(weights))


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--run`, `--model` and `--weights` to a command; `given_network` reads them."""
    options = (
        click.option("--run", type=click.Path(path_type=Path), help="The folder of the run that the bundle was exported from."),
        click.option("--model", help="Instead of --run: package.module:factory, the network that the bundle was exported from."),
        click.option("--weights", type=click.Path(path_type=Path), help="The weights of --model, as they were given to clipstep export."),
    )
    for option in reversed(options):
        command = option(command)
    return command
