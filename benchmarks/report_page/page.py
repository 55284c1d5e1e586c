"""The whole page: its head, its sections in their order, and the style and the script that it carries."""

import base64
import hashlib
from collections.abc import Callable
from importlib import resources

from clipstep.benchmarks.report_page.accuracy import accuracy_body
from clipstep.benchmarks.report_page.artifacts import parity_body, placement_body
from clipstep.benchmarks.report_page.data import Report, when_text
from clipstep.benchmarks.report_page.instructions import instructions_body
from clipstep.benchmarks.report_page.latency import cost_body, latency_body
from clipstep.benchmarks.report_page.markup import Html, element, paragraph
from clipstep.benchmarks.report_page.profiles import profiles_body
from clipstep.benchmarks.report_page.provenance import provenance_body
from clipstep.benchmarks.report_page.shipping import ship_body
from clipstep.benchmarks.report_page.sustained import sustained_body
from clipstep.runtime.wording import counted

SECTIONS: dict[str, tuple[str, Callable[[Report], Html | None]]] = {
    "ship": ("What to ship", ship_body),
    "latency": ("Latency", latency_body),
    "sustained": ("Minutes without pause", sustained_body),
    "cost": ("Latency against memory and error", cost_body),
    "operators": ("Where the time goes", profiles_body),
    "placement": ("Placement", placement_body),
    "parity": ("Parity", parity_body),
    "instructions": ("ARM64 instructions", instructions_body),
    "accuracy": ("Accuracy", accuracy_body),
    "provenance": ("Provenance", provenance_body),
}
"""The sections in their order: the id of each, its heading, and the function that returns its content, or None where there is nothing to say."""


def page(report: Report) -> str:
    """Return the page as the text of an HTML file, the same for the same input. It loads nothing: style, script and pictures are in it."""
    bodies = {name: (heading, body) for name, (heading, function) in SECTIONS.items() if (body := function(report)) is not None}
    links = (element("a", heading, href=f"#{name}") for name, (heading, _) in bodies.items())
    sections = (element("section", element("h2", heading, id=name), body) for name, (heading, body) in bodies.items())
    head = element("header", element("h1", f"{report.bundle.manifest.name}: what its artifacts cost"), paragraph(_summary(report)))
    content = element("main", head, element("nav", *links, aria_label="Sections"), *sections)
    return f'<!DOCTYPE html>\n<html lang="en">\n{_head(report)}\n{element("body", content)}\n</html>\n'


def _summary(report: Report) -> str:
    manifest = report.bundle.manifest
    spec = manifest.input
    seconds = spec.shape[0] * spec.frame_stride / spec.fps
    devices = list(report.devices())
    measured = f"measured on {'; '.join(devices)}" if devices else "no time was measured"
    if any(record.measured_utc for record in report.timed):
        measured += f" ({when_text(report.timed)})"
    artifacts = counted(len(manifest.artifacts), "artifact")
    return f"A step takes {spec.shape[0]} frames of {spec.frame_size}, {seconds:.2f} s of video. The bundle holds {artifacts}; {measured}."


def _head(report: Report) -> Html:
    style, script = (Html((resources.files(__package__) / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js"))
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{report.bundle.manifest.name}: what its artifacts cost"),
        element("style", style),
        element("script", script),
    )


def _digest(text: str) -> str:
    """Return the source of a content security policy that allows exactly this text, so that nothing else on the page can run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
