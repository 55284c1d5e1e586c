"""MoViNet-A0-stream with random weights: a streaming network to compare costs with."""

from functools import partial

from clipstep.benchmarks.zoo.movinet import A0, MoViNetStream

MoViNetA0Stream = partial(MoViNetStream, A0)
"""The network, whose frames are 172x172."""
