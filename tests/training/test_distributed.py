"""Training in real processes, which exchange gradients with gloo."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lightning.fabric import Fabric
from torch import nn

from clipstep.training.config import TrainingConfig
from clipstep.training.data.subclips import Video
from clipstep.training.run import RunInfo
from clipstep.training.trainer import Trainer

SCRIPT = """
import json, sys
from pathlib import Path
import safetensors.torch, torch
from clipstep.training.config import TrainingConfig
from clipstep.training.data.subclips import Video
from clipstep.training.models import build
from clipstep.training.run import RunInfo
from clipstep.training.train import launch
from clipstep.training.trainer import Trainer

folder = Path(sys.argv[1])
weights, videos = safetensors.torch.load_file(folder / "network"), safetensors.torch.load_file(folder / "videos")
info = RunInfo("any", {}, ("a", "b", "c"), (100.0,) * 3, (50.0,) * 3, 25.0)
config = TrainingConfig(accelerator="cpu", optimizer="sgd", momentum=0.0, weight_decay=0.0)
fabric = launch(config)
network = build("slowfast_causal_shufflenet", {"classes": 3, "frames": 4, "size": 32}).eval()
network.load_state_dict(weights)
trainer = Trainer(network, info, config, fabric)
batch = [Video(Path(name), videos[name], int(name) % 3) for name in sorted(videos)]
for count in (1, len(batch)):
    network.load_state_dict(weights)
    loss, used = trainer.step([batch[:count][fabric.global_rank :: fabric.world_size]])
    name = f"{count}-{fabric.global_rank}"
    safetensors.torch.save_file({name: p.grad for name, p in network.named_parameters()}, folder / f"gradients{name}")
    (folder / f"facts{name}").write_text(json.dumps([fabric.world_size, type(fabric.strategy).__name__, loss, used]))
"""


@pytest.mark.long
def test_two_processes_get_the_gradients_of_one_on_the_joined_batch(small_network: Callable[..., nn.Module], tmp_path: Path) -> None:
    """The processes have videos of different lengths; of a batch of one video, the second process has none. Batch norms have fixed statistics."""
    random = torch.Generator().manual_seed(0)
    videos = {str(i): torch.randint(256, (length, 4, 32, 32, 3), dtype=torch.uint8, generator=random) for i, length in enumerate((1, 3, 2, 2, 5))}
    network = small_network()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "network")
    safetensors.torch.save_file(videos, tmp_path / "videos")
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, str(tmp_path / "script.py"), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = TrainingConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0)
    batch = [Video(Path(name), subclips, int(name) % 3) for name, subclips in videos.items()]
    for count in (1, 5):
        network = small_network()
        trainer = Trainer(network, RunInfo("any", {}, ("a", "b", "c"), (100.0,) * 3, (50.0,) * 3, 25.0), config, Fabric(accelerator="cpu", devices=1))
        loss, used = trainer.step([batch[:count]])
        for rank in range(2):
            assert json.loads((tmp_path / f"facts{count}-{rank}").read_text()) == [2, "DDPStrategy", pytest.approx(loss, rel=1e-5), used]
            gradients = safetensors.torch.load_file(tmp_path / f"gradients{count}-{rank}")
            for name, parameter in network.named_parameters():
                scale = float(parameter.grad.abs().max())
                torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4 * scale, rtol=1e-4, msg=f"{name} in process {rank}")


@pytest.mark.long
def test_one_command_trains_in_two_processes(few_videos: Path, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("clipstep"), "train", few_videos, "--out", tmp_path / "run"]
    options = ["--devices", "2", "--frames", "16", "--size", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0", "--validation", "0.25"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == 1 and done.stdout.count("test top-1") == 1
    training = json.loads((tmp_path / "run/run.json").read_text())["training"]
    assert (training["processes"], training["train_videos"], training["validation_videos"], training["test_videos"]) == (2, 6, 2, 2)
