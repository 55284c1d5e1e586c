"""Random networks are exported whole and equal to eager PyTorch, or refused with the operator and the line: there is no third end.

`make test-programs` tries thousands of them on all targets.
"""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from programs import CLASSES, FRAMES, PROGRAMS, SIZE, Call, Program

from clipstep.export import export
from clipstep.runtime.command_line.terminal import quiet
from clipstep.runtime.errors import ClipstepError

COUNT = int(os.environ.get("PROGRAMS", "0"))
"""How many programs each target gets; by default a few."""


def _is_well_conditioned(network: Program, rounding: float = 3e-6) -> bool:
    """Whether rounding of that size does not change the result: a sort or a comparison of nearly equal numbers would make it another one."""
    frames = torch.rand(1, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 4 - 2
    states = tuple(network.initial_states().values())
    with torch.no_grad():
        results = [network(frames + noise, *states) for noise in (0.0, rounding, -rounding)]
        logits = [result[0] if isinstance(result, tuple) else result for result in results]
    finite = bool(torch.isfinite(torch.stack(logits)).all())
    return finite and all(torch.allclose(logits[0], other, rtol=1e-3, atol=7 * rounding) for other in logits[1:])


@pytest.mark.parametrize(("target", "count", "rounding"), [("onnx", 140, 3e-6), ("executorch", 40, 3e-6), ("coreml", 20, 2e-3)])
def test_a_random_network_is_exported_exactly_or_refused_in_words(target: str, count: int, rounding: float) -> None:
    """Core ML's networks are of float16 as well, so that more of them are left out."""

    @settings(max_examples=COUNT or count, deadline=None, derandomize=not COUNT, suppress_health_check=list(HealthCheck))
    @given(program=PROGRAMS)
    def check(program: tuple[list[Call], bool]) -> None:
        network = Program(*program).eval()
        try:
            conditioned = _is_well_conditioned(network, rounding)
        except (RuntimeError, IndexError, ValueError):  # PyTorch itself refuses the operations in this order.
            assume(False)
        assume(conditioned)
        labels = [f"label {place}" for place in range(CLASSES)]
        with tempfile.TemporaryDirectory() as folder, quiet():
            bundle = Path(folder) / "program.clipstep"
            try:
                export(network, bundle, frames=FRAMES, size=SIZE, labels=labels, mean=(114.0,) * 3, std=(57.0,) * 3, fps=25.0, targets=[target])
            except ClipstepError as error:
                assert "no lowering for " in str(error) and f'File "{Path(__file__).parents[1] / "shared/programs.py"}", line ' in str(error), error

    check()
