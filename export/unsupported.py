"""What rules and writers raise for an operation that they do not cover."""


class Unsupported(Exception):
    """An operation, or a setting of one, that a rule or a writer does not cover; the message names it.

    It never reaches users. The lowering and `--stream` catch it and raise a `ClipstepError` with the line of the network; a target's
    writer catches it and leaves the graph to the engine's own converter.
    """


class NotLowered(Unsupported):
    """A setting that the lowering always removes, in a graph that did not come from it."""
