"""Turns a clip network into steps of a few new frames, whose states hold what its temporal layers need of earlier frames.

| file | what it does |
|---|---|
| `adapt.py` | a network spec with steps of another length |
| `network.py` | the clip network as a module with states; explains delays and the end of a video |
| `interpreter.py` | runs the clip network's graph on the frames of one step |
| `rules.py` | a rule for each operator: what it does with the frames of one step |
| `averaging.py` | detects a network whose own states average over all frames |
"""
