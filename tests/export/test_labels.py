"""Class names from any editor and system; a bad line is named."""

from pathlib import Path

import pytest

from clipstep.export.factory import read_labels
from clipstep.runtime import ClipstepError


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbfApply Eye Makeup\r\n  Caf\xc3\xa9\t\r\n\r\nhug\r\n", id="Windows"),
        pytest.param("Apply Eye Makeup\nCafe\u0301\n\ufeffhug".encode(), id="macOS, and files put together"),
        pytest.param(b"\"Apply Eye Makeup\"\r'Caf\xc3\xa9'\rhug", id="quoted"),
    ],
)
def test_names_are_read_whatever_the_encoding_and_line_ends(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == ("Apply Eye Makeup", "Caf\u00e9", "hug")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"labels\.txt: the list is empty"),
        (b"hug\nrun\n\xef\xbb\xbfhug \n", r"labels\.txt:3: the class is named twice; got hug, as in line 1; expected each class once"),
        ("h\u00fcg\n".encode("utf-16"), r"labels\.txt: is not text in UTF-8; got byte 1; .*save it as UTF-8"),
        (b"hug\nr\x00un\n", r"labels\.txt:2: holds a control character; got 'r\\x00un'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ClipstepError, match=message):
        read_labels(tmp_path / "labels.txt")
