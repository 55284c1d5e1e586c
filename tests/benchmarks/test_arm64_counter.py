"""What the counter counts as multiply-accumulates, and on which processor: compared with binutils, Linux's headers and products of known size.

Needs ``make arm64``; runs with ``make test-arm64``.
"""

import ctypes
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipstep.benchmarks.arm64.emulate import GUESTS, run_guest
from clipstep.benchmarks.arm64.kit import HERE, Kit
from clipstep.benchmarks.arm64.marks import Mark, step_counts
from clipstep.benchmarks.arm64.processor import CPU, HWCAP, HWCAP2, Processor
from clipstep.runtime.float16_processor import computes_float16

pytestmark = pytest.mark.arm64

TYPES = ("float32", "float16", "integer")
Counted = tuple[str, int] | None
Decode = Callable[[int], Counted]

BY_HAND: dict[str, Counted] = {
    "fmla v0.4s, v1.4s, v2.4s": ("float32", 4),
    "fmla v0.2s, v1.2s, v2.s[1]": ("float32", 2),
    "fmul v0.4s, v1.4s, v2.s[3]": ("float32", 4),
    "fmadd s0, s1, s2, s3": ("float32", 1),
    "fmla v0.8h, v1.8h, v2.8h": ("float16", 8),
    "fmla v0.4h, v1.4h, v2.h[7]": ("float16", 4),
    "fmul v0.8h, v1.8h, v2.8h": ("float16", 8),
    "fmadd h0, h1, h2, h3": ("float16", 1),
    "fmlal v0.4s, v1.4h, v2.4h": ("float16", 4),
    "sdot v0.4s, v1.16b, v2.16b": ("integer", 16),
    "udot v0.2s, v1.8b, v2.8b": ("integer", 8),
    "sdot v0.4s, v1.16b, v2.4b[3]": ("integer", 16),
    "usdot v0.4s, v1.16b, v2.16b": ("integer", 16),
    "smmla v0.4s, v1.16b, v2.16b": ("integer", 32),
    "ummla v0.4s, v1.16b, v2.16b": ("integer", 32),
    "smlal v0.8h, v1.8b, v2.8b": ("integer", 8),
    "smlal2 v0.4s, v1.8h, v2.h[1]": ("integer", 4),
    "smull v0.8h, v1.8b, v2.8b": ("integer", 8),
    "mla v0.16b, v1.16b, v2.16b": ("integer", 16),
    "fmla v0.2d, v1.2d, v2.2d": None,
    "fadd v0.4s, v1.4s, v2.4s": None,
    "smull v0.2d, v1.2s, v2.2s": None,
    "madd x0, x1, x2, x3": None,
    "ld1 {v0.4s}, [x0]": None,
}
"""Instructions, and the type and the number of their multiplications."""


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit.open()


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> Decode:
    """The counter's decoder as a function of an instruction word."""
    folder = tmp_path_factory.mktemp("decoder")
    text = f'#include "{HERE / "arithmetic.h"}"\nint decode(uint32_t word, int *type) {{ const struct arithmetic *kind = arithmetic_of(word);\n'
    (folder / "decoder.c").write_text(text + "if (!kind || is_scalable(word)) return 0; *type = kind->type; return multiplications(kind, word); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", folder / "decoder.c", "-o", folder / "decoder.so"], check=True)
    library = ctypes.CDLL(str(folder / "decoder.so"))

    def call(word: int) -> Counted:
        kind = ctypes.c_int()
        number = library.decode(ctypes.c_uint32(word), ctypes.byref(kind))
        return (TYPES[kind.value], number) if number else None

    return call


def test_the_assembler_s_words_have_the_type_and_the_lanes_of_the_instruction(decode: Decode, tmp_path: Path) -> None:
    source = ".arch armv8.6-a+fp16+fp16fml+i8mm+dotprod\n" + "\n".join(BY_HAND) + "\n"
    subprocess.run(["aarch64-linux-gnu-as", "-o", tmp_path / "object", "-"], input=source, text=True, check=True)
    subprocess.run(["aarch64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", tmp_path / "object", tmp_path / "words"], check=True)
    words = struct.unpack(f"<{len(BY_HAND)}I", (tmp_path / "words").read_bytes())
    assert {text: decode(word) for text, word in zip(BY_HAND, words, strict=True)} == BY_HAND


def test_random_words_are_counted_as_the_disassembler_reads_them(decode: Decode, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << 24, 40_000, np.uint32) | (random.choice(np.array([0x0E, 0x0F, 0x1E, 0x1F, 0x5F], np.uint32), 40_000) << 24)
    words |= random.choice(np.array([0, 0x20000000, 0x40000000, 0x60000000], np.uint32), 40_000)  # of 64 or 128 bits, signed or unsigned
    words.astype("<u4").tofile(tmp_path / "words")
    objdump = ["aarch64-linux-gnu-objdump", "-D", "-b", "binary", "-m", "aarch64", "--no-show-raw-insn", "-z", tmp_path / "words"]
    lines = re.findall(r"^ +[0-9a-f]+:\t(.*)$", subprocess.run(objdump, capture_output=True, text=True, check=True).stdout, re.MULTILINE)
    seen = set()
    for word, line in zip(words.tolist(), lines, strict=True):
        name, _, rest = line.partition("\t")
        if name.startswith(("fmlal", "fmlsl")) and word >> 24 & 1 == 0 and word >> 22 & 1:
            continue  # Not allocated, but objdump does not look at this bit.
        expected = _read(name, rest)
        assert decode(word) == expected, line
        seen |= {name} if expected else set()
    assert len(seen) >= 30, seen


def _read(name: str, operands: str) -> Counted:
    """Return what an instruction of the disassembler multiplies, by its name and the arrangement of its result."""
    first = operands.split(",")[0]
    vector = re.fullmatch(r"v\d+\.(\d+)([bhsd])", first)
    scalar = re.fullmatch(r"([hs])\d+", first)
    if scalar and re.fullmatch("fn?m(add|sub|ul)|fml[as]", name):
        return {"h": "float16", "s": "float32"}[scalar[1]], 1
    if vector is None:
        return None
    lanes, kind = int(vector[1]), vector[2]
    if re.fullmatch("fml[as]|fmul", name) and kind != "d":
        return {"h": "float16", "s": "float32"}[kind], lanes
    if re.fullmatch("fml[as]l2?", name):
        return "float16", lanes
    if re.fullmatch("(us?|su?)dot", name):
        return "integer", 4 * lanes
    if re.fullmatch("(us?|s)mmla", name):
        return "integer", 32
    widened, same = re.fullmatch("[us]m(l[as]l|ull)2?", name) and kind in "hs", re.fullmatch("ml[as]|mul", name) and kind in "bh"
    return ("integer", lanes) if widened or same else None


def test_names_of_features_are_those_of_linux() -> None:
    """Linux's header defines HWCAP_ASIMDDP as 1 << 20, which /proc/cpuinfo shows as asimddp."""
    header = Path("/usr/aarch64-linux-gnu/include/asm/hwcap.h").read_text()
    for prefix, names in (("HWCAP", HWCAP.split()), ("HWCAP2", HWCAP2.split())):
        defined = {name.lower(): int(bit) for name, bit in re.findall(rf"#define {prefix}_(\w+)\s+\(1(?:UL)? << (\d+)\)", header)}
        common = defined.keys() & set(names)
        assert len(common) >= 25 and {name: defined[name] for name in common} == {name: names.index(name) for name in common}


@pytest.mark.parametrize(
    ("name", "level", "maker_and_part"),
    [
        ("a53", (False, False, False), (0x41, 0xD03)),
        (CPU, (True, True, False), (0x41, 0xD0B)),
        ("max,sve=off,sme=off", (True, True, True), (0, 0x51)),
    ],
)
def test_the_processor_that_engines_see_is_the_emulated_one(
    kit: Kit, tmp_path: Path, name: str, level: tuple[bool, ...], maker_and_part: tuple[int, int]
) -> None:
    """Arm's manuals say what these cores have; QEMU's `max` has all that QEMU emulates."""
    processor = Processor.read(kit.path, name)
    assert tuple(feature in processor.features for feature in ("asimdhp", "asimddp", "i8mm")) == level and "sve" not in processor.features
    processor.make_root(kit.path, tmp_path / "root")
    seen = (tmp_path / "root/proc/cpuinfo").read_text()
    assert f"CPU implementer\t: 0x{maker_and_part[0]:02x}\n" in seen and f"CPU part\t: 0x{maker_and_part[1]:03x}\n" in seen
    assert computes_float16("arm64", "linux", tmp_path / "root/proc/cpuinfo") == processor.computes_float16 == level[0]


ROWS, DEPTH, COLUMNS = 64, 192, 128


def products() -> onnx.ModelProto:
    """Two products of (ROWS, DEPTH) numbers and (DEPTH, COLUMNS) weights, one in float32 and one of bytes."""
    weights = np.random.default_rng(1).integers(-127, 128, (DEPTH, COLUMNS))
    nodes = [
        helper.make_node("Reshape", ["frames", "shape"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["numbers", "float_weights"], ["logits"]),
        helper.make_node("MatMulInteger", ["bytes", "byte_weights"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["state"], to=TensorProto.FLOAT),
    ]
    constants = {"float_weights": weights.astype(np.float32), "byte_weights": weights.astype(np.int8), "shape": np.array([ROWS, DEPTH])}
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, (1, ROWS, DEPTH // 3, 3))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (ROWS, COLUMNS)) for name in ("logits", "state")]
    graph = helper.make_graph(nodes, "products", [frames], outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("name", "bytes_each"), [("cortex-a53", 8), (CPU, 16), ("max,sve=off,sme=off", 32)])
def test_a_product_takes_its_multiply_accumulates(kit: Kit, tmp_path: Path, name: str, bytes_each: int) -> None:
    """An engine may pad matrices, and multiply the result by a factor. On a Cortex-A53 the engine has to multiply bytes eight at a time, without dot
    products: QEMU would end it with SIGILL. The processor with i8mm multiplies matrices of bytes, 32 numbers at a time."""
    onnx.save(products(), tmp_path / "products.onnx")
    frames = np.random.default_rng(0).integers(0, 256, (ROWS, DEPTH), np.uint8)
    frames.tofile(tmp_path / "inputs.bin")
    command = [*GUESTS["onnxruntime"].command(kit), tmp_path / "products.onnx", tmp_path, 1]
    run_guest(kit, Processor.read(kit.path, name), command, tmp_path / "counts.txt", "products.onnx")
    counts = step_counts(Mark.read(tmp_path / "counts.txt"))[-1]
    exact = ROWS * DEPTH * COLUMNS
    assert exact <= counts.float32_macs <= 1.02 * exact and exact <= counts.integer_macs <= 1.02 * exact and counts.float16_macs == 0, counts
    assert counts.scalable == 0
    of_bytes = counts.vector_fmas - exact / 4
    assert exact / max(bytes_each, 16) <= of_bytes <= 1.05 * exact / max(bytes_each, 16), "on the Cortex-A53 half of them multiply without adding"
    expected = frames.astype(np.int64) @ np.random.default_rng(1).integers(-127, 128, (DEPTH, COLUMNS))
    assert (np.fromfile(tmp_path / "outputs.bin", np.float32).reshape(-1, ROWS, COLUMNS) == expected).all()
