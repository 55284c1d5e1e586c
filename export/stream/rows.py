"""2D operations whose rows are the frames, as in networks of skeleton joints `(N, C, T, V)`. Where the frames are the batch, each is an image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx
from torch.nn import functional as F

from clipstep.export.stream.framewise import Rule, images
from clipstep.export.stream.interpreter import TIME, Chunk, StreamInterpreter
from clipstep.export.stream.summaries import over_time
from clipstep.export.unsupported import Unsupported


def rows_are_frames(x: Any) -> bool:
    """Whether a value is `(N, C, T, V)`."""
    return isinstance(x, Chunk) and x.axis == TIME and x.data.ndim == 4


def or_images(rule: Rule) -> Rule:
    """Return `rule` for values whose rows are the frames, and the rule of images for others."""

    def chosen(stream: StreamInterpreter, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Any:
        computed_weights = bool(args) and isinstance(args[0], Chunk)
        return (rule if rows_are_frames(x) and not computed_weights else images)(stream, node, x, *args, **kwargs)

    return chosen


def each(setting: Any, x: Chunk) -> tuple[int, ...]:
    """Return a setting of a convolution or pool as a number for each axis that it runs along, that of time first."""
    count, numbers = x.data.ndim - 2, [setting] if isinstance(setting, int) else list(setting)
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def adaptive_avg_pool2d(stream: StreamInterpreter, node: fx.Node, x: Chunk, sizes: Sequence[int]) -> Tensor:
    rows, columns = each(sizes, x)
    if rows != 1:
        raise Unsupported("has more than one output frame")
    (x,) = stream.align([x])
    return over_time(stream, node, replace(x, data=F.adaptive_avg_pool2d(x.data, (x.frames, columns))))
