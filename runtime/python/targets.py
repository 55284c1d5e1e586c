"""The table of targets, with what a runtime must know of each: a new one is a file `target_NAME.py` and a line here.

What an export must know of a target is in `clipstep.export.targets`, in the same order. Everything else derives from these two tables,
or is compared with them by `tests/package/test_targets.py`.
"""

from pathlib import Path

from clipstep.runtime.checks.present import check_present
from clipstep.runtime.target import DestinationName, TargetInfo
from clipstep.runtime.target_coreml import COREML
from clipstep.runtime.target_executorch import EXECUTORCH
from clipstep.runtime.target_onnx import ONNX

TARGETS: dict[str, TargetInfo] = {
    ONNX.name: ONNX,
    EXECUTORCH.name: EXECUTORCH,
    COREML.name: COREML,
}


def targets_for(destination: DestinationName) -> tuple[str, ...]:
    """Return the names of the targets that run at a destination."""
    return tuple(name for name, info in TARGETS.items() if destination in info.destinations)


def by_suffix(path: Path) -> TargetInfo | None:
    """Return the target that has a file's suffix; None if there is none."""
    return next((info for info in TARGETS.values() if info.suffix == path.suffix), None)


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all targets' files."""
    return tuple(info.suffix for info in TARGETS.values())


def check_artifact_file(target: str, path: Path) -> None:
    """Check the artifact `path` of that target before an engine loads it.

    Raises:
        ClipstepError: it is absent or empty; or it is not self-contained, because its tensors lie in other files, or because it needs operators
            that its engine does not have.
    """
    check_present(path, "export it again")
    check = TARGETS[target].check
    if check is not None:
        check(path)
