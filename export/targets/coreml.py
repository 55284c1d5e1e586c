"""Core ML, as an ML Program in an ``.mlpackage``."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.export import ExportedProgram

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools as ct
    from coremltools.converters.mil.mil import Program

import numpy as np

from clipstep.export.step import StepProgram
from clipstep.runtime.manifest import Placement

METADATA_KEY = "clipstep"
_exported: WeakKeyDictionary[nn.Module, ExportedProgram] = WeakKeyDictionary()
"""Of each graph, for its other precision."""


def write(graph: nn.Module, program: StepProgram, precision: str, metadata: str, path: Path) -> Placement:
    """Writes ``path`` with the metadata in the user-defined metadata ``clipstep``; frames are float32 holding 0..255.

    Core ML decides on the device which processor runs what, so the placement names the ML Program alone.
    """
    if graph not in _exported:
        _exported[graph] = torch.export.export(graph, (program.frames.float(), *program.states.values())).run_decompositions({})
    with _unchecked():
        model = ct.convert(
            _exported[graph],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16 if precision == "float16" else ct.precision.FLOAT32,
            # Named inputs would be taken in another order than the program's; without a type the outputs would be float16.
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in program.output_names],
        )
    spec = model.get_spec()
    for old, new in zip([value.name for value in spec.description.input], program.input_names, strict=True):
        ct.utils.rename_feature(spec, old, new, rename_outputs=False)
    model = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    model.user_defined_metadata[METADATA_KEY] = metadata
    model.save(str(path))
    operations = spec.mlProgram.functions["main"].block_specializations[spec.mlProgram.functions["main"].opset].operations
    return Placement(delegated={"ML Program": sum(operation.type != "const" for operation in operations)}, outside=())


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    """Without the check of the whole program after each of a hundred passes, which takes half the time: what comes out is evaluated."""
    with mock.patch.object(Program, "validate", lambda *_, **__: None):
        yield
