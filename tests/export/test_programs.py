"""Random networks are exported whole and equal to eager PyTorch, or refused with the operator and the line: there is no third end.

`make test-programs` tries thousands of them on all targets.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from programs import CLASSES, FRAMES, PROGRAMS, SIZE, Call, Program
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from clipstep.export import export
from clipstep.export.golden_steps import GOLDEN_STEPS
from clipstep.export.sample import SAMPLE_SUBCLIPS
from clipstep.network import normalise
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.synthetic_frames import synthetic_subclips

pytestmark = pytest.mark.long
PROGRAMS_TRIED = {"onnx": 150, "executorch": 40, "coreml": 10}
"""How many programs each target gets, unless the environment gives another number for all."""
COUNT = int(os.environ.get("PROGRAMS", "0"))
CHUNK = 10
"""How many programs one test tries, so that the tests are short and can be spread over processes."""
PRECISIONS = {"onnx": "float32", "executorch": "float32", "coreml": "float16"}
"""The lowest precision that each target is exported in: Core ML's networks are of float16 as well, so that more of them are left out."""
CHUNKS = [(target, first) for target, count in PROGRAMS_TRIED.items() for first in range(0, COUNT or count, CHUNK)]
ROUNDED = {"float32": (torch.float32, 3e-7), "float16": (torch.float16, 1e-3)}
"""What each operation of PyTorch is rounded to, and by how much the frames, numbers of about 2, are changed."""
MEAN, STD = 114.0, 57.0


class Rounding(TorchDispatchMode):
    """Rounds the result of every operation to a type, as an engine of that precision does."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map(lambda x: x.to(self.dtype).float() if _is_float(x) else x, func(*args, **(kwargs or {})))


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float32


def _results(network: Program, clips: Tensor) -> list[Tensor]:
    """Return all outputs `(steps, elements)` of a stream of clips."""
    states, results = tuple(network.initial_states().values()), []
    for clip in clips:
        result = network(clip, *states)
        states = result[1:]
        results.append([value.flatten() for value in result])
    return [torch.stack(values) for values in zip(*results, strict=True)]


def _is_well_conditioned(network: Program, precision: str) -> bool:
    """Whether rounding errors in the golden frames and of each operation change every output by less than a quarter of what an artifact may be off.

    A sort or a comparison of nearly equal numbers, or a norm of nearly equal ones, makes something else of rounding errors.
    """
    dtype, amount = ROUNDED[precision]
    frames = torch.from_numpy(synthetic_subclips(SAMPLE_SUBCLIPS, FRAMES, SIZE, SIZE))
    clips = normalise(frames[torch.arange(GOLDEN_STEPS) % len(frames)], (MEAN,) * 3, (STD,) * 3)[:, None]
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(2)).sign() * amount
    with torch.no_grad():
        exact, *others = [_results(network, value) for value in (clips, clips + noise, clips - noise)]
        with Rounding(dtype):
            others.append(_results(network, clips))
    for place, value in enumerate(exact):
        scale = float(value.amax() - value.amin())
        error = max(float((value - other[place]).abs().max()) for other in others)
        if not (0 < scale < torch.inf and error <= BOUNDS[precision] * scale / 4):
            return False
    return True


@pytest.mark.parametrize(("target", "first"), CHUNKS)
def test_a_random_network_is_exported_exactly_or_refused_in_words(target: str, first: int) -> None:
    """The same programs every time, unless their number is given. The first of each chunk is always the simplest, so that there is one more."""
    precision = PRECISIONS[target]
    phases = [Phase.generate, *([Phase.shrink] if COUNT else [])]

    @settings(max_examples=CHUNK + 1, phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @(seed(first) if not COUNT else lambda function: function)
    @given(program=PROGRAMS)
    def check(program: tuple[list[Call], list[str]]) -> None:
        network = Program(*program).eval()
        try:
            conditioned = _is_well_conditioned(network, precision)
        except (RuntimeError, IndexError, ValueError, UserWarning):  # PyTorch itself refuses the operations in this order, or warns of one.
            assume(False)
        assume(conditioned)
        labels = [f"label {place}" for place in range(CLASSES)]
        with tempfile.TemporaryDirectory() as folder, quiet():
            bundle = Path(folder) / "program.clipstep"
            try:
                export(network, bundle, frames=FRAMES, size=SIZE, labels=labels, mean=(MEAN,) * 3, std=(STD,) * 3, fps=25.0, targets=[target])
            except ClipstepError as error:
                assert "no lowering for " in str(error) and f'File "{Path(__file__).parents[1] / "shared/programs.py"}", line ' in str(error), error

    check()
