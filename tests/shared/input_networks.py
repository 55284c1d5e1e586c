"""Networks on frames as a step takes them, and small ones that take something else than RGB frames, written as people write them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JOINTS, COORDINATES, CLASSES = 5, 3, 3


class OfFrames(nn.Module):
    """A network on frames `(T, H, W, 3)`, as a step takes them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        return (self.network(frames.permute(3, 0, 1, 2)[None]),)


class GraphConvolution(nn.Module):
    """A block of ST-GCN (Yan et al., 2018): a product with each of three parts of the skeleton's graph, and a convolution along time."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.register_buffer("graph", torch.rand(3, JOINTS, JOINTS).softmax(1))
        self.importance = nn.Parameter(torch.ones(3, JOINTS, JOINTS))
        self.space = nn.Conv2d(channels, 3 * out, 1)
        self.time = nn.Sequential(
            nn.BatchNorm2d(out), nn.ReLU(), nn.Conv2d(out, out, (3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(out), nn.Dropout(0.5)
        )
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.space(x)
        n, c, t, v = y.shape
        y = torch.einsum("nkctv,kvw->nctw", y.view(n, 3, c // 3, t, v), self.graph * self.importance).contiguous()
        return (self.time(y) + self.shortcut(x)).relu()


class SkeletonNetwork(nn.Module):
    """ST-GCN on `(N, C, T, V, M)`, the joints of M persons; with `persons=None` on `(N, C, T, V)`."""

    def __init__(self, persons: int | None = 2) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.persons, self.norm = persons, nn.BatchNorm1d(JOINTS * COORDINATES)
        self.blocks = nn.Sequential(GraphConvolution(COORDINATES, COORDINATES), GraphConvolution(COORDINATES, 12, 2))
        self.head = nn.Conv2d(12, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.persons else x[..., None]
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t))
        x = self.blocks(x.view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v))
        x = F.avg_pool2d(x, x.size()[2:]).view(n, m, -1, 1, 1).mean(1)
        return self.head(x).view(n, -1)


class StackedFlows(nn.Module):
    """The temporal stream of a two-stream network: the flows between 11 frames, stacked to 20 channels of one image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.body, self.head = nn.Sequential(nn.Conv2d(20, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, :, 0]).mean((2, 3)))


class Volumes(nn.Module):
    """A 3D network of any number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.body = nn.Sequential(nn.Conv3d(channels, 8, 3, (1, 2, 2), 1), nn.ReLU(), nn.Conv3d(8, 8, (3, 1, 1), 1, (1, 0, 0)), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3, 4)))
