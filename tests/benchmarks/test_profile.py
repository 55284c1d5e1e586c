"""``clipstep bench --profile``: every operator that the engine runs, and a plot of their sums."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnxruntime
import pytest
from matplotlib.image import imread

from clipstep.benchmarks.profile import plot_bars, profile_bundle
from clipstep.benchmarks.report import read_records
from clipstep.runtime.bundle import Bundle

Cli = Callable[..., tuple[int, str, str]]


def test_the_operators_are_those_of_the_optimised_graph(bundle_path: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(bundle_path / "step.onnx"), options, providers=["CPUExecutionProvider"])
    expected = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    by_engine = {profile.configuration.engine: profile for profile in profile_bundle(Bundle.open(bundle_path), 3, 1)}
    assert sorted(operator.kind for operator in by_engine["onnxruntime"].operators) == sorted(expected)
    shapes = {operator.output_shape for operator in by_engine["onnxruntime"].operators}
    assert (1, 3) in shapes
    kinds = {operator.kind for operator in by_engine["executorch"].operators}
    assert any(kind.startswith("Convolution (NHWC, F32)") for kind in kinds)
    for profile in by_engine.values():
        assert profile.total_ms == pytest.approx(sum(profile.by_kind().values()))
        assert profile.total_ms > 0


def test_the_command_prints_a_table_for_each_artifact_and_writes_the_plot_and_records(bundle_path: Path, tmp_path: Path, clipstep: Cli) -> None:
    out = tmp_path / "records.jsonl"
    picture, before = tmp_path / "profile.png", datetime.now(UTC).replace(microsecond=0)
    code, said, _ = clipstep("bench", bundle_path, "--profile", picture, "--steps", 2, "--threads", 1, "--out", out)
    assert code == 0
    assert "step.onnx in onnxruntime: " in said and "step.pte in executorch: " in said and "kinds more" in said
    assert said.endswith(f"medians of 2 steps, threads 1; wrote {picture}\n2 records appended to {out}\n")
    assert (imread(picture)[..., :3].std((0, 1)) > 0.05).all()
    timed, counted, profiled, sustained = read_records(out)
    assert (timed, counted, sustained) == ([], [], []) and before <= profiled[0].measured_utc <= datetime.now(UTC)
    code, said, _ = clipstep("report", bundle_path, out)
    for record in profiled:
        kind, most = max(record.by_kind().items(), key=lambda item: item[1])
        name, engine = record.configuration.name, record.configuration.engine
        assert f"{name} in {engine}, 1 thread: {100 * most / record.total_ms:.0f}% of the operators' time in {kind}" in said
    given = json.loads(clipstep("report", bundle_path, out, "--json")[1])["profile_records"]
    assert [(each["profiled_steps"], len(each["operators"])) for each in given] == [(2, len(record.operators)) for record in profiled]
    assert clipstep("bench", "compare", out, out)[2].startswith(f"error: {out}: holds no record; expected times or counts")


def test_a_bar_is_as_long_as_its_value(tmp_path: Path) -> None:
    plot_bars({"one": {"long": 8.0, "short": 2.0}}, "ms", tmp_path / "bars.png")
    pixels = imread(tmp_path / "bars.png")
    blue = (pixels[..., 2] - pixels[..., 0] > 0.3).sum(1)
    long, short = (max(rows) for rows in (blue[: len(blue) // 2], blue[len(blue) // 2 :]))
    assert long / short == pytest.approx(4, rel=0.05)


def test_the_bars_of_all_artifacts_have_one_scale(tmp_path: Path) -> None:
    plot_bars({"long": {"kind": 8.0}, "short": {"kind": 2.0}}, "ms", tmp_path / "bars.png")
    pixels = imread(tmp_path / "bars.png")
    blue = pixels[..., 2] - pixels[..., 0] > 0.3
    long, short = (half.sum(1).max() for half in (blue[:, : blue.shape[1] // 2], blue[:, blue.shape[1] // 2 :]))
    assert long / short == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [("profile.txt", "profile.txt: is no picture's name; got .txt; expected .png or .svg"), ("no/profile.png", "no/profile.png: no such folder")],
)
def test_an_unwritable_plot_is_refused_before_measuring(name: str, message: str, bundle_path: Path, clipstep: Cli) -> None:
    code, said, error = clipstep("bench", bundle_path, "--profile", name)
    assert (code, said) == (2, "")
    assert message in error
