"""The cost of a step on ARM64 without a phone: the engines' ARM64 builds run under QEMU, where their instructions are counted, not timed."""
