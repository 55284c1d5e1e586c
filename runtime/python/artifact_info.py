"""Read a lone artifact with the tools of its format: inputs, outputs, operations, and the metadata that clipstep embedded in it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clipstep.runtime.bundle.embedded_metadata import parse_interface
from clipstep.runtime.bundle.hashes import tree_size
from clipstep.runtime.bundle.manifest import Interface
from clipstep.runtime.checks.present import check_present
from clipstep.runtime.command_line.streams import quiet_stderr
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra
from clipstep.runtime.io_check import expected_tensors
from clipstep.runtime.target import Tensor
from clipstep.runtime.targets import by_suffix, suffixes


class ArtifactInfo(BaseModel):
    """A lone artifact: what its file declares, and the metadata that clipstep embedded in it."""

    model_config = ConfigDict(frozen=True)
    file: str
    target: str
    size_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operations: dict[str, int]
    """The number of nodes by type; an ExecuTorch delegate counts as one call."""
    weights_bytes: int | None
    """The size of the weights in bytes; None if the format does not say."""
    written_by: str
    interface: Interface | None
    """The metadata that clipstep embedded; None if there is none."""
    ignored_keys: tuple[str, ...] = ()
    """The keys of the metadata that were not read, because a newer minor version of the format added them."""


def read_artifact(path: Path) -> ArtifactInfo:
    """Read a lone artifact of any target.

    Raises:
        ClipstepError: there is no such file; it is damaged or of another kind; the tools to read it are not installed; or the metadata that
            clipstep embedded does not fit the file's inputs and outputs.
    """
    target = by_suffix(path)
    if target is None:
        raise ClipstepError(f"{path}: is not an artifact", expected=f"a bundle, or a file that ends in {', '.join(suffixes())}")
    check_present(path, "check the path")
    try:
        with quiet_stderr():
            content = asdict(target.read(path))
    except ModuleNotFoundError as error:
        raise ClipstepError(f"reading {path.suffix} needs {error.name}, which is not installed", fix=install_extra("export")) from error
    except ClipstepError:
        raise
    except Exception as error:  # Each format's tools raise their own types on a damaged file.
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ClipstepError(f"{path}: cannot be read", got=f"{type(error).__name__}: {reason}", expected=f"a {path.suffix} file") from error
    text = content.pop("metadata")
    interface, ignored = (None, ()) if text is None else parse_interface(text, path)
    facts = ArtifactInfo(file=path.name, target=target.name, size_bytes=tree_size(path), interface=interface, ignored_keys=ignored, **content)
    if interface is not None:
        _check(path, facts, interface)
    return facts


def read_artifact_json(path: Path) -> str:
    """Return `read_artifact` as JSON, for a worker process."""
    return read_artifact(path).model_dump_json()


def _check(path: Path, facts: ArtifactInfo, interface: Interface) -> None:
    """Compare the embedded metadata with the file's inputs and outputs: types, shapes and, if the format has them, names."""
    inputs, outputs = expected_tensors(interface)
    for what, said, found in (("input", inputs, facts.inputs), ("output", outputs, facts.outputs)):
        got = [(value.name or name, value.dtype, value.shape) for value, (name, _, _) in zip(found, said, strict=False)]
        if len(found) != len(said) or got != said:
            wrong = next((pair for pair in zip(got, said, strict=False) if pair[0] != pair[1]), (f"{len(found)} {what}s", f"{len(said)} {what}s"))
            raise ClipstepError(
                f"{path}: the clipstep metadata in it does not fit the file's {what}s",
                got=_words(wrong[0]),
                expected=_words(wrong[1]),
                fix="export it again",
            )


def _words(value: Any) -> str:
    return value if isinstance(value, str) else f"{value[0]} {value[1]} {value[2]}"


READER = "clipstep.runtime.artifact_info:read_artifact_json"
"""The name by which `clipstep.runtime.worker_process` calls the reader in a worker."""
