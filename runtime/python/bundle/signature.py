"""Sign bundles and check their signatures: `signature.json` holds an Ed25519 signature of `manifest.json`, which has all files' hashes."""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipstep.runtime.bundle.strict_json import parse_json
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import check_file
from clipstep.runtime.install_hints import install_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "signature.json"
LARGEST_KEY = 1 << 16
Base64 = Annotated[str, Field(pattern="^[A-Za-z0-9+/]+=*$", max_length=100)]


class SignatureError(ClipstepError):
    """A bundle is not signed by the given key, or a key cannot be used."""


class Signature(BaseModel):
    """The content of `signature.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: Base64
    """The signer's public key, 32 bytes. It only names the signer in messages: a signature is checked with the key that the user gives."""
    signature: Base64
    """The signature of the bytes of manifest.json, 64 bytes."""


def sign(manifest: bytes, key: Path) -> str:
    """Sign a manifest with the private key in the PEM file `key`, and return the text of `signature.json`.

    Raises:
        SignatureError: the key cannot be read, or is not a private Ed25519 key.
        ClipstepError: the library `cryptography` is not installed.
    """
    private = _private_key(key)
    values = Signature(public_key=_text(_raw(private.public_key())), signature=_text(private.sign(manifest)))
    return values.model_dump_json(indent=2) + "\n"


def check_signature(manifest: bytes, signature: bytes | None, signer: Path, bundle: Path) -> None:
    """Check that a manifest was signed with a given key.

    Args:
        manifest: the bytes of `manifest.json`.
        signature: the bytes of `signature.json`; None if there is none.
        signer: a PEM file with the public key.
        bundle: the bundle, for messages.

    Raises:
        SignatureError: there is no signature, it is by another key, or the manifest was changed since.
        ClipstepError: the library `cryptography` is not installed.
    """
    key = _public_key(signer)
    if signature is None:
        raise SignatureError(f"{bundle}: is not signed", got=f"no {SIGNATURE}", expected=f"a signature by {signer}")
    values = _parsed(signature, bundle)
    signed_by, given = base64.b64decode(values.public_key), _raw(key)
    if signed_by != given:
        raise SignatureError(f"{bundle}: is signed by another key", got=f"{_text(signed_by)}", expected=f"{_text(given)}, of {signer}")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(values.signature), manifest)
    except InvalidSignature as error:
        raise SignatureError(
            f"{bundle}: its signature is not of this manifest",
            got="a manifest that was changed after signing, or the signature of another bundle",
            fix="get the bundle again from its maker, or sign it again",
        ) from error


def new_key(path: Path) -> Path:
    """Write a new private key to `path`, readable by its owner only, and its public key to `NAME.pub.pem` in the same folder.

    Returns:
        The file of the public key.

    Raises:
        SignatureError: one of the files exists.
    """
    _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name.removesuffix('.pem')}.pub.pem")
    for file in (path, public):
        if file.exists():
            raise SignatureError(f"{file}: exists", expected="a new file: a key that is lost cannot be made again", fix="choose another name")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        new.write(private)
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def _parsed(data: bytes, bundle: Path) -> Signature:
    try:
        values = Signature.model_validate(parse_json(data), strict=True)
        sizes = [len(base64.b64decode(text, validate=True)) for text in (values.public_key, values.signature)]
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    except (ClipstepError, ValueError) as error:
        reason = str(error)
    else:
        if sizes == [32, 64]:
            return values
        reason = f"a key of {sizes[0]} and a signature of {sizes[1]} bytes"
    raise SignatureError(f"{bundle}: {SIGNATURE} is malformed", got=reason, fix="sign it again")


def _private_key(path: Path) -> "Ed25519PrivateKey":
    _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:  # Raised for a key that is encrypted.
        raise SignatureError(f"{path}: the key has a password", fix="decrypt it first: openssl pkey -in KEY.pem -out PLAIN.pem") from error
    except Exception as error:  # cryptography raises exceptions of several types.
        raise SignatureError(f"{path}: is not a private key", expected="PEM, as clipstep sign --new-key writes it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path}: is a key of another kind", got=type(key).__name__.lstrip("_"), expected="Ed25519")
    return key


def _public_key(path: Path) -> "Ed25519PublicKey":
    _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise SignatureError(f"{path}: is a private key", expected="the signer's public key", fix="openssl pkey -in KEY.pem -pubout")
    try:
        key = serialization.load_pem_public_key(data)
    except Exception as error:
        raise SignatureError(f"{path}: is not a public key", expected="PEM, as clipstep sign --new-key writes it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path}: is a key of another kind", got=type(key).__name__.lstrip("_"), expected="Ed25519")
    return key


def _read(path: Path) -> bytes:
    check_file(path, "a key, PEM", error=SignatureError)
    with path.open("rb") as file:
        return file.read(LARGEST_KEY)


def _raw(key: "Ed25519PublicKey") -> bytes:
    return key.public_bytes_raw()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _library() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise ClipstepError("signatures need cryptography, which is not installed", fix=install_extra("sign")) from error
