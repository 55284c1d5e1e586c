"""Other runtimes beside ours, on the same network and frames: ``clipstep peers``."""
