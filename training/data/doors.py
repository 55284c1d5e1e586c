"""Opening and closing doors drawn over real videos: clips whose class depends only on the order of the motion.

In ``Opening`` the gap between two sliding doors sweeps from narrow to wide, in ``Closing`` over the same positions from
wide to narrow; then, for one last whole subclip, the doors stand still at the same middle gap:

    gap   wide  \\\\ closing    //  opening        the last subclip
          middle  \\\\        //        .-----------------------.
          narrow   \\\\______//         |   the same in both    |

After the last subclip only the states that were carried over can tell the classes apart. Source: the paper's discussion, which
finds that temporally asymmetric actions (opening and closing) are confused.
"""

from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clipstep.runtime.resize import Frame, center_box, crop_resize
from clipstep.runtime.video import read_frames

LABELS = ("Opening", "Closing")
NARROW, MIDDLE, WIDE = 0.1, 0.5, 0.9
"""The gap between the doors as a share of the doorway."""


@dataclass(frozen=True)
class Doors:
    """A doorway with two sliding doors: its place and size as shares of the frame, the doors' colour, and how many subclips they move."""

    top: float
    left: float
    height: float
    width: float
    colour: tuple[int, int, int]
    moving: int


def random_doors(random: np.random.Generator) -> Doors:
    """Return doors at a random place, of a random size and colour, which move for one or two subclips."""
    height, width = random.uniform(0.4, 0.7, 2)
    top, left = random.uniform(0, 1 - height), random.uniform(0, 1 - width)
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return Doors(float(top), float(left), float(height), float(width), (red, green, blue), int(random.integers(1, 3)))


def gaps(label: int, moving: int, frames: int) -> npt.NDArray[np.float64]:
    """Return the gap between the doors in each frame: ``moving`` subclips of ``frames`` frames in motion, then one at rest."""
    sweep = np.linspace(NARROW, WIDE, moving * frames)
    return np.concatenate([sweep if label == 0 else sweep[::-1], np.full(frames, MIDDLE)])


def draw_doors(frame: Frame, doors: Doors, gap: float) -> Frame:
    """Return the frame with both doors drawn over it, the gap between them in the middle of the doorway."""
    size = len(frame)
    top, bottom = round(doors.top * size), round((doors.top + doors.height) * size)
    leaf = doors.width * (1 - gap) / 2
    drawn = frame.copy()
    for start in (doors.left, doors.left + doors.width - leaf):
        drawn[top:bottom, round(start * size) : round((start + leaf) * size)] = doors.colour
    return drawn


def background(video: Path, size: int, count: int, *, cut: tuple[float, float] | None = None) -> list[Frame]:
    """Return ``count`` frames of a video's centre, or of the seconds ``cut`` of it; a shorter one is played forwards and backwards in turns."""
    frames = [crop_resize(frame, center_box(*frame.shape[:2]), size) for frame in islice(read_frames(video, cut=cut), count)]
    return list(islice(cycle(chain(frames, frames[-2:0:-1])), count))
