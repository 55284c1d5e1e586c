"""Options that would do nothing together are refused on one line, before any work; those of a file of options are defaults."""

from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train DATA --out O --optimizer adamw --momentum 0.5", "--momentum does nothing with --optimizer adamw; expected --optimizer sgd"),
        ("train DATA --out O --schedule cosine --patience 3", "--patience does nothing with --schedule cosine; expected --schedule plateau"),
        ("train DATA --out O --config paper --schedule cosine --patience 3", "--patience does nothing with --schedule cosine"),
        ("evaluate DATA DATA --engine executorch", "--engine is for a bundle; a run is evaluated in PyTorch; leave --engine out"),
        ("evaluate DATA DATA --threads 1 --with DATA", "--threads is for a bundle"),
        ("export DATA --out O.clipstep --target coreml --platform arm64", "--platform does nothing for coreml"),
        ("export DATA --out O.clipstep --target coreml --platform arm64 --tune", "--tune does nothing for coreml"),
        ("export DATA --out O.clipstep --target onnx --platform arm64 --tune --form 3d", "--tune does nothing with --form 3d"),
        ("export DATA --out O.clipstep --random-weights", "--random-weights does nothing without --model"),
        ("export DATA --out O.clipstep --weights-key ema", "--weights-key does nothing without --model"),
        ("bench BUNDLE --profile P.png --pause 3", "got --pause"),
        ("bench BUNDLE --profile P.png --spinning", "got --spinning"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments: str, message: str, bundle_path: Path, clipstep: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    places = {
        "DATA": tmp_path / "data",
        "BUNDLE": bundle_path,
        "O": tmp_path / "o",
        "O.clipstep": tmp_path / "o.clipstep",
        "P.png": tmp_path / "p.png",
    }
    code, _, err = clipstep(*(places.get(word, word) for word in arguments.split()))
    assert code == 2 and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "options", ["--config paper --optimizer adamw", "--config paper --schedule cosine", "--optimizer adamw", "--optimizer sgd --momentum 0.5"]
)
def test_what_a_file_of_options_says_is_a_default(options: str, clipstep: Cli, tmp_path: Path) -> None:
    """The command goes on to read the data, of which there is none."""
    code, _, err = clipstep("train", tmp_path, "--out", tmp_path.with_name("o"), *options.split())
    assert code == 2 and "is no data set of a known layout" in err
