"""``clipstep peers``: other runtimes compute the same or are not timed; MoViNet has the size in its paper."""

import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from clipstep.benchmarks.latency import as_trained, measure_configurations
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.peers import comparison
from clipstep.benchmarks.peers.engines import PEERS, OpenVino, Sources, convert
from clipstep.benchmarks.peers.movinet import MoViNetA0Stream
from clipstep.benchmarks.report import read_records
from clipstep.export.network_source import NetworkSource
from clipstep.export.step import program_of
from clipstep.export.targets.onnx_writer import to_onnx
from clipstep.runtime import ClipstepError, GoldenSteps, StepModel
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.golden import BOUNDS
from clipstep.runtime.install_hints import install_extra
from clipstep.training.models import build, slowfast_causal_shufflenet
from clipstep.training.run import Run
from tests.export.test_int8 import exported

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.long
def test_every_runtime_is_timed_or_named_with_the_reason(bundle_path: Path, run_folder: Path, tmp_path: Path, clipstep: Cli) -> None:
    out = tmp_path / "records.jsonl"
    code, said, _ = clipstep("peers", bundle_path, "--run", run_folder, "--threads", 1, "--rounds", 2, "--steps", 1, "--out", out)
    assert code == 0
    records = read_records(out).timed
    timed = {record.configuration.name for record in records}
    if shutil.which("g++") is None:  # torch.compile generates C++.
        assert "not timed: torch.compile: " in said
        timed.add("torch.compile")
    assert timed == {"naive rank-5 ONNX", "PyTorch eager", "torch.compile", "openvino", "mnn", "step.onnx", "step.pte"}
    assert all(record.cold_start.largest_error <= 1e-4 and len(record.step_ms) == 2 for record in records)
    arithmetic = Bundle.open(bundle_path).manifest.export.multiply_accumulates
    rate, millions, least = re.search(r"large matrices here: ([\d.]+) G .* the step's (\d+) M take ([\d.]+) ms", said).groups()  # type: ignore[union-attr]
    assert arithmetic is not None and int(millions) == round(arithmetic / 1e6)
    assert float(least) == pytest.approx(arithmetic / float(rate) / 1e6, rel=0.1)
    assert "not timed: openvino-int8: openvino-int8 cannot convert the network; got the bundle has no int8 artifact" in said
    assert "not timed: ncnn: " in said and "slice with step 2 is not supported" in said
    assert {"MNN", "openvino"} <= {tool for record in records for tool in record.tool_versions}


def test_another_networks_numbers_are_refused_before_timing(
    run: Run, bundle_path: Path, tmp_path: Path, randomise: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with the same frames, states and classes."""
    monkeypatch.setattr(slowfast_causal_shufflenet, "STAGE_UNITS", (1, 1, 1))
    other = Run(randomise(build(run.info.architecture, run.info.config)), run.info, run.sample)
    program, naive = program_of(other.spec()), tmp_path / "other.onnx"
    naive.write_bytes(to_onnx(program.step, program).SerializeToString())
    configurations = [as_trained(name, "onnx", engine, 1, naive) for name, engine in (("wrong", "onnxruntime"), ("wrong openvino", "openvino"))]
    refused: dict[str, str] = {}
    records = measure_configurations(configurations, Bundle.open(bundle_path), None, BenchOptions((1,), 1, 1), Console(quiet=True), refused)
    assert records == []
    assert set(refused) == {"wrong", "wrong openvino"}
    assert all("computes something else than the golden steps" in reason for reason in refused.values())


def test_openvino_computes_the_int8_artifact_in_int8(tmp_path: Path) -> None:
    """As OpenVINO itself says of the model that it runs, and within the bound of int8 around the golden steps."""
    bundle = exported(tmp_path / "x.clipstep", targets=["onnx"], precisions=["float32", "int8"])
    file = convert("openvino-int8", Sources(bundle.folder(), NetworkSource(model="not used"), tmp_path / "naive.onnx", tmp_path))
    engine = PEERS["openvino-int8"].load(file, 1)
    assert isinstance(engine, OpenVino)
    run = [
        (node.get_rt_info()["layerType"].value, node.get_rt_info()["runtimePrecision"].value) for node in engine.model.get_runtime_model().get_ops()
    ]
    assert sum(kind == "Convolution" and precision in ("i8", "u8") for kind, precision in run) >= 2
    golden = GoldenSteps.of(bundle)
    logits, *_ = engine.run([golden.subclips[0], *StepModel.load(bundle).initial_states()])
    assert 1e-4 < np.abs(logits - golden.logits[0]).max() / golden.scale("logits") <= BOUNDS["int8"]


def test_a_bundle_without_int8_has_none_for_openvino(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match="no int8 artifact of ONNX; export it with --target onnx --precision float32 --precision int8"):
        convert("openvino-int8", Sources(bundle_path, NetworkSource(model="not used"), tmp_path / "naive.onnx", tmp_path))


def test_peers_that_are_not_installed_are_named(bundle_path: Path, clipstep: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(comparison, "version", version)
    code, _, error = clipstep("peers", bundle_path, "--peer", "mnn", "--peer", "openvino")
    assert code == 2
    assert "peers are not installed; got no MNN, openvino; " + install_extra("peers") in error


@torch.no_grad()
def test_movinet_takes_frames_at_once_or_one_by_one() -> None:
    network = MoViNetA0Stream().eval()
    frames, past = torch.randn(1, 3, 3, 172, 172), network.initial_states()["past"]
    at_once, packed = network(frames, past)
    for t in range(3):
        one, past = network(frames[:, :, t : t + 1], past)
    torch.testing.assert_close(one, at_once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(past, packed, rtol=1e-4, atol=1e-5)


def test_movinet_is_as_large_as_in_its_paper() -> None:
    """3.1 M parameters in table 2 of the paper, to 5 %."""
    assert sum(p.numel() for p in MoViNetA0Stream().parameters()) == pytest.approx(3.1e6, rel=0.05)
