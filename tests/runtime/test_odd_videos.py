"""Videos as phones, cameras and editors write them: each with the property that makes it odd, made here with PyAV."""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from clipstep.runtime import DamagedVideoError, VideoError, frame_rate, read_frames, read_timed_frames
from clipstep.runtime.resize import center_box, crop_resize
from clipstep.runtime.video_hdr import BT2020, PQ, tone_mapped
from clipstep.runtime.video_times import Timeline

Pictures = Sequence[np.ndarray]


def flat(value: int, count: int = 10, height: int = 48, width: int = 64) -> Pictures:
    return [np.full((height, width, 3), value, np.uint8)] * count


def write(path: Path, pictures: Pictures, stamps: Sequence[int] | None = None, unit: Fraction = Fraction(1, 25), **settings: Any) -> Path:
    """Write H.264 with a timestamp for each picture, in `unit`s of seconds; `settings`: options of libx264, and attributes of the codec."""
    options = {name: value for name, value in settings.items() if isinstance(value, str)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1", **options})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        stream.codec_context.time_base = unit
        for name, value in settings.items():
            if name not in options:
                setattr(stream.codec_context, name, value)
        for picture, stamp in zip(pictures, stamps or range(len(pictures)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


MILLISECONDS = Fraction(1, 1000)
THIRTIETHS = [round(i * 1000 / 30) for i in range(40)]
SHAKEN = [0, 33, 66, 100, 208, 241, 275, 308, 341, 375]


@pytest.mark.parametrize(
    ("stamps", "rate"),
    [
        (THIRTIETHS, 30),
        (THIRTIETHS[:5] + [stamp + 2000 for stamp in THIRTIETHS[5:]], 30),
        (SHAKEN, 8 * 1000 / (375 - 108)),
        ([10_000 + 40 * i for i in range(10)], 25),
    ],
    ids=["rounded to milliseconds", "a pause", "a late frame", "a late start"],
)
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_rate_and_times_are_those_of_the_timestamps(tmp_path: Path, kind: str, stamps: list[int], rate: float) -> None:
    """A container that counts milliseconds states 1000 frames a second, or what its writer thought."""
    path = write(tmp_path / f"odd.{kind}", flat(90, len(stamps)), stamps, MILLISECONDS)
    assert frame_rate(path) == pytest.approx(rate, rel=0.003)
    times = [frame.seconds for frame in read_timed_frames(path)]
    np.testing.assert_allclose(times, [(stamp - stamps[0]) / 1000 for stamp in stamps], atol=1e-9)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([5.0, 5.1, 5.2], [0, 0.1, 0.2]),
        ([-0.2, -0.1, 0.0], [0, 0.1, 0.2]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([None, 3.0, 3.2], [0, 0.1, 0.3]),
        ([1.0, None, 1.3], [0, 0.1, 0.3]),
        ([7.0, 7.1, 0.0, 0.1, 0.3], [0, 0.1, 0.2, 0.3, 0.5]),
        ([1.0, 1.2, 1.1, 1.4], [0, 0.2, 0.3, 0.4]),
        ([1.0, 1.0, 1.0], [0, 0.1, 0.2]),
        ([1.0, 1.1, 1.1, 1.3], [0, 0.1, 0.2, 0.3]),
        ([0.0] * 30, [0.1 * i for i in range(30)]),
        ([1.0, 9.0, 9.1], [0, 8, 8.1]),
    ],
    ids=[
        "late",
        "negative",
        "none",
        "none at first",
        "one missing",
        "two joined",
        "back a little",
        "the same",
        "twice the same",
        "no times",
        "pause",
    ],
)
def test_timestamps_by_rule(stamps: list[float | None], expected: list[float]) -> None:
    timeline = Timeline(lambda: 0.1)
    np.testing.assert_allclose([timeline.seconds(stamp) for stamp in stamps], expected, atol=1e-9)


def test_frames_of_an_avi_file_are_evenly_spaced(tmp_path: Path) -> None:
    """AVI has no presentation timestamps: FFmpeg's go back where frames are decoded in another order."""
    pictures = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(20)]
    path = write(tmp_path / "odd.avi", pictures, bf="3", **{"x264-params": "b-adapt=0"})
    times = [frame.seconds for frame in read_timed_frames(path)]
    assert len(times) == 20
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.039 and max(gaps) <= 0.081 and times[-1] == pytest.approx(0.04 * 19, abs=0.041)


def test_a_video_whose_timestamps_are_all_the_same_goes_by_their_durations(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.mp4", flat(90, 6), bf="0")
    data = path.read_bytes()
    place = data.index(b"stts")  # The table of differences of timestamps: runs of (count, difference).
    (runs,) = struct.unpack_from(">I", data, place + 8)
    zeros = b"".join(struct.pack(">II", struct.unpack_from(">I", data, place + 12 + 8 * i)[0], 0) for i in range(runs))
    path.write_bytes(data[: place + 12] + zeros + data[place + 12 + 8 * runs :])
    times = [frame.seconds for frame in read_timed_frames(path)]
    np.testing.assert_allclose(times, [i / frame_rate(path) for i in range(6)], atol=1e-9)
    assert 1 <= frame_rate(path) <= 60


def test_a_rate_that_no_camera_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.mkv", flat(90), range(10), MILLISECONDS)
    with pytest.raises(VideoError, match=r"odd\.mkv: has broken timestamps; got 1000 frames a second; expected at most 480"):
        frame_rate(path)


MATRICES = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("settings", [{}, {"x264-params": "transfer=smpte2084:colorprim=bt2020:colormatrix=bt2020nc"}], ids=["SDR", "HDR"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_turns_and_mirrors_of_the_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int], settings: dict[str, str]) -> None:
    """ISO/IEC 14496-12: a stored pixel `(x, y)` is shown at `(a x + c y, b x + d y)`."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, :32] = 80, 160, 240
    path = write(tmp_path / "odd.mp4", [picture] * 2, **settings)
    stored = next(read_frames(path))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + offset : start + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    a, b, c, d = matrix
    shown = {(a * x + c * y, b * x + d * y): stored[y, x] for y in range(32) for x in range(64)}
    columns, rows = (sorted({place[axis] for place in shown}) for axis in (0, 1))
    expected = np.array([[shown[x, y] for x in columns] for y in rows])
    np.testing.assert_array_equal(next(read_frames(path)), expected)
    square = next(read_frames(path, size=12)).astype(int)
    assert np.abs(square - crop_resize(expected, center_box(*expected.shape[:2]), 12)).max() <= 3


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64)), (Fraction(16, 11), (48, 93))])
def test_pixels_that_are_not_square_are_made_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = write(tmp_path / "odd.mp4", flat(90), sample_aspect_ratio=aspect)
    assert next(read_frames(path)).shape == (*size, 3)


def test_an_aspect_that_no_camera_has_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.mp4", flat(90), sample_aspect_ratio=Fraction(5000))
    assert next(read_frames(path)).shape == (48, 64, 3)


def two_streams(path: Path, default: int) -> Path:
    """A dark stream of 48x64 and a bright one of 96x128."""
    with av.open(str(path), "w") as container:
        streams = []
        for factor, value in ((1, 30), (2, 220)):
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48 * factor, 64 * factor, "yuv420p"
            streams.append((stream, value))
        streams[default][0].disposition = Disposition.default
        streams[1 - default][0].disposition = Disposition(0)
        for stream, value in streams:
            for picture in flat(value, 10, stream.height, stream.width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("default", "value"), [(0, 30), (1, 220)])
def test_of_two_streams_the_default_one_is_taken(tmp_path: Path, default: int, value: int) -> None:
    assert next(read_frames(two_streams(tmp_path / "odd.mkv", default))).mean() == pytest.approx(value, abs=3)


def with_cover(path: Path, *, video: bool) -> Path:
    """Sound with a picture on its cover, after a video or without one."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        film = container.add_stream("libx264", rate=25) if video else None
        if film is not None:
            film.height, film.width, film.pix_fmt = 48, 64, "yuv420p"
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 250, np.uint8), format="rgb24")))
        container.mux(cover.encode())
        if film is not None:
            for picture in flat(60):
                container.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(film.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    frames = list(read_frames(with_cover(tmp_path / "film.mp4", video=True)))
    assert len(frames) == 10 and frames[0].mean() == pytest.approx(60, abs=3)
    with pytest.raises(VideoError, match=r"song\.mp4: has no video stream; got audio, a cover picture"):
        list(read_frames(with_cover(tmp_path / "song.mp4", video=False)))


def test_interlaced_frames_are_deinterlaced(tmp_path: Path) -> None:
    """A bar moves by 4 columns from field to field: woven together, its edge is a comb."""

    def field(time: int) -> np.ndarray:
        picture = np.full((64, 128, 3), 20, np.uint8)
        picture[:, 8 + 4 * time : 40 + 4 * time] = 220
        return picture

    woven = []
    for time in range(0, 20, 2):
        picture = field(time)
        picture[1::2] = field(time + 1)[1::2]
        woven.append(picture)

    def comb(frames: Pictures) -> float:
        """How far rows are from the mean of the row above and the row below."""
        planes = np.stack(frames).astype(float)[2:-2]
        return float(np.abs(planes[:, 1:-1] - (planes[:, :-2] + planes[:, 2:]) / 2).mean())

    interlaced = write(tmp_path / "interlaced.mp4", woven, **{"x264-params": "tff=1"})
    shown = list(read_timed_frames(interlaced))
    assert [frame.seconds for frame in shown] == pytest.approx([0.04 * i for i in range(10)])
    assert comb(woven) > 10 > 8 * comb([frame.image for frame in shown])
    progressive = write(tmp_path / "progressive.mp4", woven)
    assert comb(list(read_frames(progressive))) > 10


COLOUR = (200, 60, 120)


def coloured(path: Path, height: int, width: int, **tags: str) -> np.ndarray:
    """The first pixel of a video of one colour, encoded by libx264 from the numbers that BT.601 gives, with tags that say something else."""
    pictures = [np.full((height, width, 3), COLOUR, np.uint8)] * 2
    params = ":".join(f"{name}={value}" for name, value in tags.items())
    return next(read_frames(write(path, pictures, **({"x264-params": params} if params else {}))))[0, 0].astype(int)


def by_definition(red_weight: float, blue_weight: float) -> list[float]:
    """The colour whose BT.601 numbers are read with other weights of red and blue in luma."""

    def luma(red: float, blue: float) -> np.ndarray:
        green = 1 - red - blue
        weights = np.array([red, green, blue])
        return np.stack([weights, (np.array([0, 0, 1]) - weights) / (2 - 2 * blue), (np.array([1, 0, 0]) - weights) / (2 - 2 * red)])

    return list(np.clip(np.linalg.solve(luma(red_weight, blue_weight), luma(0.299, 0.114) @ np.array(COLOUR)), 0, 255))


LUMA_601, LUMA_709, LUMA_2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


@pytest.mark.parametrize(
    ("size", "tags", "weights"),
    [
        ((48, 64), {}, LUMA_601),
        ((720, 64), {}, LUMA_709),
        ((48, 1280), {}, LUMA_709),
        ((48, 64), {"colormatrix": "bt709"}, LUMA_709),
        ((720, 64), {"colormatrix": "smpte170m"}, LUMA_601),
        ((48, 64), {"colormatrix": "bt2020nc"}, LUMA_2020),
        ((48, 64), {"colormatrix": "bt2020c"}, LUMA_2020),
    ],
    ids=["small", "high", "wide", "BT.709", "BT.601", "BT.2020", "BT.2020, constant luminance"],
)
def test_colours_are_those_of_the_tag_or_of_the_size(
    tmp_path: Path, size: tuple[int, int], tags: dict[str, str], weights: tuple[float, float]
) -> None:
    np.testing.assert_allclose(coloured(tmp_path / "odd.mp4", *size, **tags), by_definition(*weights), atol=5)
    assert math.dist(by_definition(*LUMA_601), by_definition(*LUMA_709)) > 20


@pytest.mark.parametrize(
    ("codec", "pixels", "kind"),
    [
        ("ffv1", "yuv444p", "mkv"),
        ("ffv1", "yuv422p10le", "mkv"),
        ("ffv1", "yuv420p12le", "mkv"),
        ("ffv1", "yuva420p", "mkv"),
        ("ffv1", "bgr0", "mkv"),
        ("ffv1", "gbrp10le", "mkv"),
        ("apng", "rgba", "apng"),
        ("gif", "rgb8", "gif"),
        ("mjpeg", "yuvj420p", "avi"),
        ("libx264", "yuvj420p", "mp4"),
        ("ffv1", "gray", "mkv"),
    ],
)
def test_pixels_of_other_formats_have_their_colour(tmp_path: Path, codec: str, pixels: str, kind: str) -> None:
    path = tmp_path / f"odd.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), COLOUR, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    grey = [float(np.dot(COLOUR, (0.299, 0.587, 0.114)))] * 3
    tolerance = 40 if codec == "gif" else 5  # A GIF has 3 or 2 bits of each colour here.
    np.testing.assert_allclose(next(read_frames(path)).mean(axis=(0, 1)), grey if pixels == "gray" else COLOUR, atol=tolerance)


def hdr_grey(transfer: str, light: float) -> float:
    """The number, 0 to 1, of grey light of so many cd/m2, by ITU-R BT.2100; HLG for a screen of 1000 cd/m2."""
    if transfer == "smpte2084":
        power = (light / 10000) ** (2610 / 16384)
        return float(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))
    scene = (light / 1000) ** (1 / 1.2)
    return math.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize(
    ("light", "shown"), [(1, (1 / 203) ** (1 / 2.4)), (50, (50 / 203) ** (1 / 2.4)), (203, (1 - math.exp(-1) / 2) ** (1 / 2.4)), (900, 1)]
)
def test_hdr_is_shown_as_on_an_sdr_screen(tmp_path: Path, transfer: str, light: float, shown: float) -> None:
    """Light up to half of the reference white of 203 cd/m2 stays; that white is `1 - exp(-1) / 2`, and far brighter light is white."""
    picture = np.full((48, 64, 3), round(255 * hdr_grey(transfer, light)), np.uint8)
    path = write(tmp_path / "odd.mp4", [picture] * 2, **{"x264-params": f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"})
    got = next(read_frames(path))[0, 0]
    assert np.ptp(got) <= 2 and got.mean() == pytest.approx(255 * shown, abs=6)  # A level of 8 bits is 4 of PQ in the dark.


def test_colours_of_bt2020_become_those_of_bt709() -> None:
    """The light of BT.709's red, in BT.2020's colours by the matrix of ITU-R BT.2087, is red again."""
    codes = [round(65535 * hdr_grey("smpte2084", 100 * share)) for share in (0.6274, 0.0691, 0.0164)]
    red, green, blue = tone_mapped(np.array([[codes]], np.uint16), PQ, BT2020)[0, 0]
    assert red == pytest.approx(255 * (100 / 203) ** (1 / 2.4), abs=1) and max(green, blue) <= 25


@pytest.mark.parametrize("sizes", [((48, 64), (96, 128)), ((96, 128), (48, 64)), ((48, 64), (64, 48))])
def test_frames_that_change_their_size_are_scaled_to_the_first(tmp_path: Path, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    parts = [write(tmp_path / f"{i}.h264", flat(value, 5, *size), bf="0") for i, (value, size) in enumerate(zip((40, 200), sizes, strict=True))]
    path = tmp_path / "odd.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = list(read_frames(path))
    assert [frame.shape for frame in frames] == [(*sizes[0], 3)] * 10
    assert [round(float(frame.mean()) / 20) for frame in frames] == [2] * 5 + [10] * 5


def test_a_damaged_video_says_how_far_it_got(damaged_video: Path) -> None:
    frames = []
    with pytest.raises(DamagedVideoError, match=r"damaged\.mp4: cannot be decoded to its end; got .*, after (\d) frames and 0\.\d\d s") as error:
        for frame in read_frames(damaged_video):
            frames.append(frame)
    assert f"after {len(frames)} frames and {0.04 * (len(frames) - 1):.2f} s" in str(error.value) and len(frames) >= 4
