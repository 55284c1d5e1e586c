"""Loads the network that a bundle was exported from: the reference that artifacts are compared with."""

import sys
from pathlib import Path
from typing import Any

from torch import nn

from clipstep.export.adapters import adapted
from clipstep.export.factory import network_of_factory
from clipstep.export.module import network_of_module
from clipstep.export.network_source import NetworkSource
from clipstep.export.outputs import AskedOutputs
from clipstep.export.step import StepProgram, program_of
from clipstep.export.turns import one_at_a_time
from clipstep.network.inputs import input_of_manifest
from clipstep.network.spec import NetworkSpec
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError


def network_of_run(folder: Path) -> NetworkSpec:
    """Load the trained network in a folder that `clipstep train` wrote.

    Raises:
        ClipstepError: the folder holds no run, or a damaged one.
    """
    from clipstep.training.run import load_run  # The only import of training: a run's network is one of its architectures.

    return load_run(folder).spec(folder)


def reference_program(bundle: Bundle, network: NetworkSource) -> StepProgram:
    """Load the step that the bundle's artifacts compute. It is not checked against the step contract: the export did that.

    Raises:
        ClipstepError: as `reference_network`.
    """
    return reference_program_of(bundle, reference_network(bundle, network), check=False)


def reference_program_of(bundle: Bundle, spec: NetworkSpec, *, check: bool) -> StepProgram:
    """Return the step of a network as the bundle's artifacts compute it; with `check` it is checked against the step contract."""
    export = bundle.manifest.export
    logits, kept = export.network_outputs.get("logits"), {name: path for name, path in export.network_outputs.items() if name != "logits"}
    return program_of(spec, export.stream_frames, bundle.manifest.window_frames, asked=AskedOutputs(logits, kept), check=check)


@one_at_a_time()
def reference_network(bundle: Bundle, network: NetworkSource) -> NetworkSpec:
    """Load the network that the user named, and check that its weights have the hash in the bundle's provenance.

    Raises:
        ClipstepError: there is no such run or factory, or its weights are not those that the bundle was exported from.
    """
    spec = network_of_run(Path(network.run)) if network.run is not None else _of_factory(bundle, network)
    if spec.provenance.weights_sha256 != bundle.manifest.provenance.weights_sha256:
        weights = "" if network.model is None or network.weights else ", with its --weights if it had any"
        raise ClipstepError(f"{network}: is not the network that the bundle was exported from", fix=f"give that one{weights}")
    return spec


@one_at_a_time()
def reference_module(bundle: Bundle, module: nn.Module) -> NetworkSpec:
    """Return a module in memory as a network spec with the bundle's sizes, labels and normalisation.

    It is not checked that the bundle was exported from this module.

    Raises:
        ClipstepError: the module is in training mode, not on the CPU, or its weights are not float32.
    """
    frames = _frames(bundle)
    module = adapted(module, bundle.manifest.export.adapters, frames, bundle.manifest.input.shape[1])
    return network_of_module(module, frames=frames, **_description(bundle))


def _of_factory(bundle: Bundle, network: NetworkSource) -> NetworkSpec:
    if "" not in sys.path:
        sys.path.insert(0, "")  # As `python` itself does: modules in this folder can be imported.
    weights, key = None if network.weights is None else Path(network.weights), bundle.manifest.provenance.weights_key
    return network_of_factory(
        str(network.model),
        frames=_frames(bundle),
        **_description(bundle),
        weights=weights,
        weights_key=key if weights else None,
        adapters=bundle.manifest.export.adapters,
        random_weights=True,  # Allowed: `reference_network` compares their hash.
    )


def _description(bundle: Bundle) -> dict[str, Any]:
    """Return what the manifest says of the network, by the names of the arguments of `network_of_module` and `network_of_factory`."""
    spec = bundle.manifest.input
    given = input_of_manifest(spec)
    described = {"labels": bundle.manifest.labels, "mean": spec.mean, "std": spec.std, "fps": spec.fps}
    return described | ({"input": given} if spec.kind != "video" else {}) | ({"size": spec.shape[1]} if spec.kind != "joints" else {})


def _frames(bundle: Bundle) -> int:
    """Return how many frames a subclip of the network has; a step of a stream takes fewer."""
    step = bundle.manifest.input.shape[0]
    frames = bundle.manifest.provenance.config.get("frames", step)
    if frames < step:
        raise ClipstepError(f"{bundle.path}: the network takes fewer frames than a step", got=frames, expected=step, fix="export it again")
    return frames
