"""The step contract: what a network must look like so that clipstep can export it.

This package needs only PyTorch and the libraries that `clipstep.runtime` needs.

A network is any ``torch.nn.Module`` in eval mode, on the CPU, with float32 weights:

- ``forward(frames, *states)`` takes one subclip ``frames`` ``(N, 3, T, size, size)`` float32, normalised as below, and the states in the order
  of ``initial_states()``. It returns the logits ``(N, classes)`` alone, or a tuple of the logits and each next state.
- ``initial_states()`` returns the states before a video's first subclip as a dictionary from name to tensor, batch 1, for example
  ``{"memory": torch.zeros(1, 8)}``. A state is float32 of rank 4 or less, starts with the same number in all elements, and keeps its shape from
  step to step. A network without memory, a plain clip network, has no such method.
- ``forward`` is pure: its results depend on its arguments and the weights alone, and it changes neither. What has to be remembered from one
  subclip to the next is a state that is passed in and returned, never an attribute of the module.

Frames come from cameras and decoders as uint8 RGB ``(T, size, size, 3)``. Conversion, normalisation and the change of layout become part of
the exported artifact: ``(value - mean) / std`` for each channel, with ``mean`` and ``std`` in units of 0..255; `normalise` computes the same in
PyTorch. A network of two channels takes optical flow instead of RGB; one that takes images of other channels is described by `Images`, one
that takes the joints of skeletons by `Joints`.

Example:
    ```python
    class Gestures(nn.Module):
        def initial_states(self):
            return {"memory": torch.zeros(1, 32)}

        def forward(self, frames, memory):
            seen = self.body(frames).mean((2, 3, 4))  # (N, 32)
            memory = 0.9 * memory + 0.1 * seen
            return self.head(memory), memory
    ```

Such a module, together with the size of its frames, its normalisation, frame rate, labels and sample frames, is a `NetworkSpec`:
`clipstep.export.network_of_module`, `network_of_factory` and `network_of_run` make one.
`clipstep.export.export` takes the module and these facts directly, and checks all of the contract before it writes anything.
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from clipstep.network.inputs import Images, Joints
    from clipstep.network.preprocess import normalise
    from clipstep.network.spec import NetworkSpec
    from clipstep.network.videos import read_subclips

__all__ = ["Images", "Joints", "NetworkSpec", "normalise", "read_subclips"]

__getattr__ = lazy_names(
    __name__, {"inputs": ("Images", "Joints"), "preprocess": ("normalise",), "spec": ("NetworkSpec",), "videos": ("read_subclips",)}
)
