"""``clipstep models``: the parameters and multiply-accumulates of each network, beside the paper's table 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from clipstep.network.count import clip_macs, count_parameters
from clipstep.runtime.command_line.streams import print_json
from clipstep.runtime.command_line.terminal import new_console, new_table, print_table
from clipstep.training.models import HOME, PRESETS, build


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table 2, or a row for a network that the table lacks. ``millions`` are the parameters that the table states."""

    millions: float | None
    classes: int
    streams: tuple[int, ...] = (3,)
    """Input channels of each stream: 3 for RGB frames, 2 for optical flow."""
    remark: str = ""
    config: Mapping[str, int] = field(default_factory=dict)


PAPER_ROWS = {
    HOME: PaperRow(0.61, 101),
    f"{HOME} --preset causal": PaperRow(None, 101, remark="predicts after each pair of frames", config=PRESETS["causal"]),
    "slowfast_published": PaperRow(None, 101, remark="the paper's published code, another network than its text describes"),
    "shufflenet3d_0.5x": PaperRow(0.55, 600),
    "shufflenet3d_1.0x": PaperRow(1.52, 600),
    "mobilenet3d": PaperRow(3.91, 600),
    "resnet3d_50": PaperRow(44.54, 600, remark="2.78 M are the shortcuts' projections; 44.65 M without them; 0.1 M unexplained"),
    "i3d": PaperRow(25, 400, (3, 2), remark="both streams"),
    "r2plus1d_18": PaperRow(33.3, 400, (3, 2), remark="both streams; the table counts one, 33.37 M here"),
}


def models_command(as_json: bool = False) -> None:
    """``clipstep models``, whose options are in cli.py."""
    costs = {name: _cost(name, row) for name, row in PAPER_ROWS.items()}
    if as_json:
        print_json(
            [
                {
                    "network": name,
                    "classes": row.classes,
                    "parameters": costs[name][0],
                    "multiply_accumulates": costs[name][1],
                    "paper_millions": row.millions,
                    "remark": row.remark,
                }
                for name, row in PAPER_ROWS.items()
            ]
        )
        return
    table = new_table("network", "classes", "param.\nM", "paper\nM", "MAC\nM")
    for name, row in PAPER_ROWS.items():
        trained, arithmetic = costs[name]
        paper = "-" if row.millions is None else f"{row.millions:g}"
        table.add_row(name, str(row.classes), f"{trained / 1e6:.2f}", paper, f"{arithmetic / 1e6:,.2f}")
    console = new_console()
    print_table(console, table)
    console.print("MAC: multiply-accumulates of convolutions and linear layers, one subclip of 16 frames of 112x112", soft_wrap=True)
    for name, row in PAPER_ROWS.items():
        if row.remark:
            console.print(f"{name}: {row.remark}", soft_wrap=True)


def _cost(name: str, row: PaperRow) -> tuple[int, int]:
    """Return the parameters and multiply-accumulates of all streams of a row together."""
    networks = [_network(name, {"classes": row.classes, "channels": channels, **row.config}) for channels in row.streams]
    return sum(map(count_parameters, networks)), sum(clip_macs(n, c) for n, c in zip(networks, row.streams, strict=True))


def _network(name: str, config: Mapping[str, int]) -> nn.Module:
    with torch.device("meta"):
        return build(name.partition(" ")[0], config).eval()
