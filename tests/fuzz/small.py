"""A bundle with all targets that is exported in seconds."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipstep.export.pipeline import export_network
from clipstep.training.run import Run, RunInfo

FRAMES, SIZE = 3, 16


class Small(nn.Module):
    """A convolution, a relu, a pool and two states."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (2, 3, 3), padding=(0, 1, 1))
        self.linear = nn.Linear(8, 3)

    def initial_states(self) -> dict[str, Tensor]:
        return {"first": torch.zeros(1, 8, SIZE, SIZE), "newest": torch.zeros(1, 8, SIZE, SIZE)}

    def forward(self, frames: Tensor, first: Tensor, newest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = F.relu(torch.cat([first.reshape(1, 8, 1, SIZE, SIZE), self.conv(frames), newest.reshape(1, 8, 1, SIZE, SIZE)], dim=2))
        pooled = F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.linear(pooled.mean(dim=(2, 3, 4))), y[:, :, 1:2].reshape(first.shape) * 0.5, y[:, :, -2:-1].reshape(newest.shape) * 0.25


def export_small(path: Path) -> None:
    """Writes the bundle ``path``."""
    torch.manual_seed(8)
    frames = torch.randint(0, 256, (5, FRAMES, SIZE, SIZE, 3), dtype=torch.uint8)
    info = RunInfo("small", {}, ("a", "b", "c"), (104.0, 101.0, 97.0), (58.0, 57.0, 59.0), 25.0, "0" * 64)
    export_network(Run(Small().eval(), info, frames).spec("small"), path)
