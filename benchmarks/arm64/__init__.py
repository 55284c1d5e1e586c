"""What a step costs on ARM64 without a phone: the engines' own ARM builds under QEMU, their instructions counted. Not time."""
