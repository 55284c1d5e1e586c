"""The networks of the family ``zoo``: how each is made, which packages it needs, and what it takes. None of the packages is imported here."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from clipstep.runtime.install_hints import install_extra

KINETICS_400, KINETICS_600 = 400, 600


@dataclass(frozen=True)
class Entry:
    """One network of the family."""

    name: str
    file: str
    """The file of `clipstep.benchmarks.zoo` that holds its factory."""
    frames: int
    """T, the frames of a clip."""
    size: int
    """Height and width of a frame, in pixels."""
    needs: tuple[str, ...] = ()
    """The distributions that the factory imports."""
    classes: int = KINETICS_400
    adapters: tuple[str, ...] = ()
    """What it is wrapped in, as ``--adapter`` of ``clipstep export`` takes it."""
    stream: int | None = None
    """The new frames of a step, for a clip network that is exported as a stream; None for one that is exported as it is."""
    network: str | None = None
    """The name of its factory, if that is not the entry's."""
    usual: str | None = None
    """The input that it was published with, if it is another one here."""

    @property
    def factory(self) -> str:
        """The factory as ``clipstep export --model`` takes it."""
        return f"clipstep.benchmarks.zoo.{self.file}:{self.network or self.name}"

    @property
    def input(self) -> str:
        """The frames and their size, and the new frames of a step of a stream."""
        return f"{self.frames}x{self.size}" if self.stream is None else f"{self.stream}/{self.frames}x{self.size}"


def _torchvision(name: str, frames: int = 16, size: int = 112, usual: str | None = None) -> Entry:
    return Entry(name, "torchvision", frames, size, ("torchvision",), usual=usual)


def _pytorchvideo(name: str, frames: int, size: int, usual: str | None = None, adapters: tuple[str, ...] = ()) -> Entry:
    return Entry(name, "pytorchvideo", frames, size, ("pytorchvideo",), adapters=adapters, usual=usual)


def _transformers(name: str, usual: str) -> Entry:
    return Entry(name, "transformers", 8, 64, ("transformers",), adapters=("time-first",), usual=usual)


def _movinet(model: str, size: int) -> tuple[Entry, Entry]:
    base = Entry(f"movinet_{model}_base", "movinet", 16, size, classes=KINETICS_600, usual=f"50x{size}")
    return base, Entry(f"movinet_{model}_stream", "movinet", 1, size, classes=KINETICS_600)


def _tsm(backbone: str) -> tuple[Entry, Entry]:
    return (
        Entry(f"tsm_{backbone}", "tsm", 8, 224, ("torchvision",)),
        Entry(f"tsm_online_{backbone}", "tsm", 1, 224, ("torchvision",)),
    )


_EVERY = (
    *(_torchvision(name) for name in ("r3d_18", "mc3_18", "r2plus1d_18")),
    _torchvision("s3d", size=224),
    _torchvision("mvit_v1_b", size=224),
    _torchvision("mvit_v2_s", size=224),
    _torchvision("swin3d_t", usual="32x224"),
    _pytorchvideo("x3d_xs", 4, 160),
    _pytorchvideo("x3d_s", 13, 160),
    _pytorchvideo("x3d_m", 16, 224),
    _pytorchvideo("efficient_x3d_xs", 4, 160),
    _pytorchvideo("efficient_x3d_s", 13, 160),
    _pytorchvideo("c2d_r50", 8, 224),
    _pytorchvideo("slow_r50", 8, 224),
    _pytorchvideo("i3d_r50", 8, 224),
    _pytorchvideo("csn_r50", 16, 112, "32x224"),
    _pytorchvideo("slowfast_r50", 32, 224, adapters=("pathways:4",)),
    _transformers("videomae", "16x224"),
    _transformers("timesformer", "8x224"),
    _transformers("vivit", "32x224"),
    *_tsm("mobilenet_v2"),
    *_tsm("resnet50"),
    Entry("cnn_lstm", "recurrent", 16, 112, ("torchvision",)),
    Entry("cnn_lstm_stream", "recurrent", 16, 112, ("torchvision",), stream=1, network="cnn_lstm"),
    Entry("cnn_gru", "recurrent", 16, 112, ("timm",)),
    Entry("cnn_transformer", "recurrent", 16, 112, ("torchvision",)),
    Entry("conv_lstm", "recurrent", 16, 112),
    Entry("conv_lstm_stream", "recurrent", 16, 112, stream=1, network="conv_lstm"),
    *_movinet("a0", 172),
    *_movinet("a1", 172),
    *_movinet("a2", 224),
    Entry("co_x3d_s", "pytorchvideo", 13, 160, ("pytorchvideo",), stream=1),
)
ENTRIES = {entry.name: entry for entry in _EVERY}
"""The networks by name, in the order of the tables."""


def lacking(entry: Entry) -> str | None:
    """Return which packages of an entry are not installed, and the command that installs them; None if all are."""
    absent = [name for name in entry.needs if not _installed(name)]
    return f"not installed: {', '.join(absent)}; {install_extra('zoo')}" if absent else None


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
