"""Exports a PyTorch video network as a bundle of verified artifacts.

Example:
    ```python
    from clipstep.export import export

    result = export(network.eval(), "mine.clipstep", frames=16, size=112, labels=("walk", "run"),
                    mean=(114.7, 114.7, 114.7), std=(57.4, 57.4, 57.4), fps=25)
    print(result.manifest.artifacts[0].parity.max_absolute_error)
    ```
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from clipstep.export.api import export, verify
    from clipstep.export.evaluating import EvaluatedArtifacts, EvaluationData
    from clipstep.export.factory import network_of_factory
    from clipstep.export.module import network_of_module
    from clipstep.export.options import ExportOptions
    from clipstep.export.pipeline import ExportResult, WrittenArtifact, export_network
    from clipstep.export.reference import network_of_run
    from clipstep.export.verification import StreamCheck, VerifiedArtifact, VerifyResult

__all__ = [
    "EvaluatedArtifacts",
    "EvaluationData",
    "ExportOptions",
    "ExportResult",
    "StreamCheck",
    "VerifiedArtifact",
    "VerifyResult",
    "WrittenArtifact",
    "export",
    "export_network",
    "network_of_factory",
    "network_of_module",
    "network_of_run",
    "verify",
]

__getattr__ = lazy_names(
    __name__,
    {
        "api": ("export", "verify"),
        "evaluating": ("EvaluatedArtifacts", "EvaluationData"),
        "factory": ("network_of_factory",),
        "module": ("network_of_module",),
        "options": ("ExportOptions",),
        "pipeline": ("ExportResult", "WrittenArtifact", "export_network"),
        "reference": ("network_of_run",),
        "verification": ("StreamCheck", "VerifiedArtifact", "VerifyResult"),
    },
)
