"""HDR video (PQ and HLG of ITU-R BT.2100) as an SDR screen would show it, in place of the grey that its numbers give as they are.

1. The numbers become light, in units of the reference white of 203 cd/m2 (ITU-R BT.2408); HLG as on a screen of 1000 cd/m2.
2. BT.2020's colours become BT.709's.
3. What is brighter than half of the reference white is compressed, by the largest of the three colours, so that hues stay:
   `x -> 1/2 + (1 - exp(1 - 2 x)) / 2`.
4. Light becomes numbers again for a screen of gamma 2.4 (ITU-R BT.1886).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273."""
BT2020 = 9
"""Colour primaries of ITU-T H.273."""
WHITE = 203.0
TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
LUMINANCE = (0.2627, 0.6780, 0.0593)
"""The shares of BT.2020's red, green and blue in luminance."""
KNEE = 0.5
STEPS = 4096
"""Steps of the table of step 4, which is entered by the square root of light, so that dark colours keep their differences."""

ROWS = 16
"""How many rows are converted at a time, so that they stay in the processor's cache."""

Light = npt.NDArray[np.floating[Any]]
Colours = tuple[Light, Light, Light]


def tone_mapped(rgb: npt.NDArray[np.uint16], transfer: int, primaries: int) -> npt.NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8 RGB for an SDR screen of `(H, W, 3)` uint16 RGB with the transfer characteristic `PQ` or `HLG`."""
    shown = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), ROWS):
        block = rgb[top : top + ROWS]
        codes = block[..., 0], block[..., 1], block[..., 2]
        light = _each(_light_of_pq().take, codes) if transfer == PQ else _shown_hlg(_each(_scene_of_hlg().take, codes))
        if primaries == BT2020:
            light = _each(lambda row, light=light: np.maximum(_weighted(row, light), 0), TO_BT709)
        gain = _gain(np.maximum(np.maximum(light[0], light[1]), light[2]))
        for channel, plane in enumerate(light):
            shown[top : top + ROWS, :, channel] = _codes_of_light().take((np.sqrt(plane * gain) * STEPS + 0.5).astype(np.intp))
    return shown


def _each(function: Callable[..., Light], planes: Iterable[Any]) -> Colours:
    red, green, blue = map(function, planes)
    return red, green, blue


def _weighted(shares: Sequence[float], light: Colours) -> Light:
    weighted: Light = light[0] * shares[0] + light[1] * shares[1] + light[2] * shares[2]
    return weighted


def _gain(largest: Light) -> Light:
    """Return what the light of each pixel is multiplied by, given the largest of its colours: 1 up to the knee."""
    bright = np.maximum(largest, KNEE)
    gain: Light = (1 - (1 - KNEE) * np.exp((KNEE - bright) / (1 - KNEE))) / bright
    return gain


def _shown_hlg(scene: Colours) -> Colours:
    """Return the light of a screen of 1000 cd/m2 for the light before the camera: brighter parts are shown brighter still."""
    brighter: Light = np.power(np.maximum(_weighted(LUMINANCE, scene), 1e-6), 0.2, dtype=np.float32) * (1000 / WHITE)
    return _each(lambda light: light * brighter, scene)


@cache
def _light_of_pq() -> Light:
    powers = _codes() ** (32 / 2523)
    light = 10000 / WHITE * ((powers - 3424 / 4096).clip(0) / (2413 / 128 - 2392 / 128 * powers)) ** (16384 / 2610)
    return light.astype(np.float32)


@cache
def _scene_of_hlg() -> Light:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    codes = _codes()
    return np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12).astype(np.float32)


def _codes() -> npt.NDArray[np.float64]:
    return np.arange(2**16) / (2**16 - 1)


@cache
def _codes_of_light() -> npt.NDArray[Any]:
    """Return the number, 0 to 255, of each square root of light from 0 to 1."""
    return ((np.arange(STEPS + 1) / STEPS) ** (2 / 2.4) * 255 + 0.5).astype(np.uint8)
