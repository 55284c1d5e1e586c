"""The network that a bundle was exported from, as it was trained."""

import sys
from pathlib import Path

from clipstep.export.factory import Facts, own_run
from clipstep.export.step import StepProgram, program_of
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.training.run import Run, load_run


def reference_program(bundle: Bundle, source: str) -> StepProgram:
    """The step that the bundle's artifacts compute; ``source`` is the run's folder, or a factory ``package.module:name``.

    Raises:
        ClipstepError: there is no such run or factory, or it is not the one that the bundle was exported from.
    """
    return program_of(_run(bundle, source), bundle.manifest.provenance.stream_frames)


def reference_source(bundle: Bundle, given: str | None) -> str:
    """What was given as the network behind a bundle, otherwise what the manifest names.

    Raises:
        ClipstepError: that is not there.
    """
    source = given or bundle.manifest.provenance.run
    if given is None and not _is_factory(source) and not Path(source).is_dir():
        raise ClipstepError(f"{source}: the run behind the bundle is not there", fix="give --run RUN, or --no-reference")
    _run(bundle, source)
    return source


def _run(bundle: Bundle, source: str) -> Run:
    run = _own(bundle, source) if _is_factory(source) else load_run(Path(source))
    if run.info.checkpoint_sha256 != bundle.manifest.provenance.checkpoint_sha256:
        raise ClipstepError(f"{source}: is not the run that the bundle was exported from", fix="give --run RUN, or --no-reference")
    return run


def _is_factory(source: str) -> bool:
    return ":" in source and not Path(source).exists()


def _own(bundle: Bundle, spec: str) -> Run:
    manifest = bundle.manifest
    if "" not in sys.path:
        sys.path.insert(0, "")  # As Python itself does: modules in this folder.
    config, given = manifest.provenance.config, manifest.input
    return own_run(spec, Facts(config["frames"], config["size"], manifest.labels, given.mean, given.deviation, given.fps))
