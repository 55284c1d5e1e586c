"""Fuzz bundles: thousands of damaged manifests and artifacts whose hashes are updated to match.

``python tests/fuzz/fuzz.py BUNDLE [KIND [COUNT [SEED]]]``; KIND is manifest, onnx, pte, mlpackage, safetensors or all. A BUNDLE that does not
exist is exported first.
Every bundle must open and run, or be refused by a ClipstepError, within limits of time and memory; anything else is printed, and the exit code is 1.
"""

import contextlib
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mutations import damaged, damaged_json
from small import export_small

from clipstep.export.parity import check_artifact, runtime_module
from clipstep.export.targets import TARGETS
from clipstep.runtime import Bundle, ClipstepError, GoldenSteps, StepModel
from clipstep.runtime.bundle import MANIFEST, tree_sha256, tree_size
from clipstep.runtime.command_line.terminal import new_console
from clipstep.runtime.inspection import show_bundle
from clipstep.runtime.worker_process import WorkerProcess

KINDS = {"manifest": MANIFEST, "onnx": "step.onnx", "pte": "step.pte", "mlpackage": "step-float32.mlpackage", "safetensors": "golden.safetensors"}
COUNTS = {"manifest": 20_000}
STEPS, SECONDS, MEGABYTES, LONGEST = 2, 20, 1500, 2000
"""Golden steps to compare; the limits for the seconds of a bundle, the memory of this process, and the length of an error."""


class Fuzz:
    """A copy of the bundle ``source`` that is damaged in one way after another."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.path = source, folder / "hostile.clipstep"
        shutil.copytree(source, self.path)
        self.text = (source / MANIFEST).read_text(encoding="utf-8")
        self.files = {file: (source / file).read_bytes() for file in self._files()}
        self.worker = WorkerProcess([runtime_module(target) for target in TARGETS], SECONDS // 2)
        self.worker.renewed()  # What it imports first is not a file's time.
        self.nowhere = new_console(io.StringIO())

    def _files(self) -> list[str]:
        return [path.relative_to(self.source).as_posix() for path in self.source.rglob("*") if path.is_file()]

    def outcome(self, kind: str, seed: int) -> str:
        """Apply the damage number ``seed`` and return the outcome; exceptions other than ClipstepError are raised."""
        rng = random.Random(f"{kind} {seed}")
        changed = self._damage(kind, rng)
        try:
            return self._use(kind)
        except ClipstepError as error:
            text = str(error)
            if len(text) > LONGEST or any(ord(c) < 32 or 126 < ord(c) < 160 for c in text):
                raise AssertionError(f"an error that is not one line: {text[:2000]!r}") from error
            return _word(text)
        finally:
            for file in changed:
                (self.path / file).write_bytes(self.files[file])

    def _damage(self, kind: str, rng: random.Random) -> list[str]:
        if kind == "manifest":
            (self.path / MANIFEST).write_bytes(damaged_json(self.text, rng))
            return [MANIFEST]
        file = rng.choice([file for file in self.files if file.startswith(KINDS[kind])])
        (self.path / file).write_bytes(damaged(self.files[file], rng))
        values = json.loads(self.text)
        for item in (*values["artifacts"], values["golden"]):
            if file.startswith(item["file"]):
                item.update(sha256=tree_sha256(self.path / item["file"]), size_bytes=max(1, tree_size(self.path / item["file"])))
        (self.path / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
        return [file, MANIFEST]

    def _use(self, kind: str) -> str:
        bundle = Bundle.open(self.path)
        golden = GoldenSteps.of(bundle)
        if kind == "manifest":
            show_bundle(bundle, self.nowhere)
            with StepModel.load(self.path) as model:
                stream = model.stream()
                for _ in range(min(100, model.interface.input.shape[0] * model.interface.input.frame_stride)):
                    prediction = stream.push(np.zeros((24, 32, 3), np.uint8))
                if prediction is not None:
                    prediction.top(3)
            return "runs"
        short = GoldenSteps(golden.subclips, golden.logits[:STEPS], {name: value[:0] for name, value in golden.states.items()})
        artifact = next(item for item in bundle.manifest.artifacts if item.file == KINDS.get(kind if kind != "safetensors" else "onnx"))
        interface = bundle.manifest.interface(artifact.input_dtype)
        check_artifact(artifact.target, self.path / artifact.file, artifact.precision, interface, short, self.worker)
        return "computes the golden steps"


WORDS = {
    "crashed (signal": "crashed in its process",
    "gave no answer": "stopped after its time",
    "ended its process": "ended its process",
    "cannot load it": "refused by the engine",
    " failed; got": "failed in the engine",
    "failed in a step": "failed in the engine",
    "is off at step": "other numbers",
    "not finite": "other numbers",
    "top-1 at": "other numbers",
    "after a reset": "other numbers",
    "malformed": "malformed manifest",
    "is not JSON": "malformed manifest",
    "schema version": "malformed manifest",
    "fit the manifest": "does not fit the manifest",
    "than the manifest says": "does not fit the manifest",
}


def _word(text: str) -> str:
    return next((word for part, word in WORDS.items() if part in text), "refused by a check")


@contextlib.contextmanager
def fuzzing(source: Path) -> Iterator[Fuzz]:
    """Yield a copy of the bundle ``source`` to be damaged, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="clipstep-fuzz-") as temporary:
        tried = Fuzz(source, Path(temporary))
        yield tried
        tried.worker.stop()


def fuzz(tried: Fuzz, kind: str, count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Return the outcomes of ``count`` damaged bundles from number ``seed`` on, and the faults: outcomes that must not happen."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(seed, seed + count):
        started = time.monotonic()
        try:
            outcome = tried.outcome(kind, number)
        except Exception:
            outcome = "FAULT: an exception"
            faults.append(f"{kind} {number}: {traceback.format_exc()}")
        if (took := time.monotonic() - started) > SECONDS:
            faults.append(f"{kind} {number}: took {took:.0f} s")
        outcomes[outcome] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if grown > MEGABYTES:
        faults.append(f"{kind}: this process grew to {grown} MB")
    return outcomes, faults


def main(source: Path, kinds: str = "all", many: str = "", seed: str = "0") -> int:
    """Print the outcomes of each kind; return 1 if there was a fault, else 0."""
    wrong = 0
    if not source.exists():
        export_small(source)
    for kind in KINDS if kinds == "all" else kinds.split(","):
        started = time.monotonic()
        count = int(many) if many else COUNTS.get(kind, 2000)
        with fuzzing(source) as tried:
            outcomes, faults = fuzz(tried, kind, count, int(seed))
        print(f"{kind}: {count} from seed {seed}, {time.monotonic() - started:.0f} s: {dict(outcomes.most_common())}", flush=True)
        for fault in faults[:10]:
            print(fault, flush=True)
        wrong |= bool(faults)
    return wrong


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
