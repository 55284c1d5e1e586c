"""A bundle in, records of latency and memory out: on this computer, on phones, beside other runtimes.

Example:
    ```python
    from clipstep.benchmarks import bench

    records = bench("fight.clipstep", threads=[1])
    ```
"""

from typing import TYPE_CHECKING

from clipstep.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from clipstep.benchmarks.api import bench
    from clipstep.benchmarks.records import Record

__all__ = ["Record", "bench"]

__getattr__ = lazy_names(__name__, {"api": ("bench",), "records": ("Record",)})
