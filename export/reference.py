"""The network that a bundle was exported from, as it was trained: the reference for everything that is computed from it."""

import sys
from pathlib import Path

from clipstep.export.factory import Facts, own_run
from clipstep.export.network import Network
from clipstep.export.step import StepProgram, program_of
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.training.run import Run, load_run


def reference_program(bundle: Bundle, network: Network) -> StepProgram:
    """The step that the bundle's artifacts compute; that it keeps the contract was proven when the bundle was written.

    Raises:
        ClipstepError: as :func:`reference_run`.
    """
    return program_of(reference_run(bundle, network), bundle.manifest.provenance.stream_frames, bundle.manifest.window_frames, proven=True)


def reference_run(bundle: Bundle, network: Network) -> Run:
    """The network that the user gave, compared with the bundle's provenance by the hash of its weights.

    Raises:
        ClipstepError: there is no such run or factory, or it is not the one that the bundle was exported from.
    """
    run = load_run(Path(network.run)) if network.run is not None else _own(bundle, network)
    if run.info.checkpoint_sha256 != bundle.manifest.provenance.checkpoint_sha256:
        weights = "" if network.model is None or network.weights else ", with its --weights if it had any"
        raise ClipstepError(f"{network}: is not the network that the bundle was exported from", fix=f"give that one{weights}")
    return run


def _own(bundle: Bundle, network: Network) -> Run:
    if "" not in sys.path:
        sys.path.insert(0, "")  # As Python itself does: modules in this folder.
    spec = bundle.manifest.input
    frames = bundle.manifest.provenance.config.get("frames", spec.shape[0])  # Of the clip network; a step of a stream takes fewer.
    if frames < spec.shape[0]:
        raise ClipstepError(f"{bundle.path}: the network takes fewer frames than a step", got=frames, expected=spec.shape[0], fix="export it again")
    facts = Facts(frames, spec.shape[1], bundle.manifest.labels, spec.mean, spec.deviation, spec.fps)
    weights, key = None if network.weights is None else Path(network.weights), bundle.manifest.provenance.weights_key
    return own_run(str(network.model), facts, weights, weights_key=key if weights else None, random_weights=True)  # Their hash is compared.
