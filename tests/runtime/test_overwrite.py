"""Where a command may write is checked before it works; something finished is named, and replaced with `--force` only."""

import os
from pathlib import Path

import pytest

from clipstep.runtime import ClipstepError
from clipstep.runtime.filesystem.overwrite import BUNDLE, FolderKind, check_overwrite

RUN = FolderKind("run", "run.json", lambda _: ("model",), lambda _: "a network of 2 classes")


def _run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").touch()
    (folder / "model").touch()
    os.utime(folder / "run.json", (1_700_000_000,) * 2)
    return folder


def _unchanged(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_new_and_empty_places(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    before = _unchanged(tmp_path)
    for name in ("new", "deep/er/new", "empty", "new/", "dangling"):
        check_overwrite(tmp_path / name, RUN)
    check_overwrite(tmp_path / "new.txt")
    assert _unchanged(tmp_path) == before


def test_something_finished_is_named_and_forced(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run")
    with pytest.raises(ClipstepError) as error:
        check_overwrite(folder, RUN, instead=", go on with --resume")
    assert str(error.value) == (
        f"{folder}: holds a finished run (a network of 2 classes, of {_clock()}); "
        "replace it with --force once the new one is whole, go on with --resume, or choose another --out"
    )
    check_overwrite(folder, RUN, force=True)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ClipstepError, match="link: holds a finished run"):
        check_overwrite(tmp_path / "link", RUN)


def _clock() -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(1_700_000_000))


def test_force_deletes_nothing_else(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run")
    (folder / ".DS_Store").touch()
    check_overwrite(folder, RUN, force=True)
    (folder / "best.clipstep").mkdir()
    with pytest.raises(ClipstepError, match=r"run: holds more than a run, which --force would delete; got best\.clipstep; move that away"):
        check_overwrite(folder, RUN, force=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1").touch()
    with pytest.raises(ClipstepError, match="thesis: exists and is not a run; expected a new folder or an older run"):
        check_overwrite(tmp_path / "thesis", RUN, force=True)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ClipstepError, match=r"a\.png: exists \(of 20.*\); replace it with --force, or choose another --picture"):
        check_overwrite(tmp_path / "a.png", option="--picture")
    check_overwrite(tmp_path / "a.png", force=True)
    with pytest.raises(ClipstepError, match="is a folder; expected the name of a file"):
        check_overwrite(tmp_path, force=True)
    with pytest.raises(ClipstepError, match=r"a\.png: is a file; expected the name of a folder"):
        check_overwrite(tmp_path / "a.png", RUN, force=True)


def test_nothing_is_written_into_a_bundle(tmp_path: Path) -> None:
    """Itself may be replaced, and a link to it stands for it."""
    bundle = tmp_path / "small.clipstep"
    bundle.mkdir()
    (bundle / "manifest.json").touch()
    (tmp_path / "link").symlink_to(bundle)
    for inside in ("small.clipstep/run", "small.clipstep/deep/run", "link/run"):
        with pytest.raises(ClipstepError, match=r"lies in a bundle; got .*small\.clipstep"):
            check_overwrite(tmp_path / inside, RUN)
    with pytest.raises(ClipstepError, match="lies in a bundle"):
        check_overwrite(bundle / "small.clipstep.zip")
    check_overwrite(bundle, BUNDLE, force=True)
    check_overwrite(tmp_path / "small.clipstep.zip")


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    for name in (".", "..", "../../a"):
        with pytest.raises(ClipstepError, match="is the folder you are in, or holds it"):
            check_overwrite(Path(name), RUN)
