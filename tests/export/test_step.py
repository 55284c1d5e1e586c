"""The step contract: what is required of a network, and what a step computes."""

import warnings
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
from clipstep.export.targets import onnx, onnx_writer
from clipstep.runtime.command_line.streams import quiet
from clipstep.runtime.errors import ClipstepError
from clipstep.training.run import Run, RunInfo

MEAN, STD = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
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
    """A plain clip network without states, which returns a tensor and no tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 3, 3), stride=2, padding=1)
        self.linear = nn.Linear(4, 2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(frames)).mean(dim=(2, 3, 4)))


def run_of(network: nn.Module) -> Run:
    return Run(network.eval(), RunInfo("custom", {}, ("yes", "no"), MEAN, STD, 25.0), SAMPLE)


def test_a_network_that_fulfils_the_contract_becomes_a_program() -> None:
    program = program_of(run_of(Custom()).spec())
    assert program.input_names == ["frames", "memory"] and program.output_names == ["logits", "memory_out"]
    assert torch.equal(program.frames, SAMPLE[0]) and program.labels == ("yes", "no")


class WritesItsState(Custom):
    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        logits, memory_out = super().forward(frames, memory)
        return logits, memory.copy_(memory_out)


class Starts(Custom):
    """Has the given initial states, and any number of inputs."""

    def __init__(self, states: Any, change: Callable[..., Any] = lambda logits, *states: (logits, *states)) -> None:
        super().__init__()
        self.states, self.change = states, change

    def initial_states(self) -> Any:
        return self.states() if callable(self.states) else self.states

    def forward(self, frames: Tensor, *states: Tensor) -> Any:
        return self.change(self.linear(self.conv(frames).mean(dim=(2, 3, 4))), *(state * 0.5 for state in states))


def zeros(*names: str, shape: tuple[int, ...] = (1, 4), dtype: torch.dtype = torch.float32) -> Starts:
    return Starts({name: torch.zeros(shape, dtype=dtype) for name in names})


def fails() -> None:
    raise KeyError("memory")


class Own(Starts):
    """Returns one of its own tensors as the next state."""

    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        return super().forward(frames)[0] + memory.mean(), self.conv.bias[None]


def _with_buffer(value: Tensor) -> nn.Module:
    network = Clip()
    network.register_buffer("odd", value)
    return network


def _made_for_inference() -> nn.Module:
    with torch.inference_mode():
        return Clip()


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(Clip(), nn.Linear(2, 2)).eval(), {nn.Linear})
    return quantised


def _fails(error: Exception) -> Tensor:
    raise error


BREACHES: dict[str, tuple[nn.Module, str]] = {
    "writes into a state": (WritesItsState(), "the network writes into its input memory; expected a pure function; copy it before changing it"),
    "too many classes": (Custom(lambda f, y, s: (torch.cat([y, y], 1), s)), r"not the logits; got \(1, 4\) torch.float32; expected \(1, 2\)"),
    "logits without a batch": (Custom(lambda f, y, s: (y[0], s)), r"not the logits; got \(2,\) torch.float32; expected \(1, 2\)"),
    "no state returned": (Custom(lambda f, y, s: y), "the wrong number of states; got 0; expected 1"),
    "a state too many": (Custom(lambda f, y, s: (y, s, s)), "the wrong number of states; got 2; expected 1"),
    "a state of rank 5": (zeros("memory", shape=(1, 4, 1, 1, 1)), r"memory does not fit.*\(1, 4, 1, 1, 1\).*expected rank 4 or less"),
    "a state of rank 0": (zeros("memory", shape=()), r"memory does not fit.*got \(\) torch.float32; expected rank 4 or less, at least 1.*\(1, 1\)"),
    "a state of nothing": (zeros("memory", shape=(1, 0)), r"memory does not fit.*got \(1, 0\).*no axis of length 0"),
    "a state of whole numbers": (
        zeros("position", dtype=torch.int64),
        r"state position has the wrong dtype; got torch.int64; expected torch.float32",
    ),
    "a state called frames": (zeros("frames"), "state frames: the step would have two values called frames; got inputs frames, frames and outputs"),
    "a state called logits": (zeros("logits"), "state logits: the step would have two values called logits"),
    "a state called like another's output": (zeros("a", "a_out"), "state a: the step would have two values called a_out"),
    "a state of two words": (zeros("my memory"), "a state's name is not valid in every format; got 'my memory'; expected letters, digits and _"),
    "a state that has a number": (Starts({1: torch.zeros(1, 4)}), "a state's name is not valid in every format; got 1"),
    "states in a list": (
        Starts([torch.zeros(1, 4)]),
        "initial_states\\(\\) does not return a dictionary; got a list of 1; expected a dictionary such as",
    ),
    "no states after all": (Starts(lambda: None), "initial_states\\(\\) does not return a dictionary; got nothing"),
    "states that are no tensors": (Starts({"memory": [0.0]}), "state memory is not a tensor; got a list of 1; expected its value before a video"),
    "states that fail": (Starts(fails), 'initial_states\\(\\) fails; got KeyError: .memory.; it comes from .*test_step.py", line \\d+, in fails'),
    "states that differ": (Starts({"memory": torch.arange(4.0)[None]}), "state memory: its initial value differs from element to element"),
    "states without numbers": (Starts({"memory": torch.full((1, 4), torch.nan)}), "state memory: its initial value is not finite; got nan"),
    "a state that is a weight": (Own({"memory": torch.zeros(1, 4)}), "memory_out is a tensor of the network itself; got conv.bias.*copy: .clone"),
    "nothing": (Starts({}, lambda y: None), "does not return its logits as a tensor; got nothing; expected the logits"),
    "an empty tuple": (Starts({}, lambda y: ()), "does not return its logits as a tensor; got nothing"),
    "states in a tuple": (Custom(lambda f, y, s: (y, (s,))), r"the next memory is not a tensor; got a tuple of 1; expected \(1, 4\) torch.float32"),
    "logits that are no numbers": (Starts({}, lambda y: y / 0 * 0), "logits is not finite; got not-a-number or infinity at the first step"),
    "half precision": (Clip().half(), "conv.weight has the wrong dtype; got torch.float16; expected torch.float32; call .float"),
    "a TorchScript module": (nn.Sequential(torch.jit.script(Clip()), nn.Identity()), "0 is a TorchScript module, which torch.export.*got Clip;"),
    "a traced module": (torch.jit.trace(Clip().eval(), torch.rand(1, 3, 4, 8, 8)), "the network is a TorchScript module"),
    "a lazy layer": (nn.Sequential(nn.LazyConv3d(2, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten()), "0.weight is not initialised; got a lazy module"),
    "a network without numbers": (Clip().to("meta"), "conv.weight is on another device; got meta; expected cpu; load its weights on the CPU"),
    "weights made for inference": (_made_for_inference(), r"conv.weight was made in torch.inference_mode\(\); make the network and load its weights"),
    "quantised layers": (
        _quantised(),
        "0.linear._packed_params is quantised, and torch.export cannot capture it; got .*LinearPackedParams; expected weights of float32",
    ),
    "a sparse buffer": (_with_buffer(torch.eye(2).to_sparse()), r"odd is no plain tensor; got torch.sparse_coo; expected a dense tensor"),
    "a buffer of MKL-DNN": (_with_buffer(torch.ones(2, 2).to_mkldnn()), "odd is no plain tensor; got torch._mkldnn"),
    "a complex buffer": (_with_buffer(torch.zeros(2, dtype=torch.complex64)), r"odd has the wrong dtype; got torch.complex64"),
    "bfloat16": (Clip().bfloat16(), r"conv.weight has the wrong dtype; got torch.bfloat16; expected torch.float32; call .float"),
    "a tensor for a GPU": (
        Custom(lambda f, y, s: (_fails(RuntimeError("Found no NVIDIA driver on your system")), s)),
        r"cannot run a step; got RuntimeError: Found no NVIDIA driver.*make tensors on the device of the frames.*call no .cuda\(\) in forward",
    ),
    "random numbers": (
        Custom(lambda f, y, s: (y + torch.rand(1, 2), s)),
        r"not deterministic: .*test_step.py.*random numbers of aten.rand.default in forward",
    ),
    "a state that grows": (Custom(lambda f, y, s: (y, torch.cat([s, s], 1))), r"memory does not fit.*got \(1, 4\) torch.float32 in, \(1, 8\)"),
    "a state of another type": (Custom(lambda f, y, s: (y, s.double())), "memory does not fit.*torch.float32 in.*torch.float64 out"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_the_contract_is_named(name: str) -> None:
    network, text = BREACHES[name]
    with pytest.raises(ClipstepError, match=text):
        program_of(run_of(network).spec())


def test_autocast_is_refused_because_the_reference_would_be_of_half_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ClipstepError, match=r"torch\.autocast is on, .*; export outside of it"):
        program_of(run_of(Clip()).spec())


def test_a_line_is_named_where_there_is_one() -> None:
    with pytest.raises(ClipstepError, match=r"input memory;.*it comes from .*test_step\.py:\d+, in forward"):
        program_of(run_of(WritesItsState()).spec())


def test_initial_states_are_copied() -> None:
    """Initial states may share memory with each other or with the network: a change of one copy changes nothing else."""
    one = torch.zeros(1, 4)
    program = program_of(run_of(Starts({"a": one, "b": one})).spec())
    program.states["a"] += 1
    assert not program.states["b"].any() and not one.any()


class WritesItsFrames(Custom):
    def forward(self, frames: Tensor, memory: Tensor) -> Any:
        return super().forward(frames.mul_(2), memory)


def test_frames_may_be_written_to_by_the_network_because_it_sees_a_normalised_copy() -> None:
    program = program_of(run_of(WritesItsFrames()).spec())
    before = program.frames.clone()
    program.step(*program.inputs)
    assert torch.equal(program.frames, before)


def test_a_step_is_normalisation_and_then_the_network() -> None:
    network = Custom().eval()
    pixels = SAMPLE[1].numpy().astype(np.float64)
    by_hand = torch.from_numpy(((pixels - MEAN) / STD).transpose(3, 0, 1, 2)[None].astype(np.float32))
    memory = torch.rand(1, 4)
    expected = network(by_hand, memory)
    for frames in (SAMPLE[1], SAMPLE[1].float()):
        for value, wanted in zip(Step(network, MEAN, STD)(frames, memory), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6)


def test_a_plain_clip_network_has_no_states_and_exports(tmp_path: Path) -> None:
    torch.manual_seed(5)
    program = program_of(run_of(Clip()).spec())
    assert program.states == {} and program.input_names == ["frames"] and program.output_names == ["logits"]
    with quiet():
        onnx_writer.write(lower(program.step, program.inputs, onnx.PROFILE), program, "float32", "{}", tmp_path / "clip.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "clip.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"frames": SAMPLE[1].numpy()})
    np.testing.assert_allclose(logits, program.step(SAMPLE[1])[0].detach().numpy(), rtol=0, atol=1e-5)
