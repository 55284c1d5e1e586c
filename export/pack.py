"""`clipstep pack`: a bundle as one file, to ship with an app or to send."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from clipstep.export.network_source import NetworkSource, given_network, network_options
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.bundle.manifest import Artifact, Golden
from clipstep.runtime.bundle.pack import (
    GOLDEN,
    PackedGolden,
    artifacts_for,
    check_pack_name,
    destinations,
    golden_of,
    packed_golden,
    synthetic_golden,
    write_pack,
)
from clipstep.runtime.command_line.options import OutputFile, command, import_quietly, signer_option
from clipstep.runtime.command_line.streams import quiet_stderr
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.locking import write_lock
from clipstep.runtime.golden import GoldenSteps


@command("pack")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "place",
    type=click.Choice(list(destinations())),
    required=True,
    help="Where the pack is used; it holds the artifacts for that place alone.",
)
@click.option("--out", type=OutputFile(), required=True, help="The file to write, NAME.clipstep.zip.")
@click.option(
    "--golden",
    type=click.Choice(GOLDEN),
    default="full",
    show_default=True,
    help="Golden steps: all, the first few, or synthetic scenes in place of the frames that the bundle was exported with.",
)
@network_options
@signer_option
@click.option("--force", is_flag=True, help="Replace a pack that is there.")
def pack_command(
    bundle: Path, place: str, out: Path, golden: str, run: Path | None, model: str | None, weights: Path | None, signer: Path | None, force: bool
) -> None:
    """Write BUNDLE as one file, which runs directly: the artifacts of one platform, and golden steps.

    Synthetic golden steps are recorded from the float32 artifact or, with --run or --model, from the network itself.
    """
    check_pack_name(out)
    network = given_network(run, model, weights)
    if network is not None and golden != "synthetic":
        raise ClipstepError("--run and --model record synthetic golden steps", got=f"--golden {golden}", fix="add --golden synthetic")
    click.get_current_context().with_resource(write_lock(out))
    if out.exists() and not force:
        raise ClipstepError(f"{out}: is there already", fix="give --force to replace it, or choose another --out")
    console = new_console()
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer))
    artifacts = artifacts_for(opened, place)
    if network is None:
        with quiet_stderr():
            packed = golden_of(opened, golden)
    else:
        packed = _golden_of_network(opened, network)
    if golden == "synthetic":
        _check(opened, artifacts, packed, console)
    size = write_pack(opened, artifacts, packed, out)
    for artifact in artifacts:
        console.print(f"{artifact.file}: {artifact.size_bytes / 1e6:.2f} MB, for {artifact.platform}", soft_wrap=True, highlight=False)
    console.print(f"golden steps: {_golden_text(packed.golden, golden)}", soft_wrap=True, highlight=False)
    console.print(f"wrote {out}: {size / 1e6:.2f} MB of the bundle's {opened.size_bytes / 1e6:.2f} MB", soft_wrap=True, highlight=False)


def _check(bundle: Bundle, artifacts: Sequence[Artifact], packed: PackedGolden, console: Console) -> None:
    """Verify every artifact that this computer can run on the new golden steps, so that it does not fail them on a user's device first."""
    with tempfile.TemporaryDirectory(prefix="clipstep-pack-") as folder:
        file = Path(folder) / packed.golden.file
        file.write_bytes(packed.data)
        golden = GoldenSteps.load(file, [state.name for state in bundle.manifest.states])
    for artifact in artifacts:
        try:
            import_quietly("clipstep.export.parity")
            from clipstep.export.parity import check_artifact, runtime_module

            interface = bundle.manifest.interface(artifact.input_dtype)
            import_quietly(runtime_module(artifact.target))
            with quiet_stderr():
                check_artifact(artifact.target, bundle.file(artifact), artifact.precision, interface, golden)
        except ModuleNotFoundError as error:
            console.print(
                f"{artifact.file}: not verified on these golden steps, because {error.name} is not installed", soft_wrap=True, highlight=False
            )


def _golden_text(golden: Golden, kind: str) -> str:
    frames = f"frames: {', '.join(golden.frame_sources)}" if golden.frame_sources else "frames: not recorded at export, of videos if it was given any"
    by = f"; outputs by {golden.recorded_by}" if golden.recorded_by else ""
    advice = "" if kind == "synthetic" or golden.frame_sources == ("synthetic",) else "; --golden synthetic ships no footage"
    return f"{golden.size_bytes / 1e6:.2f} MB, {kind}; {frames}{by}{advice}"


def _golden_of_network(bundle: Bundle, network: NetworkSource) -> PackedGolden:
    """Record synthetic golden steps from the eager network."""
    import_quietly("clipstep.export.reference", "clipstep.export.golden_steps")
    import torch

    from clipstep.export.golden_steps import record_golden
    from clipstep.export.reference import reference_program
    from clipstep.runtime.bundle.pack import SYNTHETIC_SUBCLIPS, synthetic_steps

    program = reference_program(bundle, network)
    subclips = torch.from_numpy(program.synthetic(SYNTHETIC_SUBCLIPS))
    golden = record_golden(program, subclips, synthetic_steps(bundle.manifest))
    kept = {name: value[-SYNTHETIC_SUBCLIPS:] for name, value in golden.states.items()}
    return packed_golden(replace(golden, states=kept), synthetic_golden("the eager network"))
