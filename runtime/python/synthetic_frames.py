"""Draw frames for golden steps, and joints that move. Unlike noise, they make a network's outputs differ from step to step.

Each subclip is a scene with its own brightness, contrast and tint, in which waves, a texture and a disc move in their own directions and
accelerate. Nothing in it is symmetric, so that an artifact which exchanges axes or colours, or reverses the order of the frames, gives other
outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipstep.runtime.engine import Array

WAVES = 3


def synthetic_subclips(count: int, frames: int, height: int, width: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return scenes `(count, frames, height, width, channels)` uint8, the same for the same arguments."""
    random = np.random.default_rng(seed)
    scenes = [_scene(random, place / max(1, count - 1), frames, height, width, channels) for place in range(count)]
    return np.stack(scenes)


def synthetic_input(
    kind: str, count: int, shape: Sequence[int], dtype: str, mean: Sequence[float], std: Sequence[float], seed: int = 0
) -> npt.NDArray[Any]:
    """Return subclips `(count, *shape)` of a kind of input of the manifest, the same for the same arguments.

    Joints swing about places of their own, and the last of several persons is missing in the first scene: zeros, as usual. Images of float32 are
    scenes that are brought onto the scale of `mean` and `std`.
    """
    if kind == "joints":
        return _joints(np.random.default_rng(seed), count, shape, np.asarray(mean), np.asarray(std))
    frames, height, width, channels = shape
    scenes = synthetic_subclips(count, frames, height, width, channels, seed)
    if dtype == "uint8":
        return scenes
    return (np.asarray(mean) + np.asarray(std) * (scenes / 64.0 - 2)).astype(np.float32)


def _joints(random: np.random.Generator, count: int, shape: Sequence[int], mean: Array, std: Array) -> npt.NDArray[np.float32]:
    """Return scenes `(count, T, V, C)` or `(count, T, M, V, C)`."""
    frames, *places, channels = shape
    scenes = np.empty((count, *shape))
    for scene in scenes:
        time = _accelerating(frames).reshape(frames, *[1] * len(places), 1)
        rest, swing = random.normal(0, 1, (*places, channels)), random.uniform(0.1, 1, (*places, channels))
        speed, phase = random.uniform(0.5, 2.5, (*places, 1)), random.uniform(0, 1, (*places, channels))
        scene[:] = mean + std * (rest + swing * np.sin(2 * np.pi * (speed * time + phase)))
    if len(places) > 1 and places[0] > 1:
        scenes[0, :, -1] = 0
    return scenes.astype(np.float32)


def _scene(random: np.random.Generator, place: float, frames: int, height: int, width: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return a scene `(frames, height, width, channels)`. `place` is its place in the video, from 0 to 1; later scenes are brighter."""
    brightness = 255 * (0.25 + 0.5 * (0.6 * place + 0.4 * random.random()))
    contrast, tint = random.uniform(25, 90), random.uniform(0.4, 1.2, channels)
    time = _accelerating(frames)
    waves = _waves(random, time, height, width, channels)
    texture = _moving(random.normal(0, 0.5, (height, width, channels)), random.integers(2, 5, 2) * random.choice([-1, 1], 2), time)
    picture = brightness * tint + contrast * (waves + texture) + _disc(random, time, height, width, channels)
    fading = 1 + 0.3 * np.exp(-3 * time)[:, None, None, None]  # A flash of light that fades slowly.
    rounded: npt.NDArray[np.uint8] = np.clip(np.rint(picture * fading), 0, 255).astype(np.uint8)
    return rounded


def _accelerating(frames: int) -> Array:
    """Return a time from 0 to 1 for each frame of a scene, at growing intervals, so that all motion speeds up."""
    steps: Array = np.arange(frames) / max(1, frames)
    return 0.5 * steps + 0.5 * steps**2


def _waves(random: np.random.Generator, time: Array, height: int, width: int, channels: int) -> Array:
    y, x = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    total = np.zeros((len(time), height, width, channels))
    for _ in range(WAVES):
        down, right, speed = random.uniform(0.5, 3), random.uniform(0.5, 6), random.uniform(-1.5, 1.5)
        phase = down * y + right * x - speed * time[:, None, None]
        total += np.sin(2 * np.pi * (phase[..., None] + random.uniform(0, 1, channels))) * random.uniform(0.2, 1, channels) / WAVES
    return total


def _moving(texture: Array, way: Array, time: Array) -> Array:
    """Return frames of a texture that moves down and to the right, and wraps around, by `way` sixteenths of its size over the scene."""
    shifts = np.rint(time[:, None] * way * np.array(texture.shape[:2]) / 16).astype(int)
    return np.stack([np.roll(texture, tuple(shift), axis=(0, 1)) for shift in shifts])


def _disc(random: np.random.Generator, time: Array, height: int, width: int, channels: int) -> Array:
    """Return frames `(frames, height, width, channels)` of a disc of one colour that moves along a line; 0 outside of it."""
    start, end = random.uniform(0.1, 0.9, (2, 2))
    centre = start + time[:, None] * (end - start)
    y, x = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    distance = np.hypot(y - centre[:, 0, None, None], x - centre[:, 1, None, None])
    inside = np.clip((random.uniform(0.12, 0.25) - distance) * max(height, width), 0, 1)  # A soft edge of one pixel.
    disc: Array = inside[..., None] * random.uniform(-120, 120, channels)
    return disc
