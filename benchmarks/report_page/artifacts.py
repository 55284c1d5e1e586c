"""The sections of what the manifest says of the artifacts: which operations run where, and how exact they are."""

from clipstep.benchmarks.report_page.charts import Lane, error_plot, short, stacked_bar
from clipstep.benchmarks.report_page.data import Report
from clipstep.benchmarks.report_page.markup import Html, Number, figure, joined, number, paragraph, table
from clipstep.runtime.bundle.manifest import Artifact, Placement
from clipstep.runtime.engines import engine_of
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.targets import TARGETS
from clipstep.runtime.wording import counted, listed


def placement_body(report: Report) -> Html | None:
    """Return where the nodes of each artifact run, or None if the manifest does not say it of any."""
    known = [a for a in report.bundle.manifest.artifacts if a.placement.delegated or a.placement.not_delegated]
    if not known:
        return None
    outside = [artifact.file for artifact in known if artifact.placement.not_delegated]
    split = [artifact.file for artifact in known if len(artifact.placement.delegated) > 1]
    finding = f"{listed(outside)}: some operations run outside the delegates" if outside else "Every operation runs in a delegate"
    calls = f"{listed(split)}: several delegate calls a step" if split else "no artifact has more than one delegate call a step"
    headings = ("artifact", "nodes in delegates", "delegate calls", "nodes outside", "", "which run where")
    explanation = (
        "A delegate is what runs the nodes of a graph: XNNPACK, an execution provider of onnxruntime, or Core ML itself. "
        "The bar shows the nodes of each delegate call and, in red, those outside. Each call copies values in and out."
    )
    parts = [
        paragraph(f"{finding}; {calls}", class_="finding"),
        table("Placement of the nodes", headings, [_placement_row(artifact) for artifact in known]),
        paragraph(explanation, class_="note"),
    ]
    outside_why = {a.file: a.placement.reasons for a in known}
    wide_why = {a.file: a.placement.in_float32 for a in known}
    half_why = {a.file: a.placement.in_float16 for a in known}
    for title, why in (
        ("What no delegate runs, and why", outside_why),
        ("What artifacts of lower precision compute in float32, and why", wide_why),
        ("The products that artifacts of dynamic8 or w8a8 compute in float16, and why", half_why),
    ):
        rows = [(file, r.operator, number(r.count, 0), r.reason) for file, reasons in why.items() for r in reasons]
        if rows:
            parts.append(table(title, ("artifact", "operator", "how often", "reason"), rows))
    return joined(parts)


def _placement_row(artifact: Artifact) -> list[object]:
    placement = artifact.placement
    nodes, outside = list(placement.delegated.values()), len(placement.not_delegated)
    parts = [*((count, "own") for count in nodes if count), *([(outside, "outside")] if outside else [])]
    title = f"{counted(sum(nodes), 'node')} in {counted(len(nodes), 'delegate call')}, {outside} outside"
    picture = stacked_bar(title, parts) if parts else ""
    return [artifact.file, number(sum(nodes), 0), number(len(nodes), 0), number(outside, 0), picture, _where(placement)]


def _where(placement: Placement) -> str:
    inside = [f"{name}: {count}" for name, count in placement.delegated.items()]
    outside = [f"outside: {listed(tuple(dict.fromkeys(placement.not_delegated)))}"] if placement.not_delegated else []
    return "; ".join([*inside, *outside])


def parity_body(report: Report) -> Html:
    """Return the error of each artifact beside its bound, and the golden steps that it was measured over."""
    artifacts = report.bundle.manifest.artifacts
    lanes = [
        Lane(
            f"{short(a.file)}: {a.parity.max_relative_error:.1e} of {BOUNDS[a.precision]:g}",
            (a.parity.max_relative_error,),
            bound=BOUNDS[a.precision],
        )
        for a in artifacts
    ]
    used = {a.file: a.parity.max_relative_error / BOUNDS[a.precision] for a in artifacts}
    nearest = max(used, key=lambda file: used[file])
    verdict = "Every artifact is within its bound" if used[nearest] <= 1 else f"{nearest} is beyond its bound"
    picture = error_plot("The largest error of each artifact beside its bound", lanes, "largest error, share of the range")
    explanation = (
        "The dot is the largest error over the golden steps, the upright line its bound. It was compared at export, before the artifact was written."
    )
    headings = ("artifact", "precision", "run by", "steps", "largest error", "of the range", "bound", "share of the bound")
    rows = [
        [
            a.file,
            a.precision,
            _run_by(a),
            number(a.parity.steps, 0),
            _error(a.parity.max_absolute_error),
            _error(a.parity.max_relative_error),
            Number(f"{BOUNDS[a.precision]:g}", BOUNDS[a.precision]),
            number(100 * used[a.file], 1, "%"),
        ]
        for a in artifacts
    ]
    bounds = dict.fromkeys(f"{a.precision} within {a.parity.bound}" for a in artifacts)
    references = dict.fromkeys(a.parity.reference for a in artifacts)
    parts = [
        figure(f"{verdict}; {nearest} comes nearest to it, with {used[nearest]:.1%}", picture, explanation, class_="errors"),
        table("Parity of the artifacts", headings, rows),
        paragraph(f"Compared with {' and '.join(references)}: {'; '.join(bounds)}.", class_="note"),
        _golden(report),
    ]
    return joined(parts)


def _error(value: float) -> Number:
    return Number(f"{value:.1e}", value)


def _run_by(artifact: Artifact) -> str:
    engine = engine_of(artifact.target)
    return engine.name if engine else f"clipstep's evaluator of {TARGETS[artifact.target].display_name}"


def _golden(report: Report) -> Html:
    golden = report.bundle.manifest.golden
    frames = f", with frames of: {', '.join(golden.frame_sources)}" if golden.frame_sources else ""
    by = f"; the expected outputs are by {golden.recorded_by}" if golden.recorded_by else ""
    omitted = f"; the last {golden.omitted_steps} recorded steps were left out of this pack" if golden.omitted_steps else ""
    faults = listed(golden.undetected_faults, len(golden.undetected_faults))
    blind = f" Of the faults that the export tried, they do not detect: {faults}." if faults else ""
    size = f"{golden.file}, {golden.size_bytes / 1e6:.1f} MB"
    what = "inputs and expected outputs with which every runtime can be checked"
    return paragraph(f"The golden steps ({size}{frames}{by}{omitted}) are {what}.{blind}", class_="note")
