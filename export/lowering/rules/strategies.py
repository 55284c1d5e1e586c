"""The strategies for writing a 3D convolution with tensors of rank 4: an ordered list, of which the first that applies is taken.

`docs/lowering.md` describes each of them. To add one, write a predicate and a function and put it where it belongs in the list.
"""

from collections.abc import Callable
from dataclasses import dataclass

from clipstep.export.lowering.profile import EngineProfile
from clipstep.export.lowering.rules import channel_major, direct, gemm, winograd
from clipstep.export.lowering.rules.convolution_settings import Convolution
from clipstep.export.lowering.values import Value


@dataclass(frozen=True)
class Strategy:
    """A way to write a convolution: its name in `clipstep export --explain`, when it applies, and what it does."""

    name: str
    applies: Callable[[EngineProfile, Convolution], bool]
    """Whether the strategy can be used, by the profile, the settings and the input's representation. The call adds no operation to the graph."""
    lower: Callable[[EngineProfile, Convolution], Value]


STRATEGIES = (
    Strategy("computed-taps", direct.has_computed_weight, direct.per_frame_taps),
    Strategy("im2col-gemm-per-tap", lambda profile, conv: profile.gemm_per_tap and gemm.fits(profile, conv), gemm.product_per_tap),
    Strategy("batched-im2col-gemm", gemm.fits_batch, gemm.batch_of_products),
    Strategy("im2col-gemm", gemm.fits, gemm.one_product),
    Strategy("batched-winograd-over-time", winograd.fits_batch, winograd.lower_batch),
    Strategy("winograd-over-time", winograd.fits, winograd.lower),
    Strategy("time-as-rows", direct.fits_time_as_rows, direct.time_as_rows),
    Strategy("channel-major-pointwise", channel_major.fits_pointwise, channel_major.pointwise),
    Strategy("channel-major-depthwise", channel_major.fits_depthwise, channel_major.depthwise),
    Strategy("channel-major-banded", channel_major.fits_banded, channel_major.banded),
    Strategy("frames-as-channels", direct.fits_frames_as_channels, direct.frames_as_channels),
    Strategy("batched-taps", direct.fits_batched_taps, direct.batched_taps),
    Strategy("per-frame-taps", direct.fits_per_frame_taps, direct.per_frame_taps),
    Strategy("taps-as-channels", lambda *_: True, direct.taps_as_channels),
)
"""All strategies, the specific ones before the general ones. The last one always applies."""


def strategy_for(profile: EngineProfile, convolution: Convolution) -> Strategy:
    """Return the first strategy that applies."""
    return next(strategy for strategy in STRATEGIES if strategy.applies(profile, convolution))
