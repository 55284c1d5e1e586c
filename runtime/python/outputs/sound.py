"""The sound of a video, copied packet by packet to another file without decoding it."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer

from clipstep.runtime.video import open_video


class Sound:
    """Copies the packets of the best audio stream as the pictures go on. Their times are counted from the first picture."""

    def __init__(self, video: Path, out: OutputContainer) -> None:
        """Open the video a second time; `out` gets an audio stream if there is one and its format takes it."""
        self._out = out
        self._open = ExitStack()
        self.remark: str | None = None
        """What the user should know, if not all of the sound was copied."""
        self._waiting: Iterator[av.Packet[AudioStream]] = iter(())
        self._next: av.Packet[AudioStream] | None = None
        container, pictures = self._open.enter_context(open_video(video))
        source = container.streams.best("audio")
        if not isinstance(source, AudioStream):
            return
        if source.codec_context is None or source.time_base is None:  # PyAV's annotations say that the first is never None.
            self.remark = "is without the sound, whose codec FFmpeg does not know"
            return
        try:
            self._stream = out.add_stream_from_template(source)
        except ValueError:
            self.remark = f"is without the sound, as {out.format.name} takes no {source.codec_context.name}; .mkv takes more"
            return
        start = (pictures.start_time or 0) * (pictures.time_base or Fraction(1))
        self._shift = round(start / source.time_base)
        self._last: int | None = None
        self._waiting = (packet for packet in container.demux(source) if packet.size)
        self._advance()

    def copy_until(self, seconds: float) -> None:
        """Copy the packets that start before that time of the video."""
        while self._next is not None and (self._next.dts or 0) * self._next.time_base < seconds:
            self._next.stream = self._stream
            self._out.mux(self._next)
            self._advance()

    def _advance(self) -> None:
        """Go to the next packet that can be copied: not before the first picture, with a time, and after the packets before."""
        self._next = None
        try:
            for packet in self._waiting:
                if packet.dts is None or packet.pts is None:
                    continue
                packet.dts, packet.pts = packet.dts - self._shift, packet.pts - self._shift
                if packet.pts < 0:
                    continue
                if self._last is not None and packet.dts <= self._last:
                    self.remark = "lacks some of the sound, whose timestamps go back"
                    continue
                self._last, self._next = packet.dts, packet
                return
        except av.FFmpegError as error:
            self.remark = f"lacks the end of the sound; got {error.strerror}"

    def close(self) -> None:
        """Close the video."""
        self._open.close()
