"""``clipstep models``: what each network costs, beside the numbers that the paper's table 2 gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from clipstep.network.count import clip_multiply_accumulates, parameters
from clipstep.runtime.terminal import new_console, new_table, print_json, print_table
from clipstep.training.models import HOME, PRESETS, build


@dataclass(frozen=True)
class Listed:
    """A row of the paper's table 2: its number of parameters in millions, the classes that it counted, how many streams."""

    millions: float | None
    classes: int
    streams: tuple[int, ...] = (3,)
    """Input channels of each stream: 3 for RGB frames, 2 for optical flow."""
    remark: str = ""
    config: Mapping[str, int] = field(default_factory=dict)


LISTED = {
    HOME: Listed(0.61, 101),
    f"{HOME} --preset causal": Listed(None, 101, remark="predicts after each pair of frames", config=PRESETS["causal"]),
    "slowfast_published": Listed(None, 101, remark="the paper's published code, another network than its text describes"),
    "shufflenet3d_0.5x": Listed(0.55, 600),
    "shufflenet3d_1.0x": Listed(1.52, 600),
    "mobilenet3d": Listed(3.91, 600),
    "resnet3d_50": Listed(44.54, 600, remark="2.78 M are the shortcuts' projections; 44.65 M without them; 0.1 M unexplained"),
    "i3d": Listed(25, 400, (3, 2), remark="both streams"),
    "r2plus1d_18": Listed(33.3, 400, (3, 2), remark="both streams; the table counts one, 33.37 M here"),
}


def models_command(as_json: bool = False) -> None:
    """``clipstep models``, whose options are in commands.py."""
    costs = {name: _cost(name, listed) for name, listed in LISTED.items()}
    if as_json:
        print_json(
            [
                {
                    "network": name,
                    "classes": listed.classes,
                    "parameters": costs[name][0],
                    "multiply_accumulates": costs[name][1],
                    "paper_millions": listed.millions,
                    "remark": listed.remark,
                }
                for name, listed in LISTED.items()
            ]
        )
        return
    table = new_table("network", "classes", "param.\nM", "paper\nM", "MAC\nM")
    for name, listed in LISTED.items():
        trained, arithmetic = costs[name]
        paper = "-" if listed.millions is None else f"{listed.millions:g}"
        table.add_row(name, str(listed.classes), f"{trained / 1e6:.2f}", paper, f"{arithmetic / 1e6:,.2f}")
    console = new_console()
    print_table(console, table)
    console.print("MAC: multiply-accumulates of convolutions and linear layers, one subclip of 16 frames of 112x112", soft_wrap=True)
    for name, listed in LISTED.items():
        if listed.remark:
            console.print(f"{name}: {listed.remark}", soft_wrap=True)


def _cost(name: str, listed: Listed) -> tuple[int, int]:
    """Parameters and multiply-accumulates of all streams of a row."""
    networks = [_network(name, {"classes": listed.classes, "channels": channels, **listed.config}) for channels in listed.streams]
    return sum(map(parameters, networks)), sum(clip_multiply_accumulates(n, c) for n, c in zip(networks, listed.streams, strict=True))


def _network(name: str, config: Mapping[str, int]) -> nn.Module:
    with torch.device("meta"):
        return build(name.partition(" ")[0], config).eval()
