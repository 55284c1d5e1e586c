"""A record of the videos that a network was trained on, by which a later test recognises videos that the network has seen.

The record holds digests and no names: of the content of each video of the training list (also of those held out for validation), and of the class
and group of each source video. It is small enough to be part of a run and of a bundle: 120 kB for UCF101's 9,537 training videos. Whoever has a
video, or guesses its name, can find out that the network was trained on it.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipstep.network.text_files import nfc
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed
from clipstep.training.data.leakage import Leaks
from clipstep.training.data.lists import Clip, DataSet, find_group

KEY = "trained_on"
"""The key of the record in the training summary of a run, and so in a bundle's manifest."""
DIGEST_BYTES = 8
"""How many bytes of each SHA-256 are kept. The chance that any two of 10,000 videos have the same digest is about one in 300 billion."""


@dataclass(frozen=True)
class TrainedOn:
    """The digests of the videos and of their source videos.

    It is not ``complete`` if training started from weights that do not say what they were trained on.
    """

    contents: frozenset[bytes]
    sources: frozenset[bytes]
    complete: bool = True

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "TrainedOn":
        """Return the record of a training on these clips, whose files are read."""
        every = list(clips)
        return cls(frozenset(_contents(every)), frozenset(map(_source, every)))

    @classmethod
    def read(cls, training: Mapping[str, Any], what: object) -> "TrainedOn | None":
        """Read the record in ``training``, the training summary of the run or bundle ``what``; None if there is none, as in runs of earlier versions.

        Raises:
            ClipstepError: it is malformed.
        """
        if KEY not in training:
            return None
        try:
            values = training[KEY]
            return cls(_digests(values["contents"]), _digests(values["sources"]), bool(values["complete"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ClipstepError(f"{what}: what it was trained on is malformed", got=str(error), fix="train or export it again") from error

    def values(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        packed = {name: base64.b64encode(b"".join(sorted(digests))).decode() for name, digests in vars(self).items() if name != "complete"}
        return {"videos": len(self.contents), **packed, "complete": self.complete}

    def fine_tuned_from(self, initial: "TrainedOn | None") -> "TrainedOn":
        """Return the record of a training that started from weights with the record ``initial``: the videos of both."""
        if initial is None:
            return replace(self, complete=False)
        return TrainedOn(self.contents | initial.contents, self.sources | initial.sources, self.complete and initial.complete)

    def __repr__(self) -> str:
        return f"<TrainedOn {len(self.contents)} videos of {len(self.sources)} sources{'' if self.complete else ', and others'}>"


def check_unseen(data: DataSet, trained: TrainedOn | None, what: object, *, allow_leakage: bool = False, fix: str = "give other lists") -> DataSet:
    """Check that the run or bundle ``what`` was not trained on videos of the test list; return the data set with warnings about it.

    Raises:
        ClipstepError: it was trained on some of them, and ``allow_leakage`` does not turn that into a warning.
    """
    leaks = find_seen(trained, data.test, what)
    if leaks.errors and not allow_leakage:
        raise ClipstepError(
            f"{what}: data leakage",
            got="; ".join(leaks.errors),
            expected="test videos that it was not trained on",
            fix=f"{fix}, or allow it with --allow-leakage",
        )
    return replace(data, leaks=(*data.leaks, *leaks.errors), warnings=(*data.warnings, *leaks.errors, *leaks.warnings))


def find_seen(trained: TrainedOn | None, test: Sequence[Clip], what: object) -> Leaks:
    """Find videos of a test list that the run or bundle ``what`` was trained on.

    The same content is an error. The same source video, known only by its name, is a warning: it may be the same video encoded again, another clip
    of that source, or a video of a different data set with similar names.
    """
    warnings, seen = [], trained or TrainedOn(frozenset(), frozenset(), complete=False)
    known = [clip for clip, content in zip(test, _contents(test), strict=True) if content in seen.contents] if seen.contents else []
    errors = [f"{what} was trained on {len(known)} of the {len(test)} test videos: {listed([clip.path.name for clip in known])}"] if known else []
    near = [clip for clip in test if _source(clip) in seen.sources and clip not in known]
    if near:
        warnings.append(
            f"by their names, {len(near)} of the {len(test)} test videos are of source videos that {what} was trained on (the gNN of a name); "
            f"if they are, the test is easier than new videos are: {listed([clip.path.name for clip in near])}"
        )
    if not seen.complete:
        all_of = "all that" if trained else "what"
        warnings.append(f"{what} does not say {all_of} it was trained on: whether that is among the test videos is not known")
    return Leaks(tuple(errors), tuple(warnings))


def _contents(clips: Sequence[Clip]) -> list[bytes]:
    """Return the digest of each clip's content: that of its file, and for a part of a video of the file's and of the seconds."""
    files = {path: _sha256(path) for path in dict.fromkeys(clip.path for clip in clips)}
    parts = [f"{clip.cut[0]:g} {clip.cut[1]:g}".encode() if clip.cut else None for clip in clips]
    own = (files[clip.path] if part is None else hashlib.sha256(files[clip.path] + part).digest() for clip, part in zip(clips, parts, strict=True))
    return [digest[:DIGEST_BYTES] for digest in own]


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _source(clip: Clip) -> bytes:
    """Return the digest of a clip's class and group, or of its class and name if the name does not tell the group."""
    name = f"{nfc(clip.path.parent.name)}/{find_group(clip) or nfc(clip.path.stem)}"
    return hashlib.sha256(name.encode()).digest()[:DIGEST_BYTES]


def _digests(text: str) -> frozenset[bytes]:
    data = base64.b64decode(text, validate=True)
    if len(data) % DIGEST_BYTES:
        raise ValueError(f"{len(data)} bytes, which are no digests of {DIGEST_BYTES}")
    return frozenset(data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
