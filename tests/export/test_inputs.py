"""Networks that take something else than RGB frames: images of other channels, optical flow, the joints of skeletons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipstep.export import export, verify
from clipstep.network import Images, Joints, normalise
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, StepModel
from clipstep.runtime.bundle.pack import artifacts_for, golden_of, write_pack
from tests.shared.input_networks import CLASSES, JOINTS, SkeletonNetwork, StackedFlows, Volumes

Cli = Callable[..., tuple[int, str, str]]
LABELS = ["wave", "point", "rest"][:CLASSES]
SKELETON = {"frames": 8, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "fps": 30, "labels": LABELS}
IMAGES = {"frames": 4, "size": 12, "fps": 30, "labels": LABELS}
GIVEN: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "skeletons": (SkeletonNetwork, SKELETON | {"input": Joints(JOINTS, persons=2)}),
    "skeleton": (lambda: SkeletonNetwork(None), SKELETON | {"input": Joints(JOINTS, ("x", "y", "z"))}),
    "stacked flows": (
        StackedFlows,
        IMAGES | {"frames": 1, "mean": (128,) * 20, "std": (30,) * 20, "input": Images([f"{way}{i}" for i in range(10) for way in "xy"])},
    ),
    "flow in pixels": (lambda: Volumes(2), IMAGES | {"mean": (0, 0), "std": (4, 5), "input": Images(("right", "down"), "float32")}),
    "depth": (lambda: Volumes(1), IMAGES | {"mean": (1500,), "std": (700,), "input": Images(("depth",), "float32")}),
    "RGB and depth": (lambda: Volumes(4), IMAGES | {"mean": (114, 110, 99, 80), "std": (58,) * 4, "input": Images(("R", "G", "B", "depth"))}),
}


HEAVY = ("skeleton", "flow in pixels", "depth")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.heavy if name in HEAVY else ()) for name in GIVEN])
def test_every_target_computes_what_the_network_does(name: str, tmp_path: Path) -> None:
    make, settings = GIVEN[name]
    network, given = make().eval(), settings["input"]
    result = export(network, tmp_path / "out.clipstep", keep_going=False, **settings)
    spec = result.manifest.input
    assert (spec.kind, spec.channels, spec.layout, spec.color) == (given.kind, given.channels, given.layout, None)
    assert spec.dtype == given.dtype and result.manifest.golden.undetected_faults == ()
    assert {a.input_dtype for a in result.manifest.artifacts if a.target != "coreml"} == {given.dtype}
    frames = GoldenSteps.of(Bundle.open(result.bundle)).subclips[3]
    clip = normalise(torch.from_numpy(frames)[None], settings["mean"], settings["std"], spec.layout)
    assert clip.shape[:3] == (1, len(given.channels), settings["frames"])
    for engine in ("onnxruntime", "executorch"):
        with StepModel.load(result.bundle, engine) as model, torch.no_grad():
            stream = model.stream()
            (prediction,) = [made for frame in frames if (made := stream.push(frame)) is not None]
            np.testing.assert_allclose(prediction.logits, network(clip)[0], atol=1e-5)
            with pytest.raises(ClipstepError, match=r"a frame has the wrong shape or type; got \(64, 64, 3\) float32; expected "):
                stream.push(np.zeros((64, 64, 3), np.float32))
    verify(result.bundle, module=network)


def test_the_network_gets_the_axes_in_its_order(tmp_path: Path) -> None:
    """`(T, M, V, C)` in the artifact is `(N, C, T, V, M)` in the network: compared with numbers that name their place."""

    class Place(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape != (
                1,
                2,
                3,
                5,
                4,
            ):  # By hand: pytest's `assert` would have the network reach all of pytest, which the purity check goes through.
                raise AssertionError(x.shape)
            return torch.stack([x[0, 1, 2, 3, 0], x[0, 0, 1, 4, 3]])[None]

    given = Joints(5, ("x", "y"), persons=4)
    settings: dict[str, Any] = {"frames": 3, "labels": ["a", "b"], "mean": (0, 0), "std": (1, 1), "fps": 25, "input": given}
    export(Place().eval(), tmp_path / "out.clipstep", targets=["onnx"], **settings)
    frames = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    with StepModel.load(tmp_path / "out.clipstep") as model:
        np.testing.assert_array_equal(model.step(frames, ())[0], [frames[2, 0, 3, 1], frames[1, 3, 4, 0]])


@pytest.mark.parametrize("name", [pytest.param("skeletons", marks=pytest.mark.heavy), "RGB and depth"])
def test_a_stream_is_the_clip_network(name: str, tmp_path: Path) -> None:
    make, settings = GIVEN[name]
    network = make().eval()
    result = export(network, tmp_path / "out.clipstep", targets=["onnx"], stream=2, **settings)
    manifest = result.manifest
    assert manifest.input.shape[0] == 2 and manifest.delay_frames > 0 and manifest.flush is not None
    frames = GoldenSteps.of(Bundle.open(result.bundle)).subclips.reshape(-1, *manifest.input.shape[1:])[:14]
    with StepModel.load(result.bundle) as model, torch.no_grad():
        stream = model.stream()
        for frame in frames:
            stream.push(frame)
        whole = normalise(torch.from_numpy(frames)[None], settings["mean"], settings["std"], manifest.input.layout)
        ended = stream.flush()
        assert ended is not None
        np.testing.assert_allclose(ended.logits, network(whole)[0], atol=1e-5)
    verify(result.bundle, module=network)


def test_golden_steps_may_be_the_users_own(tmp_path: Path) -> None:
    make, settings = GIVEN["skeleton"]
    own = np.random.default_rng(1).normal(0.5, 0.2, (20, JOINTS, 3)).astype(np.float32)
    np.save(tmp_path / "walk.npy", own)
    result = export(make().eval(), tmp_path / "out.clipstep", targets=["onnx"], sample=tmp_path / "walk.npy", **settings)
    np.testing.assert_array_equal(GoldenSteps.of(Bundle.open(result.bundle)).subclips[:2], own[:16].reshape(2, 8, JOINTS, 3))
    assert result.manifest.golden.frame_sources[0] == "sample"


def test_a_pack_has_golden_joints(tmp_path: Path) -> None:
    make, settings = GIVEN["skeletons"]
    export(make().eval(), tmp_path / "out.clipstep", targets=["onnx"], **settings)
    with Bundle.open(tmp_path / "out.clipstep") as bundle:
        write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "synthetic"), tmp_path / "out.clipstep.zip")
    verify(tmp_path / "out.clipstep.zip")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input": Joints(5, persons=2), "size": 12}, "joints have no size in pixels; got 12"),
        ({"input": "joints"}, r"input says what a frame is; got 'joints'; expected Images\(...\) or Joints"),
        ({"size": None}, "size is missing"),
        ({"input": Joints(5), "mean": (0, 0)}, "mean has a number for each channel; got .*; expected a number for each of x, y, score"),
        (
            {"input": Joints(5), "sample": torch.zeros(1, 8, 5, 3, dtype=torch.float64)},
            r"got \(1, 8, 5, 3\) torch.float64; .*frames, joints, channels",
        ),
        ({"input": Joints(5), "sample": torch.full((1, 8, 5, 3), torch.nan)}, "the sample holds numbers that are not finite"),
        ({"input": Joints(5), "sample": "walk.mp4"}, r"walk.mp4: a video has no joints like the network's; expected a .npy file"),
        ({"input": Joints(5), "input_dtype": "uint8", "targets": ["onnx"]}, "--input uint8 is not for this network; got joints of float32"),
        ({"input": Joints(7)}, "the network cannot run a step"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ClipstepError, match=message):
        export(SkeletonNetwork(None).eval(), tmp_path / "out.clipstep", **(SKELETON | settings))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Joints(0), "joints must be a whole number; got 0"),
        (lambda: Joints(5, persons=True), "persons must be a whole number; got True"),
        (lambda: Joints(5, ("x", "x")), "channels need a name each; got x, x"),
        (lambda: Joints(5, "xyz"), "channels are a list of names; got 'xyz'"),
        (lambda: Images(()), "channels are a list of names"),
        (lambda: Images(("depth", "")), "channels need a name each"),
        (lambda: Images(("depth",), "float16"), "got float16; expected uint8 or float32"),  # type: ignore[arg-type]
    ],
)
def test_an_input_that_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ClipstepError, match=message):
        make()


NETWORKS = """
from tests.shared.input_networks import SkeletonNetwork, Volumes


def depth():
    return Volumes(4)
"""


def test_from_the_command_line(clipstep: Cli, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given_networks.py").write_text(NETWORKS)
    Path("labels.txt").write_text("\n".join(LABELS))
    model = ("--random-weights", "--labels", "labels.txt", "--target", "onnx", "--model")
    joints = (
        "given_networks:SkeletonNetwork",
        "--joints",
        "5",
        "--persons",
        "2",
        "--frames",
        "8",
        "--mean",
        "0.5",
        "0.5",
        "0",
        "--out",
        "j.clipstep",
    )
    code, out, err = clipstep("export", *model, *joints)
    assert code == 0, err
    code, out, err = clipstep("inspect", "j.clipstep")
    assert "a step takes 8 frames of 2 x 5 joints" in out and "float32 (8, 2, 5, 3) TMVC, joints (x, y, score)" in out
    assert json.loads(Path("j.clipstep/manifest.json").read_text())["input"]["std"] == [1.0, 1.0, 1.0]
    code, out, err = clipstep("verify", "j.clipstep", "--model", "given_networks:SkeletonNetwork", "--mean", "0.5,0.5,0")
    assert code == 0, err
    code, out, err = clipstep("run", "j.clipstep", clip)
    assert (code, err.count("\n")) == (2, 1)
    assert "takes no video frames; got a bundle for joints (x, y, score), 2 x 5 joints a frame; expected one for RGB frames" in err
    images = ("given_networks:depth", "--channels", "R,G,B,depth", "--frames", "4", "--size", "12", "--input", "float32", "--out", "d.clipstep")
    code, out, err = clipstep("export", *model, *images)
    assert code == 0, err
    spec = json.loads(Path("d.clipstep/manifest.json").read_text())["input"]
    assert (spec["kind"], spec["dtype"], spec["channels"], spec["std"]) == ("images", "float32", ["R", "G", "B", "depth"], [1.0] * 4)
    for wrong, message in (
        (("--size", "12", "--persons", "2"), "--persons does nothing without --joints"),
        (("--size", "12", "--video", clip, "--sample", "labels.txt"), "--video and --sample both give the frames"),
        (("--joints", "5", "--size", "9"), "joints have no size in pixels"),
        (("--size", "12", "--mean", "x"), "'x' is not a list of numbers"),
    ):
        code, out, err = clipstep("export", *model, "given_networks:depth", "--frames", "4", "--out", "w.clipstep", *wrong)
        assert code == 2 and message in err, err
