"""``--signer``: every command that opens a bundle has it, refuses the bundle of another signer, and works with the right one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from clipstep.benchmarks.records import Record, record_lines
from clipstep.runtime.bundle import MANIFEST, Bundle
from clipstep.runtime.bundle.signature import new_key
from clipstep.runtime.command_line.cli import COMMANDS, group
from clipstep.runtime.command_line.sign import sign_bundle

Cli = Callable[..., tuple[int, str, str]]
FIGHT = Path(__file__).parents[2] / "training/demo/fight/videos"

INVOCATIONS = {
    "run": "run BUNDLE CLIP",
    "verify": "verify BUNDLE",
    "inspect": "inspect BUNDLE",
    "pack": "pack BUNDLE --for python --out PACK",
    "evaluate": "evaluate BUNDLE DATA",
    "evaluate beside a run": "evaluate RUN DATA --with BUNDLE",
    "bench": "bench BUNDLE --threads 1 --rounds 1 --steps 1",
    "bench-streams": "bench-streams BUNDLE CLIP --streams 1 --subclips 1 --rounds 1",
    "report": "report BUNDLE RECORDS",
    "peers": "peers BUNDLE --run DATA --peer openvino",
}
OPENS_NO_SIGNED_BUNDLE = {"sign"}
"""It makes a bundle the caller's own."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A private key, its public one, and that of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    return folder / "key.pem", new_key(folder / "key.pem"), new_key(folder / "other.pem")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, run_folder: Path, clip: Path, keys: tuple[Path, ...]) -> dict[str, Path]:
    """What stands for the words of ``INVOCATIONS``: the bundle is signed, the data set has its classes."""
    folder = tmp_path_factory.mktemp("signed")
    bundle, data = Path(shutil.copytree(bundle_path, folder / "small.clipstep")), folder / "data"
    values = json.loads((bundle / MANIFEST).read_text())
    values["artifacts"] = [artifact for artifact in values["artifacts"] if artifact["target"] == "onnx"]  # Verified and measured in a moment.
    (bundle / MANIFEST).write_text(json.dumps(values))
    sign_bundle(bundle, keys[0])
    clips = sorted(FIGHT.glob("Fight/*.mp4"))
    labels = Bundle.open(bundle).manifest.labels
    for index, label in enumerate(labels):
        (data / "videos" / label).mkdir(parents=True)
        for video in clips[2 * index : 2 * index + 2]:
            (data / "videos" / label / video.name).symlink_to(video)
    names = {label: sorted(path.name for path in (data / "videos" / label).iterdir()) for label in labels}
    (data / "classInd.txt").write_text("".join(f"{number} {label}\n" for number, label in enumerate(labels, 1)))
    (data / "trainlist01.txt").write_text("".join(f"{label}/{names[label][0]} {number}\n" for number, label in enumerate(labels, 1)))
    (data / "testlist01.txt").write_text("".join(f"{label}/{names[label][1]}\n" for label in labels))
    return {"BUNDLE": bundle, "RUN": run_folder, "CLIP": clip, "DATA": data, "RECORDS": folder / "records.jsonl", "PACK": folder / "x.clipstep.zip"}


def test_every_command_that_takes_a_bundle_takes_its_signer() -> None:
    """Commands that are added later are found here by their parameters: a bundle, or a path that may be one."""
    context = click.Context(group)
    takers = {
        name: {str(parameter.name) for parameter in command.params}
        for name in COMMANDS
        if (command := group.get_command(context, name)) is not None
        and any(isinstance(p, click.Argument) and ("bundle" in str(p.name) or "bundle" in str(command.help).lower()) for p in command.params)
        and name not in OPENS_NO_SIGNED_BUNDLE
    }
    without = sorted(name for name, parameters in takers.items() if not {"signer"} <= parameters)
    assert not set(without) - {"export"}  # It writes one.
    assert set(takers) - {"export"} == {words.split()[0] for words in INVOCATIONS.values()}


@pytest.mark.parametrize("name", INVOCATIONS)
def test_the_right_signer_is_taken_and_another_refused(
    name: str, places: dict[str, Path], record: Record, keys: tuple[Path, Path, Path], clipstep: Cli
) -> None:
    places["RECORDS"].write_text(record_lines([record]))
    words = [places.get(word, word) for word in INVOCATIONS[name].split()]
    places["PACK"].unlink(missing_ok=True)
    code, _, err = clipstep(*words, "--signer", keys[2])
    assert code == 2 and "is signed by another key" in err and len(err.splitlines()) == 1
    assert not places["PACK"].exists()
    code, said, err = clipstep(*words, "--signer", keys[1])
    if name == "peers":  # Its measurements have a test of their own; this one ends at the network, which it looks at after the bundle.
        assert code == 2 and "data: is not a run" in err
    else:
        assert code == 0 and said, err


def test_signer_options_need_a_bundle(places: dict[str, Path], keys: tuple[Path, Path, Path], clipstep: Cli) -> None:
    """A key that is never used checks nothing."""
    code, _, err = clipstep("evaluate", places["RUN"], places["DATA"], "--signer", keys[1])
    assert code == 2 and "--signer is for a bundle; a run is evaluated in PyTorch; leave --signer out" in err
    code, _, err = clipstep("inspect", places["BUNDLE"] / "step.onnx", "--signer", keys[1])
    assert code == 2 and "only a bundle is signed; got a lone file" in err
