"""`clipstep sign`: sign a bundle, so that others can check who made it."""

import stat
import zipfile
from pathlib import Path

import click

from clipstep.runtime.bundle import MANIFEST, Bundle, BundleError
from clipstep.runtime.bundle.signature import SIGNATURE, new_key, sign
from clipstep.runtime.command_line.options import OutputFile, command
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.wording import listed


def sign_bundle(path: Path, key: Path) -> Path:
    """Sign a bundle's manifest, after its files were compared with their hashes. An older signature is replaced.

    Args:
        path: the bundle, a folder or a pack.
        key: the PEM file with the private key.

    Returns:
        The file that was written: `signature.json`, or the pack.

    Raises:
        ClipstepError: the bundle is damaged or is being written, or the key cannot be used.
    """
    with write_lock(path), Bundle.open(path) as bundle:
        if bundle.missing:
            raise BundleError(
                f"{path}: {listed(bundle.missing)} is missing: what is not there cannot be signed", fix="export or pack it again, whole"
            )
        if bundle.is_pack:
            return _sign_pack(path, key)
        with atomic_file(path / SIGNATURE) as new:
            new.write_text(sign((path / MANIFEST).read_bytes(), key), encoding="utf-8")
        return path / SIGNATURE


def _sign_pack(path: Path, key: Path) -> Path:
    """Write the pack anew, with unchanged files and the signature as its last entry."""
    mode = stat.S_IMODE(path.stat().st_mode)
    with atomic_file(path, mode=mode) as new, zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as signed:
        if MANIFEST not in old.namelist():
            raise BundleError(f"{path}: was packed by hand, in a folder of its own", fix="pack the bundle with clipstep pack")
        for entry in old.infolist():
            if entry.filename != SIGNATURE:
                signed.writestr(entry, old.read(entry))
        signed.writestr(zipfile.ZipInfo(SIGNATURE, old.getinfo(MANIFEST).date_time), sign(old.read(MANIFEST), key))
    return path


@command("sign")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="The private key: Ed25519, PEM.")
@click.option("--new-key", type=OutputFile(), help="Write a new key to this file, and its public one beside it, first.")
def sign_command(bundle: Path | None, key: Path | None, new_key: Path | None) -> None:
    """Sign BUNDLE with a private key. Others check it with the public key: clipstep verify BUNDLE --signer, or run --signer.

    The signature covers manifest.json, and with it the hashes of all files.
    """
    if (key is None) == (new_key is None):
        raise ClipstepError(
            "choose the key to sign with", got="both --key and --new-key" if key else "neither --key nor --new-key", expected="one of them"
        )
    if new_key is None and bundle is None:
        raise ClipstepError("which bundle is to be signed?", expected="clipstep sign BUNDLE --key KEY.pem")
    if new_key is not None:
        click.echo(f"wrote {new_key}, the private key: keep it to yourself; and {_new_key(new_key)}, the public one: give it to whoever checks")
    if bundle is not None:
        click.echo(f"wrote {sign_bundle(bundle, key or Path(str(new_key)))}")


_new_key = new_key
