"""A bundle as one file: the artifacts of one platform, its golden steps whole, shortened or without footage, the same bytes every time."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from clipstep.runtime.bundle import MANIFEST, Bundle, BundleError, this_machine
from clipstep.runtime.contents import PACK_SUFFIX, is_clutter
from clipstep.runtime.engine import Array
from clipstep.runtime.engines import ENGINES
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.format_version import SCHEMA_VERSION
from clipstep.runtime.golden import GOLDEN_FILE, GoldenSteps, check_golden, flush_points, short_steps, shortest_steps
from clipstep.runtime.manifest import Artifact, Golden, Interface
from clipstep.runtime.model import StepModel
from clipstep.runtime.session import end_video
from clipstep.runtime.synthetic import synthetic_subclips
from clipstep.runtime.target import PlaceName
from clipstep.runtime.targets import targets_at
from clipstep.runtime.whole import write_file
from clipstep.runtime.wording import either

GOLDEN = ("full", "short", "synthetic")
SYNTHETIC_STEPS, SYNTHETIC_SUBCLIPS = 16, 4
"""Steps that are recorded anew, and the subclips that they take in turns."""
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The first that a zip file can say: packs of one bundle are the same to the byte."""


@dataclass(frozen=True)
class Place:
    """Where a pack is used: the targets that run there, on which processor, and what of them is worth taking along."""

    targets: tuple[str, ...]
    machine: str
    about: str


def places() -> dict[str, Place]:
    """The places that a pack can be made for, by the name that ``clipstep pack --for`` takes."""
    return {
        "android": _place("android", "arm64"),
        "ios": _place("ios", "arm64"),
        "python": _place("python", this_machine()),
    }


def _place(name: PlaceName, machine: str) -> Place:
    targets = targets_at(name)
    return Place(targets, machine, f"{' and '.join(targets)} for {machine}, else for any processor")


@dataclass(frozen=True)
class PackedGolden:
    """The golden steps of a pack: the bytes of their file, and what the manifest says of it."""

    data: bytes
    golden: Golden


def artifacts_for(bundle: Bundle, name: str) -> tuple[Artifact, ...]:
    """The artifacts that the place of that name takes: of each target and precision the one for its processor, else the one for any.

    Raises:
        ClipstepError: the bundle has none of them, or what it has is missing.
    """
    place = places()[name]
    best: dict[tuple[str, str], Artifact] = {}
    for artifact in bundle.manifest.artifacts:
        key = artifact.target, artifact.precision
        if artifact.target in place.targets and (artifact.platform == place.machine or (artifact.platform == "any" and key not in best)):
            best[key] = artifact
    chosen = tuple(artifact for artifact in bundle.manifest.artifacts if artifact in best.values() and artifact.file not in bundle.missing)
    if not chosen:
        have = ", ".join(f"{a.target} for {a.platform}{' (missing)' * (a.file in bundle.missing)}" for a in bundle.manifest.artifacts)
        raise ClipstepError(f"{bundle.path}: has nothing to pack for {name}", got=have, expected=place.about, fix="export it")
    return chosen


def golden_of(bundle: Bundle, kind: str) -> PackedGolden:
    """The golden steps of a bundle as they are packed, ``full``, ``short`` or ``synthetic``.

    Synthetic ones show drawn scenes in place of the frames that the bundle was exported with; what is expected of them is computed by
    the bundle's float32 artifact, once that has proved itself on the steps that it came with.

    Raises:
        ClipstepError: no artifact runs here to record synthetic steps with; it is off.
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
    states = {name: value[: max(0, len(value) - left_out)] for name, value in golden.states.items()}
    flushed = {after: logits for after, logits in golden.flushed.items() if after <= steps}
    short = GoldenSteps(golden.subclips[:steps], golden.logits[:steps], states, flushed)
    return packed_golden(short, said.model_copy(update={"left_out_steps": said.left_out_steps + left_out}))


def synthetic_golden(by: str) -> Golden:
    """What a manifest says of golden steps on drawn scenes whose outputs were computed by that; ``packed_golden`` adds the file."""
    return Golden(file=GOLDEN_FILE, size_bytes=1, sha256="0" * 64, content=("synthetic",), outputs_by=by)


def packed_golden(golden: GoldenSteps, about: Golden) -> PackedGolden:
    """Golden steps as a file, and ``about`` them with that file's name, size and hash."""
    data = save(golden.tensors())
    return PackedGolden(data, about.model_copy(update=_file_facts(data)))


def write_pack(bundle: Bundle, artifacts: Sequence[Artifact], golden: PackedGolden, out: Path) -> int:
    """Writes the pack ``out`` whole or not at all, and gives its size in bytes. The same bundle gives the same bytes: nothing in it
    says when, where or by whom it was written, and what is stored is not compressed, which no two libraries do alike.

    Raises:
        ClipstepError: a file of the bundle is missing or altered; ``out`` cannot be written.
    """
    # Without the keys of a newer minor version, if the bundle has any: the pack is of the format that was understood.
    manifest = bundle.manifest.model_copy(update={"schema_version": SCHEMA_VERSION, "artifacts": tuple(artifacts), "golden": golden.golden})
    files = sorted(file for artifact in artifacts for file in _files_of(bundle, artifact))
    try:
        with write_file(out) as new, zipfile.ZipFile(new, "x") as pack:
            _add(pack, MANIFEST, io.BytesIO(manifest.text().encode()))
            for name, path in files:
                with path.open("rb") as source:
                    _add(pack, name, source)
            _add(pack, golden.golden.file, io.BytesIO(golden.data))
    except OSError as error:
        raise BundleError(f"{out}: cannot be written", got=error.strerror or str(error)) from error
    return out.stat().st_size


def check_pack_name(out: Path) -> None:
    """Checks that a pack may have that name.

    Raises:
        ClipstepError: it does not end in ``.clipstep.zip``.
    """
    if not out.name.endswith(PACK_SUFFIX) or out.name == PACK_SUFFIX:
        raise ClipstepError("a pack's name ends in .clipstep.zip", got=out, expected=f"NAME{PACK_SUFFIX}")


def _recorded(bundle: Bundle) -> tuple[GoldenSteps, str]:
    spec = bundle.manifest.input
    subclips = synthetic_subclips(SYNTHETIC_SUBCLIPS, *spec.shape)
    for engine, info in ENGINES.items():
        try:
            artifact = bundle.artifact(info.target)
        except BundleError:
            continue
        with StepModel.load(bundle, engine) as model:
            own = GoldenSteps.of(bundle)
            check_golden(model, own, artifact.precision)
            recorded = _steps(model, subclips, flushes=bool(own.flushed))
        return recorded, f"{artifact.file} in {engine}, which proved itself on the bundle's own golden steps"
    raise ClipstepError(
        f"{bundle.path}: has no artifact that runs here to record synthetic golden steps with",
        expected=either(targets_at("python")),
        fix="give the network: --run RUN or --model FACTORY",
    )


def synthetic_steps(interface: Interface) -> int:
    """How many steps are recorded anew."""
    return max(SYNTHETIC_STEPS, shortest_steps(interface.flush, interface.input.shape[0]) if interface.flush else 0)


def _steps(model: StepModel, subclips: Array, *, flushes: bool) -> GoldenSteps:
    """Steps of one stream as the model computes them; the states after the last few, as many as there are subclips.

    ``flushes``: also what it says of flushed videos, if it has proved that it says the right thing.
    """
    interface, steps = model.interface, synthetic_steps(model.interface)
    points = flush_points(interface.flush, interface.input.shape[0], interface.delay_frames, steps) if flushes else ()
    states, logits, after, flushed = model.initial_states(), [], [], dict[int, Array]()
    for step in range(steps):
        frames = subclips[step % len(subclips)].astype(model.interface.input.dtype, copy=False)
        values, states = model.step(frames, states)
        logits.append(values)
        after.append(states)
        if step + 1 in points:
            flushed[step + 1] = end_video(model, states, step + 1)
    kept = after[-SYNTHETIC_SUBCLIPS:]
    names = [state.name for state in model.interface.states]
    return GoldenSteps(subclips, np.stack(logits), {name: np.stack([values[i] for values in kept]) for i, name in enumerate(names)}, flushed)


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
