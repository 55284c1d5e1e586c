"""What a network was trained on, small enough to travel with it: digests by which a test finds its own videos again, and no names.

Of each video of the training list (those that chose the epoch included) it is the content's digest, and of each source video that of its
class and group. UCF101's 9,537 training videos take 120 kB. A digest tells who has that video, or guesses that name, that it was trained on.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipstep.network.text import nfc
from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.wording import listed
from clipstep.training.data.leakage import Leaks
from clipstep.training.data.lists import Clip, DataSet, find_group

KEY = "trained_on"
"""Where it is in the training summary of a run, and so in a bundle's provenance."""
DIGEST_BYTES = 8
"""How much of a SHA-256 is kept: that two of 10,000 videos have the same by chance happens once in 300 billion data sets."""


@dataclass(frozen=True)
class TrainedOn:
    """The digests of the videos and of their sources; ``complete`` unless the weights that training began with say nothing of theirs."""

    contents: frozenset[bytes]
    sources: frozenset[bytes]
    complete: bool = True

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "TrainedOn":
        """That of a training on these clips, whose files are read."""
        every = list(clips)
        return cls(frozenset(_content(clip.path) for clip in every), frozenset(map(_source, every)))

    @classmethod
    def read(cls, training: Mapping[str, Any], what: object) -> "TrainedOn | None":
        """Reads the record in the training summary of ``what``; None if there is none, as in runs of earlier versions.

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
        """The values that JSON holds."""
        packed = {name: base64.b64encode(b"".join(sorted(digests))).decode() for name, digests in vars(self).items() if name != "complete"}
        return {"videos": len(self.contents), **packed, "complete": self.complete}

    def after(self, before: "TrainedOn | None") -> "TrainedOn":
        """What a training has seen that began with the weights of ``before``: the videos of both."""
        if before is None:
            return replace(self, complete=False)
        return TrainedOn(self.contents | before.contents, self.sources | before.sources, self.complete and before.complete)

    def __repr__(self) -> str:
        return f"<TrainedOn {len(self.contents)} videos of {len(self.sources)} sources{'' if self.complete else ', and others'}>"


def checked(data: DataSet, trained: TrainedOn | None, what: object, *, allow_leakage: bool = False, fix: str = "give other lists") -> DataSet:
    """The data set with what has to be said of its test list as a test of ``what``, which was trained on that.

    Raises:
        ClipstepError: it was trained on videos of the test list, and ``allow_leakage`` does not make that a warning.
    """
    leaks = find_trained(trained, data.test, what)
    if leaks.errors and not allow_leakage:
        raise ClipstepError(
            f"{what}: the test would not be honest",
            got="; ".join(leaks.errors),
            expected="test videos that it was not trained on",
            fix=f"{fix}, or allow it with --allow-leakage",
        )
    return replace(data, leaks=(*data.leaks, *leaks.errors), warnings=(*data.warnings, *leaks.errors, *leaks.warnings))


def find_trained(trained: TrainedOn | None, test: Sequence[Clip], what: object) -> Leaks:
    """Which videos of a test list ``what`` was trained on.

    The same content is an error. The same source by its name alone is a warning: it is a copy that was encoded anew, or a video of the
    same source; or another data set whose names follow the same pattern.
    """
    warnings, seen = [], trained or TrainedOn(frozenset(), frozenset(), complete=False)
    known = [clip for clip in test if seen.contents and _content(clip.path) in seen.contents]
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


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()[:DIGEST_BYTES]


def _source(clip: Clip) -> bytes:
    """The class and the group, or the name of a clip that does not tell its group."""
    name = f"{nfc(clip.path.parent.name)}/{find_group(clip) or nfc(clip.path.stem)}"
    return hashlib.sha256(name.encode()).digest()[:DIGEST_BYTES]


def _digests(text: str) -> frozenset[bytes]:
    data = base64.b64decode(text, validate=True)
    if len(data) % DIGEST_BYTES:
        raise ValueError(f"{len(data)} bytes, which are no digests of {DIGEST_BYTES}")
    return frozenset(data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
