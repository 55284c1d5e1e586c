// Which A64 instructions multiply and accumulate numbers: of which type, and how many multiplications each does.
//
// The encodings are those of the Arm Architecture Reference Manual, C4.1 "Data Processing -- Scalar Floating-Point and Advanced SIMD". Doubles,
// bfloat16, and integers of 32 bits are left out: networks are not computed in them. So are SVE and SME, whose vectors have no fixed length.
#include <stddef.h>
#include <stdint.h>

enum type { FLOAT32, FLOAT16, INTEGER, TYPES };

struct arithmetic {
    uint32_t mask, value;
    uint8_t type;
    uint8_t half, full;  // Multiplications on vectors of 64 and of 128 bits (bit 30), the same for what has one form alone.
    uint8_t is_fma;      // Whether it is one of the instructions that are counted as vector FMAs: it also adds, on a vector.
};

static const struct arithmetic ARITHMETIC[] = {
    {0xBFE0FC00u, 0x0E20CC00u, FLOAT32, 2, 4, 1},  // FMLA
    {0xBFE0FC00u, 0x0EA0CC00u, FLOAT32, 2, 4, 0},  // FMLS
    {0xBFE0FC00u, 0x2E20DC00u, FLOAT32, 2, 4, 0},  // FMUL
    {0xBFC0F400u, 0x0F801000u, FLOAT32, 2, 4, 1},  // FMLA by element
    {0xBFC0F400u, 0x0F805000u, FLOAT32, 2, 4, 0},  // FMLS by element
    {0xBFC0F400u, 0x0F809000u, FLOAT32, 2, 4, 0},  // FMUL by element
    {0xFFC00000u, 0x1F000000u, FLOAT32, 1, 1, 0},  // FMADD, FMSUB, FNMADD, FNMSUB of scalars
    {0xFFE07C00u, 0x1E200800u, FLOAT32, 1, 1, 0},  // FMUL, FNMUL of scalars
    {0xFFC0B400u, 0x5F801000u, FLOAT32, 1, 1, 0},  // FMLA, FMLS of a scalar by element
    {0xFFC0F400u, 0x5F809000u, FLOAT32, 1, 1, 0},  // FMUL of a scalar by element

    {0xBFE0FC00u, 0x0E400C00u, FLOAT16, 4, 8, 1},  // FMLA
    {0xBFE0FC00u, 0x0EC00C00u, FLOAT16, 4, 8, 0},  // FMLS
    {0xBFE0FC00u, 0x2E401C00u, FLOAT16, 4, 8, 0},  // FMUL
    {0xBFC0F400u, 0x0F001000u, FLOAT16, 4, 8, 1},  // FMLA by element
    {0xBFC0F400u, 0x0F005000u, FLOAT16, 4, 8, 0},  // FMLS by element
    {0xBFC0F400u, 0x0F009000u, FLOAT16, 4, 8, 0},  // FMUL by element
    {0xBF60FC00u, 0x0E20EC00u, FLOAT16, 2, 4, 1},  // FMLAL, FMLSL: products of float16 added up in float32
    {0xBF60FC00u, 0x2E20CC00u, FLOAT16, 2, 4, 1},  // FMLAL2, FMLSL2
    {0xBFC0B400u, 0x0F800000u, FLOAT16, 2, 4, 1},  // FMLAL, FMLSL by element
    {0xBFC0B400u, 0x2F808000u, FLOAT16, 2, 4, 1},  // FMLAL2, FMLSL2 by element
    {0xFFC00000u, 0x1FC00000u, FLOAT16, 1, 1, 0},  // FMADD, FMSUB, FNMADD, FNMSUB of scalars
    {0xFFE07C00u, 0x1EE00800u, FLOAT16, 1, 1, 0},  // FMUL, FNMUL of scalars
    {0xFFC0B400u, 0x5F001000u, FLOAT16, 1, 1, 0},  // FMLA, FMLS of a scalar by element
    {0xFFC0F400u, 0x5F009000u, FLOAT16, 1, 1, 0},  // FMUL of a scalar by element

    {0x9FE0FC00u, 0x0E809400u, INTEGER, 8, 16, 1},   // SDOT, UDOT
    {0xBFE0FC00u, 0x0E809C00u, INTEGER, 8, 16, 1},   // USDOT
    {0x9FC0F400u, 0x0F80E000u, INTEGER, 8, 16, 1},   // SDOT, UDOT by element
    {0xBF40F400u, 0x0F00F000u, INTEGER, 8, 16, 1},   // SUDOT, USDOT by element
    {0xDFE0FC00u, 0x4E80A400u, INTEGER, 32, 32, 1},  // SMMLA, UMMLA
    {0xFFE0FC00u, 0x4E80AC00u, INTEGER, 32, 32, 1},  // USMMLA
    {0x9FE0DC00u, 0x0E208000u, INTEGER, 8, 8, 1},    // SMLAL, UMLAL, SMLSL, UMLSL of bytes, and those of the upper half
    {0x9FE0FC00u, 0x0E20C000u, INTEGER, 8, 8, 0},    // SMULL, UMULL of bytes
    {0x9FE0DC00u, 0x0E608000u, INTEGER, 4, 4, 1},    // SMLAL, UMLAL, SMLSL, UMLSL of 16 bits
    {0x9FE0FC00u, 0x0E60C000u, INTEGER, 4, 4, 0},    // SMULL, UMULL of 16 bits
    {0x9FC0B400u, 0x0F402000u, INTEGER, 4, 4, 1},    // SMLAL, UMLAL, SMLSL, UMLSL of 16 bits by element
    {0x9FC0F400u, 0x0F40A000u, INTEGER, 4, 4, 0},    // SMULL, UMULL of 16 bits by element
    {0x9FE0FC00u, 0x0E209400u, INTEGER, 8, 16, 1},   // MLA, MLS of bytes
    {0xBFE0FC00u, 0x0E209C00u, INTEGER, 8, 16, 0},   // MUL of bytes
    {0x9FE0FC00u, 0x0E609400u, INTEGER, 4, 8, 1},    // MLA, MLS of 16 bits
    {0xBFE0FC00u, 0x0E609C00u, INTEGER, 4, 8, 0},    // MUL of 16 bits
    {0xBFC0B400u, 0x2F400000u, INTEGER, 4, 8, 1},    // MLA, MLS of 16 bits by element
    {0xBFC0F400u, 0x0F408000u, INTEGER, 4, 8, 0},    // MUL of 16 bits by element
};

// Returns the entry of an instruction, or NULL if it multiplies nothing that is counted.
static const struct arithmetic *arithmetic_of(uint32_t word) {
    for (size_t i = 0; i < sizeof ARITHMETIC / sizeof *ARITHMETIC; i++)
        if ((word & ARITHMETIC[i].mask) == ARITHMETIC[i].value) return &ARITHMETIC[i];
    return NULL;
}

static int multiplications(const struct arithmetic *kind, uint32_t word) { return word >> 30 & 1 ? kind->full : kind->half; }

// Whether it is an instruction of SVE or SME.
static int is_scalable(uint32_t word) { return (word & 0x1E000000u) == 0x04000000u || (word & 0x9E000000u) == 0x80000000u; }
