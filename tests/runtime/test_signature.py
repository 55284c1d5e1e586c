"""Signatures: made by one key, checked by its public half; whatever was changed since is one error."""

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipstep.runtime import Bundle, BundleError, ClipstepError, StepModel
from clipstep.runtime.bundle.manifest import Accuracy
from clipstep.runtime.bundle.recording import record_accuracy
from clipstep.runtime.bundle.signature import SignatureError, new_key
from clipstep.runtime.command_line.sign import sign_bundle
from clipstep.runtime.filesystem.overwrite import BUNDLE, check_overwrite

Edit = Callable[[Callable[[dict[str, Any]], Any]], Path]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and its public key."""
    private = tmp_path_factory.mktemp("keys") / "key.pem"
    return private, new_key(private)


@pytest.fixture
def signed(copied_bundle: Path, keys: tuple[Path, Path]) -> Path:
    sign_bundle(copied_bundle, keys[0])
    return copied_bundle


def test_a_signed_bundle_opens_and_runs(signed: Path, keys: tuple[Path, Path]) -> None:
    assert Bundle.open(signed, signer=keys[1]).extra == ()
    with StepModel.load(signed, signer=keys[1]) as model:
        assert model.labels == ("red", "green", "blue")


def test_a_signed_bundle_is_replaced_like_any_other(signed: Path) -> None:
    check_overwrite(signed, BUNDLE, force=True)


def test_the_key_is_its_owners_alone(keys: tuple[Path, Path]) -> None:
    assert keys[0].stat().st_mode & 0o777 == 0o600 and b"PRIVATE" not in keys[1].read_bytes()
    with pytest.raises(SignatureError, match=r"key\.pem: exists; .*a key that is lost cannot be made again"):
        new_key(keys[0])


@pytest.mark.parametrize("change", [lambda text: text.replace("colour", "color"), lambda text: text + "\n", lambda text: text.replace("  ", " ")])
def test_a_manifest_that_was_changed_by_a_byte_is_refused(signed: Path, keys: tuple[Path, Path], change: Callable[[str], str]) -> None:
    path = signed / "manifest.json"
    path.write_text(change(path.read_text()))
    Bundle.open(signed)
    with pytest.raises(SignatureError, match="its signature is not of this manifest; got a manifest that was changed after signing"):
        Bundle.open(signed, signer=keys[1])


def test_a_file_that_was_changed_with_its_hash_is_refused(signed: Path, keys: tuple[Path, Path], edit_manifest: Edit) -> None:
    """As an attacker would: the file and its hash in the manifest fit each other, but not the signature."""
    from clipstep.runtime.bundle import tree_sha256, tree_size

    path = signed / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\x72\x00")
    edit_manifest(lambda values: values["artifacts"][0].update(sha256=tree_sha256(path), size_bytes=tree_size(path)))
    StepModel.load(signed).close()
    with pytest.raises(SignatureError, match="its signature is not of this manifest"):
        StepModel.load(signed, signer=keys[1])


def test_without_a_signature(copied_bundle: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match=r"is not signed; got no signature\.json; expected a signature by .*key\.pub\.pem"):
        Bundle.open(copied_bundle, signer=keys[1])


def test_another_key_is_named(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(SignatureError, match=r"is signed by another key; got [A-Za-z0-9+/]{43}=; expected [A-Za-z0-9+/]{43}=, of .*other\.pub\.pem"):
        Bundle.open(signed, signer=other)


def test_a_key_that_is_named_anew_does_not_help(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The file says who signed; whoever checks brings the key."""
    new_key(tmp_path / "other.pem")
    sign_bundle(signed, tmp_path / "other.pem")
    path = signed / "signature.json"
    values = json.loads(path.read_text())
    shutil.copytree(signed, tmp_path / "mine.clipstep")
    sign_bundle(tmp_path / "mine.clipstep", keys[0])
    values["public_key"] = json.loads((tmp_path / "mine.clipstep/signature.json").read_text())["public_key"]
    path.write_text(json.dumps(values))
    with pytest.raises(SignatureError, match="its signature is not of this manifest"):
        Bundle.open(signed, signer=keys[1])


def test_the_signature_of_another_bundle(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(signed, tmp_path / "other.clipstep"))
    values = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**values, "name": "other"}))
    with pytest.raises(SignatureError, match="or the signature of another bundle"):
        Bundle.open(other, signer=keys[1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "{",
        '{"public_key": "AAAA", "signature": "AAAA"}',
        '{"public_key": "!", "signature": "!"}',
        "[" * 100_000,
        '{"schema_version": 2, "public_key": "AAAA", "signature": "AAAA"}',
        '{"algorithm": "none", "public_key": "AAAA", "signature": "AAAA"}',
    ],
)
def test_a_malformed_signature_is_one_error(signed: Path, keys: tuple[Path, Path], text: str) -> None:
    (signed / "signature.json").write_text(text)
    with pytest.raises(SignatureError, match=r"signature\.json is malformed; .*; sign it again"):
        Bundle.open(signed, signer=keys[1])


def test_keys_that_are_none(copied_bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed448

    (tmp_path / "text.pem").write_text("no key")
    other = ed448.Ed448PrivateKey.generate()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "ed448.pem").write_bytes(other.private_bytes(pem, form, serialization.NoEncryption()))
    (tmp_path / "locked.pem").write_bytes(other.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x")))
    (tmp_path / "ed448.pub.pem").write_bytes(other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    for name, message in (
        ("none.pem", "no such file"),
        ("text.pem", "is not a private key"),
        ("ed448.pem", "another kind; got Ed448PrivateKey; expected Ed25519"),
        ("locked.pem", "the key has a password; decrypt it first"),
    ):
        with pytest.raises(SignatureError, match=message):
            sign_bundle(copied_bundle, tmp_path / name)
    for path, message in ((keys[0], "is a private key; expected the signer's public key"), (tmp_path / "ed448.pub.pem", "got Ed448PublicKey")):
        with pytest.raises(SignatureError, match=message):
            Bundle.open(copied_bundle, signer=path)
    assert not (copied_bundle / "signature.json").exists()


def test_a_damaged_bundle_is_not_signed(copied_bundle: Path, keys: tuple[Path, Path]) -> None:
    (copied_bundle / "golden.safetensors").unlink()
    with pytest.raises(BundleError, match=r"golden\.safetensors is missing: what is not there cannot be signed"):
        sign_bundle(copied_bundle, keys[0])


def test_nothing_is_noted_in_a_signed_bundle(signed: Path, keys: tuple[Path, Path]) -> None:
    accuracy = Accuracy(dataset="d", engine="onnxruntime", videos=1, crops=1, top1=1.0, top5=None)
    with pytest.raises(BundleError, match=r"is signed, .*; remove signature\.json, note it, and sign the bundle again"):
        record_accuracy(Bundle.open(signed), "model.onnx", accuracy)
    Bundle.open(signed, signer=keys[1])


def test_a_pack_is_signed_and_signed_again(copied_bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    pack, before = tmp_path / "x.clipstep.zip", {}
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(copied_bundle.iterdir()):
            before[path.name] = path.read_bytes()
            file.write(path, path.name)
    for _ in range(2):
        assert sign_bundle(pack, keys[0]) == pack
        with StepModel.load(pack, signer=keys[1]) as model:
            assert model.labels[0] == "red"
    with zipfile.ZipFile(pack) as file:
        assert {name: file.read(name) for name in before} == before and len(file.namelist()) == len(before) + 1
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="is signed by another key"):
        StepModel.load(pack, signer=other)


def test_a_bundle_that_is_open_is_not_asked_again(signed: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ClipstepError, match=r"is open already; give the signer to Bundle\.open"):
        StepModel.load(Bundle.open(signed), signer=keys[1])


def test_without_the_library_it_is_named(copied_bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ClipstepError, match=r"signatures need cryptography, which is not installed; pip install .*\[sign\]"):
        sign_bundle(copied_bundle, keys[0])
