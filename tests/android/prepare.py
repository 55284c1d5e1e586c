"""Writes what the JVM's tests compare with: an exported bundle, and Python's results on real frames.

`python tests/android/prepare.py OUT [RUN]`; without a run the home network with random weights is exported.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from clipstep.export import export
from clipstep.export.options import ExportOptions
from clipstep.export.pipeline import export_network
from clipstep.network import Joints
from clipstep.network.preprocess import normalise
from clipstep.network.videos import read_subclips
from clipstep.runtime import Bundle, GoldenSteps, StepModel
from clipstep.runtime.bundle.pack import artifacts_for, golden_of, write_pack
from clipstep.runtime.bundle.signature import new_key
from clipstep.runtime.command_line.sign import sign_bundle
from clipstep.runtime.resize import center_box, crop_resize
from clipstep.runtime.video import read_frames
from clipstep.training.models import build
from clipstep.training.run import Run, RunInfo, load_run, save_run

VIDEOS = Path(__file__).parents[2] / "training/demo/fight/videos"
CLIP = VIDEOS / "Fight/v_Fight_g10_c01.mp4"
CONVERTED = (CLIP, VIDEOS / "NoFight/v_NoFight_g13_c01.mp4")
ARCHITECTURE, LABELS = "slowfast_causal_shufflenet", ("Fight", "NoFight")
DELAYED_VIDEOS = (2, 3, 5, 12, 24)
"""Frames of the videos for the bundle with a delay: some are shorter than it, and some end within a step."""
COLORS = {
    "bt601_full": (0.299, 0.114, 0, 1.0, 1.0),
    "bt601": (0.299, 0.114, 16, 255 / 219, 255 / 224),
    "bt709": (0.2126, 0.0722, 16, 255 / 219, 255 / 224),
    "bt709_full": (0.2126, 0.0722, 0, 1.0, 1.0),
    "bt2020": (0.2627, 0.0593, 16, 255 / 219, 255 / 224),
    "bt2020_full": (0.2627, 0.0593, 0, 1.0, 1.0),
}
"""Shares of red and blue in luma, the luma of black, and what luma and chroma are multiplied by."""


def untrained(folder: Path, frames: int, size: int) -> Run:
    """A run of the home network whose weights are random and whose batch norms are far from the identity."""
    torch.manual_seed(7)
    config = {"classes": len(LABELS), "frames": frames, "size": size}
    network = build(ARCHITECTURE, config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.4)
        elif isinstance(module, nn.Linear):
            module.weight.data *= 0.02  # So that no class is certain.
    info = RunInfo(ARCHITECTURE, config, LABELS, (108.3, 103.4, 106.2), (64.8, 65.6, 64.6), 29.97)
    save_run(folder, Run(network.eval(), info, read_subclips(CLIP, frames, size)[:3]))
    return load_run(folder)


def yuv_frames(path: Path) -> Iterator[np.ndarray]:
    """The planes of a video's frames one after the other, `(H * W * 3 / 2,)` uint8."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="yuv420p").reshape(-1)


def to_rgb(planes: np.ndarray, height: int, width: int, color: str) -> np.ndarray:
    """The definition of the conversion, in float64: each chroma sample belongs to two by two pixels; rounded half up."""
    red, blue, black, luma, chroma = COLORS[color]
    y = (planes[: height * width].reshape(height, width) - float(black)) * luma
    half = planes[height * width :].reshape(2, height // 2, width // 2) - 128.0
    u, v = (half * chroma).repeat(2, axis=1).repeat(2, axis=2)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.floor(np.stack([r, g, b], axis=2) + 0.5).clip(0, 255).astype(np.uint8)


def conversions() -> dict[str, np.ndarray]:
    """A real frame of each video: planes, RGB by definition, RGB by FFmpeg, squares turned and resized."""
    values: dict[str, np.ndarray] = {}
    for number, path in enumerate(CONVERTED):
        ffmpeg = next(read_frames(path))
        planes = next(yuv_frames(path))
        values[f"{number}.planes"], values[f"{number}.ffmpeg"] = planes, ffmpeg
        for color in COLORS:
            values[f"{number}.{color}"] = to_rgb(planes, *ffmpeg.shape[:2], color)
        for turns in range(4):
            upright = np.rot90(values[f"{number}.bt601"], -turns)
            box = center_box(*upright.shape[:2])
            values[f"{number}.square.{turns * 90}"] = np.ascontiguousarray(upright[box.top : box.top + box.side, box.left : box.left + box.side])
            values[f"{number}.resized.{turns * 90}"] = crop_resize(upright, box, 112)
    small = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    return values | {"small": small, "small.enlarged": crop_resize(small, center_box(60, 80), 112)}


def stepped(path: Path) -> dict[str, np.ndarray]:
    """The golden steps as Python's onnxruntime computes them: logits and states of 16 steps and of one after a reset."""
    golden = GoldenSteps.of(Bundle.open(path))
    with StepModel.load(path) as model:
        states, logits, after = model.initial_states(), [], []
        for step in [*range(len(golden.logits)), -1]:
            states = model.initial_states() if step < 0 else states
            values, states = model.step(golden.subclips[max(step, 0) % len(golden.subclips)], states)
            logits.append(values)
            after.append(states)
    named = {f"steps.{spec.name}": np.stack([s[i] for s in after]) for i, spec in enumerate(model.interface.states)}
    scales = np.array([[golden.scale(name) for name in golden.outputs]], np.float32)
    return {"steps.logits": np.stack(logits), "golden.scales": scales, **named}


def streamed(path: Path) -> dict[str, np.ndarray]:
    """A whole video through a stream: its frames as a camera would give them, and the predictions.

    Converted by the definition: FFmpeg's own conversion is off by up to 3, which moves a trained network's logits by several percent.
    """
    height, width = next(read_frames(CLIP)).shape[:2]
    frames = list(yuv_frames(CLIP))
    with StepModel.load(path) as model:
        stream = model.stream()
        predictions = [prediction for planes in frames if (prediction := stream.push(to_rgb(planes, height, width, "bt601")))]
    rows = {"seen": [p.frames_seen for p in predictions], "step": [p.step for p in predictions]}
    values = {f"stream.{name}": np.array(row, np.int64) for name, row in rows.items()}
    values["stream.planes"] = np.stack(frames)
    values["stream.logits"] = np.stack([p.logits for p in predictions])
    values["stream.probabilities"] = np.stack([p.probabilities for p in predictions])
    return values


class Delayed(nn.Module):
    """A clip network that looks ahead: by one frame, then by two of half the rate."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, (1, 2, 2), 1),
            nn.ReLU(),
            nn.MaxPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)),
            nn.Conv3d(8, 8, (5, 1, 1), 1, (2, 0, 0)),
            nn.Sigmoid(),
        )
        self.head = nn.Linear(8, len(LABELS))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(frames).mean(dim=(2, 3, 4)))


def delayed(out: Path) -> dict[str, np.ndarray]:
    """``delayed.clipstep``, steps of two frames and a delay, and what the eager clip network says of whole videos of its frames."""
    torch.manual_seed(4)
    info = RunInfo("delayed", {}, LABELS, (108.3, 103.4, 106.2), (64.8, 65.6, 64.6), 25.0, "0" * 64)
    run = Run(Delayed().eval(), info, read_subclips(CLIP, 8, 16)[:3])
    export_network(run.spec("delayed"), out, ExportOptions(targets=["onnx"], stream=2))
    frames = run.sample.flatten(0, 1)
    values = {"delayed.frames": frames.numpy()}
    with torch.no_grad():
        for count in DELAYED_VIDEOS:
            video = normalise(frames[None, : count // 2 * 2], info.mean, info.std)
            values[f"delayed.logits.{count}"] = run.network(video).numpy()
    return values


class Embedded(nn.Module):
    """A network with a state that returns an embedding and a map of features beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.Linear(8, len(LABELS))

    def initial_states(self) -> dict[str, torch.Tensor]:
        return {"memory": torch.zeros(1, 8)}

    def forward(self, frames: torch.Tensor, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.conv(frames).relu()
        embedding = features.mean(dim=(2, 3, 4)) + memory / 2
        return {"scores": self.head(embedding), "memory_out": embedding, "embedding": embedding, "map": features.mean(dim=2)}


def embedded(out: Path) -> None:
    """``kept.clipstep``, whose outputs beside the logits are kept."""
    torch.manual_seed(5)
    info = RunInfo("embedded", {}, LABELS, (108.3, 103.4, 106.2), (64.8, 65.6, 64.6), 25.0, "0" * 64)
    run = Run(Embedded().eval(), info, read_subclips(CLIP, 4, 16)[:3])
    export_network(run.spec("embedded"), out, ExportOptions(targets=["onnx"], keep_outputs=["embedding", "map"]))


class Skeletons(nn.Module):
    """A network with a state that takes the joints of two persons, `(N, 3, T, 5, 2)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, (3, 1), padding=(1, 0)), nn.Linear(8, len(LABELS))

    def initial_states(self) -> dict[str, torch.Tensor]:
        return {"memory": torch.zeros(1, 8)}

    def forward(self, joints: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        persons = [self.conv(joints[..., person]).relu().mean((2, 3)) for person in range(2)]
        memory = persons[0] - 0.5 * persons[1] + memory / 2
        return self.head(memory), memory


def skeletons(out: Path) -> None:
    """``joints.clipstep``, which takes no video."""
    torch.manual_seed(6)
    given = Joints(5, ("x", "y", "score"), persons=2)
    export(Skeletons().eval(), out, frames=4, labels=LABELS, mean=(0.5, 0.5, 0), std=(0.2, 0.2, 1), fps=30, input=given, targets=["onnx"], force=True)


def main(out: Path, folder: Path | None) -> None:
    """Writes ``demo.clipstep``, ``small.clipstep`` (float32 frames, signed), ``small.clipstep.zip``, ``delayed.clipstep`` (with a delay),
    ``kept.clipstep`` (with outputs beside its logits), ``joints.clipstep``, the signer's keys and ``python.safetensors`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    run = load_run(folder) if folder else untrained(out / "untrained", 16, 112)
    export_network(run.spec(folder or out / "untrained"), out / "demo.clipstep", ExportOptions(targets=["onnx"]))
    small = untrained(out / "small", 4, 32)
    export_network(small.spec(out / "small"), out / "small.clipstep", ExportOptions(targets=["onnx"], input_dtype="float32"))
    key = out / "signer.pem"
    for old in out.glob("signer.*"):
        old.unlink()
    new_key(key)
    sign_bundle(out / "small.clipstep", key)
    with Bundle.open(out / "small.clipstep") as bundle:
        write_pack(bundle, artifacts_for(bundle, "python"), golden_of(bundle, "synthetic"), out / "small.clipstep.zip")
    embedded(out / "kept.clipstep")
    skeletons(out / "joints.clipstep")
    values = delayed(out / "delayed.clipstep") | conversions() | stepped(out / "demo.clipstep") | streamed(out / "demo.clipstep")
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, out / "python.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
