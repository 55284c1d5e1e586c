"""The bundle format: the manifest and its versions, hashes, packs, signatures, and the metadata embedded in each artifact."""

from clipstep.runtime.bundle.bundle import MANIFEST, Bundle, artifact_kind, is_bundle, open_for_command, this_machine
from clipstep.runtime.bundle.contents import PACK_SUFFIX, BundleError
from clipstep.runtime.bundle.hashes import tree_sha256, tree_size

__all__ = [
    "MANIFEST",
    "PACK_SUFFIX",
    "Bundle",
    "BundleError",
    "artifact_kind",
    "is_bundle",
    "open_for_command",
    "this_machine",
    "tree_sha256",
    "tree_size",
]
