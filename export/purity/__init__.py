"""The purity check: whether a network's step gives the same outputs for the same inputs, whatever it was run on before.

An artifact holds a network's computation only. What a module remembers by itself, or draws at random, would be missing from it without
any error, so an export refuses such a network, and names the place and the line.

| file | what it does |
|---|---|
| `check.py` | decides whether a step is pure |
| `trial.py` | runs the step, always from the same start |
| `snapshot.py` | a snapshot of all values that can be reached from a network, and the difference of two snapshots |
| `reachable*.py` | the traversal that takes a snapshot: through modules, containers, objects, functions and classes |
| `undo.py` | restores what a snapshot saw |
| `random_generators.py` | reads, seeds and restores random number generators |
| `tracing.py` | finds the user's line that runs an operation, or that changes a value |
| `read_detection.py` | finds out whether a changed value is ever read |
| `errors.py` | the errors: training mode, random numbers, or memory |
"""
