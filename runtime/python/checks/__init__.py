"""What is checked of an artifact before an engine sees it; each file has the checks of one format."""

from collections.abc import Callable
from pathlib import Path

from clipstep.runtime.checks.onnx import check_onnx
from clipstep.runtime.checks.present import check_present

CHECKS: dict[str, Callable[[Path], None]] = {"onnx": check_onnx}


def check_file(target: str, path: Path) -> None:
    """Checks the artifact ``path`` of that target.

    Raises:
        ClipstepError: it is absent or empty; it names other files, needs code that is not its engine's, or its parts point outside it.
    """
    check_present(path, "export it again")
    check = CHECKS.get(target)
    if check is not None:
        check(path)
