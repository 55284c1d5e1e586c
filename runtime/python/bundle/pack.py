"""Write a pack: a bundle as one file, with the artifacts for one platform.

Its golden steps are the bundle's, all or a few of them, or are recorded anew on drawn scenes so that the pack holds no footage. Packing the same
bundle again gives the same bytes.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from clipstep.runtime.bundle import MANIFEST, Bundle, BundleError, this_machine
from clipstep.runtime.bundle.contents import PACK_SUFFIX, is_clutter
from clipstep.runtime.bundle.format_version import SCHEMA_VERSION
from clipstep.runtime.bundle.manifest import Artifact, Golden, Interface
from clipstep.runtime.engine import Array
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.atomic import atomic_file
from clipstep.runtime.golden import GOLDEN_FILE, GoldenSteps, check_golden, flush_points, short_steps, shortest_steps
from clipstep.runtime.model import StepModel, StepOutputs
from clipstep.runtime.subclip_stream import run_flush_steps
from clipstep.runtime.synthetic_frames import synthetic_input
from clipstep.runtime.target import DestinationName
from clipstep.runtime.targets import targets_for
from clipstep.runtime.wording import either

GOLDEN = ("full", "short", "synthetic")
SYNTHETIC_STEPS, SYNTHETIC_SUBCLIPS = 16, 4
"""How many synthetic golden steps are recorded, and on how many subclips, which the steps take in turn."""
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, the earliest of the zip format: with a fixed time, packs of one bundle are equal to the byte."""


@dataclass(frozen=True)
class Destination:
    """Where a pack is to be used: the targets that run there and the processor; `about` describes the artifacts that it takes."""

    targets: tuple[str, ...]
    machine: str
    about: str


def destinations() -> dict[str, Destination]:
    """Return the destinations that a pack can be made for, by their names for `clipstep pack --for`."""
    return {
        "android": _destination("android", "arm64"),
        "ios": _destination("ios", "arm64"),
        "python": _destination("python", this_machine()),
    }


def _destination(name: DestinationName, machine: str) -> Destination:
    targets = targets_for(name)
    return Destination(targets, machine, f"{' and '.join(targets)} for {machine}, else for any processor")


@dataclass(frozen=True)
class PackedGolden:
    """The golden steps of a pack: the bytes of their file, and their entry in the manifest."""

    data: bytes
    golden: Golden


def artifacts_for(bundle: Bundle, name: str) -> tuple[Artifact, ...]:
    """Return the artifacts for a destination: for each target and precision the one for its processor, else the one for any processor.

    Raises:
        ClipstepError: the bundle has none, or their files are missing.
    """
    destination = destinations()[name]
    best: dict[tuple[str, str], Artifact] = {}
    for artifact in bundle.manifest.artifacts:
        key = artifact.target, artifact.precision
        if artifact.target in destination.targets and (artifact.platform == destination.machine or (artifact.platform == "any" and key not in best)):
            best[key] = artifact
    chosen = tuple(artifact for artifact in bundle.manifest.artifacts if artifact in best.values() and artifact.file not in bundle.missing)
    if not chosen:
        have = ", ".join(f"{a.target} for {a.platform}{' (missing)' * (a.file in bundle.missing)}" for a in bundle.manifest.artifacts)
        raise ClipstepError(f"{bundle.path}: has nothing to pack for {name}", got=have, expected=destination.about, fix="export it")
    return chosen


def golden_of(bundle: Bundle, kind: str) -> PackedGolden:
    """Return the golden steps for a pack, `full`, `short` or `synthetic`.

    Synthetic ones have drawn scenes in place of the bundle's own frames. Their expected outputs are computed by the bundle's float32
    artifact, after it was verified on the bundle's own golden steps.

    Raises:
        ClipstepError: no artifact runs here to record synthetic steps with, or it fails that verification.
    """
    if kind == "synthetic":
        golden, by = _recorded(bundle)
        return packed_golden(golden, synthetic_golden(by))
    said, file = bundle.manifest.golden, bundle.file(bundle.manifest.golden)
    if kind == "full":
        return PackedGolden(file.read_bytes(), said)
    golden = GoldenSteps.of(bundle)
    spec = bundle.manifest
    steps = short_steps(spec.flush, spec.input.shape[0], spec.delay_frames, len(golden.logits))
    left_out = len(golden.logits) - steps
    states, kept = ({name: value[: max(0, len(value) - left_out)] for name, value in values.items()} for values in (golden.states, golden.kept))
    flushed = {after: logits for after, logits in golden.flushed.items() if after <= steps}
    short = GoldenSteps(golden.subclips[:steps], golden.logits[:steps], states, flushed, kept)
    return packed_golden(short, said.model_copy(update={"omitted_steps": said.omitted_steps + left_out}))


def synthetic_golden(by: str) -> Golden:
    """Return the manifest's entry for golden steps on drawn scenes that were recorded by `by`; `packed_golden` fills in the file."""
    return Golden(file=GOLDEN_FILE, size_bytes=1, sha256="0" * 64, frame_sources=("synthetic",), recorded_by=by)


def packed_golden(golden: GoldenSteps, about: Golden) -> PackedGolden:
    """Return golden steps as the bytes of a file, and their entry `about` with that file's name, size and hash."""
    data = save(golden.tensors())
    return PackedGolden(data, about.model_copy(update=_file_facts(data)))


def write_pack(bundle: Bundle, artifacts: Sequence[Artifact], golden: PackedGolden, out: Path) -> int:
    """Write the pack `out` atomically, and return its size in bytes.

    The same bundle gives the same bytes: no time, place or user is stored, and nothing is compressed, because libraries compress differently.

    Raises:
        ClipstepError: a file of the bundle is missing or was altered; `out` cannot be written.
    """
    # A bundle of a newer minor version loses the keys that this clipstep does not know, so the pack states this clipstep's own version.
    manifest = bundle.manifest.with_artifacts(artifacts).model_copy(update={"schema_version": SCHEMA_VERSION, "golden": golden.golden})
    files = sorted(file for artifact in artifacts for file in _files_of(bundle, artifact))
    try:
        with atomic_file(out) as new, zipfile.ZipFile(new, "x") as pack:
            _add(pack, MANIFEST, io.BytesIO(manifest.text().encode()))
            for name, path in files:
                with path.open("rb") as source:
                    _add(pack, name, source)
            _add(pack, golden.golden.file, io.BytesIO(golden.data))
    except OSError as error:
        raise BundleError(f"{out}: cannot be written", got=error.strerror or str(error)) from error
    return out.stat().st_size


def check_pack_name(out: Path) -> None:
    """Check that a pack may have that name.

    Raises:
        ClipstepError: it does not end in `.clipstep.zip`.
    """
    if not out.name.endswith(PACK_SUFFIX) or out.name == PACK_SUFFIX:
        raise ClipstepError("a pack's name ends in .clipstep.zip", got=out, expected=f"NAME{PACK_SUFFIX}")


def _recorded(bundle: Bundle) -> tuple[GoldenSteps, str]:
    spec = bundle.manifest.input
    subclips = synthetic_input(spec.kind, SYNTHETIC_SUBCLIPS, spec.shape, spec.dtype, spec.mean, spec.std)
    for engine, info in ENGINES.items():
        try:
            artifact = bundle.artifact(info.target)
        except BundleError:
            continue
        with StepModel.load(bundle, engine, precision=artifact.precision) as model:
            own = GoldenSteps.of(bundle)
            check_golden(model, own, artifact.precision)
            recorded = _steps(model, subclips, flushes=bool(own.flushed))
        return recorded, f"{artifact.file} in {engine}, which proved itself on the bundle's own golden steps"
    raise ClipstepError(
        f"{bundle.path}: has no float32 artifact that runs here to record synthetic golden steps with",
        expected=either(targets_for("python")),
        fix="give the network: --run RUN or --model FACTORY",
    )


def synthetic_steps(interface: Interface) -> int:
    """Return how many synthetic golden steps to record."""
    return max(SYNTHETIC_STEPS, shortest_steps(interface.flush, interface.input.shape[0]) if interface.flush else 0)


def _steps(model: StepModel, subclips: Array, *, flushes: bool) -> GoldenSteps:
    """Record golden steps of one stream, and the states and the kept outputs of each of the last `SYNTHETIC_SUBCLIPS` steps.

    With `flushes`, the logits of flushed videos are recorded, too; it must be set only for a model whose flush was verified.
    """
    interface, steps = model.interface, synthetic_steps(model.interface)
    points = flush_points(interface.flush, interface.input.shape[0], interface.delay_frames, steps) if flushes else ()
    states, recorded, flushed = model.initial_states(), list[StepOutputs](), dict[int, Array]()
    for step in range(steps):
        frames = subclips[step % len(subclips)].astype(model.interface.input.dtype, copy=False)
        recorded.append(outputs := model.step_outputs(frames, states))
        states = outputs.states
        if step + 1 in points:
            flushed[step + 1] = run_flush_steps(model, states, step + 1).logits
    last = recorded[-SYNTHETIC_SUBCLIPS:]
    after = {state.name: np.stack([outputs.states[i] for outputs in last]) for i, state in enumerate(interface.states)}
    kept = {output.name: np.stack([outputs.kept[output.name] for outputs in last]) for output in interface.kept_outputs}
    return GoldenSteps(subclips, np.stack([outputs.logits for outputs in recorded]), after, flushed, kept)


def _file_facts(data: bytes) -> dict[str, object]:
    return {"file": GOLDEN_FILE, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _files_of(bundle: Bundle, artifact: Artifact) -> Iterator[tuple[str, Path]]:
    path = bundle.file(artifact)
    if path.is_file():
        yield artifact.file, path
        return
    for file in path.rglob("*"):
        if file.is_file() and not is_clutter(file.name):
            yield f"{artifact.file}/{file.relative_to(path).as_posix()}", file


def _add(pack: zipfile.ZipFile, name: str, source: io.BufferedIOBase | io.BufferedReader) -> None:
    entry = zipfile.ZipInfo(name, FIXED_TIME)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    with pack.open(entry, "w") as target:
        while data := source.read(1 << 20):
            target.write(data)
