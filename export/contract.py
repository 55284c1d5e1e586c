"""Checks a network against the step contract before any work is done: names, types and shapes of inputs and outputs, and purity."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipstep.export.choices import ADAPTERS
from clipstep.export.outputs import RANKS, kind_of
from clipstep.export.purity.check import PurityCheck
from clipstep.export.source_lines import describe_error, line_of_error
from clipstep.export.targets import TARGETS
from clipstep.runtime.errors import ClipstepError

ADAPTERS_PAGE = "docs/adapters.md"
RETURNS = "the logits, or a tuple of them and the next states"


def initial_states_of(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of the network's initial states, by name.

    Raises:
        ClipstepError: `initial_states()` fails or returns something else; a name, type, rank or value is not allowed in a bundle.
    """
    given: Any = getattr(network, "initial_states", dict)
    try:
        states = given()
    except Exception as error:  # User code may raise anything.
        raise ClipstepError("initial_states() fails", got=describe_error(error), fix=f"it comes from {line_of_error(error)}") from error
    if not isinstance(states, Mapping):
        raise ClipstepError(
            "initial_states() does not return a dictionary", got=kind_of(states), expected='a dictionary such as {"memory": torch.zeros(1, 8)}'
        )
    _check_names(list(states))
    for name, value in states.items():
        _check_state(name, value)
    return {name: value.detach().clone() for name, value in states.items()}


def input_names(states: Sequence[str]) -> list[str]:
    """Return the names of a step's inputs."""
    return ["frames", *states]


def output_names(states: Sequence[str], kept: Sequence[str] = ()) -> list[str]:
    """Return the names of a step's outputs, of which `kept` are beside the logits and the next states."""
    return ["logits", *(f"{name}_out" for name in states), *kept]


def check_modules(network: nn.Module) -> None:
    """Check that torch.export can capture the modules, and that they compute in float32.

    Raises:
        ClipstepError: a module was compiled by TorchScript, so that it holds no Python code to capture, or was quantised by
            `torch.ao.quantization`, so that it holds an object of TorchScript; or `torch.autocast` is on.
    """
    if torch.is_autocast_enabled("cpu"):
        raise ClipstepError("torch.autocast is on, so that the network computes in half precision", expected="float32", fix="export outside of it")
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ClipstepError(
                f"{name or 'the network'} is a TorchScript module, which torch.export cannot capture",
                got=module.original_name,
                expected="the Python module that it was made of",
                fix="build that, and load its weights: load_state_dict(scripted.state_dict())",
            )
        if any(isinstance(value, torch.ScriptObject) for value in vars(module).values()):
            raise ClipstepError(
                f"{name or 'the network'} is quantised, and torch.export cannot capture it",
                got=f"{type(module).__module__}.{type(module).__name__}",
                expected="weights of float32",
                fix="export the network as it was before it was quantised",
            )


def too_large(network: nn.Module, target: str) -> ClipstepError | None:
    """Return the error for weights that a target's files cannot hold; None if they can."""
    size, limit = sum(value.nbytes for value in {*network.parameters(), *network.buffers()}), TARGETS[target].weight_limit
    if limit is None or size <= limit:
        return None
    return ClipstepError(
        f"the network is too large for the target {target}",
        got=f"{size / 1e9:.2f} GB of weights",
        expected=f"at most {limit / 1e9:.2f} GB, because a file is one message of at most 2 GiB",
        fix="export other targets",
    )


def check_weights(network: nn.Module) -> None:
    """Check the parameters and buffers.

    Raises:
        ClipstepError: one is not of float32 or whole numbers, sparse, quantised or nested, not on the CPU, or not initialised yet.
    """
    held = {**network.state_dict(keep_vars=True), **dict(network.named_buffers())}
    for name, value in held.items():
        if not isinstance(value, Tensor):  # The result of a module's get_extra_state().
            continue
        if nn.parameter.is_lazy(value):
            raise ClipstepError(
                f"{name} is not initialised", got="a lazy module", fix="run the network once in the factory, or load its weights there"
            )
        if value.is_nested or value.is_quantized or value.layout != torch.strided:
            kind = "nested" if value.is_nested else "quantised" if value.is_quantized else value.layout
            raise ClipstepError(
                f"{name} is no plain tensor",
                got=kind,
                expected="a dense tensor of float32",
                fix="call .to_dense() or .dequantize()",
            )
        if value.device.type != "cpu":
            fix = "load its weights on the CPU" if value.is_meta else "call .cpu()"
            raise ClipstepError(f"{name} is on another device", got=value.device, expected="cpu", fix=fix)
        if value.is_inference() and value.requires_grad:
            raise ClipstepError(f"{name} was made in torch.inference_mode()", fix="make the network and load its weights outside of it")
        if (value.is_floating_point() or value.is_complex()) and value.dtype != torch.float32:
            raise ClipstepError(f"{name} has the wrong dtype", got=value.dtype, expected=torch.float32, fix="call .float()")


@torch.no_grad()
def check_step(
    network: nn.Module,
    step: Callable[..., tuple[Any, ...]],
    inputs: Mapping[str, Tensor],
    classes: int,
    others: Sequence[Tensor],
    kept: Collection[str] = (),
    advice: Callable[[], str | None] = lambda: None,
) -> None:
    """Run the step on `inputs` (the frames, then the states) and on the other frames `others`, and check its outputs and its purity.

    The last of its outputs are those in `kept`; `advice` finds the adapter that would help a network that fails.

    Raises:
        ClipstepError: it fails; it writes into an input; its outputs are not the logits and the next states; it is not pure.
    """
    purity = PurityCheck(network, step, tuple(inputs.values()))
    try:
        outputs = purity.run_first()
    except ClipstepError:
        raise
    except Exception as error:  # User code may raise anything.
        raise _failed_step(error, advice()) from error
    states = dict(list(inputs.items())[1:])
    _check_outputs(outputs[: len(outputs) - len(kept)], states, classes)
    written = purity.written_input(list(inputs))
    if written is not None:
        name, line = written
        raise ClipstepError(
            f"the network writes into its input {name}", expected="a pure function", fix=f"copy it before changing it; it comes from {line}"
        )
    purity.check(others)
    for name, value in zip(output_names(list(states), list(kept)), outputs, strict=True):
        _check_output(network, name, value)


def _failed_step(error: Exception, adapter: str | None) -> ClipstepError:
    fix = f"it comes from {line_of_error(error)}"
    if adapter is not None:
        fix += f"; it runs with --adapter {adapter}: it takes {ADAPTERS[adapter.partition(':')[0]][1]} ({ADAPTERS_PAGE})"
    elif any(word in str(error) for word in ("CUDA", "NVIDIA", "cuda")):
        fix += "; make tensors on the device of the frames, as in torch.zeros(1, device=frames.device), and call no .cuda() in forward"
    return ClipstepError("the network cannot run a step", got=describe_error(error), fix=fix)


def _check_names(names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise ClipstepError("a state's name is not valid in every format", got=repr(name), expected="letters, digits and _, such as memory")
    every = Counter((*input_names(names), *output_names(names)))
    for name in names:
        twice = next((one for one in (name, f"{name}_out") if every[one] > 1), None)
        if twice is not None:
            got = f"inputs {', '.join(input_names(names))} and outputs {', '.join(output_names(names))}"
            raise ClipstepError(
                f"state {name}: the step would have two values called {twice}", got=got, expected="each name once", fix="rename the state"
            )


def _check_state(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ClipstepError(f"state {name} is not a tensor", got=kind_of(value), expected="its value before a video, such as torch.zeros(1, 8)")
    if value.dtype != torch.float32:
        raise ClipstepError(f"state {name} has the wrong dtype", got=value.dtype, expected=torch.float32, fix="call .float()")
    if value.ndim not in RANKS or not value.numel():
        raise ClipstepError(
            f"state {name} does not fit the contract",
            got=f"{tuple(value.shape)} {value.dtype}",
            expected="rank 4 or less, at least 1, and no axis of length 0",
            fix=f"reshape it, for example to {'(1, channels * frames, height, width)' if value.ndim > max(RANKS) else '(1, 1)'}",
        )
    if value.device.type != "cpu":
        raise ClipstepError(f"state {name} is on another device", got=value.device, expected="cpu", fix="call .cpu()")
    first = value.detach().flatten()[0]
    if not bool(value.isfinite().all()):
        raise ClipstepError(f"state {name}: its initial value is not finite", got=float(first), expected="a number, such as 0")
    if bool((value != first).any()):
        raise ClipstepError(f"state {name}: its initial value differs from element to element", expected="one number for all elements")


def _check_outputs(outputs: tuple[Any, ...], states: Mapping[str, Tensor], classes: int) -> None:
    logits, *following = outputs or (None,)
    if not isinstance(logits, Tensor):
        raise ClipstepError("the network does not return its logits as a tensor", got=kind_of(logits), expected=RETURNS)
    if logits.shape != (1, classes) or logits.dtype != torch.float32:
        expected = f"{(1, classes)} {torch.float32}"
        raise ClipstepError("the first output is not the logits", got=f"{tuple(logits.shape)} {logits.dtype}", expected=expected)
    if len(following) != len(states):
        raise ClipstepError(
            "the network returns the wrong number of states",
            got=len(following),
            expected=len(states),
            fix="if others of its outputs come first, name the logits: --output 0" if len(following) > len(states) else None,
        )
    for (name, old), new in zip(states.items(), following, strict=True):
        if not isinstance(new, Tensor):
            raise ClipstepError(f"the next {name} is not a tensor", got=kind_of(new), expected=f"{tuple(old.shape)} {old.dtype}")
        if new.shape != old.shape or new.dtype != old.dtype:
            raise ClipstepError(
                f"state {name} does not fit the contract",
                got=f"{tuple(old.shape)} {old.dtype} in, {tuple(new.shape)} {new.dtype} out",
                expected="the same shape and type in and out",
            )


def _check_output(network: nn.Module, name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        raise ClipstepError(f"{name} is not finite", got="not-a-number or infinity at the first step", fix="check the weights and the normalisation")
    owned = {tensor.untyped_storage().data_ptr(): owner for owner, tensor in (*network.named_parameters(), *network.named_buffers())}
    if value.untyped_storage().data_ptr() in owned:
        raise ClipstepError(
            f"{name} is a tensor of the network itself",
            got=owned[value.untyped_storage().data_ptr()],
            expected="one computed in the step",
            fix="return a copy: .clone()",
        )
