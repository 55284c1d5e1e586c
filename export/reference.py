"""The network that a bundle was exported from, as it was trained: the reference for everything that is computed from it."""

import sys
from pathlib import Path

from torch import nn

from clipstep.export.factory import network_of_factory
from clipstep.export.module import network_of_module
from clipstep.export.network_source import NetworkSource
from clipstep.export.step import StepProgram, program_of
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError


def network_of_run(folder: Path) -> NetworkSpec:
    """The trained network in a folder that ``clipstep train`` wrote.

    Raises:
        ClipstepError: it is no run, or is damaged.
    """
    from clipstep.training.run import load_run  # The one way from a bundle's side to training: a run is opened.

    return load_run(folder).spec(folder)


def reference_program(bundle: Bundle, network: NetworkSource) -> StepProgram:
    """The step that the bundle's artifacts compute; that it keeps the contract was proven when the bundle was written.

    Raises:
        ClipstepError: as ``reference_network``.
    """
    return reference_program_of(bundle, reference_network(bundle, network), proven=True)


def reference_program_of(bundle: Bundle, spec: NetworkSpec, *, proven: bool) -> StepProgram:
    """The same of a network that is there; unless ``proven``, it is held to the contract."""
    return program_of(spec, bundle.manifest.export.stream_frames, bundle.manifest.window_frames, proven=proven)


def reference_network(bundle: Bundle, network: NetworkSource) -> NetworkSpec:
    """The network that the user gave, compared with the bundle's provenance by the hash of its weights.

    Raises:
        ClipstepError: there is no such run or factory, or it is not the one that the bundle was exported from.
    """
    spec = network_of_run(Path(network.run)) if network.run is not None else _of_factory(bundle, network)
    if spec.provenance.weights_sha256 != bundle.manifest.provenance.weights_sha256:
        weights = "" if network.model is None or network.weights else ", with its --weights if it had any"
        raise ClipstepError(f"{network}: is not the network that the bundle was exported from", fix=f"give that one{weights}")
    return spec


def reference_module(bundle: Bundle, module: nn.Module) -> NetworkSpec:
    """A module in memory with what the bundle says of its network. That it is the same network, its outputs have to show.

    Raises:
        ClipstepError: it is in training mode, on another device, or of another type.
    """
    spec = bundle.manifest.input
    return network_of_module(
        module, frames=_frames(bundle), size=spec.shape[1], labels=bundle.manifest.labels, mean=spec.mean, std=spec.std, fps=spec.fps
    )


def _of_factory(bundle: Bundle, network: NetworkSource) -> NetworkSpec:
    if "" not in sys.path:
        sys.path.insert(0, "")  # As Python itself does: modules in this folder.
    spec = bundle.manifest.input
    weights, key = None if network.weights is None else Path(network.weights), bundle.manifest.provenance.weights_key
    return network_of_factory(
        str(network.model),
        frames=_frames(bundle),
        size=spec.shape[1],
        labels=bundle.manifest.labels,
        mean=spec.mean,
        std=spec.std,
        fps=spec.fps,
        weights=weights,
        weights_key=key if weights else None,
        random_weights=True,
    )  # Their hash is compared.


def _frames(bundle: Bundle) -> int:
    """Those of the clip network's subclips; a step of a stream takes fewer."""
    taken = bundle.manifest.input.shape[0]
    frames = bundle.manifest.provenance.config.get("frames", taken)
    if frames < taken:
        raise ClipstepError(f"{bundle.path}: the network takes fewer frames than a step", got=frames, expected=taken, fix="export it again")
    return frames
