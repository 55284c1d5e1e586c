"""Other runtimes on the same network and frames: ``clipstep peers``."""
