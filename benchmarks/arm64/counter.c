// A QEMU plugin that counts the ARM64 instructions a program executes, and writes the counts so far at certain system calls.
//
// Each line of the file named by CLIPSTEP_COUNTS holds the number of a system call, then the counts of all threads since the start, in the order
// of the enumeration below, which is that of the fields of Counts in records.py. Only system calls of the program's first thread are written. A system call ends a translated block, so that
// the counts there are exact. The declarations are version 1 of QEMU's plugin interface (QEMU 6 to 8); Debian ships no header for it.
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arithmetic.h"

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct block;
struct instruction;
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int operation, void *counter, uint64_t value);
extern void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
extern const void *qemu_plugin_insn_data(const struct instruction *);
EXPORT int qemu_plugin_version = 1;

enum { ADD_VALUE = 0 };  // The only inline operation of this version.
enum { INSTRUCTIONS, VECTOR_FMAS, LOADS, STORES, MACS, SCALABLE = MACS + TYPES, KINDS };  // MACS + FLOAT32 and so on.
enum { CLOCK_GETTIME = 113, GETPID = 172, GETPPID = 173, GETUID = 174 };

static uint64_t counts[KINDS];
static FILE *out;

// LOADS, STORES, or -1. A pair is one instruction, and so one load or store; a prefetch is neither.
static int memory_access(uint32_t word) {
    if ((word & 0x0A000000u) != 0x08000000u) return -1;
    int vector = (word >> 26) & 1, size = word >> 30, operation = (word >> 22) & 3;
    if ((word & 0x3B000000u) == 0x18000000u) return size == 3 && !vector ? -1 : LOADS;  // relative to the program counter
    if ((word & 0x3A000000u) == 0x38000000u && !vector) {                             // one general register
        if (size == 3 && operation == 2) return -1;
        return operation ? LOADS : STORES;
    }
    return operation & 1 ? LOADS : STORES;  // vector registers, pairs, structures, exclusives
}

static void on_translation(plugin_id id, struct block *block) {
    uint64_t here[KINDS] = {qemu_plugin_tb_n_insns(block)};
    (void)id;
    for (size_t i = 0; i < here[INSTRUCTIONS]; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        const struct arithmetic *kind = arithmetic_of(word);
        if (kind) here[MACS + kind->type] += multiplications(kind, word), here[VECTOR_FMAS] += kind->is_fma;
        if (is_scalable(word)) here[SCALABLE]++;
        if (memory_access(word) >= 0) here[memory_access(word)]++;
    }
    for (int kind = 0; kind < KINDS; kind++)
        if (here[kind]) qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_VALUE, &counts[kind], here[kind]);
}

static void on_system_call(plugin_id id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                           uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (cpu != 0) return;  // A call of an engine's other thread, which only waits.
    if (number != CLOCK_GETTIME && number != GETPID && number != GETPPID && number != GETUID) return;
    fprintf(out, "%" PRId64, number);
    for (int kind = 0; kind < KINDS; kind++) fprintf(out, " %" PRIu64, counts[kind]);
    fprintf(out, "\n");
}

static void on_end(plugin_id id, void *unused) {
    (void)id, (void)unused;
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    const char *path = getenv("CLIPSTEP_COUNTS");
    if (!path || !(out = fopen(path, "w"))) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
    return 0;
}
