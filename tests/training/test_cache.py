"""Cached frames are the decoded ones; files that a killed process or a power failure left incomplete are never read."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import ClipstepError, VideoError
from clipstep.training.data import cache as cache_module
from clipstep.training.data.cache import FrameCache, decode


@pytest.fixture
def video(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(clip, tmp_path / "video.mp4"))


def _never(*_: Any) -> Any:
    raise AssertionError("decoded again")


def test_the_second_reading_gives_the_same_without_decoding(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrameCache(tmp_path / "cache")
    cache.prepare([video], 16, 60)
    first = cache.read(video, 16, 60)
    monkeypatch.setattr(cache_module, "decode", _never)
    second = cache.read(video, 16, 60)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, decode(video, 16, 60))
    assert first.dtype == np.uint8 and len(first) % 16 == 0 and min(first.shape[1:3]) == 60


def test_another_size_subclip_or_a_changed_video_is_decoded_anew(video: Path, clip: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    cache.prepare([video], 16, 60)
    assert cache.read(video, 16, 60).shape[1] == 60
    assert cache.read(video, 16, 40).shape[1] == 40
    assert len(cache.read(video, 10, 60)) % 10 == 0
    before = cache.read(video, 16, 60)
    shutil.copy(sorted(clip.parent.iterdir())[-1], video)
    after = cache.read(video, 16, 60)
    assert before.shape != after.shape or (before != after).any()
    np.testing.assert_array_equal(after, decode(video, 16, 60))


@pytest.mark.parametrize("keep", [0, 50, 5000])
def test_a_file_cut_short_is_decoded_again(video: Path, tmp_path: Path, keep: int) -> None:
    cache = FrameCache(tmp_path / "cache")
    cache.prepare([video], 16, 60)
    whole = np.array(cache.read(video, 16, 60))
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    np.testing.assert_array_equal(cache.read(video, 16, 60), whole)
    np.testing.assert_array_equal(np.load(file), whole)


KILLED = """
import os, signal, sys
from pathlib import Path
from clipstep.training.data.cache import FrameCache
write = Path.write_bytes
def half(path, content):
    write(path, content[:1000]); os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half
FrameCache(Path(sys.argv[1])).read(Path(sys.argv[2]), 16, 60)
"""


def test_a_killed_writer_leaves_no_file_that_is_read(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = FrameCache(folder)
    cache.prepare([video], 16, 60)
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), str(video)], check=False).returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    np.testing.assert_array_equal(cache.read(video, 16, 60), decode(video, 16, 60))
    assert left.exists()
    os.utime(left, (time.time() - 7200,) * 2)
    cache.prepare([video], 16, 60)
    assert not left.exists() and len(list(folder.iterdir())) == 1


def test_the_size_that_is_stated_is_the_size_on_disk(fight: Path, tmp_path: Path) -> None:
    videos = sorted(fight.glob("videos/*/*.mp4"))[:4]
    cache = FrameCache(tmp_path / "cache")
    full, now = cache.prepare(videos, 16, 60)
    assert now == 0
    for video in videos:
        cache.read(video, 16, 60)
    stated, now = cache.prepare(videos, 16, 60)
    assert stated == full and abs(full - now) < 1000


def test_too_little_room_is_an_error_before_decoding(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(
        ClipstepError, match=r"cache: not enough room for the cache; got 0\.0 GB free; expected 0\.0 GB more; make room, or train without --cache"
    ):
        FrameCache(tmp_path / "cache").prepare([video], 16, 60)


def test_a_folder_that_cannot_be_made(video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipstepError, match=r"file/cache: cannot be made; got Not a directory"):
        FrameCache(tmp_path / "file/cache").prepare([video], 16, 60)


def test_a_broken_video_is_an_error_each_time_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cache = FrameCache(tmp_path / "cache")
    assert cache.prepare([tmp_path / "text.mp4"], 16, 60) == (0, 0)
    for _ in range(2):
        with pytest.raises(VideoError, match="cannot be decoded"):
            cache.read(tmp_path / "text.mp4", 16, 60)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_video_that_vanishes_is_an_error_like_any_broken_one(video: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    cache.prepare([video], 16, 60)
    cache.read(video, 16, 60)
    video.unlink()
    with pytest.raises(VideoError, match=r"video\.mp4: cannot be read; got No such file"):
        cache.read(video, 16, 60)


def test_a_cache_that_cannot_be_written_stops_training_with_one_line(tiny_data: Path, tmp_path: Path) -> None:
    """The system refuses files of more than 100 kB, as a full disk does; the worker's error is shown unchanged."""
    command = f"ulimit -f 100; {Path(sys.executable).with_name('clipstep')} train {tiny_data} --out {tmp_path}/run --cache {tmp_path}/cache"
    options = "--frames 16 --size 64 --workers 1 --validation 0 --epochs 1"
    done = subprocess.run(["bash", "-c", f"{command} {options}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/cache: cannot be written; got File too large; make room, or train without --cache\n",
    )
    assert not (tmp_path / "run").exists() and list((tmp_path / "cache").iterdir()) == []
