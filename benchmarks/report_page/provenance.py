"""The section of provenance: hashes, versions, devices, and the commands that make the page again."""

import shlex
from collections.abc import Sequence

from clipstep.benchmarks.arm64.processor import CPU
from clipstep.benchmarks.options import STEPS
from clipstep.benchmarks.records import AnyRecord, InstructionRecord, ProfileRecord, Record
from clipstep.benchmarks.report_page.data import Report, device_text, when_text
from clipstep.benchmarks.report_page.markup import Html, element, escaped, joined, number, paragraph, table
from clipstep.benchmarks.report_page.training import training_lines
from clipstep.runtime.bundle.format_version import version_text
from clipstep.runtime.wording import counted


def provenance_body(report: Report) -> Html:
    """Return where everything on the page is from."""
    parts = [
        _facts([*_of_the_bundle(report), *_of_the_records(report)]),
        _artifacts(report),
        *_devices(report),
        element("h3", "The commands that make it again"),
        element("pre", element("code", Html("\n".join(map(escaped, _commands(report))))), tabindex="0"),
        paragraph(
            "The manifest holds no date. A measurement made again has other times; ratios of one run carry over best.",
            class_="note",
        ),
    ]
    return joined(parts)


def _facts(facts: Sequence[tuple[str, object]]) -> Html:
    return element("dl", *(part for name, value in facts for part in (element("dt", name), element("dd", value))))


def _of_the_bundle(report: Report) -> list[tuple[str, object]]:
    manifest, origin = report.bundle.manifest, report.bundle.manifest.provenance
    config = ", ".join(f"{key} {value}" for key, value in origin.config.items())
    lines: list[tuple[str, object]] = [
        ("bundle", f"{report.bundle.path}, format {version_text(manifest.schema_version, report.bundle.ignored_keys)}"),
        ("manifest, SHA-256", report.bundle.manifest_sha256),
        ("network", f"{manifest.architecture} from the {origin.kind} {origin.source}{f'; {config}' if config else ''}"),
        ("weights, SHA-256", origin.weights_sha256),
        ("exported by", f"clipstep {manifest.export.clipstep_version}"),
    ]
    return [*lines, *(("training", line) for line in training_lines(report.bundle))]


def _of_the_records(report: Report) -> list[tuple[str, object]]:
    kept = f"{counted(len(report.timed), 'record')} of times, {len(report.counted)} of ARM64 instructions, {len(report.profiled)} of operators' times"
    facts: list[tuple[str, object]] = [("records", f"{report.records_path}: {kept}" if report.records_path else kept)]
    if report.replaced:
        facts.append(("left out", f"{counted(report.replaced, 'older record')} of the same configurations"))
    for name, count in report.left_out.items():
        facts.append(("left out", f"{count} of another network or of artifacts that this bundle does not hold, measured on {name}"))
    if report.evaluation_path is not None:
        facts.append(("evaluation", report.evaluation_path))
    versions = sorted({f"{tool} {version}" for record in _every(report) for tool, version in record.tool_versions.items()})
    return [*facts, ("measured with", ", ".join(versions) or "versions that the records do not hold")]


def _every(report: Report) -> tuple[AnyRecord, ...]:
    return (*report.timed, *report.counted, *report.profiled, *report.sustained)


def _artifacts(report: Report) -> Html:
    tuned = any(artifact.tuning for artifact in report.bundle.manifest.artifacts)
    headings = ("artifact", "form", "precision", "for", "MB", "SHA-256", "written by", "needs", *(["tuning"] if tuned else []))
    rows = [
        [
            a.file,
            a.form,
            a.precision,
            a.platform,
            number(a.size_bytes / 1e6, 2),
            element("code", a.sha256),
            ", ".join(f"{tool} {version}" for tool, version in a.tool_versions.items()),
            str(a.requires or "not recorded"),
            *([str(a.tuning or "")] if tuned else []),
        ]
        for a in report.bundle.manifest.artifacts
    ]
    return table("Artifacts", headings, rows)


def _devices(report: Report) -> list[Html]:
    rows = [
        [
            name,
            counted(len(records), "record"),
            when_text(records),
            ", ".join(dict.fromkeys(record.device.os for record in records)),
            _warmth(records[0]),
        ]
        for name, records in report.devices().items()
    ]
    emulated: dict[str, list[InstructionRecord]] = {}
    for record in report.counted:
        emulated.setdefault(f"{record.cpu_model} in {record.emulator}", []).append(record)
    rows += [[name, "counts", when_text(records), "", ""] for name, records in emulated.items()]
    profiled: dict[str, list[ProfileRecord]] = {}
    for profile in report.profiled:
        profiled.setdefault(device_text(profile), []).append(profile)
    rows += [[name, "operators", when_text(profiles), profiles[0].device.os, ""] for name, profiles in profiled.items()]
    rows += [[device_text(run), "sustained", when_text([run]), run.device.os, ""] for run in report.sustained]
    return [table("Devices", ("device", "measured", "when", "system", "build and battery"), rows)] if rows else []


def _warmth(record: Record) -> str:
    phone = record.phone
    if phone is None:
        return ""
    before, after = phone.temperature_before_c, phone.temperature_after_c
    warmth = "" if before is None or after is None else f"; {before:g} to {after:g} °C"
    return f"{phone.build_fingerprint}{warmth}"


def _commands(report: Report) -> list[str]:
    """Return the commands; what neither the manifest nor the records hold is named in capital letters."""
    bundle, records = (shlex.quote(str(path)) for path in (report.bundle.path, report.records_path or "records.jsonl"))
    here = [record for record in report.timed if record.phone is None]
    lines = []
    for pause in dict.fromkeys(record.pause_ms for record in here):
        lines.append(f"clipstep bench {bundle}{_network(report, here)}{_how([r for r in here if r.pause_ms == pause])} --out {records}")
    if len(here) < len(report.timed):
        lines.append(f"clipstep bench phone --app --out {records}")
    if report.counted:
        for cpu in dict.fromkeys(record.cpu_model for record in report.counted):
            own = [record for record in report.counted if record.cpu_model == cpu]
            options = ("" if cpu == CPU else f" --cpu {cpu}") + (" --operators" if any(record.operators for record in own) else "")
            lines.append(f"clipstep bench {bundle}{_network(report, own)} --arch arm64{options} --steps {len(own[0].steps)} --out {records}")
    for threads in dict.fromkeys(record.configuration.threads for record in report.profiled):
        steps = next(record.profiled_steps for record in report.profiled if record.configuration.threads == threads)
        lines.append(f"clipstep bench {bundle} --profile profile.png --threads {threads} --steps {steps} --out {records}")
    evaluation = ""
    if report.evaluation_path is not None:
        folder = shlex.quote(str(report.evaluation_path))
        evaluation = f" --evaluation {folder}"
        lines.append(f"clipstep evaluate {bundle} DATA --split N --record --out {folder}")
    return [*lines, f"clipstep report {bundle} {records} --html report.html{evaluation}"]


def _network(report: Report, records: Sequence[Record | InstructionRecord]) -> str:
    """Return the option that names the network, if it was measured beside the artifacts."""
    origin = report.bundle.manifest.provenance
    if all(record.artifact_sha256 is not None for record in records):
        return ""
    return {"run": f" --run {shlex.quote(origin.source)}", "factory": f" --model {shlex.quote(origin.source)}"}.get(origin.kind, " --model FACTORY")


def _how(records: Sequence[Record]) -> str:
    """Return the options of a measurement of as many steps with the same threads."""
    threads = "".join(f" --threads {count}" for count in sorted({record.configuration.threads for record in records}))
    steps, in_a_turn = len(records[0].step_ms), records[0].turn_steps or 1
    turns = f" --rounds {steps // in_a_turn}{'' if in_a_turn == STEPS else f' --steps {in_a_turn}'}"
    pause = f" --pause {records[0].pause_ms:g}" if records[0].pause_ms else ""
    spinning = " --spinning" if any(record.configuration.spinning for record in records) else ""
    videos = sorted({record.configuration.video for record in records if record.configuration.video is not None})
    return f"{threads}{turns}{pause}{spinning}{''.join(f' --video {shlex.quote(video)}' for video in videos)}"
