"""`clipstep inspect`: describe a bundle or a lone artifact."""

import json
from pathlib import Path

import click
from rich.console import Console

from clipstep.runtime.artifact_info import READER, ArtifactInfo
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.bundle.format_version import version_text
from clipstep.runtime.bundle.manifest import Artifact, Interface, Manifest
from clipstep.runtime.command_line.accuracy_text import against_text
from clipstep.runtime.command_line.confidence_interval import proportion_text
from clipstep.runtime.command_line.options import command, signer_option
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.targets import TARGETS, by_suffix, suffixes
from clipstep.runtime.wording import either, listed
from clipstep.runtime.worker_process import call_in_worker

SHOWN_LABELS = 8
HELD = {
    "logits": "",
    "probabilities": ": probabilities, softmax is inside",
    "multilabel_logits": ": of classes that do not exclude each other, sigmoid is to be applied",
    "multilabel_probabilities": ": a probability for each class by itself, sigmoid is inside",
}
"""What the first output holds, as it is printed after its shape."""


def inspect(path: Path | str) -> Manifest | ArtifactInfo:
    """Read a bundle, and check its files against their hashes; or read a lone artifact.

    A lone artifact is read in a process of its own, so that a damaged file cannot crash this one.

    Returns:
        The manifest of a bundle, or the description of a lone artifact.

    Raises:
        ClipstepError: there is no such bundle or file, or it is damaged.

    Example:
        ```python
        print(inspect("gestures.clipstep").labels)
        ```
    """
    path = Path(path)
    if _is_lone_file(path):
        return _file_facts(path)
    with Bundle.open(path) as bundle:
        return bundle.manifest


def _is_lone_file(path: Path) -> bool:
    return by_suffix(path) is not None or (path.is_file() and path.suffix != ".zip")


def _file_facts(path: Path) -> ArtifactInfo:
    target = by_suffix(path)
    imports = () if target is None else target.imports
    return ArtifactInfo.model_validate_json(call_in_worker(READER, path, f"the reader of {path.suffix} files", imports))


@command(
    "inspect",
    help=f"Show what FILE is, a bundle or a lone {either(suffixes())}: inputs, states, outputs, labels, sizes, placement.",
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@signer_option
def inspect_command(path: Path, as_json: bool, signer: Path | None) -> None:
    if _is_lone_file(path):
        if signer is not None:
            raise ClipstepError(f"{path}: only a bundle is signed", got="a lone file", expected="a bundle beside --signer")
        facts = _file_facts(path)
        if as_json:
            click.echo(facts.model_dump_json(indent=2))
        else:
            _show_file(facts, new_console())
        return
    with open_for_command(path, signer) as bundle:
        if as_json:
            click.echo(bundle.manifest.text(), nl=False)
            if bundle.ignored_keys:
                click.echo(f"note: {path}: format {version_text(bundle.manifest.schema_version, bundle.ignored_keys)}", err=True)
        else:
            show_bundle(bundle, new_console())


def show_bundle(bundle: Bundle, console: Console) -> None:
    """Print the description of a bundle."""
    manifest = bundle.manifest
    _show_interface(manifest, console)
    _show_version(manifest.schema_version, bundle.ignored_keys, console)
    for artifact in manifest.artifacts:
        console.print(f"artifact      {_artifact(artifact)}{'; MISSING' if artifact.file in bundle.missing else ''}", soft_wrap=True)
        if artifact.accuracy is not None and (against := artifact.accuracy.against_float32) is not None:
            console.print(f"              against {against.file}: {against_text(against)}", soft_wrap=True, markup=False)
    for choice in manifest.choices:
        tried = "; ".join(f"{one.precision} ({one.variant}): {one.verdict}" for one in choice.tried)
        console.print(f"chosen        {choice.precision} for {choice.target} on {choice.platform}, of {tried}", soft_wrap=True, markup=False)
    _show_golden(bundle, console)
    origin = manifest.provenance
    network = f"{manifest.architecture if origin.kind == 'run' else ''} {json.dumps(origin.config)}".strip()
    console.print(f"made by       clipstep {manifest.export.clipstep_version} from the {origin.kind} {origin.source}, {network}", soft_wrap=True)
    console.print(f"weights       {origin.weights_sha256}", soft_wrap=True)
    if bundle.extra:
        console.print(f"extra         {listed(bundle.extra)}: not named by the manifest, and read by nothing", soft_wrap=True, markup=False)
    console.print("All files that are there are as their hashes in the manifest say.")


def _show_version(version: str, ignored: tuple[str, ...], console: Console) -> None:
    console.print(f"format        {version_text(version, ignored)}", soft_wrap=True, markup=False)


def _show_golden(bundle: Bundle, console: Console) -> None:
    if bundle.manifest.golden.file in bundle.missing:
        console.print("golden steps  MISSING")
        return
    golden, sizes = GoldenSteps.of(bundle), (bundle.manifest.golden.size_bytes / 1e6, bundle.size_bytes / 1e6)
    content = f" ({', '.join(bundle.manifest.golden.frame_sources)})" if bundle.manifest.golden.frame_sources else ""
    flushed = f", flushed after {', '.join(map(str, golden.flushed))}" if golden.flushed else ""
    on = f"{len(golden.logits)} on {len(golden.subclips)} subclips{content}{flushed}"
    console.print(f"golden steps  {on}, {sizes[0]:.1f} MB of the bundle's {sizes[1]:.1f} MB", soft_wrap=True)
    if bundle.manifest.golden.undetected_faults:
        console.print(f"              undetected faults: {', '.join(bundle.manifest.golden.undetected_faults)}", soft_wrap=True)


def _show_interface(interface: Interface, console: Console) -> None:
    spec = interface.input
    frames = spec.shape[0]
    every = "every frame" if spec.frame_stride == 1 else f"one frame in {spec.frame_stride}"
    late = f", {interface.delay_frames} frames late" if interface.delay_frames else ""
    console.print(f"{interface.name}: a step takes {frames} frames of {spec.frame_size}, {every} at {spec.fps:g} a second{late}", soft_wrap=True)
    prepared = f", 0 to 255; {spec.crop}, {spec.resize}" if spec.kind == "video" else ""
    what = spec.color or spec.content
    console.print(f"frames        {spec.dtype} {spec.shape} {spec.layout}, {what}{prepared}; the tail: {spec.tail}", soft_wrap=True, markup=False)
    if interface.temporal_average is not None:
        newest = "all frames so far" if interface.window_frames is None else f"the newest {interface.window_frames} frames"
        console.print(f"predictions   the mean over {newest}{', at the end of a video all of it' if interface.flush else ''}", soft_wrap=True)
    digits = ".1f" if spec.kind == "video" else ".4g"
    mean, std = (" ".join(format(value, digits) for value in values) for values in (spec.mean, spec.std))
    console.print(f"normalised    inside: minus {mean}, divided by {std}")
    for state in interface.states:
        console.print(f"state         {state.name} {state.dtype} {state.shape}, {state.initial:g} at the start; then {state.name}_out")
    console.print(f"logits        float32 (1, {len(interface.labels)}){HELD[interface.output_kind]}")
    for output in interface.kept_outputs:
        console.print(f"kept output   {output.name} {output.dtype} {output.shape}")
    more = len(interface.labels) - SHOWN_LABELS
    console.print(f"labels        {', '.join(interface.labels[:SHOWN_LABELS])}{f' and {more} more' if more > 0 else ''}", soft_wrap=True)


def _artifact(item: Artifact) -> str:
    accuracy = item.accuracy
    on = f" on {accuracy.processor}" if accuracy and accuracy.processor else ""
    right = f"; top-1 {proportion_text(accuracy.top1, accuracy.videos)} of {accuracy.dataset}, in {accuracy.engine}{on}" if accuracy else ""
    tools = ", ".join(f"{tool} {version}" for tool, version in item.tool_versions.items())
    return (
        f"{item.file}: {item.target}, {item.form}, {item.precision}, {item.input_dtype} frames, for {item.platform}; "
        f"{item.size_bytes / 1e6:.2f} MB; {item.placement.summary()}; largest error {item.parity.max_absolute_error:.1e} in {item.parity.steps} steps"
        f"{right}{f'; {item.tuning}' if item.tuning else ''}{f'; needs {item.requires}' if item.requires else ''}; written by {tools}"
    )


def _show_file(facts: ArtifactInfo, console: Console) -> None:
    weights = "" if facts.weights_bytes is None else f", {facts.weights_bytes / 1e6:.2f} MB of it weights"
    console.print(f"{facts.file}: {facts.size_bytes / 1e6:.2f} MB{weights}; {facts.written_by}")
    for kind, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        for tensor in tensors:
            console.print(f"{kind:<14}{tensor.name or '(no name)'} {tensor.dtype} {tensor.shape}")
    operations = ", ".join(f"{count} {name}" for name, count in facts.operations.items())
    console.print(f"{TARGETS[facts.target].nodes:<14}{sum(facts.operations.values())}: {operations}", soft_wrap=True)
    if facts.interface is None:
        console.print("It carries no clipstep metadata: initial states, labels and normalisation are not in it.")
        return
    console.print("clipstep's metadata in it, which fits its inputs and outputs:")
    _show_interface(facts.interface, console)
    _show_version(facts.interface.schema_version, facts.ignored_keys, console)
