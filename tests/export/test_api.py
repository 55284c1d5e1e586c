"""The Python API: exporting and verifying a module in memory, and the errors."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.benchmarks import bench
from clipstep.export import WrittenArtifact, export, verify
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, Manifest, ParityError, StepModel, inspect

SETTINGS: dict[str, Any] = {
    "frames": 3,
    "size": 16,
    "labels": ("fight", "nofight"),
    "mean": (104.0, 101.0, 97.0),
    "std": (58.0, 57.0, 59.0),
    "fps": 25,
    "targets": ("onnx",),
}


class Small(nn.Module):
    """Two classes and one state; it holds a lock, so that it can neither be pickled nor copied."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.dropout, self.linear = nn.Conv3d(3, 8, (2, 3, 3)), nn.Dropout(0.5), nn.Linear(8, 2)
        self.lock = threading.Lock()

    def initial_states(self) -> dict[str, Tensor]:
        return {"past": torch.zeros(1, 8)}

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.convolution(frames).relu().mean((2, 3, 4))
        return self.linear(self.dropout(seen - past)), past * 0.5 + seen


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(5)
    return Small().eval()


@pytest.fixture(scope="module")
def sample() -> Tensor:
    return torch.randint(256, (5, 3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def exported(small: nn.Module, sample: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small, tmp_path_factory.mktemp("api") / "small.clipstep", sample=sample, **SETTINGS).bundle


def test_a_module_in_memory_is_exported_and_the_bundle_computes_the_same(exported: Path, small: nn.Module, sample: Tensor) -> None:
    mean, std = (torch.tensor(SETTINGS[name]).reshape(3, 1, 1, 1) for name in ("mean", "std"))
    past = torch.zeros(1, 8)
    with StepModel.load(exported) as model, torch.no_grad():
        states = model.initial_states()
        for subclip in sample:
            logits, states = model.step(subclip.numpy(), states)
            expected, past = small(((subclip.permute(3, 0, 1, 2).float() - mean) / std)[None], past)
            np.testing.assert_allclose(logits, expected.numpy()[0], atol=1e-5)


def test_what_was_exported_is_in_the_result(small: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written: list[WrittenArtifact] = []
    result = export(small, str(tmp_path / "small.clipstep"), on_artifact=written.append, **SETTINGS | {"fps": 12.5})
    manifest = inspect(result.bundle)
    assert isinstance(manifest, Manifest) and manifest == result.manifest
    assert [item.artifact for item in written] == list(result.manifest.artifacts) and not result.constant_output
    assert (manifest.input.fps, manifest.labels, manifest.golden.frame_sources) == (12.5, ("fight", "nofight"), ("synthetic",))
    assert manifest.architecture.endswith("Small")
    assert capfd.readouterr().out == ""


def test_a_sample_may_be_an_array_or_a_video(small: nn.Module, sample: Tensor, clip: Path, tmp_path: Path) -> None:
    given = export(small, tmp_path / "array.clipstep", sample=sample.numpy(), **SETTINGS).manifest
    filmed = export(small, tmp_path / "video.clipstep", sample=clip, **SETTINGS).manifest
    assert (given.golden.frame_sources, filmed.golden.frame_sources) == (("sample",), ("video",))


def test_numbers_and_frames_may_be_of_numpy(small: nn.Module, sample: Tensor, tmp_path: Path) -> None:
    settings = SETTINGS | {"frames": np.int64(3), "size": np.int32(16), "mean": np.array(SETTINGS["mean"]), "std": torch.tensor(SETTINGS["std"])}
    reversed_view = sample.numpy()[::-1]  # A negative stride, which torch refuses.
    manifest = export(small, tmp_path / "numpy.clipstep", sample=reversed_view, **settings).manifest
    assert manifest.input.shape == (3, 16, 16, 3) and manifest.input.mean == SETTINGS["mean"]
    np.testing.assert_array_equal(GoldenSteps.of(Bundle.open(tmp_path / "numpy.clipstep")).subclips[:5], reversed_view)


def test_a_bundle_is_verified_against_its_module(exported: Path, small: nn.Module, clip: Path) -> None:
    recorded, computed = verify(exported), verify(exported, module=small, video=clip)
    assert [item.file for item in recorded.artifacts] == ["step.onnx"] and recorded.steps == 16
    assert computed.artifacts[0].max_relative_error < computed.artifacts[0].bound


def test_verify_refuses_another_module(exported: Path) -> None:
    torch.manual_seed(6)
    with pytest.raises(ParityError, match="not what the eager network computes"):
        verify(exported, module=Small().eval())


def test_verify_names_an_artifact_that_is_missing(exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.clipstep"
    copy.mkdir()
    for file in exported.iterdir():
        if file.suffix != ".onnx":
            (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ClipstepError, match=r"step\.onnx is missing; copy the bundle again"):
        verify(copy)


def test_bench_gives_records_and_prints_nothing(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (record,) = bench(exported, threads=[1], rounds=2, steps=3)
    assert record.configuration.file == "step.onnx" and len(record.step_ms) == 6 and min(record.step_ms) > 0
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number"),
        ({"threads": []}, "threads are whole numbers"),
        ({"weights": "w.pt"}, "--weights needs the network"),
        ({"rounds": 1.5}, "rounds must be a whole number; got 1.5"),
        ({"threads": 2}, r"threads are whole numbers; got 2; expected a list such as \[1, 2\]"),
        ({"threads": "2"}, "threads are whole numbers; got '2'"),
        ({"threads": [True]}, r"threads are whole numbers; got \(True,\)"),
        ({"pause_ms": -1}, "pause_ms is a number of milliseconds; got -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(exported: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        bench(exported, **options)


def _trains(network: nn.Module) -> nn.Module:
    network.get_submodule("dropout").train()
    return network


def _sparse(network: nn.Module) -> nn.Module:
    network.register_buffer("sparse", torch.eye(3).to_sparse())
    return network


BAD_MODULES: dict[str, tuple[Callable[[], Any], str]] = {
    "training mode": (lambda: Small(), r"the module is in training mode; got training is True of .*; expected eval mode; call module\.eval\(\)"),
    "a part in training mode": (lambda: _trains(Small().eval()), "got training is True of dropout"),
    "another device": (lambda: Small().eval().to("meta"), r"is on another device; got meta; expected cpu; load its weights on the CPU"),
    "float64": (lambda: Small().eval().double(), r"has the wrong dtype; got torch\.float64; expected torch\.float32; call \.float\(\)"),
    "half": (lambda: Small().eval().half(), r"has the wrong dtype; got torch\.float16"),
    "a sparse part": (lambda: _sparse(Small().eval()), r"sparse is no plain tensor; got torch\.sparse_coo"),
    "a module that torch.export made": (
        lambda: torch.export.export(nn.Flatten().eval(), (torch.zeros(1, 3),)).module(),
        r"the module was made by torch\.export, and has no eval mode; give the module that was exported",
    ),
    "no module": (lambda: torch.relu, "the network is not a module"),
}


@pytest.mark.parametrize("name", BAD_MODULES)
def test_a_module_that_cannot_be_exported_is_refused_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    make, message = BAD_MODULES[name]
    module = make()
    modes = [part.training for part in module.modules()] if isinstance(module, nn.Module) else []
    with pytest.raises(ClipstepError, match=message):
        export(module, tmp_path / "out.clipstep", **SETTINGS)
    assert list(tmp_path.iterdir()) == []
    assert modes == ([part.training for part in module.modules()] if isinstance(module, nn.Module) else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ("a", "b", "c")}, r"the first output is not the logits; got \(1, 2\) .*; expected \(1, 3\)"),
        ({"labels": ("a", "a")}, "labels name a class twice; got a"),
        ({"labels": ()}, "labels must be a list of class names"),
        ({"labels": "ab"}, "labels must be a list of class names"),
        ({"labels": (" ", "b")}, r"labels must be a list of class names; got \(' ', 'b'\)"),
        ({"labels": ("a\nb", "c")}, r"a label holds control characters; got 'a\\nb'"),
        ({"labels": ("a" * 1001, "c")}, "labels cannot be in a bundle; got label 0 must have 1 to 1000 characters"),
        ({"sample": torch.zeros(2, 3, 20, 20, 3, dtype=torch.uint8)}, r"the sample's frames are not the network's; got \(2, 3, 20, 20, 3\)"),
        ({"sample": torch.zeros(2, 4, 16, 16, 3, dtype=torch.uint8)}, r"expected \(S, 3, 16, 16, 3\)"),
        ({"sample": torch.zeros(0, 3, 16, 16, 3, dtype=torch.uint8)}, "at least one subclip"),
        ({"sample": torch.zeros(2, 3, 16, 16, 3)}, r"got \(2, 3, 16, 16, 3\) torch\.float32"),
        ({"sample": [[1, 2]]}, "the sample is no tensor; got list"),
        ({"sample": np.zeros((1, 3, 16, 16, 3), np.uint16)}, r"torch\.uint16"),
        ({"sample": np.full((1, 3, 16, 16, 3), None)}, "the sample cannot be a tensor; got an array of object"),
        ({"sample": torch.zeros(2, 3, 16, 16, 3, dtype=torch.uint8, device="meta")}, "the sample is on another device; got meta"),
        ({"sample": "no-such-file.mp4"}, r"no-such-file\.mp4"),
        ({"frames": 0}, "frames must be a whole number"),
        ({"size": 16.0}, "size must be a whole number"),
        ({"size": True}, "size must be a whole number; got True"),
        ({"size": 10**9}, "the frames of a subclip are too large; got 3 of 1000000000x1000000000"),
        ({"mean": (1.0, 2.0, 3.0, 4.0), "std": (1.0,) * 4}, r"mean has a number for each channel; .* named by --channels, or by input=Images"),
        ({"targets": None}, "targets are a list of names; got None"),
        ({"mean": (1.0,)}, "mean has a number for each channel"),
        ({"std": (1.0, 1.0)}, "std has a number for each channel"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0, because frames are divided by it"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean holds finite numbers"),
        ({"mean": 0.5}, "mean has a number for each channel"),
        ({"fps": 0}, "fps must be a number above 0"),
        ({"targets": ("tflite",)}, "unknown target; got tflite"),
        ({"targets": ()}, "unknown target; got none"),
        ({"platforms": ()}, "unknown platform; got none"),
        ({"platforms": ("riscv",)}, "unknown platform; got riscv"),
        ({"form": "2d"}, "unknown form; got 2d"),
        ({"output_kind": "odds"}, "unknown output_kind; got odds"),
        ({"stream": 0}, "stream is a number of new frames"),
        ({"stream": True}, "stream is a number of new frames"),
        ({"stream": 1, "window": 0.0}, "window is a number of seconds"),
        ({"stream": 1, "window": "2"}, "window is a number of seconds; got 2"),
        ({"window": 2.0}, "--window is for a stream; got no --stream"),
        ({"format_versions": 17}, "format_versions is a dictionary; got 17"),
        ({"input_dtype": "int8"}, "unknown input_dtype; got int8"),
        ({"tune": "no"}, "tune is True or False; got 'no'"),
        ({"force": 0}, "force is True or False; got 0"),
        ({"budget": 1e6}, "a budget is a text; got 1000000.0; expected such as size=1.3MB"),
        ({"equalize": "yes"}, "equalize is True or False; got 'yes'"),
    ],
)
def test_values_that_are_not_possible_for_the_network_are_refused(small: nn.Module, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        export(small, tmp_path / "out.clipstep", **SETTINGS | settings)
    assert list(tmp_path.iterdir()) == []


def test_out_must_not_exist_or_be_a_bundle_that_force_replaces(small: nn.Module, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.clipstep").mkdir()
    (tmp_path / "mine.clipstep/diary.txt").write_text("mine")
    for out, message in (
        (tmp_path / "mine.clipstep", "exists and is not a bundle"),
        (exported, "holds a finished bundle"),
        (tmp_path / "small.onnx", r"a bundle's name ends in \.clipstep"),
    ):
        with pytest.raises(ClipstepError, match=message):
            export(small, out, **SETTINGS)
    with pytest.raises(ClipstepError, match="exists and is not a bundle"):
        export(small, tmp_path / "mine.clipstep", force=True, **SETTINGS)
    assert (tmp_path / "mine.clipstep/diary.txt").read_text() == "mine"
