"""What the tests of export share: the opened bundle, a network that exports fast, and copies that tests damage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.network.videos import read_subclips
from clipstep.runtime.bundle import MANIFEST, Bundle, tree_sha256, tree_size
from clipstep.runtime.golden import GoldenSteps
from clipstep.training.run import Run, RunInfo

CLASSES = ("fight", "nofight", "other")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(scope="session")
def golden(bundle: Bundle) -> GoldenSteps:
    return GoldenSteps.of(bundle)


class Pooled(nn.Module):
    """A network of one convolution, a relu and a pool, with two states of one shape: exported in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (2, 3, 3), padding=(0, 1, 1))
        self.linear = nn.Linear(8, len(CLASSES))

    def initial_states(self) -> dict[str, Tensor]:
        return {"first": torch.zeros(1, 8, 16, 16), "newest": torch.zeros(1, 8, 16, 16)}

    def forward(self, frames: Tensor, first: Tensor, newest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = F.relu(torch.cat([first.reshape(1, 8, 1, 16, 16), self.conv(frames), newest.reshape(1, 8, 1, 16, 16)], dim=2))
        pooled = F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.linear(pooled.mean(dim=(2, 3, 4))), y[:, :, 1:2].reshape(first.shape) * 0.5, y[:, :, -2:-1].reshape(newest.shape) * 0.25


@pytest.fixture(scope="session")
def pooled_run(clip: Path) -> Run:
    """A run of a network that exports fast, for tests that export again."""
    torch.manual_seed(8)
    info = RunInfo("pooled", {}, CLASSES, (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    return Run(Pooled().eval(), info, read_subclips(clip, 3, 16)[:5])


@pytest.fixture(scope="session")
def rehash() -> Callable[..., Bundle]:
    """`rehash(path, file)`: writes the present hashes of a changed bundle's files into its manifest, and opens it with the artifact `file` alone."""

    def change(path: Path, file: str | None = None) -> Bundle:
        values = json.loads((path / MANIFEST).read_text())
        values["artifacts"] = [artifact for artifact in values["artifacts"] if file in (None, artifact["file"])]
        for item in (*values["artifacts"], values["golden"]):
            item.update(sha256=tree_sha256(path / item["file"]), size_bytes=tree_size(path / item["file"]))
        (path / MANIFEST).write_text(json.dumps(values))
        return Bundle.open(path)

    return change
