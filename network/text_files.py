"""Text files that people write (class names, lists of videos), from any editor and system."""

import re
import unicodedata
from pathlib import Path

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file

BOM = "\ufeff"
QUOTES = "\"'"


def read_lines(path: Path, *, expected: str, fix: str = "check the path") -> list[tuple[int, str]]:
    """Return the lines that are not blank, each with its number, counted from 1.

    White space at both ends and byte order marks are removed. The text is in composed Unicode (NFC), because macOS decomposes names of files.
    ``expected`` and ``fix`` say in an error what the file should be and what to do.

    Raises:
        ClipstepError: the file cannot be read, is not UTF-8 text, holds control characters, or has no line that is not blank.
    """
    text = read_text(path, expected=expected, fix=fix)
    lines = [(number, nfc(line.replace(BOM, "").strip())) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise ClipstepError(f"{path}: the list is empty", expected="at least one line", fix="fill the list")
    for number, line in lines:
        if not line.isprintable() and any(unicodedata.category(character) == "Cc" and character != "\t" for character in line):
            raise ClipstepError(f"{path}:{number}: holds a control character", got=ascii(line), expected=expected, fix="correct the file")
    return lines


def read_text(path: Path, *, expected: str, fix: str = "check the path") -> str:
    """Return the text of a file in UTF-8, without a byte order mark at its start.

    Raises:
        ClipstepError: the file cannot be read, or is not UTF-8 text.
    """
    check_file(path, expected, fix=fix)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ClipstepError(f"{path}: cannot be read", got=error.strerror or error, expected=expected) from error
    except UnicodeDecodeError as error:
        raise ClipstepError(f"{path}: is not text in UTF-8", got=f"byte {error.start + 1}", expected=expected, fix="save it as UTF-8") from error


def nfc(text: str) -> str:
    """Return the text in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", text)


def unquoted(text: str) -> str:
    """Return the text without the quotes around it, if there are any."""
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES else text


def as_on_disk(path: Path) -> Path:
    """Return the path with each of its names in the Unicode form that exists on this disk, composed or decomposed; as given if there is neither."""
    if path.exists():
        return path
    found = Path()
    for part in path.parts:
        forms = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        found = next((found / form for form in forms if (found / form).exists()), found / part)
    return found if found.exists() else path
