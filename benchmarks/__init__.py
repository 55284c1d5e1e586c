"""Measure bundles: latency and memory on this computer and on phones, instructions on ARM64, and other runtimes beside them.

Example:
    ```python
    from clipstep.benchmarks import bench

    records = bench("fight.clipstep", threads=[1])
    print(records[0].percentile_ms(50), records[0].real_time_factor)
    ```
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy_imports import lazy_names

if TYPE_CHECKING:
    from clipstep.benchmarks.api import bench, bench_peers
    from clipstep.benchmarks.comparison.api import compare
    from clipstep.benchmarks.comparison.result import ComparedConfiguration, Comparison
    from clipstep.benchmarks.peers.comparison import PeersResult
    from clipstep.benchmarks.records import Record
    from clipstep.benchmarks.report import html_report
    from clipstep.benchmarks.streams import StreamsResult, bench_streams

__all__ = [
    "ComparedConfiguration",
    "Comparison",
    "PeersResult",
    "Record",
    "StreamsResult",
    "bench",
    "bench_peers",
    "bench_streams",
    "compare",
    "html_report",
]

__getattr__ = lazy_names(
    __name__,
    {
        "api": ("bench", "bench_peers"),
        "comparison.api": ("compare",),
        "comparison.result": ("ComparedConfiguration", "Comparison"),
        "peers.comparison": ("PeersResult",),
        "records": ("Record",),
        "report": ("html_report",),
        "streams": ("StreamsResult", "bench_streams"),
    },
)
