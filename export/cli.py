"""``clipstep export`` and ``clipstep verify``."""

from pathlib import Path

import click
from rich.table import Table

from clipstep.export.export import Written, export_run
from clipstep.export.step import program_of
from clipstep.export.targets import TARGETS
from clipstep.export.verify import record_golden, same_golden, verify_bundle
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import FLOAT16_BOUND, FLOAT32_BOUND, GoldenSteps
from clipstep.runtime.terminal import new_console
from clipstep.training.data.subclips import read_subclips
from clipstep.training.run import Run, load_run


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle to write, NAME.clipstep.")
@click.option("--target", "targets", multiple=True, default=tuple(TARGETS), show_default=True, help="May be given several times.")
def export_command(run: Path, out: Path, targets: tuple[str, ...]) -> None:
    """Write the trained RUN as a bundle of verified artifacts. Nothing is written if one of them fails verification."""
    if out.suffix != ".clipstep":
        raise ClipstepError("a bundle's name ends in .clipstep", got=out, expected=f"{out}.clipstep")
    console = new_console()
    loaded = load_run(run)
    with console.status("lowering"):
        manifest = export_run(loaded, run, out, tuple(dict.fromkeys(targets)), lambda written: console.print(_line(written), soft_wrap=True))
    count, steps = len(manifest.artifacts), manifest.artifacts[0].parity.steps
    console.print(f"wrote {out}: {count} artifact{'s' * (count > 1)}, verified over {steps} steps and a reset", soft_wrap=True)


def _line(written: Written) -> str:
    a = written.artifact
    inside = ", ".join(f"{count} nodes in {name}" for name, count in a.placement.delegated.items())
    outside = f", outside: {', '.join(a.placement.outside)}" if a.placement.outside else ""
    return (
        f"{a.file}: {a.size_bytes / 1e6:.2f} MB, {inside}{outside}, largest error {a.parity.max_absolute_error:.1e} "
        f"(written in {written.write_seconds:.0f} s, verified in {written.verify_seconds:.0f} s)"
    )


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Compute the reference anew from this run's eager network.")
@click.option("--video", type=click.Path(path_type=Path), help="Frames of this video instead of the golden steps'; needs --run.")
def verify_command(bundle: Path, run: Path | None, video: Path | None) -> None:
    """Check each artifact of BUNDLE against the eager network, over at least 16 consecutive steps and a reset.

    The reference is the golden steps, recorded from the eager network at export; with --run it is computed anew.
    """
    console = new_console()
    opened = Bundle.open(bundle)
    golden = GoldenSteps.of(opened)
    reference = "golden steps"
    if run is not None:
        golden = _fresh_golden(opened, golden, load_run(run), video)
        reference = f"eager network of {run}, {video or 'golden frames'}"
    elif video is not None:
        raise ClipstepError("--video needs --run", got="no run to compute the reference with", fix="add --run RUN")
    console.print(f"{bundle}: {len(golden.logits)} steps and a reset against the {reference}", soft_wrap=True)
    table = Table()
    for heading in ("artifact", "runtime", "largest error", "relative", "bound", "verdict"):
        table.add_column(heading)
    runtimes = {"onnx": "onnxruntime", "executorch": "ExecuTorch", "coreml": "own evaluator *"}
    bounds = {"float32": f"{FLOAT32_BOUND:g} absolute", "float16": f"{FLOAT16_BOUND:g} relative"}
    for artifact, errors in verify_bundle(opened, golden):
        table.add_row(
            artifact.file, runtimes[artifact.target], f"{errors.absolute:.1e}", f"{errors.relative:.1e}", bounds[artifact.precision], "equal"
        )
    console.print(table)
    if any(artifact.target == "coreml" for artifact in opened.manifest.artifacts):
        console.print("* Core ML itself runs on Apple devices only; here its saved packages are evaluated operation by operation")


def _fresh_golden(bundle: Bundle, golden: GoldenSteps, run: Run, video: Path | None) -> GoldenSteps:
    if run.info.checkpoint_sha256 != bundle.manifest.provenance.checkpoint_sha256:
        raise ClipstepError("the run is not the one the bundle was exported from", fix="give that run, or export this one")
    program = program_of(run)
    if video is not None:
        subclips = read_subclips(video, *run.info.shape)
        return record_golden(program, subclips, max(16, len(subclips)))
    same_golden(golden, fresh := record_golden(program, run.sample))
    return fresh
