"""Killed between any two operations on files, a writer leaves the old folder or the new one whole; modes follow the umask."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipstep.runtime import ClipstepError
from clipstep.runtime.filesystem import atomic
from clipstep.runtime.filesystem.atomic import atomic_file, atomic_folder, recover, set_modes_and_sync

TOUCHING = ("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "os.truncate", "shutil.rmtree")
OLD = {"a.txt": "old", "only-old.txt": "old"}
NEW = {"a.txt": "new", "deep/b.txt": "new"}


def _fill(folder: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _in_child(work: Callable[[], None], killed_at: int) -> int:
    """Does the work in a process that dies, as by SIGKILL, before its n-th operation on files; gives its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def kill(event: str, _: object) -> None:
        nonlocal count
        if event in TOUCHING:
            if count == killed_at:
                os._exit(9)
            count += 1

    sys.addaudithook(kill)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _deaths(work: Callable[[], None], prepare: Callable[[], None]) -> Iterator[int]:
    for killed_at in range(1000):
        prepare()
        status = _in_child(work, killed_at)
        assert status in (0, 9)
        yield killed_at
        if status == 0:
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_whenever_a_writer_is_killed_one_of_both_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda new, out: False)
    folder = tmp_path / "place"

    def prepare() -> None:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        _fill(folder / "out", OLD)

    def work() -> None:
        with atomic_folder(folder / "out", replace=True) as new:
            _fill(new, NEW)

    seen, gone = [], 0
    for _ in _deaths(work, prepare):
        gone += not (folder / "out").exists()
        recover(folder / "out")
        seen.append(_content(folder / "out"))
        work()  # What a killed writer left is not in the way of the next.
        assert _content(folder / "out") == NEW
    assert all(content in (OLD, NEW) for content in seen), seen
    assert seen[0] == OLD and seen[-1] == NEW and len(seen) > 8
    if exchange:
        assert gone == 0
    else:
        assert gone >= 1, "the window was not tried"


def test_a_killed_writer_of_a_file_leaves_the_old_one_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "place" / "out.txt"

    def prepare() -> None:
        _fill(path.parent, {"out.txt": "old"})

    def work() -> None:
        with atomic_file(path) as new:
            new.write_text("new")

    seen = []
    for _ in _deaths(work, prepare):
        seen.append(path.read_text())
    assert set(seen) == {"old", "new"} and seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_are_those_of_new_files(tmp_path: Path, umask: int) -> None:
    """Whatever a library gave them: safetensors writes for the user alone, a program keeps that it may be run."""
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "out") as new:
            _fill(new, {"deep/private": "", "program": "", "open": ""})
            (new / "deep/private").chmod(0o600)
            (new / "deep").chmod(0o700)
            (new / "program").chmod(0o700)
            (new / "open").chmod(0o666)
        with atomic_file(tmp_path / "file.txt") as file:
            file.touch(0o600)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"), tmp_path / "file.txt")}
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"out": folder, "deep": folder, "private": file, "program": folder, "open": file, "file.txt": file}


def test_when_something_is_raised_everything_stays_as_it_was(tmp_path: Path) -> None:
    _fill(tmp_path / "out", OLD)
    for write, content in ((lambda: atomic_folder(tmp_path / "out", replace=True), NEW), (lambda: atomic_folder(tmp_path / "new"), NEW)):
        with pytest.raises(RuntimeError, match="no more paper"), write() as new:
            _fill(new, content)
            raise RuntimeError("no more paper")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and _content(tmp_path / "out") == OLD


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    _fill(tmp_path / "out", OLD)
    with pytest.raises(ClipstepError, match="out: exists; replace it with --force"), atomic_folder(tmp_path / "out"):
        pytest.fail("work was begun")
    assert _content(tmp_path / "out") == OLD


def test_what_came_meanwhile_is_not_replaced_and_the_new_one_is_kept(tmp_path: Path) -> None:
    """Two commands with the same --out: the second to end keeps its hours of work under another name."""
    with (
        pytest.raises(ClipstepError, match="something else was written there meanwhile; the new one is ") as error,
        atomic_folder(tmp_path / "out") as new,
    ):
        _fill(new, NEW)
        _fill(tmp_path / "out", OLD)
    assert _content(tmp_path / "out") == OLD
    assert _content(Path(str(error.value).rpartition(" ")[2])) == NEW


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.DS_Store").touch()
    with atomic_folder(tmp_path / "out") as new:
        _fill(new, NEW)
    assert _content(tmp_path / "out") == NEW


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    _fill(tmp_path / "disk/real", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "disk/real")
    with atomic_folder(tmp_path / "link", replace=True) as new:
        _fill(new, NEW)
    assert (tmp_path / "link").is_symlink() and _content(tmp_path / "disk/real") == NEW
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["real"]


@pytest.mark.parametrize("name", ["x" * 255, "\N{SNOWMAN}" * 80, "a[b]*c?"])
def test_any_name_that_the_disk_takes(tmp_path: Path, name: str) -> None:
    for content in (OLD, NEW):
        with atomic_folder(tmp_path / name, replace=True) as new:
            _fill(new, content)
    assert [path.name for path in tmp_path.iterdir()] == [name] and _content(tmp_path / name) == NEW


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    for name, age in ((".out.new-00000001", 0), (".out.new-00000002", 2 * atomic.ABANDONED_SECONDS), (".other.new-1", 2 * atomic.ABANDONED_SECONDS)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (atomic.time.time() - age,) * 2)
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.new-1", ".out.new-00000001", "out"]


def test_links_inside_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").touch(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(tmp_path / "outside")
    set_modes_and_sync(tmp_path / "folder")
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o600


def test_an_interrupt_as_soon_as_the_temporary_folder_is_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def interrupted(path: Path, *arguments: Any, **settings: Any) -> None:
        mkdir(path, *arguments, **settings)
        if ".new-" in path.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out"):
        pass
    assert list(tmp_path.glob(".out.new-*")) == []
