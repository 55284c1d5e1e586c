"""The step contract: what is asked of a network, and what a step computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from clipstep.export.lowering.lower import lower
from clipstep.export.step import Step, program_of
from clipstep.export.targets import onnx
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.terminal import quiet
from clipstep.training.run import Run, RunInfo

MEAN, DEVIATION = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
SAMPLE = torch.randint(256, (2, 4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class Custom(nn.Module):
    """A network of a convolution, one state (the mean of its features) and a linear layer, misbehaving on request."""

    def __init__(self, change: Callable[[Tensor, Tensor, Tensor], Any] = lambda frames, logits, state: (logits, state)) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4, 2)
        self.change = change

    def initial_states(self) -> dict[str, Tensor]:
        return {"memory": torch.zeros(1, 4)}

    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        memory_out = memory.reshape(1, 4) * 0.5 + self.conv(frames).mean(dim=(2, 3, 4))
        return self.change(frames, self.linear(memory_out), memory_out)


class Clip(nn.Module):
    """A plain clip network: no states, and not even a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 3, 3), stride=2, padding=1)
        self.linear = nn.Linear(4, 2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(frames)).mean(dim=(2, 3, 4)))


def run_of(network: nn.Module) -> Run:
    return Run(network.eval(), RunInfo("custom", {}, ("yes", "no"), MEAN, DEVIATION, 25.0), SAMPLE)


def test_a_network_that_keeps_the_contract_is_a_program() -> None:
    program = program_of(run_of(Custom()))
    assert program.input_names == ["frames", "memory"] and program.output_names == ["logits", "memory_out"]
    assert torch.equal(program.frames, SAMPLE[0]) and program.labels == ("yes", "no")


class WritesItsState(Custom):
    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        logits, memory_out = super().forward(frames, memory)
        return logits, memory.copy_(memory_out)


class Deep(Custom):
    def initial_states(self) -> dict[str, Tensor]:
        return {"memory": torch.zeros(1, 4, 1, 1, 1)}


BREACHES: dict[str, tuple[nn.Module, str]] = {
    "writes into a state": (WritesItsState(), "the network writes into its input memory; expected a pure function; copy it before changing it"),
    "too many classes": (Custom(lambda f, y, s: (torch.cat([y, y], 1), s)), r"not the logits; got \(1, 4\) torch.float32; expected \(1, 2\)"),
    "logits without a batch": (Custom(lambda f, y, s: (y[0], s)), r"not the logits; got \(2,\) torch.float32; expected \(1, 2\)"),
    "no state returned": (Custom(lambda f, y, s: y), "another number of states; got 0; expected 1"),
    "a state too many": (Custom(lambda f, y, s: (y, s, s)), "another number of states; got 2; expected 1"),
    "a state of rank 5": (Deep(lambda f, y, s: (y, s.reshape(1, 4, 1, 1, 1))), r"memory does not fit.*\(1, 4, 1, 1, 1\).*expected rank 4 or less"),
    "a state that grows": (Custom(lambda f, y, s: (y, torch.cat([s, s], 1))), r"memory does not fit.*got \(1, 4\) torch.float32 in, \(1, 8\)"),
    "a state of another type": (Custom(lambda f, y, s: (y, s.double())), "memory does not fit.*torch.float32 in.*torch.float64 out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_the_contract_is_named(name: str) -> None:
    network, text = BREACHES[name]
    with pytest.raises(ClipstepError, match=text):
        program_of(run_of(network))


class WritesItsFrames(Custom):
    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        return super().forward(frames.mul_(2), memory)


def test_frames_may_be_written_to_by_the_network_because_it_sees_a_normalised_copy() -> None:
    program = program_of(run_of(WritesItsFrames()))
    before = program.frames.clone()
    program.step(*program.inputs)
    assert torch.equal(program.frames, before)


def test_a_step_is_normalisation_and_then_the_network() -> None:
    network = Custom().eval()
    pixels = SAMPLE[1].numpy().astype(np.float64)
    by_hand = torch.from_numpy(((pixels - MEAN) / DEVIATION).transpose(3, 0, 1, 2)[None].astype(np.float32))
    memory = torch.rand(1, 4)
    expected = network(by_hand, memory)
    for frames in (SAMPLE[1], SAMPLE[1].float()):
        for value, wanted in zip(Step(network, MEAN, DEVIATION)(frames, memory), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6)


def test_a_plain_clip_network_has_no_states_and_exports(tmp_path: Path) -> None:
    torch.manual_seed(5)
    program = program_of(run_of(Clip()))
    assert program.states == {} and program.input_names == ["frames"] and program.output_names == ["logits"]
    with quiet():
        onnx.write(lower(program.step, program.inputs), program, "float32", "{}", tmp_path / "clip.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "clip.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"frames": SAMPLE[1].numpy()})
    np.testing.assert_allclose(logits, program.step(SAMPLE[1])[0].detach().numpy(), rtol=0, atol=1e-5)
