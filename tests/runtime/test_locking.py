"""Two processes do not write to one place at once: the second is refused with the number of the first; nothing blocks for good."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.filesystem import locking
from clipstep.runtime.filesystem.atomic import atomic_file, atomic_folder, recover
from clipstep.runtime.filesystem.locking import WriteLockedError, write_lock

Holder = Callable[[str], "subprocess.Popen[str]"]
HOLD = """
import sys
from pathlib import Path
from clipstep.runtime.filesystem.atomic import atomic_file, atomic_folder
with {call} as new:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Holder]:
    """`hold('atomic_folder(Path("out"))')`: another process that is just writing."""
    started: list[subprocess.Popen[str]] = []

    def start(call: str, before: str = "") -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", before + HOLD.format(call=call)]
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("write", [atomic_folder, atomic_file])
def test_a_second_writer_is_refused_with_the_number_of_the_first(write: Callable[[Path], object], hold: Holder, tmp_path: Path) -> None:
    process = hold(f'{write.__name__}(Path("out"))')  # type: ignore[attr-defined]
    (tmp_path / "link").symlink_to("out")
    for out in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(WriteLockedError, match=rf"another clipstep process \({process.pid}\) is writing to .*out; wait until"), write(out):  # type: ignore[attr-defined]
            pass
    with write(tmp_path / "other") as new:  # type: ignore[attr-defined]
        _ = new if new.is_dir() else new.write_text("x")


def test_a_killed_writer_blocks_nobody(hold: Holder, tmp_path: Path) -> None:
    process = hold('atomic_folder(Path("out"))')
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".out.lock").exists()
    with atomic_folder(tmp_path / "out") as new:
        (new / "a").touch()
    assert not (tmp_path / ".out.lock").exists() and (tmp_path / "out/a").exists()


def test_the_workers_of_a_killed_writer_block_nobody(hold: Holder, tmp_path: Path) -> None:
    """A forked worker has the lock's file open as well, and lives on for a while."""
    fork = 'os.fork() or (print("held", flush=True), time.sleep(60))'
    modules = "import os, time\nfrom pathlib import Path\nfrom clipstep.runtime.filesystem.locking import write_lock\n"
    held = f'{modules}with write_lock(Path("out")):\n    {fork}; time.sleep(60)\n'
    process = subprocess.Popen([sys.executable, "-c", held], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(WriteLockedError), write_lock(tmp_path / "out"):
            pass
        process.kill()
        process.wait()
        with write_lock(tmp_path / "out"):
            os.killpg(process.pid, 0)  # The worker still lives.
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_another_thread_is_refused_and_the_same_one_is_not(tmp_path: Path) -> None:
    said = []

    def write() -> None:
        try:
            with write_lock(tmp_path / "out"):
                pass
        except WriteLockedError as error:
            said.append(str(error))

    with write_lock(tmp_path / "out"):
        with atomic_folder(tmp_path / "out") as new:
            (new / "a").touch()
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(said) == 1 and said[0].startswith("another thread of this process is writing to ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_one_of_many_gets_it_and_the_next_ones_after_it(tmp_path: Path) -> None:
    """The file is removed and made anew all the time: never do two hold the place at once."""
    turns, inside, most = [0], [0], [0]

    def write() -> None:
        while turns[0] < 200:
            try:
                with write_lock(tmp_path / "out"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    turns[0] += 1
                    inside[0] -= 1
            except WriteLockedError:
                pass

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and turns[0] >= 200


def test_a_folder_between_two_renames_is_left_to_its_writer(hold: Holder, tmp_path: Path) -> None:
    """Where two folders cannot be exchanged, the old one is away for a moment; who only looks does not put it back."""
    hold('atomic_folder(Path("out"))')
    (tmp_path / ".out.old").mkdir()
    recover(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_were_made_for_nothing_are_gone(tmp_path: Path) -> None:
    with write_lock(tmp_path / "a/b/out"):
        assert (tmp_path / "a/b/.out.lock").read_text().startswith(f"{os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "a/b/out") as new:
        (new / "x").touch()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["out"]


def test_a_disk_without_locks_refuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(locking.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "flock", none)
    with atomic_folder(tmp_path / "out") as new:
        (new / "a").touch()
    assert (tmp_path / "out/a").exists()


def test_a_place_that_cannot_be_written_beside_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClipstepError, match=r"cannot be written; got .*(Not a directory|File exists)"), write_lock(tmp_path / "file/out"):
        pass


def test_a_bundle_that_is_being_written_is_not_signed_or_packed(
    hold: Holder, copied_bundle: Path, tmp_path: Path, clipstep: Callable[..., tuple[int, str, str]]
) -> None:
    hold(f'atomic_folder(Path("{copied_bundle}"), replace=True)')
    code, _, err = clipstep("sign", copied_bundle, "--new-key", tmp_path / "key.pem")
    assert code == 2 and "error: another clipstep process (" in err
    Bundle.open(copied_bundle)
    pack = tmp_path / "x.clipstep.zip"
    hold(f'atomic_file(Path("{pack}"))')
    code, _, err = clipstep("pack", copied_bundle, "--for", "python", "--out", pack, "--force")
    assert code == 2 and f"is writing to {pack}; wait until it is through" in err and len(err.splitlines()) == 1 and not pack.exists()
