"""The multiply-accumulates of a network, against numbers by hand."""

import torch
from torch import Tensor, nn

from clipstep.network.count import count_macs


class Asking(nn.Module):
    """Multiplies frames by a matrix, and gives a view of one of its own parameters to a layer, as a learned query is given to attention."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.layer = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 3)

    def forward(self, frames: Tensor) -> Tensor:
        return self.layer(self.query.expand(len(frames), -1, -1)) + self.layer(frames)


def test_a_view_of_a_parameter_may_go_into_a_layer() -> None:
    network = Asking()
    assert count_macs(network, torch.zeros(2, 5, 8)) == 2 * (2 * 5 * 8 * 3)
    assert network.query.requires_grad and network.query.grad_fn is None
