"""``clipstep report --html``: the numbers of the page are those of the records, its texts are harmless, and it is a whole page by itself."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clipstep.benchmarks import Record, html_report
from clipstep.benchmarks.records import (
    Configuration,
    Counts,
    InstructionRecord,
    OperatorCount,
    OperatorTime,
    Parts,
    Phone,
    ProfileRecord,
    record_lines,
)
from clipstep.benchmarks.report_page.axis import Axis
from clipstep.benchmarks.report_page.charts import Lane, box_plot
from clipstep.benchmarks.report_page.data import when_text
from clipstep.runtime import ClipstepError
from clipstep.runtime.bundle import MANIFEST, Bundle
from clipstep.runtime.bundle.manifest import Artifact, Manifest

Cli = Callable[..., tuple[int, str, str]]
VOID = ("meta",)
HOSTILE = "<script>alert(1)</script><img src=x onerror=\"alert('2')\">"
MB = 10**6


class Page(HTMLParser):
    """A parsed page. Parsing fails if its elements are not nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr" and "tbody" in self.open:
            self.rows.append([])
        if tag in ("th", "td") and "tbody" in self.open:
            value = given.get("data-value")
            self.rows[-1].append(("", None if value is None else float(value)))
        if tag == "table":
            self.caption, self.rows = "", list[list[tuple[str, float | None]]]()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        if where not in ("script", "style"):
            self.text += data
        self.texts.append((where, data))
        if "caption" in self.open:
            self.caption += data
        elif "tbody" in self.open and {"th", "td"} & set(self.open) and "svg" not in self.open:
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, value)

    @property
    def sections(self) -> list[str]:
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "h2"]

    def table(self, start: str) -> dict[str, list[tuple[str, float | None]]]:
        """The rows of the table whose caption starts so, by their first cell."""
        (rows,) = (rows for caption, rows in self.tables.items() if caption.startswith(start))
        return {row[0][0]: row[1:] for row in rows}

    def cards(self) -> dict[str, str]:
        """What to ship, by platform: all texts of its card."""
        whole = self.text[self.text.index("What to ship", self.text.index("Provenance")) : self.text.index("The rule: ")]
        names = ["Android, ARM64", "iOS", "Server, x86", "Computer, ARM64"]
        found = sorted((whole.index(name), name) for name in names if name in whole)
        ends = [start for start, _ in found[1:]] + [len(whole)]
        return {name: whole[start + len(name) : end] for (start, name), end in zip(found, ends, strict=True)}


@pytest.fixture
def manifest(bundle_path: Path) -> Manifest:
    return Bundle.open(bundle_path).manifest


@pytest.fixture
def onnx(manifest: Manifest) -> Artifact:
    return manifest.artifacts[0]


@pytest.fixture
def timed(record: Record, manifest: Manifest) -> Callable[..., Record]:
    """``timed(artifact, times)``: a record of an artifact, or of the naive ONNX for None; more keys of a record may be given."""

    def make(artifact: Artifact | None, times: tuple[float, ...], *, threads: int = 1, **more: Any) -> Record:
        name, engine = ("naive rank-5 ONNX", "onnxruntime") if artifact is None else (artifact.file, "an engine")
        file = "/somewhere/naive.onnx" if artifact is None else artifact.file
        configuration = Configuration(
            name=name, target="t", form="3d" if artifact is None else "lowered", precision="float32", engine=engine, threads=threads, file=file
        )
        device = record.device.model_copy(update={"cpu_model": "Chip", "machine": "x86_64", "os": "Linux", "cores": 4})
        cold = record.cold_start.model_copy(update={"load_s": 0.25, "first_step_ms": 31.5})
        own = {
            "artifact_sha256": None if artifact is None else artifact.sha256,
            "weights_sha256": manifest.provenance.weights_sha256,
            "configuration": configuration,
            "cold_start": cold,
            "device": device,
            "step_ms": times,
            "turn_steps": 5,
            "peak_memory_bytes": 150 * MB,
            "memory_before_load_bytes": 100 * MB,
            "file_bytes": 2_500_000,
        }
        return record.model_copy(update={**own, **more})

    return make


@pytest.fixture
def counts(record: Record, manifest: Manifest) -> Callable[..., InstructionRecord]:
    """``counts(artifact, millions)``: the ARM64 instructions of a step, half of them in two convolutions."""

    def make(artifact: Artifact | None, millions: int) -> InstructionRecord:
        values = {"instructions": millions * MB, "vector_fmas": 40 * MB, "loads": 20 * MB, "stores": 10 * MB, "float32_macs": 160 * MB}
        step = Counts(**values)
        one = Counts(**{key: value // 4 for key, value in values.items()})
        name = "naive rank-5 ONNX" if artifact is None else artifact.file
        return InstructionRecord(
            bundle="small.clipstep",
            manifest_sha256="a" * 64,
            artifact_sha256=None if artifact is None else artifact.sha256,
            weights_sha256=manifest.provenance.weights_sha256,
            configuration=record.configuration.model_copy(update={"name": name, "form": "3d" if artifact is None else "lowered"}),
            emulator="qemu 9",
            cpu_model="cortex",
            tool_versions={},
            file_bytes=1,
            needed_multiply_accumulates=120 * MB,
            largest_error=0,
            first_step=step,
            steps=(step,),
            operators=() if artifact is None else tuple(OperatorCount(name=n, kind="Conv", output_shape=None, **one.model_dump()) for n in "ab"),
        )

    return make


def artifact_of(manifest: Manifest, suffix: str) -> Artifact:
    return next(artifact for artifact in manifest.artifacts if artifact.file.endswith(suffix))


def evaluation(folder: Path, labels: tuple[str, ...], **changed: Any) -> Path:
    """A folder such as ``clipstep evaluate --out`` writes, of 10 videos of the first class, of which 3 were taken for the second."""
    folder.mkdir()
    confusion = [[0] * len(labels) for _ in labels]
    confusion[0][:2] = 7, 3
    summary = {
        "what": ["small.clipstep: in an engine"],
        "crops": 1,
        "warnings": [],
        "videos": 10,
        "skipped_videos": {},
        "largest_class_share": 1.0,
        "top1": 0.7,
        "top5": None,
        "per_class": {name: {"videos": 0 if i else 10, "accuracy": None if i else 0.7} for i, name in enumerate(labels)},
        "seen": {"0.5": 0.6, "1.0": 0.7},
        "seen_videos": {"0.5": 10, "1.0": 10},
        "confusion": confusion,
    }
    (folder / "summary.json").write_text(json.dumps({**summary, **changed}))
    return folder


def test_the_numbers_of_the_page_are_those_of_the_records(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    records = [timed(None, (40, 40)), timed(onnx, (10, 20, 30, 40), peak_memory_bytes=112 * MB), timed(onnx, (100,), threads=2)]
    page = Page(html_report(bundle_path, records))
    (rows,) = (rows for caption, rows in page.tables.items() if caption == "Step times on Chip, 4 cores, x86_64, Linux")
    # Median 25; p90 lies 0.7 of the way from the third to the fourth of 4 times, p99 0.97; naive 40 / 25; 0.64 s of video in 25 ms.
    assert [value for _, value in rows[1][2:]] == pytest.approx([1, 25, 37, 39.7, 1.6, 25.6, 0.25, 31.5, 12, 2.5, 4])
    assert [text for text, _ in rows[1]][:6] == [onnx.file, "an engine", "1", "25.00", "37.00", "39.70"]
    # No naive ONNX was measured with two threads.
    assert [row[6][0] for row in rows] == ["1.00", "1.60", "-"]
    assert f"{onnx.file}, 1 thread has the lowest median: 25.0 ms a step, 1.60 times as fast as the naive export" in page.text


def test_numbers_are_sorted_by_their_values(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    page = Page(html_report(bundle_path, [timed(onnx, (1234.5,)), timed(None, (9.5,))]))
    cells = [cell for rows in page.tables.values() for row in rows for cell in row if cell[1] is not None]
    assert ("1,234.50", 1234.5) in cells and len(cells) > 20
    for text, value in cells:
        assert float(text.replace(",", "").rstrip("%")) == pytest.approx(value, rel=0.06, abs=0.06)


def test_the_fastest_is_shipped_and_of_equals_the_one_with_the_least_memory(
    bundle_path: Path, manifest: Manifest, timed: Callable[..., Record]
) -> None:
    one, other, *_ = (a for a in manifest.artifacts if not a.file.endswith(".mlpackage"))
    clear = Page(html_report(bundle_path, [timed(one, (20,)), timed(other, (30,)), timed(one, (25,), threads=2)])).cards()["Server, x86"]
    assert clear.startswith(f"{one.file}, 1 threadtime measured") and "20.0 ms" in clear and f"{other.file}: 30.0 ms" in clear
    near = [timed(one, (20,)), timed(other, (20.9,), peak_memory_bytes=110 * MB)]
    equal = Page(html_report(bundle_path, near)).cards()["Server, x86"]
    assert equal.startswith(f"{other.file}, 1 thread") and "counts as equal, with 50 MB in place of 10 MB" in equal
    slow = Page(html_report(bundle_path, [timed(one, (700,))])).cards()["Server, x86"]
    assert "does not keep up with a live stream: p99 is 700 ms, and a step's frames last 640 ms" in slow
    assert f"{other.file}: not measured there" in slow


DOUBTS: dict[str, tuple[tuple[float, float] | None, str]] = {
    "not evaluated": (None, "not chosen, because its accuracy was not compared with that of float32 (clipstep export --evaluate)"),
    "clearly worse": ((-0.2, -0.01), "not chosen, because its top-1 is 10.0 points below that of step.onnx"),
    "as good, for all that is known": ((-0.2, 0.01), ""),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_int8_is_chosen_only_if_it_is_not_known_to_be_less_accurate(
    name: str, bundle_copy: Path, manifest: Manifest, timed: Callable[..., Record], counts: Callable[..., InstructionRecord]
) -> None:
    interval, doubt = DOUBTS[name]
    file = artifact_of(manifest, ".pte").file
    against = {"file": "step.onnx", "engine": "e", "top1": 0.7, "top1_change": -0.1, "top1_change_interval": interval, "gained_videos": 0}
    against |= {"lost_videos": 1, "steps": 10, "agreeing_steps": 9, "agreement_interval": (0.5, 1.0), "drift_steps": 1, "drift": []}
    accuracy = {"dataset": "d", "engine": "e", "videos": 10, "crops": 1, "top1": 0.6, "top5": None, "against_float32": against}

    def change(values: dict[str, Any]) -> None:
        artifact = next(artifact for artifact in values["artifacts"] if artifact["file"] == file)
        artifact.update(precision="int8", accuracy=accuracy if interval else None)

    _change(bundle_copy, change)
    narrow, onnx = artifact_of(manifest, ".pte"), artifact_of(manifest, ".onnx")
    cards = Page(html_report(bundle_copy, [timed(onnx, (20,)), timed(narrow, (10,)), counts(onnx, 140), counts(narrow, 70)])).cards()
    assert cards["Server, x86"].startswith(f"{onnx.file}, 1 thread" if doubt else f"{file}, 1 thread")
    assert (f"{file}: {doubt}" in cards["Server, x86"]) == bool(doubt) == ("not chosen" in cards["Server, x86"])
    assert not cards["Android, ARM64"].startswith(file) if doubt else cards["Android, ARM64"].startswith(file)


def test_what_was_not_measured_is_said_not_to_be(
    bundle_path: Path, manifest: Manifest, onnx: Artifact, timed: Callable[..., Record], counts: Callable[..., InstructionRecord]
) -> None:
    cards = Page(html_report(bundle_path, [timed(onnx, (20,), device=timed(onnx, (1,)).device.model_copy(update={"machine": "aarch64"}))])).cards()
    assert {name for name, text in cards.items() if text.startswith("not measured here")} == {"Android, ARM64", "iOS", "Server, x86"}
    assert cards["Computer, ARM64"].startswith(onnx.file)
    assert "Core ML runs on Apple devices only" in cards["iOS"]
    pte = artifact_of(manifest, ".pte")
    counted = Page(html_report(bundle_path, [timed(onnx, (20,)), counts(onnx, 140), counts(pte, 110)])).cards()
    assert counted["Android, ARM64"].startswith(f"{pte.file}counted, not timed") and "not time" in counted["Android, ARM64"]
    phone = Phone(model="Phone", build_fingerprint="f", temperature_before_c=20, temperature_after_c=21, thermal_status_after=0)
    on_phone = Page(html_report(bundle_path, [counts(onnx, 140), counts(pte, 110), timed(onnx, (20,), phone=phone), timed(pte, (30,), phone=phone)]))
    assert on_phone.cards()["Android, ARM64"].startswith(f"{onnx.file}, 1 threadtime measured")
    assert on_phone.cards()["Server, x86"].startswith("not measured here")


def test_sections_are_there_if_there_is_something_to_say(
    bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], counts: Callable[..., InstructionRecord], tmp_path: Path, manifest: Manifest
) -> None:
    assert Page(html_report(bundle_path, [timed(onnx, (20,))])).sections == ["ship", "latency", "placement", "parity", "provenance"]
    assert Page(html_report(bundle_path, [counts(onnx, 5)])).sections == ["ship", "placement", "parity", "instructions", "provenance"]
    every = [timed(onnx, (20,)), timed(None, (30,)), counts(onnx, 5)]
    page = Page(html_report(bundle_path, every, evaluation=evaluation(tmp_path / "evaluation", manifest.labels)))
    assert page.sections == ["ship", "latency", "cost", "placement", "parity", "instructions", "accuracy", "provenance"]


def test_instructions_by_configuration_and_by_kind_of_operator(bundle_path: Path, onnx: Artifact, counts: Callable[..., InstructionRecord]) -> None:
    page = Page(html_report(bundle_path, [counts(None, 250), counts(onnx, 100)]))
    # 120 of 160 M multiply-accumulates are needed: 75 %, and so 30 of 40 M vector FMAs, 30 % of 100 M instructions.
    assert [value for _, value in page.table("ARM64 instructions")[onnx.file]] == [100, None, 2.5, 40, 20, 10, 160, 0, 0, 75, 30]
    kinds = page.table(f"{onnx.file} in")
    assert kinds["Conv"] == [("50.00", 50), ("", None), ("50%", 50), ("2", 2)] and kinds["between operators"][0] == ("50.00", 50)


def test_a_profile_by_kind_of_operator(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    """Three convolutions take 4.5 of 6 ms. Of 18 kinds the table lists 15 and adds up the rest."""
    of = timed(onnx, (20,))
    times = [("Conv", 1.0), ("Add", 1.0), ("Conv", 0.5), ("Conv", 3.0), *((f"kind {i}", 0.5 / 16) for i in range(16))]
    shared = {
        key: getattr(of, key)
        for key in ("bundle", "manifest_sha256", "artifact_sha256", "weights_sha256", "configuration", "device", "tool_versions")
    }
    operators = tuple(OperatorTime(kind=kind, output_shape=None, median_ms=ms) for kind, ms in times)
    older = ProfileRecord(**shared, profiled_steps=1, operators=operators[:1], measured_utc=None)
    page = Page(html_report(bundle_path, [older, ProfileRecord(**shared, profiled_steps=7, operators=operators, measured_utc=None)]))
    kinds = page.table(f"{onnx.file} in an engine: time by kind of operator on Chip, 4 cores, x86_64, Linux")
    assert kinds["Conv"] == [("4.50", 4.5), ("", None), ("75%", 75), ("3", 3)] and kinds["Add"][0] == ("1.00", 1)
    assert kinds["3 kinds more"][0][1] == pytest.approx(3 * 0.5 / 16) and kinds["3 kinds more"][3] == ("3", 3) and len(kinds) == 16
    assert f"{onnx.file} in an engine, 1 thread: 75% of the operators' time in Conv" in page.text and "Medians of 7 steps; 20 operators." in page.text
    assert page.sections == ["ship", "operators", "placement", "parity", "provenance"] and "1 older record of the same configurations" in page.text
    assert [row[:2] for row in page.table("Devices").values()] == [[("operators", None), ("not recorded", None)]]
    with pytest.raises(ClipstepError, match=r"the profile of .*: its times cannot be read; expected times of 0 or more"):
        html_report(bundle_path, [older.model_copy(update={"operators": (operators[0].model_copy(update={"median_ms": float("nan")}),)})])


def test_placement_and_parity_are_the_manifests(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], manifest: Manifest) -> None:
    page = Page(html_report(bundle_path, [timed(onnx, (20,))]))
    for artifact in manifest.artifacts:
        nodes, calls, outside, *_ = (value for _, value in page.table("Placement")[artifact.file])
        placement = artifact.placement
        assert (nodes, calls, outside) == (sum(placement.delegated.values()), len(placement.delegated), len(placement.not_delegated))
        absolute, relative, bound, share = (value for _, value in page.table("Parity")[artifact.file][3:])
        assert (absolute, relative) == pytest.approx((artifact.parity.max_absolute_error, artifact.parity.max_relative_error), rel=1e-5)
        assert bound == {"float32": 1e-4, "float16": 2e-2}[artifact.precision] and share == pytest.approx(100 * relative / bound, rel=1e-5)


def test_what_is_outside_of_delegates_is_there_with_the_reason(bundle_copy: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    outside = {"not_delegated": ["aten::topk"], "reasons": [{"operator": "aten.topk", "count": 1, "reason": "XNNPACK has no such operator"}]}
    _change(bundle_copy, lambda values: values["artifacts"][1]["placement"].update(outside))
    assert "XNNPACK has no such operator" in Page(html_report(bundle_copy, [timed(onnx, (20,))])).text


def test_the_confusion_matrix_is_the_evaluations(
    bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], tmp_path: Path, manifest: Manifest
) -> None:
    page = Page(html_report(bundle_path, [timed(onnx, (20,))], evaluation=evaluation(tmp_path / "evaluation", manifest.labels)))
    assert [[text for text, _ in row] for row in page.table("Confusion").values()] == [["7", "3", "0"], ["0", "0", "0"], ["0", "0", "0"]]
    assert page.table("Accuracy by class")["fight"][0] == ("70.0%", 70) and page.table("Accuracy by class")["other"][0] == ("-", None)
    assert "Top-1 70.0% of 10 videos" in page.text


def test_of_many_classes_the_most_frequent_confusions_are_listed(
    bundle_copy: Path, onnx: Artifact, timed: Callable[..., Record], tmp_path: Path
) -> None:
    labels = tuple(f"class {index}" for index in range(30))
    _change(bundle_copy, lambda values: values.update(labels=labels))
    page = Page(html_report(bundle_copy, [timed(onnx, (20,))], evaluation=evaluation(tmp_path / "evaluation", labels)))
    assert page.table("The 1 most")["class 0"] == [("class 1", None), ("3", 3)]


def _change(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((bundle / MANIFEST).read_text())
    change(values)
    (bundle / MANIFEST).write_text(json.dumps(values))


@pytest.fixture
def hostile(
    bundle_copy: Path, onnx: Artifact, timed: Callable[..., Record], counts: Callable[..., InstructionRecord], tmp_path: Path
) -> tuple[str, tuple[str, ...]]:
    """The page of a bundle and of records that have HTML wherever a text may stand, and the labels."""
    labels = (HOSTILE, "a & b", "'c'")

    def change(values: dict[str, Any]) -> None:
        values.update(name=HOSTILE, labels=labels)
        values["provenance"].update(source=HOSTILE, architecture=HOSTILE)
        artifact = values["artifacts"][0]
        artifact["placement"].update(not_delegated=[HOSTILE], reasons=[{"operator": HOSTILE, "count": 1, "reason": HOSTILE}])
        artifact["parity"].update(bound=HOSTILE, reference=HOSTILE)
        artifact.update(
            tool_versions={HOSTILE: HOSTILE}, accuracy={"dataset": HOSTILE, "engine": HOSTILE, "videos": 1, "crops": 1, "top1": 1, "top5": None}
        )

    _change(bundle_copy, change)
    record, naive, count = timed(onnx, (20, 30)), timed(None, (30, 40)), counts(onnx, 5)
    bad = {"name": HOSTILE + "\u202e\x00", "engine": HOSTILE}
    device = record.device.model_copy(update={"cpu_model": HOSTILE, "os": HOSTILE})
    records = [
        record.model_copy(update={"device": device, "tool_versions": {HOSTILE: HOSTILE}}),
        naive.model_copy(update={"configuration": naive.configuration.model_copy(update=bad), "device": device}),
        count.model_copy(update={"emulator": HOSTILE, "configuration": count.configuration.model_copy(update=bad)}),
    ]
    written = evaluation(tmp_path / "<b>", labels, what=[HOSTILE], warnings=[HOSTILE])
    return html_report(bundle_copy, records, evaluation=written), labels


def test_hostile_texts_are_shown_and_do_nothing(
    hostile: tuple[str, tuple[str, ...]], bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]
) -> None:
    text, labels = hostile
    page = Page(text)
    plain = Page(html_report(bundle_path, [timed(onnx, (20,))]))
    allowed = {tag for tag, _ in plain.elements} | {"h3", "ul", "li", "details", "summary"}
    assert {tag for tag, _ in page.elements} <= allowed and sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(label in [name for name, *_ in page.tables["Accuracy by class"]] or label in page.text for label in labels)
    assert page.text.count(HOSTILE) > 20
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text) and r"\u202e\x00" in page.text


def test_the_page_is_whole_and_loads_nothing(hostile: tuple[str, tuple[str, ...]]) -> None:
    page = Page(hostile[0])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "poster", "action", "xlink:href", "style"} & attributes.keys(), (tag, attributes)
        assert "href" not in attributes or (tag == "a" and str(attributes["href"]).removeprefix("#") in ids)
    carried = {where: data for where, data in page.texts if where in ("style", "script")}
    assert not re.search(r"url\(|@import|https?:|fetch|import\(", "".join(carried.values()))
    (policy,) = (str(a["content"]) for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    for where, data in carried.items():
        digest = base64.b64encode(hashlib.sha256(data.encode()).digest()).decode()
        assert f"{where}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")


def test_pictures_and_tables_say_what_they_are(hostile: tuple[str, tuple[str, ...]]) -> None:
    page = Page(hostile[0])
    shown = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("aria-hidden") != "true"]
    titles = [data for where, data in page.texts if where == "title"]
    assert shown and all(attributes["role"] == "img" for attributes in shown) and len(titles) == len(shown) + 1
    assert all(caption for caption in page.tables)
    heads = [attributes for tag, attributes in page.elements if tag == "th"]
    assert heads and all(attributes["scope"] in ("row", "col") for attributes in heads)


def test_of_a_configuration_that_was_measured_again_the_last_record_counts(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    page = Page(html_report(bundle_path, [timed(onnx, (10,)), timed(onnx, (20,)), timed(onnx, (15,), threads=2)]))
    assert [row[3][1] for row in page.tables["Step times on Chip, 4 cores, x86_64, Linux"]] == [20, 15]
    assert "1 older record of the same configurations" in page.text


def test_devices_are_not_mixed(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    slower = timed(None, (1,)).device.model_copy(update={"cpu_model": "Other"})
    page = Page(html_report(bundle_path, [timed(None, (40,)), timed(onnx, (20,)), timed(onnx, (80,), device=slower)]))
    assert page.table("Step times on Chip")[onnx.file][5] == ("2.00", 2)
    assert page.table("Step times on Other")[onnx.file][5] == ("-", None)


@pytest.mark.parametrize("times", [(), (float("nan"),), (float("inf"), 1.0), (0.0,), (-1.0, 2.0)])
def test_records_without_times_are_refused(times: tuple[float, ...], bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    with pytest.raises(ClipstepError, match="its times cannot be read"):
        html_report(bundle_path, [timed(onnx, times)])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"per_class": {"a": {"videos": 1, "accuracy": 1}}}, "is of other classes than the bundle; got a; expected fight, nofight, other"),
        ({"confusion": [[1, 2], [3, 4]]}, "its confusion matrix is malformed"),
        ({"top1": 2}, "is not an evaluation"),
        ({"seen": {"<b>": 1}}, "is not an evaluation"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(
    changed: dict[str, Any], said: str, bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], tmp_path: Path, manifest: Manifest
) -> None:
    with pytest.raises(ClipstepError, match=re.escape(said)):
        html_report(bundle_path, [timed(onnx, (1,))], evaluation=evaluation(tmp_path / "evaluation", manifest.labels, **changed))
    with pytest.raises(ClipstepError, match="no such file"):
        html_report(bundle_path, [timed(onnx, (1,))], evaluation=tmp_path)


def test_the_command_writes_the_page_and_replaces_nothing_without_force(
    bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], clipstep: Cli, tmp_path: Path
) -> None:
    records, out = tmp_path / "records.jsonl", tmp_path / "report.html"
    records.write_text(record_lines([timed(onnx, (20, 30))]))
    code, said, err = clipstep("report", bundle_path, records, "--html", out)
    assert (code, err) == (0, "") and said.splitlines()[-1] == f"wrote {out}"
    assert out.read_text(encoding="utf-8") == html_report(str(bundle_path), str(records)) == html_report(bundle_path, records)
    out.write_text("older")
    code, _, err = clipstep("report", bundle_path, records, "--html", out)
    assert code == 2 and "report.html: exists" in err and "--force" in err and out.read_text() == "older"
    (tmp_path / "broken.jsonl").write_text("{}\n")
    assert clipstep("report", bundle_path, tmp_path / "broken.jsonl", "--html", out, "--force")[0] == 2 and out.read_text() == "older"
    code, said, _ = clipstep("report", bundle_path, records, "--html", out, "--force", "--json")
    assert code == 0 and json.loads(said)["name"] == "small" and out.read_text(encoding="utf-8") == html_report(bundle_path, records)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "records.jsonl", "report.html"]


@pytest.mark.parametrize("options", [("--force",), ("--evaluation", ".")])
def test_options_of_the_page_do_nothing_without_it(options: tuple[str, ...], bundle_path: Path, clipstep: Cli, tmp_path: Path) -> None:
    code, _, err = clipstep("report", bundle_path, tmp_path, *options)
    assert (code, err) == (2, f"error: {options[0]} does nothing without --html; add --html, or leave {options[0]} out\n")


def test_the_commands_that_make_it_again(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / "a bundle.clipstep"))
    run = json.loads((bundle / "manifest.json").read_text())["provenance"]["source"]
    page = Page(html_report(bundle, [timed(None, (1,) * 20, threads=2), timed(onnx, (2,) * 20), timed(onnx, (2,) * 20, threads=2)]))
    (code,) = (data for where, data in page.texts if where == "code" and data.startswith("clipstep"))
    assert code.splitlines() == [
        f"clipstep bench '{bundle}' --run {run} --threads 1 --threads 2 --rounds 4 --out records.jsonl",
        f"clipstep report '{bundle}' records.jsonl --html report.html",
    ]


def test_a_whole_stream_is_shown_and_is_no_step_to_choose_by(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record]) -> None:
    """A whole stream that is faster than the steps, which cannot be, would be chosen by them; the naive step is no measure of it."""
    step = timed(onnx, (20,) * 5, threads=1)
    stream = step.model_copy(
        update={
            "configuration": step.configuration.model_copy(update={"name": f"{onnx.file}, whole stream", "video": "v.mp4"}),
            "parts": Parts(decode_ms=1, resize_ms=1, step_ms=3),
            "step_ms": (5.0,) * 5,
        }
    )
    page = Page(html_report(bundle_path, [timed(None, (40,) * 5), step, stream]))
    (rows,) = (rows for caption, rows in page.tables.items() if caption.startswith("Step times on"))
    assert [(row[0][0], row[6][0], row[7][1]) for row in rows[1:]] == [(onnx.file, "2.00", 32), (f"{onnx.file}, whole stream", "-", 128)]
    assert "The median step takes 20.0 ms" in page.text and "--rounds 1 --video v.mp4 --out" in page.text


def test_values_lie_where_the_axis_says() -> None:
    assert [Axis(0, 50).at(value) for value in (0, 10, 50, 60)] == [0, 0.2, 1, 1] and Axis(0, 50).ticks() == [0, 10, 20, 30, 40, 50]
    log = Axis(1, 100, log=True)
    assert [log.at(value) for value in (0, 1, 10, 100)] == pytest.approx([0, 0, 0.5, 1])
    assert log.ticks() == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert Axis(1e-9, 1, log=True).ticks() == pytest.approx([1e-9, 1e-7, 1e-5, 1e-3, 1e-1])


def test_a_box_plot_shows_the_quartiles() -> None:
    page = Page(box_plot("times", [Lane("one", (10.0, 20.0, 30.0, 40.0, 50.0))], "ms"))
    # The axis goes from 0 to 1.06 times p99, which lies 0.96 of the way from 40 to 50.
    high = 1.06 * 49.6
    (box,) = (a for tag, a in page.elements if tag == "rect")
    (median,) = (a for tag, a in page.elements if a.get("class") == "median")
    found = [float(str(value).rstrip("%")) for value in (box["x"], box["width"], median["x1"])]
    assert found == pytest.approx([100 * 20 / high, 100 * 20 / high, 100 * 30 / high], abs=0.01)
    assert [round(float(str(a["cx"])[:-1]) * high / 100) for tag, a in page.elements if tag == "circle"] == [10, 20, 30, 40, 50]


def test_the_page_says_when_it_was_measured(bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], counts: Callable[..., Any]) -> None:
    """The second time is given in another zone: 23:30 in UTC."""
    times = ("2026-11-27T23:05:59Z", "2026-11-28T01:30:00+02:00", "2026-11-28T00:15:00Z")
    first, second, third = (datetime.fromisoformat(text) for text in times)
    one, two, old = timed(onnx, (20,), measured_utc=first), timed(onnx, (20,), threads=2, measured_utc=second), timed(onnx, (9,), threads=3)
    late = counts(onnx, 9).model_copy(update={"measured_utc": third})
    page = Page(html_report(bundle_path, [one, two, old, late]))
    said = "2026-11-27 23:05 to 23:30 UTC, 1 of 3 not recorded"
    assert {name: row[1][0] for name, row in page.table("Devices").items()} == {
        "Chip, 4 cores, x86_64, Linux": said,
        "cortex in qemu 9": "2026-11-28 00:15 UTC",
    }
    assert f"measured on Chip, 4 cores, x86_64, Linux ({said})." in page.text
    assert when_text([one, late]) == "2026-11-27 23:05 to 2026-11-28 00:15 UTC"


def test_records_without_a_time_are_read_and_said_to_have_none(
    bundle_path: Path, onnx: Artifact, timed: Callable[..., Record], tmp_path: Path
) -> None:
    values = json.loads(record_lines([timed(onnx, (20,))]))
    del values["measured_utc"]
    (tmp_path / "records.jsonl").write_text(json.dumps(values) + "\n")
    page = Page(html_report(bundle_path, tmp_path / "records.jsonl"))
    assert [row[1][0] for row in page.table("Devices").values()] == ["not recorded"]
    assert "measured on Chip, 4 cores, x86_64, Linux." in page.text
