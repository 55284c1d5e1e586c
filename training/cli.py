"""``clipstep train``."""

import os
from pathlib import Path

import click

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.terminal import new_console
from clipstep.training.data.lists import read_data_set
from clipstep.training.models import PRESETS
from clipstep.training.run import save_run
from clipstep.training.train import OPTIMIZERS, TrainingConfig, train


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@click.command("train")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the run to.")
@click.option("--split", default=1, show_default=True, help="Which trainlist0N.txt and testlist0N.txt.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="a2b1", show_default=True, help="Temporal strides alpha and beta.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(1), help="T, frames a subclip.")
@click.option("--size", default=112, show_default=True, type=click.IntRange(16), help="Height and width of a frame, in pixels.")
@click.option("--epochs", default=100, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(1), help="Videos a batch.")
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="sgd", show_default=True, help="sgd is the paper's.")
@click.option("--learning-rate", default=0.1, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--weight-decay", default=0.0, show_default=True, type=click.FloatRange(0))
@click.option("--patience", default=10, show_default=True, type=click.IntRange(0), help="Epochs without a lower loss before the rate drops.")
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Stop after that many minutes.")
@click.option("--workers", default=min(2, _cores()), show_default=True, type=click.IntRange(0), help="Decoding processes.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def train_command(
    data: Path, out: Path, split: int, preset: str, frames: int, size: int, epochs: int, batch_size: int, optimizer: str,
    learning_rate: float, weight_decay: float, patience: int, max_minutes: float | None, workers: int, seed: int,
) -> None:  # fmt: skip
    """Train SlowFastCausalShuffleNet on DATA, a folder in UCF101's layout (classInd.txt, lists, videos/)."""
    if out.exists() and not (out / "run.json").is_file():
        raise ClipstepError(f"{out}: exists and is not a run", expected="a new folder or an older run", fix="choose another --out")
    data_set = read_data_set(data, split)
    model_config = {"classes": len(data_set.classes), "frames": frames, "size": size, **PRESETS[preset]}
    config = TrainingConfig(
        epochs=epochs, batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, weight_decay=weight_decay, patience=patience,
        max_minutes=max_minutes, workers=workers, seed=seed,
    )  # fmt: skip
    console = new_console()
    run = train(data_set, "slowfast_causal_shufflenet", model_config, config, console)
    save_run(out, run)
    summary = run.info.training
    console.print(
        f"test top-1 {summary['test_top1']:.1%} of {summary['test_videos']} videos "
        f"(the larger class's share is {summary['test_largest_class_share']:.1%}); "
        f"{len(summary['skipped_videos']) + len(summary['skipped_test_videos'])} broken videos skipped; written to {out}"
    )
