"""``clipstep bench-models --family zoo``: its table, what is kept, and the rows of networks that fail. ``make test-zoo`` exports the whole family."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from clipstep.benchmarks.latency import NAIVE
from clipstep.benchmarks.options import BenchOptions
from clipstep.benchmarks.rounding import float32_error
from clipstep.benchmarks.zoo import command, entries, measure
from clipstep.benchmarks.zoo.entries import ENTRIES, Entry
from clipstep.benchmarks.zoo.measure import Row, row_of
from clipstep.benchmarks.zoo.outcome import Exported
from clipstep.benchmarks.zoo.tables import print_rows
from clipstep.benchmarks.zoo.weights import NORM_BIAS, fill
from clipstep.export.module import network_of_module
from clipstep.export.step import program_of
from clipstep.runtime.bundle import Bundle
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.install_hints import install_extra

FIGHT = Path(__file__).parents[2] / "training/demo/fight"
SMALL = Entry("conv_lstm", "recurrent", 3, 16)
OPTIONS = BenchOptions((1,), 2, 1)
Command = Callable[..., tuple[int, str, str]]


def _not_installed(distribution: str) -> str:
    raise PackageNotFoundError(distribution)


@pytest.mark.long
def test_a_network_is_exported_and_measured_once(tmp_path: Path, clip: Path) -> None:
    """In small: 3 frames of 16x16 to all targets, in processes of their own."""
    row = row_of(SMALL, clip, tmp_path, OPTIONS, Console(quiet=True), arm64=False)
    assert row.exported is not None and row.bundle is not None and row.exported.failed == {} == row.reasons
    assert {record.configuration.name for record in row.records} == {NAIVE, "PyTorch eager", "step.onnx", "step.pte"}
    network = torch.load(tmp_path / "conv_lstm.pt")
    assert row.exported.weights_bytes == 4 * sum(tensor.numel() for tensor in network.values() if tensor.dtype == torch.float32) + 8 * 3
    assert 0 < row.exported.float32_error < 1e-5  # type: ignore[operator]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert row_of(SMALL, clip, tmp_path, OPTIONS, Console(quiet=True), arm64=False).records == row.records
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(ClipstepError, match="is of another input; got 3x16; expected 4x16"):
        row_of(Entry("conv_lstm", "recurrent", 4, 16), clip, tmp_path, OPTIONS, Console(quiet=True), arm64=False)


def test_a_network_that_fails_is_a_row_with_its_reason(tmp_path: Path, clip: Path) -> None:
    row = row_of(Entry("broken", "recurrent", 3, 16), clip, tmp_path, OPTIONS, Console(quiet=True), arm64=False)
    assert row.bundle is None and row.reasons is not None
    assert row.reasons["network"].startswith("--model clipstep.benchmarks.zoo.recurrent:broken: no such name; got broken")
    assert (tmp_path / "broken.export.json").exists()


def test_a_process_that_is_killed_is_a_row_with_its_signal(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.sys, "executable", tmp_path / "killed")
    (tmp_path / "killed").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "killed").chmod(0o755)
    row = row_of(SMALL, clip, tmp_path, OPTIONS, Console(quiet=True), arm64=False)
    assert row.reasons == {"network": "signal 9 ended the export, as it does for want of memory"}


def test_absent_packages_are_rows_that_say_how_to_install_them(clipstep: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "version", _not_installed)
    code, said, error = clipstep("bench-models", FIGHT, "--family", "zoo", "--architecture", "r3d_18", "--architecture", "cnn_gru", "--out", tmp_path)
    assert (code, error) == (0, "")
    assert f"r3d_18: network: not installed: torchvision; {install_extra('zoo')}" in said
    assert f"cnn_gru: network: not installed: timm; {install_extra('zoo')}" in said
    cells = next(line.split() for line in said.splitlines() if line.startswith("r3d_18 "))
    assert cells[1:] == ["16x112", *"-" * 8]


def test_unknown_names_are_answered_with_the_known_ones(clipstep: Command, tmp_path: Path) -> None:
    code, _, error = clipstep("bench-models", FIGHT, "--family", "zoo", "--architecture", "r3d", "--out", tmp_path)
    assert code == 2 and f"--family zoo has no such network; got r3d; expected some of {', '.join(ENTRIES)}" in error


@pytest.mark.parametrize("option", ["--frames", "--size"])
def test_networks_of_the_zoo_have_their_own_input(clipstep: Command, tmp_path: Path, option: str) -> None:
    code, _, error = clipstep("bench-models", FIGHT, "--family", "zoo", option, 16, "--out", tmp_path)
    assert code == 2 and f"{option} does nothing with --family zoo" in error


def test_videos_that_are_too_short_are_refused_before_any_work(clipstep: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.ENTRIES, "long", Entry("long", "recurrent", 1000, 16))
    code, _, error = clipstep("bench-models", FIGHT, "--family", "zoo", "--architecture", "long", "--out", tmp_path)
    assert code == 2 and "no test video is long enough; got 8 videos; expected one of at least 1000 frames" in error


def test_a_table_has_targets_that_failed(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = Exported(
        input="3x16",
        seconds=12.4,
        peak_bytes=3 << 30,
        parameters=1_230_000,
        weights_bytes=1_000_000,
        float32_error=2e-7,
        failed={"coreml": "step-float16.mlpackage: logits is off"},
    )
    bundle = Bundle.open(bundle_path)
    print_rows(Console(), [Row(SMALL, exported, bundle, reasons=exported.failed)], arm64=True)
    said = capsys.readouterr().out
    cells = next(line.split() for line in said.splitlines() if line.startswith("conv_lstm "))
    sizes = [f"{bundle.artifact(target).size_bytes / 1e6:.2f}" for target in ("onnx", "executorch", "coreml")]
    macs = bundle.manifest.export.multiply_accumulates
    assert macs is not None and cells == ["conv_lstm", "3x16", "1.23", f"{macs / 1e6:,.0f}", "12", "3.0", *sizes, "1"]
    assert "conv_lstm: coreml: step-float16.mlpackage: logits is off" in said
    assert "outside of ExecuTorch's delegate: nothing: conv_lstm" in said


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm3d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).mean((2, 3, 4)))


def test_batch_norms_get_the_statistics_of_the_clips() -> None:
    network, clips = Normed().train(), torch.randn(5, 3, 2, 4, 4) * 3 + 1
    fill(network, clips, 4)
    assert not any(module.training for module in network.modules())
    torch.testing.assert_close(network.norm.running_mean, clips.mean((0, 2, 3, 4)))
    torch.testing.assert_close(network.norm.running_var, torch.stack([clip.flatten(1).var(1) for clip in clips]).mean(0))
    assert network.norm.bias.tolist() == [NORM_BIAS] * 3
    torch.testing.assert_close(network.head.bias, torch.tensor([2.0, 1 / 3, -1 / 3, -1.0]))


class Cancels(nn.Module):
    """Logits of 1 and of what float32 keeps of a difference: 1 + 2^-30 - 1 is 0 in float32, and 2^-30 in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = nn.Parameter(torch.tensor(2.0**-30))

    def forward(self, x: Tensor) -> Tensor:
        one = x.mean().reshape(1, 1) * 0 + 1
        return torch.cat([one * 2, (one + self.tiny - one) * 2**20], 1)


def test_the_rounding_error_of_eager_float32() -> None:
    settings = {"labels": ["a", "b"], "mean": (0.0,) * 3, "std": (1.0,) * 3, "fps": 25.0}
    spec = network_of_module(Cancels().eval(), frames=2, size=8, **settings)  # type: ignore[arg-type]
    assert float32_error(program_of(spec), spec.sample) == pytest.approx(2.0**-10 / 2)
