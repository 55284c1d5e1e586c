"""The table of targets: a new one is a file ``target_NAME.py`` and a line here.

What else has to name targets, the manifest's schema, the writers of ``clipstep.export`` and the Kotlin runtime, is compared with it by
``tests/runtime/test_targets.py``.
"""

from pathlib import Path

from clipstep.runtime.checks.present import check_present
from clipstep.runtime.target import PlaceName, TargetInfo
from clipstep.runtime.target_coreml import COREML
from clipstep.runtime.target_executorch import EXECUTORCH
from clipstep.runtime.target_onnx import ONNX

TARGETS: dict[str, TargetInfo] = {"onnx": ONNX, "executorch": EXECUTORCH, "coreml": COREML}


def targets_at(place: PlaceName) -> tuple[str, ...]:
    """The names of the targets that run there."""
    return tuple(name for name, info in TARGETS.items() if place in info.places)


def by_suffix(path: Path) -> TargetInfo | None:
    """The target of a lone file, by its name."""
    return next((info for info in TARGETS.values() if info.suffix == path.suffix), None)


def check_file(target: str, path: Path) -> None:
    """Checks the artifact ``path`` of that target before an engine sees it.

    Raises:
        ClipstepError: it is absent or empty; it names other files, needs code that is not its engine's, or its parts point outside it.
    """
    check_present(path, "export it again")
    check = TARGETS[target].check
    if check is not None:
        check(path)
