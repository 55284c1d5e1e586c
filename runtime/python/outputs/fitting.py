"""Cut texts to the room that they have."""

from collections.abc import Callable


def fitting(text: str, fits: Callable[[str], bool]) -> str:
    """Return a text, or as much of its beginning as fits with an ellipsis after it."""
    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle].rstrip() + "…") else (low, middle - 1)
    return text[:low].rstrip() + "…"
