"""The models of what a manifest says of the interface of a step: its frames, states, outputs and labels."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clipstep.runtime.bundle.format_version import OF_THIS_MAJOR, SCHEMA_VERSION
from clipstep.runtime.checks.limits import check_labels, check_shapes, check_states
from clipstep.runtime.output_kind import OutputKind
from clipstep.runtime.wording import counted

CHANNEL_LENGTH = 80
"""The largest number of characters in the name of a channel."""
LAYOUTS = {"video": ("THWC",), "images": ("THWC",), "joints": ("TVC", "TMVC")}
"""The layouts of each kind of input; a letter is an axis: time, height, width, channels, persons (M), joints (V)."""
Positive = Annotated[int, Field(ge=1)]
PerChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=256)]
Version = Annotated[str, Field(pattern=OF_THIS_MAJOR)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(Model):
    """The frames of one step. They are not normalised: the artifact does that itself.

    | `kind` | `layout` | a frame |
    |---|---|---|
    | `video` | `THWC` | RGB in 0..255, or optical flow of two channels, shifted and scaled to 0..255 |
    | `images` | `THWC` | an image of other channels, such as depth, on the network's own scale |
    | `joints` | `TVC` | the V joints of a skeleton, C numbers each; in the layout `TMVC` those of M persons |
    """

    name: Literal["frames"] = "frames"
    kind: Literal["video", "images", "joints"] = "video"
    shape: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=4)]
    dtype: Literal["uint8", "float32"]
    layout: Literal["THWC", "TVC", "TMVC"] = "THWC"
    color: Literal["RGB", "flow"] | None = "RGB"
    """What the channels of a video are; None for other kinds."""
    channels: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """The names of the channels of images, or of the numbers of a joint; empty for a video, whose `color` says it."""
    mean: PerChannel
    """What the artifact subtracts from each channel, on the scale of the frames: 0..255 for a video."""
    std: PerChannel
    """What the artifact then divides each channel by, on the same scale."""
    fps: Annotated[float, Field(ge=1e-3, le=1e4)]
    """The nominal frame rate: that of the training videos."""
    frame_stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    """One frame of the video in this many is used: with 2, every second frame."""
    crop: Literal["center_square"] | None = "center_square"
    """How frames of a video become square; None for other kinds, whose frames have the shape of `shape` already."""
    resize: Literal["triangle"] | None = "triangle"
    """How frames of a video get the network's size; None for other kinds."""
    tail: Literal["drop"] = "drop"
    """What happens to the last frames of a video if they do not fill a step: they are dropped."""

    @model_validator(mode="after")
    def _kind_agrees(self) -> "Input":
        video = self.kind == "video"
        if self.layout not in LAYOUTS[self.kind] or len(self.layout) != len(self.shape):
            raise ValueError(f"a shape of {len(self.shape)} numbers and the layout {self.layout} are not those of {self.kind}")
        if any((value is not None) != video for value in (self.color, self.crop, self.resize)) or bool(self.channels) == video:
            raise ValueError(f"color, crop and resize are given for a video, and channels for other kinds, but this is {self.kind}")
        if self.kind == "joints" and self.dtype != "float32":
            raise ValueError("joints are float32")
        if len(set(self.channels)) < len(self.channels) or not all(name.strip() and len(name) <= CHANNEL_LENGTH for name in self.channels):
            raise ValueError(f"the names of channels must differ from each other, and have 1 to {CHANNEL_LENGTH} characters")
        return self

    @model_validator(mode="after")
    def _channels_agree(self) -> "Input":
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        channels = {"RGB": 3, "flow": 2}[self.color] if self.color is not None else len(self.channels)
        if {self.shape[-1], len(self.mean), len(self.std)} != {channels}:
            raise ValueError(f"the channels of shape, mean and std must be {channels} for {self.color or self.kind}")
        return self

    @property
    def takes_video(self) -> bool:
        """Whether the frames are RGB, as decoders and cameras give them."""
        return self.color == "RGB"

    @property
    def frame_size(self) -> str:
        """The size of a frame in a few words, such as `112x112` or `2 x 25 joints`."""
        if self.kind == "joints":
            return f"{' x '.join(map(str, self.shape[1:-1]))} joints"
        return f"{self.shape[2]}x{self.shape[1]}"

    @property
    def content(self) -> str:
        """What the frames are in a few words, such as `RGB frames` or `joints (x, y, score)`."""
        if self.color is not None:
            return "RGB frames" if self.color == "RGB" else "optical flow"
        return f"{self.kind} ({', '.join(self.channels)})"


class State(Model):
    """A tensor passed from step to step. The output that holds its next value is called `NAME_out`."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(max_length=4)]
    dtype: Literal["float32"]
    initial: float
    """The value of every element before a video's first step."""


class KeptOutput(Model):
    """An output of a step beside its logits and its next states, such as an embedding or the logits of another head."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4)]
    dtype: Literal["float32"] = "float32"


class Flush(Model):
    """How to get the prediction for the last frames of a video from a network with a delay."""

    state: str
    """The state that the caller sets to 1 after the last step of the video."""
    steps: Annotated[int, Field(ge=1, le=10_000)]
    """How many more steps to run after that, on frames of zeros, which are ignored; then the logits are those of the whole video."""
    min_frames: Positive
    """How many frames the shortest video has for which the network gives a prediction."""


class Interface(Model):
    """What a caller needs to know to run an artifact. It is part of the manifest, and embedded in each artifact as metadata."""

    schema_version: Version = SCHEMA_VERSION
    """The version of the format, MAJOR.MINOR."""
    name: str
    input: Input
    states: tuple[State, ...]
    outputs: tuple[str, ...]
    """The names of the outputs in the order in which artifacts give them: `logits`, then each next state, then each of `kept_outputs`."""
    kept_outputs: tuple[KeptOutput, ...] = ()
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    delay_frames: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """By how many frames predictions lag behind the newest frame. The first prediction comes once more frames than that were seen."""
    output_kind: OutputKind = "logits"
    """What the first output, `logits`, holds, which decides whether the runtime applies softmax, sigmoid or nothing to get probabilities."""
    flush: Flush | None = None
    """What to do at the end of a video. None if there is nothing to do: the last step's prediction is final, or the network cannot flush."""
    temporal_average: Literal["cumulative", "sliding_window"] | None = None
    """Which frames a prediction is the mean over, if that is known. `cumulative`: all frames so far, so that after a camera has run for long, a
    new scene hardly changes the prediction. `sliding_window`: the newest `window_frames`."""
    window_frames: Positive | None = None
    """The size of the sliding window, in frames."""

    @model_validator(mode="after")
    def _flush_names_a_state(self) -> "Interface":
        if self.flush is not None and self.flush.state not in {state.name for state in self.states}:
            raise ValueError(f"flush names the state {self.flush.state}, which is not among the states")
        if (self.window_frames is not None) != (self.temporal_average == "sliding_window"):
            raise ValueError("window_frames is given if, and only if, temporal_average is sliding_window")
        return self

    @property
    def frames_needed(self) -> int:
        """The least number of frames that a video must have for a prediction, including those that the frame stride skips."""
        frames = self.input.shape[0]
        used = (self.delay_frames // frames + 1) * frames if self.flush is None else -(-self.flush.min_frames // frames) * frames
        return (used - 1) * self.input.frame_stride + 1

    @model_validator(mode="after")
    def _can_be_run(self) -> "Interface":
        check_shapes(self.input.shape, [*(state.shape for state in self.states), *(output.shape for output in self.kept_outputs)])
        names, kept = [state.name for state in self.states], [output.name for output in self.kept_outputs]
        check_states(names, self.outputs, [state.initial for state in self.states], kept)
        check_labels(self.labels)
        return self

    def summary(self) -> str:
        """Return a step's frames, states and labels in a few words."""
        frames = self.input.shape[0]
        numbers = f"{counted(len(self.states), 'state')}, {counted(len(self.labels), 'label')}"
        kept = f", {counted(len(self.kept_outputs), 'kept output')}" if self.kept_outputs else ""
        return f"{counted(frames, 'frame')} of {self.input.frame_size} a step, {numbers}{kept}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.summary()}>"

    def __str__(self) -> str:
        return repr(self)
