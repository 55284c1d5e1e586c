"""Checkpoint in, bundle out: the step contract, the exact lowering to rank 4, the targets, and verification."""
