"""Decoding: the frames are those of the definition, upright; a file that is no video is a clear error."""

import gc
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from bt601 import decoded

from clipstep.runtime import ClipstepError, VideoError, frame_rate, read_frames
from clipstep.runtime.resize import center_box, crop_resize

COLOURS = np.random.default_rng(1).integers(0, 256, (6, 32, 48, 3), np.uint8)


def test_frames_are_those_of_the_definition(clip: Path) -> None:
    """Within a level; and so are their squares, but for the few numbers beyond 0 and 255 that are cut before or after the resizing."""
    expected, frames, squares = decoded(clip), list(read_frames(clip)), list(read_frames(clip, size=112))
    assert len(frames) == len(squares) == len(expected) > 16
    for frame, square, wanted in zip(frames, squares, expected, strict=True):
        assert frame.dtype == np.uint8 and frame.shape == wanted.shape
        assert np.abs(frame.astype(int) - wanted).max() <= 1
        difference = np.abs(square.astype(int) - crop_resize(wanted, center_box(*wanted.shape[:2]), 112))
        assert np.quantile(difference, 0.99) <= 1 and difference.max() <= 16


def test_a_size_and_a_short_side_exclude_each_other(clip: Path) -> None:
    with pytest.raises(ClipstepError, match="got size and short_side; expected one of them"):
        next(read_frames(clip, size=112, short_side=112))


def test_channels_are_red_green_blue(write_video: Callable[..., Path]) -> None:
    orange = np.full((4, 32, 32, 3), (250, 120, 10), np.uint8)
    for frame in read_frames(write_video(orange)):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(axis=0), (250, 120, 10), atol=6)


def test_frames_may_be_asked_for_one_by_one_and_left(clip: Path) -> None:
    frames = read_frames(clip)
    first = next(frames)
    frames.close()
    np.testing.assert_array_equal(first, next(read_frames(clip)))


def _rotate_container(path: Path, turn: tuple[int, int, int, int]) -> None:
    """Writes the upper left 2x2 of the track header's display matrix, 16.16 fixed point."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in turn)
    for offset, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
        data[matrix + offset : matrix + offset + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("turn", "clockwise_turns"),
    [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)],
)
def test_a_rotation_that_the_container_asks_for_is_applied(
    write_video: Callable[..., Path], turn: tuple[int, int, int, int], clockwise_turns: int
) -> None:
    """ISO/IEC 14496-12: `(x, y)` of a stored pixel is shown at `(a x + c y, b x + d y)`; phones write (0, 1, -1, 0)."""
    quadrants = np.zeros((4, 32, 64, 3), np.uint8)
    quadrants[:, :16, :32] = 250
    path = write_video(quadrants)
    stored = next(read_frames(path))
    _rotate_container(path, turn)
    np.testing.assert_array_equal(next(read_frames(path)), np.rot90(stored, -clockwise_turns))


@pytest.mark.parametrize("rate", [25, 10])
def test_frame_rate_is_the_one_written(write_video: Callable[..., Path], rate: int) -> None:
    assert frame_rate(write_video(COLOURS, rate=rate)) == rate


@pytest.mark.parametrize("read", [lambda path: list(read_frames(path)), frame_rate])
class TestErrors:
    def test_missing_file(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        with pytest.raises(VideoError, match=r"nowhere\.mp4: .*expected a video"):
            read(tmp_path / "nowhere.mp4")

    def test_text_called_mp4(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
        with pytest.raises(VideoError, match=r"text\.mp4: cannot be decoded; got .*expected a video"):
            read(tmp_path / "text.mp4")

    def test_sound_without_pictures(self, read: Callable[[Path], object], sound_only: Path) -> None:
        with pytest.raises(VideoError, match=r"sound\.mp4: has no video stream; got audio; expected a file with a video stream"):
            read(sound_only)


def test_a_file_cut_short_is_an_error_and_not_a_crash(write_video: Callable[..., Path]) -> None:
    path = write_video(COLOURS)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VideoError, match="cannot be decoded"):
        list(read_frames(path))


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:full:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>secret.mp4'
    "</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "txt": "FFmpeg would draw this text as a terminal's screen\n" * 50,
}


@pytest.mark.parametrize("own_name", [True, False], ids=["by its own name", "called mp4"])
@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("read", [lambda path: list(read_frames(path)), frame_rate])
def test_a_file_that_names_others_is_refused_whatever_it_is_called(
    write_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], kind: str, own_name: bool
) -> None:
    """Before, an ffconcat list played another file of the machine, and a text file was three frames of text."""
    write_video(COLOURS, "secret.mp4")
    path = tmp_path / f"list.{kind if own_name else 'mp4'}"
    path.write_text(PLAYLISTS[kind])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=rf"{path.name}: cannot be decoded"):
        read(path)


@pytest.mark.parametrize("name", ["concat:secret.mp4", "subfile,,start,0,end,0,,:secret.mp4", "12:30.mp4", "-i.mp4", "frame%03d.mp4"])
def test_a_name_is_a_name_and_no_protocol_or_pattern(
    write_video: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The file of that name is read, relative to the folder, and not `secret.mp4` or what FFmpeg makes of the name."""
    write_video(COLOURS[:1], "secret.mp4")
    write_video(COLOURS).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_frames(Path(name)))) == len(COLOURS)


def test_a_codec_that_ffmpeg_does_not_know_is_said(write_video: Callable[..., Path]) -> None:
    path = write_video(COLOURS)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(VideoError, match=r"written\.mp4: cannot be decoded; got a video codec that FFmpeg does not know"):
        list(read_frames(path))


@pytest.mark.parametrize("size", [None, 32])
def test_frames_are_freed_as_they_are_read(clip: Path, size: int | None) -> None:
    """Without the help of the garbage collector, which would let hundreds of them wait: 330 MB for 1080 rows."""
    gc.collect()
    gc.disable()
    try:
        assert len(list(islice(read_frames(clip, size=size), 40))) == 40
        alive = sum(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 5


def test_the_first_frame_of_each_video_is_freed(clip: Path) -> None:
    """How a video is turned is read from a small copy of it; the frame itself would wait for the garbage collector: 3 MB a video of 1080 rows."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(8):
            next(read_frames(clip, size=32))
        kept = sum(each.width * each.height for each in gc.get_objects() if type(each) is av.VideoFrame)
    finally:
        gc.enable()
    assert kept < 4 * 360 * 288
