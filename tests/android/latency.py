"""A step in the JVM beside one in Python, taking turns, and the conversion of a camera's frame in the JVM. After make test-android.

`python tests/android/latency.py OUT [THREADS [STEPS]]`; OUT is what prepare.py filled. Both must have the same onnxruntime.
"""

import subprocess
import sys
import time
from pathlib import Path

import apk
import numpy as np
import numpy.typing as npt
import onnxruntime

from clipstep.runtime import Bundle, GoldenSteps, StepModel


class Jvm:
    """The Kotlin runtime in a process of its own."""

    def __init__(self, bundle: Path, threads: int) -> None:
        target = apk.ROOT / "runtime/kotlin/target"
        path = [target / "classes", target / "test-classes", *(apk.fetched(*library) for library in apk.libraries())]
        command = ["java", "-cp", ":".join(map(str, path)), "clipstep.runtime.LatencyKt", str(bundle), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._line().strip()

    def ask(self, what: object) -> list[float]:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return [float(word) for word in self._line().split()]

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class Python:
    """The Python runtime in this process."""

    def __init__(self, bundle: Path, threads: int) -> None:
        golden = GoldenSteps.of(Bundle.open(bundle))
        self._subclips = [golden.subclips[i % len(golden.subclips)] for i in range(4)]
        self._stream = StepModel.load(bundle, threads=threads).stream()

    def ask(self, steps: int) -> list[float]:
        return [self._time(self._subclips[step % 4]) for step in range(steps)]

    def _time(self, subclip: npt.NDArray[np.uint8]) -> float:
        """The push that a step follows, of a frame of the model's size."""
        for frame in subclip[:-1]:
            self._stream.push(frame)
        begin = time.perf_counter()
        assert self._stream.push(subclip[-1]) is not None
        return (time.perf_counter() - begin) * 1e3


def main(out: Path, threads: int, steps: int) -> None:
    """Prints the medians and their ratio."""
    jvm, python = Jvm(out / "demo.clipstep", threads), Python(out / "demo.clipstep", threads)
    if jvm.version != onnxruntime.__version__:
        jvm.stop()
        sys.exit(f"error: onnxruntime {jvm.version} in the JVM, {onnxruntime.__version__} in Python; install the same")
    for warm in (jvm, python):
        warm.ask(40)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        times[0].extend(jvm.ask(1))
        times[1].extend(python.ask(1))
    kotlin, reference = (float(np.median(values)) for values in times)
    print(f"onnxruntime {jvm.version}, {threads} thread{'s' * (threads > 1)}, {steps} steps each, taking turns")
    print(f"a step: Kotlin {kotlin:.2f} ms, Python {reference:.2f} ms, ratio {kotlin / reference:.3f}")
    fastest = (min(times[0]), min(times[1]))
    print(f"the fastest step: Kotlin {fastest[0]:.2f} ms, Python {fastest[1]:.2f} ms, ratio {fastest[0] / fastest[1]:.3f}")
    yuv = jvm.ask("yuv")
    print(f"640x480 YUV to an upright RGB square in Kotlin: median {np.median(yuv):.2f} ms, fastest {min(yuv):.2f} ms")
    jvm.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, int(sys.argv[3]) if len(sys.argv) > 3 else 200)
