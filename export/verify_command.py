"""`clipstep verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from clipstep.export.network_source import given_network, network_options
from clipstep.export.targets import TARGETS
from clipstep.runtime.bundle import Bundle, open_for_command
from clipstep.runtime.command_line.options import Numbers, command, json_option, signer_option
from clipstep.runtime.command_line.streams import print_json, quiet_stderr
from clipstep.runtime.command_line.terminal import ConsoleProgress, new_console, new_table, print_table
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.golden import GoldenSteps
from clipstep.runtime.precision import FLOATS
from clipstep.runtime.wording import listed

if TYPE_CHECKING:  # PyTorch is imported in the functions that need it, so that --help is fast.
    from clipstep.export.verification import StreamCheck, VerifyResult


@command("verify", loads=["clipstep.export.verification"])
@click.argument("bundle", type=click.Path(path_type=Path))
@network_options
@click.option(
    "--labels", type=click.Path(path_type=Path), help="A file with the class names that --model was trained on, which must be the bundle's."
)
@click.option("--mean", type=Numbers(), help="The normalisation that --model was trained with, to compare.")
@click.option("--std", type=Numbers(), help="Standard deviation of each channel that --model was trained with, which must be the bundle's.")
@click.option("--fps", type=float, help="Frames per second of the videos that --model was trained on, which must be the bundle's.")
@click.option("--video", type=click.Path(path_type=Path), help="Verify on the frames of this video, not on the golden ones; needs --run or --model.")
@signer_option
@json_option
def verify_command(
    bundle: Path, run: Path | None, model: str | None, weights: Path | None, video: Path | None, signer: Path | None, as_json: bool, **given: Any
) -> None:
    """Check each artifact of BUNDLE against the eager network, over at least 16 consecutive steps and a reset.

    The reference is the golden steps, recorded from the eager network at export; with --run or --model it is computed anew, and
    what the manifest says of the network is compared with it.
    """
    from clipstep.export.reference import reference_network
    from clipstep.export.verification import Reference, fresh_reference, verify_opened

    console = new_console(quiet=as_json)
    opened = click.get_current_context().with_resource(open_for_command(bundle, signer))
    if signer is not None:
        console.print(f"{bundle}: signed by {signer}", soft_wrap=True)
    reference, against = Reference(GoldenSteps.of(opened)), "golden steps"
    network = given_network(run, model, weights)
    if model is None and any(value is not None for value in given.values()):
        raise ClipstepError("--labels, --mean, --std and --fps are of --model", fix="a run has its own: leave them out")
    if network is not None:
        with ConsoleProgress(console)("computing the reference with the eager network"):
            reference = fresh_reference(opened, reference_network(opened, network), video)
        _print_stream_check(reference.stream, console)
        against = f"eager network of {network}, {video or 'golden frames'}"
    elif video is not None:
        raise ClipstepError("--video needs --run or --model", got="no network to compute the reference with", fix="add one of them")
    if model is not None:
        _compare_given(opened, given, console)
    golden = reference.golden
    console.print(f"{bundle}: {len(golden.logits)} steps and a reset{_flushed_text(golden)} against the {against}", soft_wrap=True)
    with quiet_stderr():
        result = verify_opened(opened, reference, ConsoleProgress(console))
    _print_artifacts(result, console)
    if opened.extra:
        console.print(f"not verified, because the manifest does not name it: {listed(opened.extra)}", soft_wrap=True, markup=False)
    unchecked = opened.manifest.flush is not None and not golden.flushed
    if unchecked:
        console.print(
            "not checked: the end of a video, because these golden steps hold no flushed one; give --run or --model, or export again", soft_wrap=True
        )
    result.check_whole()
    for target in dict.fromkeys(artifact.target for artifact in opened.manifest.artifacts):
        if (evaluator := TARGETS[target].evaluator) is not None:
            console.print(f"* {evaluator.note}")
    if as_json:
        print_json(_as_json(bundle, result, against))
    if opened.manifest.golden.undetected_faults:
        console.print(f"faults that these golden steps do not detect: {', '.join(opened.manifest.golden.undetected_faults)}", soft_wrap=True)


def _print_artifacts(result: VerifyResult, console: Console) -> None:
    table = new_table("artifact", "runtime", "verdict", "largest\nerror", "of its\nrange", "bound", texts=3)
    for a in result.artifacts:
        runtime = a.runtime + " *" * (TARGETS[a.target].evaluator is not None)
        verdict = "near" if a.precision not in FLOATS else "equal"
        table.add_row(a.file, runtime, verdict, f"{a.max_absolute_error:.1e}", f"{a.max_relative_error:.1e}", f"{a.bound:g}")
    print_table(console, table)


def _as_json(bundle: Path, result: VerifyResult, against: str) -> dict[str, Any]:
    return {
        "bundle": str(bundle),
        "steps": result.steps,
        "reference": against,
        "artifacts": [
            {
                "file": a.file,
                "runtime": a.runtime,
                "max_absolute_error": a.max_absolute_error,
                "max_relative_error": a.max_relative_error,
                "bound": a.bound,
            }
            for a in result.artifacts
        ],
        "extra": list(result.extra),
        "flushed_after_steps": None if result.flushed_after_steps is None else list(result.flushed_after_steps),
        "undetected_faults": list(result.undetected_faults),
    }


def _flushed_text(golden: GoldenSteps) -> str:
    return f" (and videos flushed after {', '.join(map(str, golden.flushed))} of them)" if golden.flushed else ""


def _compare_given(bundle: Bundle, given: dict[str, Any], console: Console) -> None:
    from clipstep.export.factory import read_labels
    from clipstep.export.interface import check_given

    labels = None if given["labels"] is None else read_labels(given["labels"])
    missing = check_given(bundle.manifest, {**given, "labels": labels})
    if missing:
        console.print(f"not compared, because the network does not record it: {', '.join(missing)}; give --{' --'.join(missing)}", soft_wrap=True)


def _print_stream_check(stream: StreamCheck | None, console: Console) -> None:
    if stream is not None:
        late = f" but the last {stream.delay}" if stream.delay else ""
        console.print(
            f"{stream.steps} steps of {stream.frames} frames are the clip network on {f'the newest {stream.window}' if stream.window else 'all'} "
            f"frames so far{late}{', and flushed on the whole video' if stream.flushed else ''}: largest error "
            f"{stream.max_relative_error:.1e} of the logits' range",
            soft_wrap=True,
        )
