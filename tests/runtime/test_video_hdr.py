"""HDR on an SDR screen: the formula of `video_hdr`, in float64."""

import numpy as np
import pytest

from clipstep.runtime.video_hdr import BT2020, HLG, PQ, tone_mapped

BT709 = 1
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""ITU-R BT.2087."""


def light_of(codes: np.ndarray, transfer: int) -> np.ndarray:
    """Light in units of 203 cd/m2 by ITU-R BT.2100; of HLG on a screen of 1000 cd/m2."""
    if transfer == PQ:
        powers = codes ** (1 / 78.84375)
        return 10000 / 203 * (np.maximum(powers - 0.8359375, 0) / (18.8515625 - 18.6875 * powers)) ** (1 / 0.1593017578125)
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    luminance = (scene @ np.array([0.2627, 0.6780, 0.0593]))[..., None]
    return 1000 / 203 * scene * np.maximum(luminance, 1e-6) ** 0.2


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("primaries", [BT2020, BT709])
def test_hdr_is_within_a_level_of_its_formula(transfer: int, primaries: int) -> None:
    """Greys from black to white, and random colours; of a part of a larger picture."""
    picture = np.random.default_rng(0).integers(0, 65536, (70, 90, 3), np.uint16)
    picture[0] = np.linspace(0, 65535, 90)[:, None]
    codes = picture[:, 5:80]
    light = light_of(codes / 65535, transfer)
    if primaries == BT2020:
        light = np.maximum(light @ TO_BT709.T, 0)
    largest = light.max(axis=-1, keepdims=True)
    light = light * np.where(largest > 0.5, (0.5 + (1 - np.exp(1 - 2 * largest)) / 2) / np.maximum(largest, 0.5), 1)
    assert np.abs(tone_mapped(codes, transfer, primaries) - 255 * light ** (1 / 2.4)).max() <= 0.7
