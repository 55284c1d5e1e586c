"""Check that the weights of an ML Program lie within its own weights file."""

import struct
from pathlib import Path

from clipstep.runtime.checks.present import check_present
from clipstep.runtime.errors import ClipstepError

FOLDER = "Data/com.apple.CoreML"
PREFIX = "@model_path/"
WEIGHTS = f"{PREFIX}weights/weight.bin"
ENTRY = struct.Struct("<IIQQ")
ENTRY_BYTES = 64
SENTINEL = 0xDEADBEEF


def check_blob(package: Path, name: str, offset: int, size: int) -> None:
    """Check an entry of the weights file, as coremltools' MILBlob writes it.

    An entry has 64 bytes, of which the first 24 hold a sentinel, a type, and the size and the offset of the numbers.

    Raises:
        ClipstepError: the program names another file; the weights file is absent or empty; the entry is damaged; or its numbers are not `size`
            bytes within the file.
    """
    if name != WEIGHTS:
        raise ClipstepError(f"{package}: a weight lies in another file", got=ascii(name), expected=WEIGHTS, fix="export it again")
    path = package / FOLDER / name.removeprefix(PREFIX)
    check_present(path, "export it again")
    end = path.stat().st_size
    if offset + ENTRY_BYTES > end:
        raise ClipstepError(f"{package}: a weight lies outside the weights file", got=f"byte {offset}", expected=f"less than {end}")
    with path.open("rb") as file:
        file.seek(offset)
        sentinel, _, stored, place = ENTRY.unpack(file.read(ENTRY.size))
    if sentinel != SENTINEL or stored != size or place + stored > end:
        raise ClipstepError(
            f"{package}: the entry of a weight at byte {offset} is damaged",
            got=f"{stored} bytes at {place}",
            expected=f"{size} bytes within {end}",
            fix="export it again",
        )
