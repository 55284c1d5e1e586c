"""Random networks are exported whole and equal to eager PyTorch, or refused with the operator and the line: there is no third end.

`make test-programs` tries thousands of them on all targets.
"""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from programs import CLASSES, FRAMES, PROGRAMS, SIZE, Call, Program

from clipstep.export import export
from clipstep.runtime.command_line.terminal import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS

COUNT = int(os.environ.get("PROGRAMS", "0"))
"""How many programs each target gets; by default a few."""
ROUNDING = {"float32": 3e-7, "float16": 1e-3}
"""The rounding error of a number of about 2."""


def _is_well_conditioned(network: Program, rounding: float, share: float) -> bool:
    """Whether rounding errors of that size in the frames change the logits by less than a quarter of what an artifact may be off.

    `share` is that, as a share of how far the logits of different frames are apart. A sort or a comparison of nearly equal numbers, or a norm of
    nearly equal ones, makes something else of rounding errors.
    """
    frames = torch.rand(2, 1, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 4 - 2
    noise = torch.randn(frames[0].shape, generator=torch.Generator().manual_seed(2)).sign() * rounding
    states = tuple(network.initial_states().values())
    with torch.no_grad():
        results = [network(value, *states) for value in (*frames, frames[0] + noise, frames[0] - noise)]
    first, *others = [result[0] if isinstance(result, tuple) else result for result in results]
    apart, *errors = [float((first - other).abs().max()) for other in others]
    return 0 < apart < torch.inf and max(errors) <= share * apart / 4


@pytest.mark.parametrize(("target", "count", "precision"), [("onnx", 140, "float32"), ("executorch", 40, "float32"), ("coreml", 20, "float16")])
def test_a_random_network_is_exported_exactly_or_refused_in_words(target: str, count: int, precision: str) -> None:
    """Core ML's networks are of float16 as well, so that more of them are left out."""

    phases = [Phase.generate, *([Phase.shrink] if COUNT else [])]

    @settings(max_examples=COUNT or count, phases=phases, deadline=None, derandomize=not COUNT, suppress_health_check=list(HealthCheck))
    @given(program=PROGRAMS)
    def check(program: tuple[list[Call], bool]) -> None:
        network = Program(*program).eval()
        try:
            conditioned = _is_well_conditioned(network, ROUNDING[precision], BOUNDS[precision])
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
