"""The fonts of pictures: DejaVu Sans, which matplotlib brings, and for characters that it lacks a font that is installed on this computer."""

from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from clipstep.runtime.command_line.exit_codes import one_line

OWN = Path(font_manager.findfont("DejaVu Sans"))
BOXES = "Last Resort"
"""A font that matplotlib brings: it has a box for every character."""
UPRIGHT, REGULAR = "normal", 400


def drawable(text: str) -> str:
    """Return a text as it can be drawn: on one line, and with the characters escaped that no font here has, as terminals show them."""
    text = one_line(text)
    lacking = _needed(text) - _characters(font_file(text))
    return "".join(c.encode("unicode_escape").decode() if ord(c) in lacking else c for c in text)


@lru_cache
def font_file(text: str) -> Path:
    """Return the first font that has all characters of a text, or DejaVu Sans if none has."""
    if _needed(text) <= _characters(OWN):
        return OWN
    entries = (e for e in font_manager.fontManager.ttflist if e.style == UPRIGHT and e.weight == REGULAR and not e.name.startswith(BOXES))
    return next((path for path in sorted({Path(entry.fname) for entry in entries}) if path.exists() and _needed(text) <= _characters(path)), OWN)


@lru_cache
def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the font of a text, `size` pixels high, for Pillow."""
    return ImageFont.truetype(font_file(text), size)


def _needed(text: str) -> set[int]:
    return {ord(character) for character in text if not character.isspace()}


@lru_cache
def _characters(path: Path) -> frozenset[int]:
    return frozenset(FT2Font(str(path)).get_charmap())
