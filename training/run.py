"""A run: the folder that a training writes, with all that is needed to rebuild its network; never a pickle.

``model.safetensors`` holds the weights, ``sample.safetensors`` a few subclips of test videos on which an export records its golden steps, and
``run.json`` everything else.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from clipstep.network.preprocess import RGB
from clipstep.network.spec import NetworkSpec, weights_sha256
from clipstep.runtime.bundle.manifest import FrameSource, RunProvenance
from clipstep.runtime.errors import ClipstepError, error_summary
from clipstep.runtime.filesystem.atomic import atomic_file, atomic_folder
from clipstep.runtime.filesystem.overwrite import FolderKind, check_overwrite
from clipstep.runtime.filesystem.path_checks import check_file_writable
from clipstep.runtime.wording import counted
from clipstep.training.models import build

CHECKPOINT = "checkpoint.safetensors"
"""The file in a run's folder from which its training can resume."""
LOG = "log.csv"
UNFINISHED = "unfinished"
"""The folder inside a finished run with the log and checkpoint of a training that will replace it."""


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` holds.

    ``labels`` are the class names in the order of the logits; ``mean`` and ``std`` are those of each channel of the training frames, in 0..255;
    ``fps`` is how many frames a second were taken of the training videos; ``training`` summarises the training and its test results.
    """

    architecture: str
    config: Mapping[str, int]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fps: float
    checkpoint_sha256: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    weights_source: str | None = None
    """Where the weights come from, if not from a training by clipstep: a file's name, ``factory`` (the user's own code), or ``random``."""
    weights_key: str | None = None
    """The key under which that file holds the weights, if it holds several sets of weights."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape ``(T, size, channels)`` of a subclip, with 3 channels for RGB and 2 for optical flow."""
        return subclip_shape(self.config)


def subclip_shape(config: Mapping[str, int]) -> tuple[int, int, int]:
    """Return the shape ``(T, size, channels)`` of the subclips that a network with this config takes."""
    return config["frames"], config["size"], config.get("channels", RGB)


@dataclass(frozen=True)
class Run:
    """A trained network in eval mode, what is known about it, and sample subclips ``(S, T, size, size, channels)`` uint8."""

    network: nn.Module
    info: RunInfo
    sample: Tensor
    sample_source: FrameSource = "run_sample"
    """Where the sample's frames come from."""

    def spec(self, folder: Path | str = "") -> NetworkSpec:
        """Return the network spec that an export takes; ``folder`` is the run's folder, which the bundle's provenance names."""
        info, (frames, size) = self.info, self.sample.shape[1:3]
        provenance = RunProvenance(
            kind="run",
            source=str(folder),
            weights_sha256=weights_sha256(self.network.state_dict()),
            config=dict(info.config),
            weights_source=info.weights_source,
            weights_key=info.weights_key,
            architecture=info.architecture,
            training=dict(info.training),
        )
        return NetworkSpec(self.network, frames, size, info.labels, info.mean, info.std, info.fps, self.sample, provenance, self.sample_source)

    def __repr__(self) -> str:
        frames, size, _ = self.info.shape
        return f"<Run of {self.info.architecture}: {frames} frames of {size}x{size} a subclip, {len(self.info.labels)} classes>"


def describe_run(folder: Path) -> str:
    """Return what the run in ``folder`` is, in a few words."""
    try:
        values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        epochs = values["training"].get("epochs_done")
        return f"{values['architecture']}, {len(values['labels'])} classes" + ("" if epochs is None else f", {counted(epochs, 'epoch')}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "damaged"


RUN = FolderKind("run", "run.json", lambda _: ("model.safetensors", "sample.safetensors", LOG, CHECKPOINT, "last", UNFINISHED), describe_run)


def check_out(folder: Path, *, resume: bool = False, force: bool = False) -> None:
    """Check that a run may be written to ``folder``, before hours of work are spent on it.

    Raises:
        ClipstepError: the folder holds something else than a run; or a finished run or a training that was stopped, and neither ``resume`` nor
            ``force`` says what to do with it.
    """
    if resume and force:
        raise ClipstepError("--resume goes on with what is in --out, --force begins anew", got="both", expected="one of them")
    if (folder / CHECKPOINT).is_file() and not (folder / RUN.marker).is_file():
        if not resume and not force:
            raise ClipstepError(
                f"{folder}: holds a training that was stopped", fix="go on with --resume, begin anew with --force, or choose another --out"
            )
        check_file_writable(folder / CHECKPOINT)
        return
    check_overwrite(folder, RUN, force=force or resume, instead=", go on with it by --resume and more --epochs")


def save_run(folder: Path, run: Run, last: nn.Module | None = None, kept: Sequence[Path] = (), *, replace: bool = False) -> None:
    """Write a run atomically.

    Args:
        folder: Where to write it.
        run: The network of the best epoch.
        last: The network of the last epoch, which becomes a run of its own in ``last/``.
        kept: Files that are copied into the folder: the log and the checkpoint.
        replace: Whether a run that is there is replaced.

    Raises:
        ClipstepError: There is something in ``folder`` that must not be replaced.
    """
    with atomic_folder(folder, replace=replace) as new:
        _write(new, run)
        if last is not None:
            (new / "last").mkdir()
            _write(new / "last", dataclasses.replace(run, network=last))
        for file in kept:
            shutil.copy2(file, new)


def _write(folder: Path, run: Run) -> None:
    safetensors.torch.save_file({k: v.contiguous() for k, v in run.network.state_dict().items()}, folder / "model.safetensors")
    safetensors.torch.save_file({"subclips": run.sample.contiguous()}, folder / "sample.safetensors")
    info = {**asdict(run.info), "checkpoint_sha256": _sha256(folder / "model.safetensors")}
    (folder / "run.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def note_in_run(folder: Path, values: Mapping[str, Any]) -> None:
    """Add ``values`` to the training summary of a finished run, and to that of its last epoch."""
    for path in (folder / RUN.marker, folder / "last" / RUN.marker):
        if path.is_file():
            info = json.loads(path.read_text(encoding="utf-8"))
            with atomic_file(path) as new:
                new.write_text(json.dumps({**info, "training": {**info["training"], **values}}, indent=2) + "\n", encoding="utf-8")


def load_run(folder: Path) -> Run:
    """Read the run in ``folder``.

    Example:
        ```python
        run = load_run(Path("runs/fight"))
        logits = run.network(normalise(run.sample[:1], run.info.mean, run.info.std), *initial_states(run.network))
        ```

    Raises:
        ClipstepError: A file is missing, was altered, or does not fit the architecture.
    """
    for name in ("run.json", "model.safetensors", "sample.safetensors"):
        if not (folder / name).is_file():
            raise ClipstepError(f"{folder}: is not a run", got=f"no {name}", expected="a folder written by clipstep train")
    try:
        values: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        unknown = values.keys() - {field.name for field in fields(RunInfo)}
        if unknown:
            raise ClipstepError(
                f"{folder}: run.json was written by another version of clipstep", got=f"the key {min(unknown)}", fix="train it again with this one"
            )
        lists: dict[str, Any] = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        info = RunInfo(**{**values, **lists})
        weights = safetensors.torch.load_file(folder / "model.safetensors")
        sample = safetensors.torch.load_file(folder / "sample.safetensors")["subclips"]
    except (ValueError, TypeError, AttributeError, KeyError, SafetensorError) as error:
        raise ClipstepError(f"{folder}: cannot be read", got=error_summary(error), fix="train it again") from error
    if _sha256(folder / "model.safetensors") != info.checkpoint_sha256:
        raise ClipstepError(f"{folder}: model.safetensors is not the file that training wrote", fix="train it again")
    network = build(info.architecture, info.config).eval()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ClipstepError(f"{folder}: the weights do not fit {info.architecture}", got=str(error).strip().rpartition("\n")[2].strip()) from error
    return Run(network, info, sample)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
