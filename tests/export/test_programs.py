"""Random networks are exported whole and equal to eager PyTorch, or refused with the operator and the line: there is no third end.

`make test-programs` tries thousands of them on all targets.
"""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from programs import CLASSES, FRAMES, PROGRAMS, SIZE, Call, Program

from clipstep.export import export
from clipstep.runtime.command_line.terminal import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS

PROGRAMS_TRIED = {"onnx": 150, "executorch": 40, "coreml": 10}
"""How many programs each target gets, unless the environment gives another number for all."""
COUNT = int(os.environ.get("PROGRAMS", "0"))
CHUNK = 10
"""How many programs one test tries, so that the tests are short and can be spread over processes."""
PRECISIONS = {"onnx": "float32", "executorch": "float32", "coreml": "float16"}
"""The lowest precision that each target is exported in: Core ML's networks are of float16 as well, so that more of them are left out."""
CHUNKS = [(target, first) for target, count in PROGRAMS_TRIED.items() for first in range(0, COUNT or count, CHUNK)]
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


@pytest.mark.parametrize(("target", "first"), CHUNKS)
def test_a_random_network_is_exported_exactly_or_refused_in_words(target: str, first: int) -> None:
    """The same programs every time, unless their number is given. The first of each chunk is always the simplest, so that there is one more."""
    precision = PRECISIONS[target]
    phases = [Phase.generate, *([Phase.shrink] if COUNT else [])]

    @settings(max_examples=CHUNK + 1, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @(seed(first) if not COUNT else lambda function: function)
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
