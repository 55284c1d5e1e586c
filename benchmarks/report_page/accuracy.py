"""The section of accuracy: what the manifest holds of each artifact, and an evaluation with its confusion matrix."""

from collections.abc import Mapping

from clipstep.benchmarks.report_page.charts import bar
from clipstep.benchmarks.report_page.data import Report
from clipstep.benchmarks.report_page.evaluation import Evaluation
from clipstep.benchmarks.report_page.markup import Html, Number, element, joined, number, paragraph, table, table_caption
from clipstep.runtime.bundle.manifest import AgainstFloat32
from clipstep.runtime.command_line.accuracy_text import change_interval_text
from clipstep.runtime.command_line.confidence_interval import proportion_text, wilson_interval
from clipstep.runtime.wording import counted

LARGEST_MATRIX = 25
"""Matrices of more classes are not drawn: their most frequent confusions are listed."""
LISTED = 10
SHADES = 10


def accuracy_body(report: Report) -> Html | None:
    """Return the accuracies that are known, or None if there are none."""
    noted = [(a.file, a.accuracy) for a in report.bundle.manifest.artifacts if a.accuracy]
    parts = []
    if noted:
        rows = [
            [
                file,
                a.engine,
                a.processor or "-",
                _percent(a.top1),
                _interval(a.top1, a.videos),
                _percent(a.top5),
                number(a.videos, 0),
                number(a.crops, 0),
                a.dataset,
            ]
            for file, a in noted
        ]
        headings = ("artifact", "engine", "processor", "top-1", "95% interval", "top-5", "videos", "crops", "data set")
        best, accuracy = max(noted, key=lambda item: item[1].top1)
        parts += [
            paragraph(f"{best} is right for {proportion_text(accuracy.top1, accuracy.videos)}", class_="finding"),
            table("Accuracy that the manifest holds", headings, rows),
            *_against_float32({file: accuracy.against_float32 for file, accuracy in noted if accuracy.against_float32}),
        ]
    if report.evaluation is not None:
        parts += _evaluation(report.evaluation)
    return joined(parts) if parts else None


def _against_float32(compared: Mapping[str, AgainstFloat32]) -> list[Html]:
    """Return what artifacts of lower precision lose against float32, if any were compared."""
    if not compared:
        return []
    changes = [
        [
            file,
            against.file,
            number(100 * against.top1_change, 1, " points"),
            change_interval_text(against),
            number(against.lost_videos, 0),
            number(against.gained_videos, 0),
            number(100 * against.agreeing_steps / against.steps, 1, "%"),
            "{:.1%} to {:.1%}".format(*against.agreement_interval),
            number(against.steps, 0),
        ]
        for file, against in compared.items()
    ]
    headings = (
        "artifact",
        "against",
        "change of top-1",
        "95% interval",
        "only float32 right",
        "only it right",
        "same class",
        "95% interval",
        "steps",
    )
    drifts = [
        [file, drift.output, number(100 * drift.first_tenth, 2, "%"), number(100 * drift.last_tenth, 2, "%"), number(against.drift_steps, 0)]
        for file, against in compared.items()
        for drift in against.drift
    ]
    return [
        table("Lower precision against float32, on the same videos", headings, changes),
        paragraph(
            "The interval of the change is Newcombe's for paired proportions, that of the same class Wilson's, which takes steps to be independent.",
            class_="note",
        ),
        table(
            "Largest errors against float32 in one long stream, as shares of the output's range",
            ("artifact", "output", "first tenth of the steps", "last tenth", "steps"),
            drifts,
        ),
    ]


def _evaluation(evaluation: Evaluation) -> list[Html]:
    top5 = "" if evaluation.top5 is None else f", top-5 {evaluation.top5:.1%}"
    rest = f"{top5}; the largest class has {evaluation.largest_class_share:.1%}"
    skipped = f" {counted(len(evaluation.skipped_videos), 'video')} could not be read, and count neither as right nor as wrong." * bool(
        evaluation.skipped_videos
    )
    crops = f" Probabilities are means over {evaluation.crops} crops." if evaluation.crops > 1 else ""
    classes = [[name, _percent(row.accuracy), bar(row.accuracy or 0), number(row.videos, 0)] for name, row in evaluation.per_class.items()]
    seen = [[number(100 * float(share), 0, "%"), _percent(value), bar(value or 0)] for share, value in evaluation.seen.items()]
    return [
        element("h3", "The evaluation"),
        paragraph(f"Top-1 {proportion_text(evaluation.top1, evaluation.videos)}{rest}", class_="finding"),
        paragraph(f"{'; '.join(evaluation.what)}.{crops}{skipped}", class_="note"),
        *(paragraph(f"A warning of that evaluation: {warning}", class_="note") for warning in evaluation.warnings),
        element(
            "div",
            table("Accuracy by class", ("class", "accuracy", "", "videos"), classes),
            table("Top-1 when a part of each video was seen", ("seen", "top-1", ""), seen),
            class_="pair",
        ),
        _matrix(evaluation.per_class, evaluation.confusion) if len(evaluation.per_class) <= LARGEST_MATRIX else _confusions(evaluation),
    ]


def _matrix(labels: Mapping[str, object], confusion: tuple[tuple[int, ...], ...]) -> Html:
    """Return the confusion matrix. The darker a cell, the larger its share of its row."""
    head = element("tr", element("td", "true \\ predicted"), *(element("th", name, scope="col", class_="n") for name in labels))
    rows = []
    for name, row in zip(labels, confusion, strict=True):
        total = sum(row) or 1
        cells = (element("td", count, class_=f"n s{round(SHADES * count / total)}") for count in row)
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    caption = table_caption("Confusion matrix: rows are the true classes, columns the predicted ones; the shade is the share of the row")
    whole = element("table", caption, element("thead", head), element("tbody", *rows), class_="matrix")
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label="Confusion matrix")


def _confusions(evaluation: Evaluation) -> Html:
    rows = [[true, predicted, number(count, 0)] for true, predicted, count in evaluation.confusions()[:LISTED]]
    return table(f"The {len(rows)} most frequent confusions", ("true class", "predicted class", "videos"), rows)


def _percent(share: float | None) -> Number:
    return number(None if share is None else 100 * share, 1, "%")


def _interval(share: float, videos: int) -> str:
    low, high = wilson_interval(share, videos)
    return f"{low:.0%} to {high:.0%}"
