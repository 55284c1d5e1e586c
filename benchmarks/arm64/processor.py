"""The processor that QEMU emulates: which there are, and what one says of itself."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clipstep.benchmarks.arm64.kit import EMULATOR
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.float16_processor import FLAGS

CPU = "cortex-a76"
"""The processor that is emulated unless another is asked for: a large core of a phone of 2018, with dot products and half precision, without SVE."""
CORES = 2

HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve "
    "asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh rng bti mte ecv afp "
    "rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 smef32f32 smefa64 wfxt"
)
"""Linux's names of the bits of AT_HWCAP and AT_HWCAP2, from bit 0 on, as /proc/cpuinfo shows them."""

LEVEL = {"asimdhp": "fp16", "asimddp": "dot product", "i8mm": "i8mm", "sve": "SVE", "sme": "SME"}
"""The features by which engines choose kernels for networks: arithmetic in float16, products of four bytes, of matrices of bytes, and vectors
whose length the processor chooses."""


@dataclass(frozen=True)
class Processor:
    """A processor that QEMU emulates."""

    name: str
    features: tuple[str, ...]
    """What it can do, by Linux's names."""
    midr: int
    """Its number, the register MIDR_EL1: who made it, the part, the variant and the revision."""

    @classmethod
    def read(cls, kit: Path, name: str) -> "Processor":
        """Return a processor as a program that runs on it sees it. `a53` is short for `cortex-a53`; `max,sve=off,sme=off` has no SVE and no SME.

        Args:
            kit: the folder of the kit.
            name: QEMU's name, and after a comma QEMU's properties of it.

        Raises:
            ClipstepError: QEMU has no such processor, or it has not such properties.
        """
        known = _known()
        full = next((each for each in (name, f"cortex-{name}") if each.partition(",")[0] in known), None)
        if full is None:
            processors = [cls._asked(kit, each) for each in known]
            having = {words: ", ".join(p.name for p in processors if feature in p.features) for feature, words in LEVEL.items()}
            fix = "; ".join(f"{words}: {names}" for words, names in having.items() if names)
            raise ClipstepError(f"{EMULATOR} has no such processor", got=name, expected=", ".join(known), fix=f"choose by what they have, {fix}")
        return cls._asked(kit, full)

    @classmethod
    def _asked(cls, kit: Path, name: str) -> "Processor":
        done = _run(kit, "-cpu", name, "./processor")
        if done.returncode != 0:
            got = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
            raise ClipstepError(f"{EMULATOR} does not emulate {name}", got=got)
        words = [int(word, 16) for word in done.stdout.split()]
        bits = ((word >> bit & 1, feature) for word, names in zip(words, (HWCAP, HWCAP2), strict=False) for bit, feature in enumerate(names.split()))
        return cls(name, tuple(feature for there, feature in bits if there), words[2])

    @property
    def computes_float16(self) -> bool:
        """Whether it runs artifacts that need a processor which computes in float16."""
        return FLAGS["arm64"] <= set(self.features)

    def make_root(self, kit: Path, folder: Path) -> None:
        """Make `folder` the root of a system on this processor: the kit's files, and what Linux would say in /proc/cpuinfo.

        The engines choose kernels by that file. Without it QEMU would show this computer's, and with another processor's they could choose
        kernels that this one does not run.
        """
        (folder / "proc").mkdir(parents=True)
        (folder / "proc/cpuinfo").write_text("".join(f"processor\t: {core}\n{self._described()}\n" for core in range(CORES)), encoding="utf-8")
        for entry in (kit / "root").iterdir():
            if entry.name != "proc":
                (folder / entry.name).symlink_to(entry.absolute())

    def _described(self) -> str:
        implementer, variant, part, revision = self.midr >> 24 & 0xFF, self.midr >> 20 & 0xF, self.midr >> 4 & 0xFFF, self.midr & 0xF
        return (
            f"BogoMIPS\t: 50.00\nFeatures\t: {' '.join(self.features)}\nCPU implementer\t: 0x{implementer:02x}\nCPU architecture: 8\n"
            f"CPU variant\t: 0x{variant:x}\nCPU part\t: 0x{part:03x}\nCPU revision\t: {revision}\n"
        )


def level_of(features: tuple[str, ...]) -> str:
    """Return which of the features of `LEVEL` there are and which not, such as `fp16, dot product, no i8mm, no SVE, no SME`."""
    return ", ".join(words if feature in features else f"no {words}" for feature, words in LEVEL.items())


def _known() -> list[str]:
    """Return the names of the processors that QEMU emulates. QEMU ends with code 1 after listing them."""
    return [line.strip() for line in _run(Path(), "-cpu", "help").stdout.splitlines() if line.startswith(" ")]


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [EMULATOR, *arguments]
    return subprocess.run(words, executable=shutil.which(EMULATOR), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
