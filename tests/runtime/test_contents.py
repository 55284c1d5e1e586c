"""A bundle's files, in a folder or in a pack: what is extra or missing is said and matters only where it is used; nothing else is trusted."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstep.runtime import Bundle, BundleError, GoldenSteps, StepModel
from clipstep.runtime.bundle import contents as contents_module
from clipstep.runtime.bundle import tree_sha256, tree_size
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.pack import artifacts_for, golden_of, write_pack
from clipstep.runtime.bundle.recording import record_accuracy

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]
ACCURACY = Accuracy(dataset="d", engine="onnxruntime", videos=1, crops=1, top1=1, top5=None)


@pytest.fixture
def pack(bundle_path: Path, tmp_path: Path) -> Path:
    """The bundle as one file."""
    with Bundle.open(bundle_path) as bundle:
        write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "full"), tmp_path / "colour.clipstep.zip")
    return tmp_path / "colour.clipstep.zip"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which packs are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def zipped(bundle: Path, out: Path, change: Callable[[zipfile.ZipFile], None] = lambda _: None, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A bundle zipped by other means than ours, with what `change` adds."""
    with zipfile.ZipFile(out, "w", compression) as archive:
        for file in sorted(bundle.rglob("*")):
            archive.write(file, file.relative_to(bundle).as_posix())
        change(archive)
    return out


class TestFolders:
    def test_clutter_is_named_and_does_no_harm(self, copied_bundle: Path) -> None:
        (copied_bundle / ".DS_Store").write_bytes(b"Finder")
        (copied_bundle / "notes").mkdir()
        (copied_bundle / "notes/read me.txt").write_text("mine")
        bundle = Bundle.open(copied_bundle)
        assert bundle.extra == (".DS_Store", "notes") and bundle.missing == ()
        StepModel.load(copied_bundle).close()

    def test_a_signature_beside_the_manifest_is_not_extra(self, copied_bundle: Path) -> None:
        (copied_bundle / "signature.json").write_bytes(b"0")
        assert Bundle.open(copied_bundle).extra == ()

    def test_finders_files_in_an_artifact_that_is_a_folder_change_neither_size_nor_hash(self, tmp_path: Path) -> None:
        (tmp_path / "x.mlpackage/Data").mkdir(parents=True)
        (tmp_path / "x.mlpackage/Data/weight.bin").write_bytes(b"weights")
        before = tree_sha256(tmp_path / "x.mlpackage"), tree_size(tmp_path / "x.mlpackage")
        for name in (".DS_Store", "Data/.DS_Store", "Data/._weight.bin", "Data/Thumbs.db"):
            (tmp_path / "x.mlpackage" / name).write_bytes(b"clutter")
        assert (tree_sha256(tmp_path / "x.mlpackage"), tree_size(tmp_path / "x.mlpackage")) == before
        (tmp_path / "x.mlpackage/Data/another.bin").write_bytes(b"")
        assert tree_sha256(tmp_path / "x.mlpackage") != before[0]

    def test_an_artifact_that_was_removed_matters_to_whoever_runs_it(self, edit_manifest: Edit) -> None:
        def add(values: dict[str, Any]) -> None:
            values["artifacts"].append({**values["artifacts"][0], "target": "executorch", "file": "step.pte"})

        path = edit_manifest(add)
        bundle = Bundle.open(path)
        assert bundle.missing == ("step.pte",)
        assert "step.pte (missing)" in repr(bundle) and "model.onnx" in repr(bundle)
        StepModel.load(path).close()
        with pytest.raises(BundleError, match=r"step\.pte is missing; copy the bundle again"):
            bundle.artifact("executorch")

    def test_golden_steps_that_were_removed_matter_to_what_reads_them(self, copied_bundle: Path) -> None:
        (copied_bundle / "golden.safetensors").unlink()
        StepModel.load(copied_bundle).close()
        with pytest.raises(BundleError, match=r"golden\.safetensors is missing"):
            GoldenSteps.of(Bundle.open(copied_bundle))

    def test_what_runs_is_checked_and_what_does_not_is_not(self, copied_bundle: Path) -> None:
        (copied_bundle / "golden.safetensors").write_bytes(b"altered")
        StepModel.load(copied_bundle).close()
        with pytest.raises(BundleError, match=r"golden\.safetensors was altered"):
            Bundle.open(copied_bundle)
        (copied_bundle / "model.onnx").write_bytes(b"altered")
        with pytest.raises(BundleError, match=r"model\.onnx was altered"):
            StepModel.load(copied_bundle)

    @pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
    def test_what_is_no_file_is_not_opened(self, copied_bundle: Path, name: str) -> None:
        """Reading a pipe that nobody writes to takes for ever."""
        (copied_bundle / name).unlink()
        os.mkfifo(copied_bundle / name)
        with pytest.raises(BundleError, match=f"{name} is not a regular file"):
            Bundle.open(copied_bundle)

    def test_a_manifest_that_lies_elsewhere_is_not_read(self, copied_bundle: Path, tmp_path: Path) -> None:
        (copied_bundle / "manifest.json").rename(tmp_path / "elsewhere.json")
        (copied_bundle / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(BundleError, match=r"manifest\.json lies outside the bundle"):
            Bundle.open(copied_bundle)

    def test_a_link_inside_an_artifact_is_refused(self, edit_manifest: Edit, copied_bundle: Path, tmp_path: Path) -> None:
        (copied_bundle / "x.mlpackage").mkdir()
        (copied_bundle / "x.mlpackage/a").write_bytes(b"a")
        (tmp_path / "outside").mkdir()
        facts = {"target": "coreml", "file": "x.mlpackage", "size_bytes": 1, "sha256": tree_sha256(copied_bundle / "x.mlpackage")}
        path = edit_manifest(lambda values: values["artifacts"].append({**values["artifacts"][0], **facts}))
        Bundle.open(path)
        (copied_bundle / "x.mlpackage/Data").symlink_to(tmp_path / "outside")
        with pytest.raises(BundleError, match=r"x\.mlpackage/Data lies outside the bundle"):
            Bundle.open(path)

    def test_a_manifest_of_brackets_or_with_a_terminals_orders_is_refused(self, copied_bundle: Path, edit_manifest: Edit) -> None:
        path = edit_manifest(lambda values: values.update(name="\x1b[2Jcleared"))
        with pytest.raises(BundleError, match=r"manifest\.json holds control characters at name; got '\\x1b"):
            Bundle.open(path)
        (copied_bundle / "manifest.json").write_text("[" * 100_000)
        with pytest.raises(BundleError, match=r"manifest\.json is nested too deep"):
            Bundle.open(copied_bundle)

    @pytest.mark.parametrize("name", ["n" * 300 + ".onnx", "a\0b", "a/" * 3000 + "b"])
    def test_names_that_no_disk_takes(self, edit_manifest: Edit, name: str) -> None:
        path = edit_manifest(lambda values: values["artifacts"][0].update(file=name))
        with pytest.raises(BundleError, match=r"is missing|malformed|control characters"):
            Bundle.open(path)

    def test_a_path_with_spaces_and_other_alphabets_a_link_and_a_read_only_folder(self, bundle_path: Path, tmp_path: Path) -> None:
        place = Path(shutil.copytree(bundle_path, tmp_path / "mein Bündel ビデオ.clipstep"))
        (tmp_path / "a link.clipstep").symlink_to(place)
        for file in (*place.iterdir(), place):
            file.chmod(file.stat().st_mode & ~0o222)
        try:
            for path in (place, tmp_path / "a link.clipstep"):
                with StepModel.load(path) as model, Bundle.open(path) as bundle:
                    assert len(GoldenSteps.of(bundle).logits) == 3
                    model.step(np.zeros((4, 8, 8, 3), np.uint8), model.initial_states())
        finally:
            place.chmod(0o755)


class TestNotes:
    def test_two_who_opened_a_bundle_keep_each_others_notes(self, edit_manifest: Edit) -> None:
        def add(values: dict[str, Any]) -> None:
            values["artifacts"].append({**values["artifacts"][0], "platform": "arm64", "file": "other.onnx"})

        path = edit_manifest(add)
        shutil.copy(path / "model.onnx", path / "other.onnx")
        first, second = Bundle.open(path), Bundle.open(path)
        record_accuracy(first, "model.onnx", ACCURACY)
        record_accuracy(second, "other.onnx", ACCURACY)
        assert [artifact.accuracy for artifact in Bundle.open(path).manifest.artifacts] == [ACCURACY, ACCURACY]

    def test_a_note_keeps_the_manifests_mode(self, copied_bundle: Path) -> None:
        (copied_bundle / "manifest.json").chmod(0o664)
        record_accuracy(Bundle.open(copied_bundle), "model.onnx", ACCURACY)
        assert stat.S_IMODE((copied_bundle / "manifest.json").stat().st_mode) == 0o664

    def test_a_folder_that_may_not_be_written_to(self, copied_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)  # Root may write everywhere.
        with pytest.raises(BundleError, match="its manifest cannot be changed; got Permission denied; make its folder writable"):
            record_accuracy(Bundle.open(copied_bundle), "model.onnx", ACCURACY)

    def test_a_pack_is_not_noted_in(self, pack: Path) -> None:
        before = pack.read_bytes()
        with Bundle.open(pack) as bundle, pytest.raises(BundleError, match="is a pack, and a pack is never changed; note it in the bundle's folder"):
            record_accuracy(bundle, "model.onnx", ACCURACY)
        assert pack.read_bytes() == before


class TestPacks:
    def test_a_pack_computes_what_its_bundle_does_and_leaves_nothing_behind(self, pack: Path, bundle_path: Path, temporary: Path) -> None:
        with StepModel.load(pack) as packed, StepModel.load(bundle_path) as model, Bundle.open(pack) as bundle:
            golden = GoldenSteps.of(bundle)
            for subclip in golden.subclips:
                assert np.array_equal(packed.step(subclip, packed.initial_states())[0], model.step(subclip, model.initial_states())[0])
            assert stat.S_IMODE(next(temporary.iterdir()).stat().st_mode) == 0o700
            assert bundle.is_pack and bundle.extra == bundle.missing == ()
        assert list(temporary.iterdir()) == []

    def test_nothing_is_left_by_one_that_fails_or_is_forgotten(self, pack: Path, temporary: Path) -> None:
        with pytest.raises(Exception, match="no float32 executorch artifact"):
            StepModel.load(pack, engine="executorch")
        code = "import sys; from clipstep.runtime import *; b = Bundle.open(sys.argv[1]); b.folder(); m = StepModel.load(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(pack)], env={**os.environ, "TMPDIR": str(temporary)}, check=True)
        assert list(temporary.glob("clipstep-*")) == []

    def test_a_forked_process_does_not_take_the_files_away(self, pack: Path, temporary: Path) -> None:
        with Bundle.open(pack) as bundle:
            file = bundle.file(bundle.manifest.golden)
            child = os.fork()
            if child == 0:
                bundle.close()
                os._exit(0)
            os.waitpid(child, 0)
            assert file.exists()

    def test_the_same_bundle_gives_the_same_bytes(self, bundle_path: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(bundle_path, tmp_path / "later" / "other.clipstep"))
        for file in copy.iterdir():
            os.utime(file, (1, 1))
            file.chmod(0o600)
        written = []
        for source, out in ((bundle_path, tmp_path / "a.clipstep.zip"), (copy, tmp_path / "b.clipstep.zip")):
            with Bundle.open(source) as bundle:
                write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "synthetic"), out)
            written.append(out.read_bytes())
        assert written[0] == written[1]

    def test_folders_zipped_by_hand_open_too(self, bundle_path: Path, tmp_path: Path) -> None:
        flat = zipped(bundle_path, tmp_path / "flat.clipstep.zip")
        shutil.copytree(bundle_path, tmp_path / "top/colour.clipstep")
        (tmp_path / "top/__MACOSX/colour.clipstep").mkdir(parents=True)
        (tmp_path / "top/__MACOSX/colour.clipstep/._model.onnx").write_bytes(b"Finder")
        for path in (flat, zipped(tmp_path / "top", tmp_path / "topped.clipstep.zip")):
            with Bundle.open(path) as bundle:
                assert bundle.extra == bundle.missing == ()
            StepModel.load(path).close()

    def test_what_is_extra_or_missing_is_named_as_in_a_folder(self, copied_bundle: Path, tmp_path: Path) -> None:
        (copied_bundle / "golden.safetensors").unlink()
        path = zipped(copied_bundle, tmp_path / "x.clipstep.zip", lambda archive: archive.writestr("notes.txt", "mine"))
        with Bundle.open(path) as bundle:
            assert (bundle.extra, bundle.missing) == (("notes.txt",), ("golden.safetensors",))
            StepModel.load(bundle).close()
            with pytest.raises(BundleError, match=r"golden\.safetensors is missing"):
                GoldenSteps.of(bundle)

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a\x1bb", "./a", "a//b"])
    def test_a_name_that_leads_out_is_refused_before_anything_is_read(self, bundle_path: Path, tmp_path: Path, name: str) -> None:
        path = zipped(bundle_path, tmp_path / "x.clipstep.zip", lambda archive: archive.writestr(zipfile.ZipInfo(name), "evil"))
        with pytest.raises(BundleError, match="holds a name that no file of a bundle may have"):
            Bundle.open(path)

    @pytest.mark.parametrize(
        ("name", "message"),
        [("model.onnx", "two files of one name"), ("MODEL.onnx", "two files of one name"), ("model.onnx/x", "a file inside a file")],
    )
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_one_name_twice_is_refused(self, bundle_path: Path, tmp_path: Path, name: str, message: str) -> None:
        """Which of both is checked and which is run would be up to the program that unpacks them."""
        path = zipped(bundle_path, tmp_path / "x.clipstep.zip", lambda archive: archive.writestr(name, "evil"))
        with pytest.raises(BundleError, match=message):
            Bundle.open(path)

    def test_links_and_devices_are_refused(self, bundle_path: Path, tmp_path: Path) -> None:
        for kind, message in ((stat.S_IFLNK, "got a link"), (stat.S_IFIFO, "got something else")):
            entry = zipfile.ZipInfo("link")
            entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
            path = zipped(bundle_path, tmp_path / "x.clipstep.zip", lambda archive, entry=entry: archive.writestr(entry, "/etc/passwd"))
            with pytest.raises(BundleError, match=f"link is not a regular file; {message}"):
                Bundle.open(path)

    def test_other_methods_and_what_is_no_zip_file(self, bundle_path: Path, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="compressed by a method that not every runtime supports; expected stored or deflated"):
            Bundle.open(zipped(bundle_path, tmp_path / "x.clipstep.zip", compression=zipfile.ZIP_LZMA))
        (tmp_path / "y.clipstep.zip").write_bytes(b"text")
        with pytest.raises(BundleError, match="is not a bundle; got a file that is no zip file"):
            Bundle.open(tmp_path / "y.clipstep.zip")

    def test_what_was_cut_short_and_a_lone_part_of_a_bundle_say_what_to_do(self, bundle_path: Path, tmp_path: Path) -> None:
        whole = zipped(bundle_path, tmp_path / "x.clipstep.zip").read_bytes()
        (tmp_path / "cut.clipstep.zip").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(BundleError, match="is not a whole pack; got a zip file that was cut short or is damaged; copy or download it again"):
            Bundle.open(tmp_path / "cut.clipstep.zip")
        with pytest.raises(BundleError, match=rf"is not a bundle; .*; give the folder of the bundle, {bundle_path}$"):
            Bundle.open(bundle_path / "model.onnx")
        with pytest.raises(BundleError, match=r"^https://example\.com/x\.clipstep: is a URL; expected a file or folder of this computer"):
            Bundle.open("https://example.com/x.clipstep")

    def test_a_file_that_unpacks_to_more_than_the_manifest_says_is_not_unpacked(self, copied_bundle: Path, tmp_path: Path, temporary: Path) -> None:
        (copied_bundle / "model.onnx").write_bytes(bytes(8_000_000))
        with pytest.raises(BundleError, match=r"model\.onnx was altered; got 8000000 bytes"):
            StepModel.load(zipped(copied_bundle, tmp_path / "x.clipstep.zip"))
        assert list(temporary.iterdir()) == []

    def test_a_bomb_that_the_manifest_agrees_with_is_not_unpacked(
        self, edit_manifest: Edit, copied_bundle: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contents_module, "SMALL_BYTES", 1 << 20)
        (copied_bundle / "model.onnx").write_bytes(bytes(8_000_000))
        facts = {"size_bytes": 8_000_000, "sha256": tree_sha256(copied_bundle / "model.onnx")}
        path = zipped(edit_manifest(lambda values: values["artifacts"][0].update(facts)), tmp_path / "x.clipstep.zip")
        assert path.stat().st_size < 100_000
        with pytest.raises(BundleError, match="unpacks to more than a bundle of its size holds; got 8000000 bytes"):
            StepModel.load(path)
        assert sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file()) == 0

    def test_a_manifest_that_is_a_bomb_is_not_read(self, copied_bundle: Path, tmp_path: Path) -> None:
        (copied_bundle / "manifest.json").write_bytes(b" " * (17 << 20))
        with pytest.raises(BundleError, match=r"manifest\.json is too large"):
            Bundle.open(zipped(copied_bundle, tmp_path / "x.clipstep.zip"))

    @pytest.mark.parametrize("seed", range(20))
    def test_a_damaged_pack_is_one_error(self, pack: Path, tmp_path: Path, seed: int) -> None:
        data, random = bytearray(pack.read_bytes()), np.random.default_rng(seed)
        for place in random.integers(0, len(data), 20):
            data[place] ^= int(random.integers(1, 256))
        (tmp_path / "damaged.clipstep.zip").write_bytes(data if seed % 4 else data[: int(random.integers(0, len(data)))])
        with pytest.raises(BundleError), Bundle.open(tmp_path / "damaged.clipstep.zip") as bundle:
            for item in (*bundle.manifest.artifacts, bundle.manifest.golden):
                bundle.file(item)


class TestGolden:
    def test_short_steps_are_the_first_of_the_bundles(self, copied_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("clipstep.runtime.golden.SHORT_STEPS", 2)
        with Bundle.open(copied_bundle) as bundle:
            whole = GoldenSteps.of(bundle)
            write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "short"), tmp_path / "x.clipstep.zip")
        with Bundle.open(tmp_path / "x.clipstep.zip") as packed:
            short = GoldenSteps.of(packed)
            assert packed.manifest.golden.omitted_steps == 1 and packed.manifest.provenance == bundle.manifest.provenance
        assert np.array_equal(short.logits, whole.logits[:2]) and np.array_equal(short.subclips, whole.subclips[:2])
        assert np.array_equal(short.states["memory"], whole.states["memory"][:2])

    def test_synthetic_steps_hold_no_frame_of_the_bundles_and_are_what_the_network_computes(
        self, bundle_path: Path, tmp_path: Path, reference: Callable[..., tuple[np.ndarray, np.ndarray]]
    ) -> None:
        with Bundle.open(bundle_path) as bundle:
            whole = GoldenSteps.of(bundle)
            write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "synthetic"), tmp_path / "x.clipstep.zip")
        data = (tmp_path / "x.clipstep.zip").read_bytes()
        assert not any(frame.tobytes() in data for subclip in whole.subclips for frame in subclip)
        with Bundle.open(tmp_path / "x.clipstep.zip") as packed:
            golden, said = GoldenSteps.of(packed), packed.manifest.golden
        logits, memories = reference([golden.subclips[step % 4] for step in range(16)])
        assert np.allclose(golden.logits, logits, atol=1e-5) and np.allclose(golden.states["memory"][:, 0], memories[-4:], atol=1e-5)
        assert said.frame_sources == ("synthetic",) and str(said.recorded_by).startswith("model.onnx in onnxruntime")

    def test_an_artifact_that_is_off_records_nothing(self, edit_manifest: Edit, copied_bundle: Path) -> None:
        golden = GoldenSteps.load(copied_bundle / "golden.safetensors", ["memory"])
        GoldenSteps(golden.subclips, golden.logits + 1, golden.states).save(copied_bundle / "golden.safetensors")
        path = copied_bundle / "golden.safetensors"
        edit_manifest(lambda values: values["golden"].update(size_bytes=tree_size(path), sha256=tree_sha256(path)))
        with Bundle.open(copied_bundle) as bundle, pytest.raises(Exception, match="logits is off at step 0"):
            golden_of(bundle, "synthetic")


def test_the_artifacts_of_a_platform_are_packed(edit_manifest: Edit) -> None:
    def many(values: dict[str, Any]) -> None:
        one = values["artifacts"][0]
        kinds = [("onnx", "any"), ("onnx", "arm64"), ("onnx", "x86_64"), ("executorch", "any"), ("executorch", "x86_64"), ("coreml", "any")]
        values["artifacts"] = [{**one, "target": target, "platform": platform} for target, platform in kinds]

    bundle = Bundle.open(edit_manifest(many))
    chosen = {name: [(a.target, a.platform) for a in artifacts_for(bundle, name)] for name in ("android", "ios")}
    assert chosen == {"android": [("onnx", "arm64"), ("executorch", "any")], "ios": [("coreml", "any")]}
    only = Bundle.open(edit_manifest(lambda values: values.update(artifacts=values["artifacts"][:1])))
    with pytest.raises(Exception, match="has nothing to pack for ios; got onnx for any; expected coreml for arm64, else for any"):
        artifacts_for(only, "ios")


def test_the_json_of_a_packs_manifest_is_a_manifest(pack: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        values = json.loads(archive.read("manifest.json"))
        assert archive.namelist()[0] == "manifest.json" and all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
    assert [artifact["file"] for artifact in values["artifacts"]] == ["model.onnx"]
