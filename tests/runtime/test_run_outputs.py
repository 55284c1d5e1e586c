"""What `clipstep run` and `predict_video` write of a video: tables, subtitles, the annotated video, the plot; and whole folders of videos."""

import csv
import io
import json
import multiprocessing
import re
import shutil
import signal
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from clipstep.runtime import ClipstepError, DamagedVideoError, Prediction, StepModel, VideoError, VideoPrediction, predict_video, read_timed_frames
from clipstep.runtime.outputs.finding import finding
from clipstep.runtime.outputs.fonts import drawable
from clipstep.runtime.outputs.lines import lines_of, spread
from clipstep.runtime.outputs.output import Source
from clipstep.runtime.outputs.plot import Plot
from clipstep.runtime.outputs.subtitles import Subtitles, timecode
from clipstep.runtime.video import read_pictures

WriteVideo = Callable[..., Path]
Start = Callable[..., int]
HOSTILE = ("a,b 00:00:00,000 --> 9", 'Füße "日本"', "<i>{\\an8} $x^$")
"""Labels that would break a table, subtitles or a plot that took them as they are."""


@pytest.fixture
def colours(write_video: WriteVideo) -> Path:
    """Ten frames at 25 a second: four red, four blue, two green. The bundle makes a prediction of each four."""
    frames = np.zeros((10, 96, 130, 3), np.uint8)
    frames[:4, ..., 0] = frames[4:8, ..., 2] = frames[8:, ..., 1] = 250
    return write_video(frames)


@pytest.fixture
def hostile(edit_manifest: Callable[[Callable[[dict[str, Any]], Any]], Path]) -> Path:
    """The bundle with labels that nobody would choose."""
    return edit_manifest(lambda values: values.update(labels=HOSTILE))


def _pushed(model: StepModel, video: Path) -> list[Prediction]:
    stream = model.stream()
    frames = read_timed_frames(video, fps=25, size=model.interface.input.shape[1])
    return [prediction for prediction in (stream.push(frame.image) for frame in frames) if prediction]


def _table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_table_has_the_streams_numbers_with_all_digits(start: Start, model: StepModel, bundle_path: Path, clip: Path, tmp_path: Path) -> None:
    table, lines = tmp_path / "table.csv", tmp_path / "lines.jsonl"
    assert start("run", bundle_path, clip, "--top", 2, "--csv", table, "--jsonl", lines) == 0
    head, *rows = _table(table)
    pushed = _pushed(model, clip)
    assert head == ["start_s", "end_s", "frames_seen", "at_end", "red", "green", "blue"]
    assert [[float(cell) for cell in row[4:]] for row in rows] == [p.probabilities.tolist() for p in pushed]
    assert [int(row[2]) for row in rows] == [4 * (index + 1) for index in range(len(pushed))]
    objects = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [[(item["label"], item["probability"]) for item in one["top"]] for one in objects] == [p.top(2) for p in pushed]
    assert [one["seconds"] for one in objects] == [float(row[1]) for row in rows]


def test_rows_say_when_their_subclips_start_and_end(model: StepModel, colours: Path, tmp_path: Path) -> None:
    said = list(predict_video(model, colours, save=[tmp_path / "table.csv"]))
    rows = _table(tmp_path / "table.csv")[1:]
    assert [(one.start, round(one.end, 6)) for one in said] == [(0, 0.16), (0.16, 0.32)]
    assert [row[:4] for row in rows] == [["0.0", "0.16", "4", "0"], ["0.16", "0.32", "8", "0"]]


def test_the_lines_file_is_what_json_prints(start: Start, bundle_path: Path, colours: Path, tmp_path: Path, capsys: Any) -> None:
    assert start("run", bundle_path, colours, "--json", "--save", tmp_path / "lines.jsonl") == 0
    assert capsys.readouterr().out == (tmp_path / "lines.jsonl").read_text(encoding="utf-8") != ""


def test_subtitles_show_a_prediction_from_the_end_of_its_subclip(model: StepModel, colours: Path, tmp_path: Path) -> None:
    """Logits of red: 4 * 0.98 - 0.25, of the others 0 - 0.25; the memory is then 0.125 + 0.98 for red, 0.125 for the others."""
    said = list(predict_video(model, colours, save=[tmp_path / "out.srt"], top=1))
    red, blue = (one.prediction.top(1)[0][1] for one in said)
    expected = f"1\n00:00:00,160 --> 00:00:00,320\nred {red:.3f}\n\n2\n00:00:00,320 --> 00:00:00,480\nblue {blue:.3f}\n"
    assert (tmp_path / "out.srt").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00,000"), (59.9996, "00:01:00,000"), (3723.4564, "01:02:03,456"), (360_000, "100:00:00,000")]
)
def test_times_of_subtitles(seconds: float, text: str) -> None:
    assert timecode(seconds) == text


def test_the_prediction_at_the_end_shares_the_time_of_one_that_is_known_then(tmp_path: Path) -> None:
    output = Subtitles(tmp_path / "out.srt", Source("video", tmp_path, ("a", "b"), 1, 0.5))
    for end, at_end in ((0.5, False), (1.0, False), (1.0, True)):
        output.add(VideoPrediction(0.0, end, at_end, Prediction(0, 4, np.array([0, 1], np.float32), ("a", "b"))))
    output.finish(1.0)
    times = [line for line in (tmp_path / "out.srt").read_text().splitlines() if "-->" in line]
    assert times == ["00:00:00,500 --> 00:00:01,000", *["00:00:01,000 --> 00:00:01,500"] * 2]


def _frames(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_the_annotated_video_has_every_frame_at_its_own_time(model: StepModel, tmp_path: Path) -> None:
    """131x97 becomes 130x96. Away from the panel the picture is the source's, whose 50 frames a second are more than the model takes."""
    stamps, source = [0, 2, 3, 7, 8, 12, 14, 16, 18, 20, 22, 24, 26, 28], tmp_path / "source.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=50)
        stream.height, stream.width, stream.pix_fmt = 97, 131, "yuv444p"
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(np.full((97, 131, 3), (40 + 5 * stamp, 90, 200 - 5 * stamp), np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 50)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    list(predict_video(model, source, save=[tmp_path / "out.mp4"]))
    frames = _frames(tmp_path / "out.mp4")
    assert [time for time, _ in frames] == pytest.approx([stamp / 50 for stamp in stamps], abs=0.001)
    for stamp, (_, image) in zip(stamps, frames, strict=True):
        assert image.shape == (96, 130, 3)
        assert np.abs(image[:28].mean(axis=(0, 1)) - (40 + 5 * stamp, 90, 200 - 5 * stamp)).max() < 4


@pytest.mark.parametrize(("size", "expected"), [((301, 121), (148, 60)), ((8, 6), (8, 6)), ((3, 62), (2, 60))])
def test_the_annotated_video_has_even_sides_and_a_limited_height(
    model: StepModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr("clipstep.runtime.outputs.annotated_video.TALLEST", 60)
    with av.open(str(tmp_path / "source.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    list(predict_video(model, tmp_path / "source.mkv", save=[tmp_path / "out.mp4"]))
    assert [image.shape for _, image in _frames(tmp_path / "out.mp4")] == [(expected[1], expected[0], 3)] * 5


@pytest.mark.parametrize("rate", [25, 50])
def test_a_prediction_appears_on_the_first_frame_after_its_subclip(model: StepModel, write_video: WriteVideo, tmp_path: Path, rate: int) -> None:
    """The first subclip is over after 0.16 s, and has its last frame at 0.12 s. The panel then grows from two lines to four."""
    video = write_video(np.full((rate * 2 // 5, 96, 130, 3), 250, np.uint8), rate=rate)
    list(predict_video(model, video, save=[tmp_path / "out.mkv"]))
    frames = _frames(tmp_path / "out.mkv")
    dark = [int((image[:, 2:6].max(axis=(1, 2)) < 170).sum()) for _, image in frames]  # Rows of the panel, which darkens 250 to 103.
    assert [34 < rows < 42 if time < 0.159 else 60 < rows < 72 for (time, _), rows in zip(frames, dark, strict=True)] == [True] * len(frames)
    assert dark[0] < dark[-1] and len(frames) == rate * 2 // 5
    assert min(image[96 - rows :, 75:100].max() for (_, image), rows in zip(frames, dark, strict=True) if rows > 60) > 150  # A bar.


def _with_sound(video: Path, out: Path, codec: str = "aac", shift: float = 0.0) -> Path:
    """Write the video's packets to another file, `shift` seconds later, with a tone that is heard from the first picture on."""
    with av.open(str(video)) as source, av.open(str(out), "w") as container:
        pictures = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream(codec, rate=48000, layout="mono")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = pictures
                packet.pts, packet.dts = (round(value + shift / packet.time_base) for value in (packet.pts, packet.dts))
                container.mux(packet)
        tone = (3000 * np.sin(np.arange(19200) / 20)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, round(shift * 48000), Fraction(1, 48000)
        for piece in av.AudioResampler(sound.format, "mono", 48000, sound.codec_context.frame_size or 1024).resample(frame):
            container.mux(sound.encode(piece))
        container.mux(sound.encode())
    return out


def _packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        first = float(container.streams.video[0].start_time * container.streams.video[0].time_base)
        return [(float(p.pts * p.time_base) - first, bytes(p)) for p in container.demux(audio=0) if p.size]


def test_the_sound_is_copied_in_step_with_the_pictures(model: StepModel, colours: Path, tmp_path: Path) -> None:
    source = _with_sound(colours, tmp_path / "source.mkv", shift=3.0)
    list(predict_video(model, source, save=[tmp_path / "out.mp4"]))
    expected, copied = _packets(source), _packets(tmp_path / "out.mp4")
    kept = [(time, data) for time, data in expected if 0 <= time < 0.4]
    assert len(kept) > 15 and [data for _, data in copied] == [data for _, data in kept]
    assert [time for time, _ in copied] == pytest.approx([time for time, _ in kept], abs=0.002)


def test_a_container_that_does_not_take_the_sound_is_said(model: StepModel, colours: Path, tmp_path: Path) -> None:
    source, notes = _with_sound(colours, tmp_path / "source.mkv", "pcm_u8"), list[str]()
    list(predict_video(model, source, save=[tmp_path / "out.mp4"], note=notes.append))
    assert notes == ["the annotated video is without the sound, as mp4 takes no pcm_u8; .mkv takes more"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_sound_of_an_unknown_codec_is_said(model: StepModel, colours: Path, tmp_path: Path) -> None:
    source, notes = _with_sound(colours, tmp_path / "source.mkv", "pcm_s16le"), list[str]()
    source.write_bytes(source.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    list(predict_video(model, source, save=[tmp_path / "out.mkv"], note=notes.append))
    assert notes == ["the annotated video is without the sound, whose codec FFmpeg does not know"]


def test_labels_of_any_kind_are_written_and_drawn(hostile: Path, colours: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"out.{suffix}" for suffix in ("csv", "jsonl", "srt", "mp4", "png")]
    with StepModel.load(hostile) as model:
        list(predict_video(model, colours, save=files))
    assert _table(files[0])[0][4:] == list(HOSTILE)
    assert {item["label"] for item in json.loads(files[1].read_text(encoding="utf-8").splitlines()[0])["top"]} == set(HOSTILE)
    cues = files[2].read_text(encoding="utf-8").split("\n\n")
    assert len(cues) == 2 and all(cue.count("-->") == 1 and len(cue.strip().splitlines()) == 5 for cue in cues)
    assert "(i)(\\an8)" in cues[0] and 'Füße "日本"' in cues[0]
    assert len(_frames(files[3])) == 10
    with Image.open(files[4]) as plot:
        assert plot.size[0] > 600


def test_characters_that_no_font_has_are_escaped() -> None:
    assert drawable("Füße\n\U0010fffe") == "Füße\\n\\U0010fffe"


def test_the_title_says_from_when_on_the_last_class_is_the_likeliest() -> None:
    shares = np.array([[0.4, 0.6], [0.7, 0.3], [0.96, 0.04], [0.9, 0.1]])
    assert finding([0.5, 1.0, 1.5, 2.0], shares, ("Fight", "NoFight")) == "Fight from 1.0 s on, 0.96 at its highest"
    assert finding([0.5, 1.0, 1.5], shares[[1, 2, 0]], ("Fight", "NoFight")) == "Fight in 2 of 3 predictions, 0.96 at its highest"


def test_a_plot_has_a_line_for_each_of_the_eight_likeliest_and_one_for_the_others() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(20), 5)
    lines = lines_of(shares, [str(index) for index in range(20)], exclusive=True)
    assert [line.label for line in lines[:-1]] == [str(index) for index in np.argsort(-shares.max(axis=0))[:8]]
    assert lines[-1].label == "12 others, together"
    np.testing.assert_allclose(sum(line.values for line in lines), 1)
    apart = lines_of(shares, ["x"] * 20, exclusive=False)[-1]
    assert apart.label == "12 others, the highest of them" and (apart.values <= lines[7].values.max()).all()
    assert len(lines_of(shares[:, :9], ["x"] * 9, exclusive=True)) == 9


def test_labels_of_lines_are_moved_apart_and_stay_in_order() -> None:
    assert spread([0.5, 0.9, 0.52], 0.1, 0, 1) == pytest.approx([0.46, 0.9, 0.56])
    assert spread([0, 0, 0.05], 0.1, 0, 1) == pytest.approx([0, 0.1, 0.2])
    assert spread([1, 0.99, 0.2], 0.1, 0, 1) == pytest.approx([1, 0.9, 0.2])
    places = np.random.default_rng(3).random(9) ** 4
    moved = np.array(spread(places.tolist(), 0.1, 0, 1))
    assert np.diff(np.sort(moved)).min() > 0.1 - 1e-9 and moved.min() >= 0 and moved.max() <= 1 + 1e-9
    assert np.argsort(moved).tolist() == np.argsort(places).tolist()


def test_the_plots_pictures_are_those_of_their_times(colours: Path, tmp_path: Path) -> None:
    """The video is 130x96 and 0.4 s long: the first picture below the axis is red, the last one green."""
    plot = Plot(tmp_path / "out.png", Source("video", colours, ("a", "b"), 1, 0.16))
    for picture in read_pictures(colours):
        plot.show(picture)
    plot.add(VideoPrediction(0.0, 0.16, False, Prediction(0, 4, np.array([0, 1], np.float32), ("a", "b"))))
    plot.finish(0.4)
    image = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    middles = [image[-60, round(110 * (0.75 + 6.0 * seconds / 0.4))] for seconds in (0.04, 0.12, 0.20, 0.28, 0.36)]
    assert [("red", "green", "blue")[int(middle.argmax())] for middle in middles] == ["red", "red", "blue", "blue", "green"]


def test_files_are_kept_unless_forced(start: Start, bundle_path: Path, colours: Path, tmp_path: Path, capsys: Any) -> None:
    old = tmp_path / "old.srt"
    old.write_text("mine")
    assert start("run", bundle_path, colours, "--save", old) == 2
    assert "old.srt: exists" in capsys.readouterr().err and old.read_text() == "mine"
    assert start("run", bundle_path, colours, "--save", old, "--force") == 0
    assert old.read_text().startswith("1\n00:00:00,160")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("VIDEO", "--save", "out.avi"), r"out\.avi: unknown format; got \.avi; expected a name that ends in \.csv, .*\.mkv or \.png"),
        (("VIDEO", "--plot", "out.pdf"), r"out\.pdf: unknown format of a plot; expected a name that ends in \.png"),
        (("VIDEO", "--csv", "a.csv", "--save", "a.csv"), r"a\.csv: given for two outputs"),
        (("VIDEO", "--save", "written.mp4", "--force"), r"written\.mp4: is the video that is read"),
        (("VIDEO", "--force"), "--force does nothing without a file to write"),
        (("VIDEO", "--workers", "2"), "--workers does nothing for one video"),
        ((".", "--plot", "all.png"), r"all\.png: is written for one video only; got the folder \."),
        (("EMPTY",), r"empty: has no video in it"),
    ],
)
def test_a_wrong_choice_of_files_is_one_line(
    start: Start,
    bundle_path: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no video")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert start("run", bundle_path, *({"VIDEO": colours, "EMPTY": "empty"}.get(word, word) for word in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_left_of_a_damaged_video_unless_it_is_asked_for(model: StepModel, damaged_video: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"out.{suffix}" for suffix in ("csv", "srt", "mp4", "png")]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VideoError, match="--partial"):
        list(predict_video(model, damaged_video, save=files))
    assert sorted(tmp_path.iterdir()) == before
    notes, read = list[str](), []
    said = list(predict_video(model, damaged_video, save=files, partial=True, note=notes.append))
    assert len(_table(files[0])) == 1 + len(said) > 1
    with pytest.raises(DamagedVideoError):
        read.extend(frame.seconds for frame in read_timed_frames(damaged_video))
    assert len(_frames(files[2])) == len(read) and len(notes) == 1
    assert Image.open(io.BytesIO(files[3].read_bytes())).format == "PNG" and _hidden(tmp_path) == []


def test_nothing_is_left_when_the_iteration_is_broken_off(model: StepModel, colours: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    reading = predict_video(model, colours, save=[tmp_path / "out.mp4", tmp_path / "out.csv"])
    next(reading)
    assert len(_hidden(tmp_path)) >= 2
    with pytest.raises(KeyboardInterrupt):
        reading.throw(KeyboardInterrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_library_is_named_with_its_extra(model: StepModel, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("clipstep.runtime.outputs.", "matplotlib."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ClipstepError, match=r"\.mp4 needs matplotlib, which is not installed; pip install .*\[pictures\]"):
        next(predict_video(model, colours, save=[tmp_path / "out.mp4"]))


@pytest.fixture
def folder(write_video: WriteVideo, tmp_path: Path) -> Path:
    """Two videos, one of them without a suffix and in a folder below, a text file, and a broken video."""
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    frames[:4, ..., 0] = frames[4:, ..., 2] = 250
    place = tmp_path / "videos"
    (place / "b").mkdir(parents=True)
    shutil.move(write_video(frames, "x.mp4"), place / "b/named so")
    shutil.move(write_video(frames[::-1], "y.mp4"), place / "a.mp4")
    (place / "c.mov").write_bytes((place / "a.mp4").read_bytes()[:900])
    (place / "notes.txt").write_text("no video")
    (place / ".hidden.mp4").write_bytes(b"")
    return place


@pytest.mark.parametrize("workers", [1, 2])
def test_all_videos_of_a_folder_go_into_one_table(
    start: Start, model: StepModel, bundle_path: Path, folder: Path, tmp_path: Path, capsys: Any, workers: int
) -> None:
    assert start("run", bundle_path, folder, "--workers", workers, "--csv", tmp_path / "all.csv", "--top", 1) == 2
    captured = capsys.readouterr()
    head, *rows = _table(tmp_path / "all.csv")
    expected = [(path, p) for path in (folder / "a.mp4", folder / "b/named so") for p in _pushed(model, path)]
    assert head[:3] == ["video", "start_s", "end_s"] and len(expected) == 4
    assert [(row[0], [float(cell) for cell in row[5:]]) for row in rows] == [(str(path), p.probabilities.tolist()) for path, p in expected]
    last = [expected[1], expected[3]]
    assert captured.out.splitlines()[1:] == [f"{path}  {p.top(1)[0][0]} {p.top(1)[0][1]:.3f}" for path, p in last]
    failed, summary = captured.err.splitlines()
    assert failed.startswith(f"failed: {folder}/c.mov: has no video stream; got ") and "1 of 3 videos could not be run" in summary


def test_a_folder_of_broken_videos_writes_nothing(start: Start, bundle_path: Path, folder: Path, tmp_path: Path, capsys: Any) -> None:
    for path in (folder / "a.mp4", folder / "b/named so"):
        path.unlink()
    assert start("run", bundle_path, folder, "--jsonl", tmp_path / "all.jsonl", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines()[-1].endswith("none of 1 video could be run; see the reason of each above")
    assert not (tmp_path / "all.jsonl").exists() and _hidden(tmp_path) == []


def test_ctrl_c_ends_the_processes_and_leaves_nothing(
    start: Start, bundle_path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As if Ctrl-C came while the first video's line is printed, when other processes are at work."""

    kept = KeyboardInterrupt()  # Its traceback keeps whatever is not closed alive.

    def interrupted(_: str) -> None:
        assert len(multiprocessing.active_children()) == 2
        raise kept

    usual = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("clipstep.runtime.command_line.run_folder.say", interrupted)
    try:
        assert start("run", bundle_path, folder, "--workers", 2, "--csv", tmp_path / "all.csv") == 130
    finally:
        signal.signal(signal.SIGINT, usual)  # The command ignores a second one.
    assert capsys.readouterr().err == "interrupted\n" and multiprocessing.active_children() == []
    assert not (tmp_path / "all.csv").exists() and _hidden(tmp_path) == []
