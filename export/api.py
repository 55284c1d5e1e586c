"""The functions of clipstep.export: a module in memory to a verified bundle, and a bundle compared with its network.

They print nothing and raise ``clipstep.runtime.ClipstepError``; the converters' own progress and warnings go to the process'
streams, which are the program's business.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from clipstep.export.choices import TARGETS
from clipstep.export.module import network_of_module
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import ExportResult, WrittenArtifact, export_network
from clipstep.export.reference import reference_module
from clipstep.export.tuning import tune_by_measuring
from clipstep.export.verified import Reference, VerifyResult, fresh_reference, verify_opened
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.finished import BUNDLE, check_bundle_name, check_output
from clipstep.runtime.golden import GoldenSteps


def export(
    module: nn.Module,
    out: Path | str,
    *,
    frames: int,
    size: int,
    labels: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    fps: float,
    sample: Tensor | np.ndarray[Any, Any] | Path | str | None = None,
    targets: Sequence[str] = TARGETS,
    platforms: Sequence[str] = ("any",),
    form: str = "auto",
    input_dtype: str = "auto",
    stream: int | None = None,
    window: float | None = None,
    output: str | None = None,
    tune: bool = False,
    on_artifact: Callable[[WrittenArtifact], object] | None = None,
    force: bool = False,
) -> ExportResult:
    """Writes a module in memory as a bundle of verified artifacts: whole, or not at all.

    Example:
        ```python
        network = torchvision.models.video.r3d_18(weights="DEFAULT").eval()
        result = export(network, "r3d.clipstep", frames=16, size=112, labels=labels, mean=mean, std=std, fps=25)
        ```

    ``module.forward(frames, *states)`` takes normalised ``(1, 3, frames, size, size)`` float32 and returns logits
    ``(1, len(labels))``, followed by the next states if ``module.initial_states()`` says that it has some. The module is in eval mode, on the
    CPU and of float32; it is neither copied, pickled nor changed.

    ``mean`` and ``std`` are a channel's, R G B, in 0..255; ``fps`` is the rate of the videos that it was trained on. ``sample`` holds the
    frames of the golden steps: subclips ``(S, frames, size, size, 3)`` uint8, or the path of a video; unless given, scenes are drawn.
    ``out`` is a folder ``NAME.clipstep``; a bundle that is there is replaced if ``force`` says so.

    ``targets`` are of ``onnx``, ``executorch`` and ``coreml``, ``platforms`` of ``any``, ``arm64`` and ``x86_64``; ``form`` is ``auto``,
    ``lowered`` or ``3d``; ``input_dtype`` is ``auto``, ``uint8`` or ``float32``. With ``stream`` a step takes so many new frames, and
    predicts from all so far, or from the newest ``window`` seconds. ``output`` says what the first output holds (``logits``,
    ``probabilities`` or ``multilabel``), where it is not recognised. ``tune`` writes each artifact in every way and keeps the cheapest on its
    platform, which needs clipstep[bench]. ``on_artifact`` is called after each artifact.

    Raises:
        ClipstepError: the module breaks the step contract or is in training mode, a value is none of a network's, an artifact is not what
            the module computes, or ``out`` exists and is not a bundle to replace.
    """
    path = Path(out)
    check_bundle_name(path)
    check_output(path, BUNDLE, force=force)
    options = ExportOptions(_names(targets), form, input_dtype, stream, _names(platforms), tune_by_measuring() if tune else None, window, output)
    spec = network_of_module(module, frames=frames, size=size, labels=labels, mean=mean, std=std, fps=fps, sample=sample)
    return export_network(spec, path, options, on_artifact or (lambda _: None), force=force)


def verify(bundle: Path | str, *, module: nn.Module | None = None, video: Path | str | None = None) -> VerifyResult:
    """Checks each artifact of a bundle over at least 16 consecutive steps and a reset, in its own runtime.

    The reference is the golden steps, which were recorded from the network at export. Given its ``module``, in eval mode, they are computed
    anew and compared with the recorded ones; with a ``video`` the steps are on the frames of that.

    Raises:
        ParityError: an artifact, or the module, computes something else than the golden steps.
        ClipstepError: the bundle is damaged, or an artifact is missing.
    """
    if video is not None and module is None:
        raise ClipstepError("a video needs the network to compute the reference with", got="no module", fix="give module=")
    with Bundle.open(Path(bundle)) as opened:
        if module is None:
            reference = Reference(GoldenSteps.of(opened))
        else:
            reference = fresh_reference(opened, reference_module(opened, module), None if video is None else Path(video))
        result = verify_opened(opened, reference)
    result.check_whole()
    return result


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """Each once; a single name may stand for a list of it."""
    return tuple(dict.fromkeys((given,) if isinstance(given, str) else given))
