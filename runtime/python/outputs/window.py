"""A window with the video and its predictions, while they are made: `clipstep run --show`."""

import time
import tkinter
from contextlib import suppress
from typing import Any

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.outputs.annotated_frames import AnnotatedFrames
from clipstep.runtime.outputs.output import Output, VideoPrediction, WindowClosed
from clipstep.runtime.outputs.pace import Pace
from clipstep.runtime.video import Picture
from clipstep.runtime.wording import counted

CLOSING_KEYS = ("q", "Q", "<Escape>")
SCREEN_SHARE = 0.9
"""How much of the screen's height and width a frame takes at most; larger ones are scaled down."""
REACTION = 0.01
"""Seconds: a key or the closing button has its effect after so long at most while a frame waits for its time."""


class Window(Output):
    """Every frame at its own time, with the prediction that is known then, as `--save out.mp4` has it. It writes no file.

    All calls are made by the thread that opened it, as Tk demands. While a step is computed the window stands still.
    """

    def __init__(self, title: str, top: int, *, live: bool = False) -> None:
        """Open a window, which is hidden until the first frame.

        Args:
            title: what its bar says.
            top: how many of the likeliest classes are shown.
            live: the frames come when it is time for them: each is shown at once.

        Raises:
            ClipstepError: there is no screen.
        """
        try:
            self._root = tkinter.Tk(className="clipstep")
        except tkinter.TclError as error:
            fix = "run it in a desktop session, or write the same to a file with --save out.mp4"
            raise ClipstepError("--show finds no screen", got=str(error), fix=fix) from error
        self._root.withdraw()
        self._root.title(title)
        self._root.resizable(False, False)
        self._top = top
        self._pace = None if live else Pace()
        self._photo = tkinter.PhotoImage(master=self._root)
        tkinter.Label(self._root, image=self._photo, borderwidth=0, highlightthickness=0, padx=0, pady=0).pack()
        self._closed = False
        self._frames: AnnotatedFrames | None = None
        for key in CLOSING_KEYS:
            self._root.bind(key, lambda _: self._root.destroy())
        self._root.bind("<Destroy>", self._end)  # By a key or the closing button.

    def show(self, picture: Picture) -> None:
        """Wait until it is time for the frame and show it, or leave it out.

        Raises:
            WindowClosed: the user closed the window.
        """
        if self._frames is None:
            room = (SCREEN_SHARE * self._root.winfo_screenheight(), SCREEN_SHARE * self._root.winfo_screenwidth())
            self._frames = AnnotatedFrames(picture.shape, self._top, room, quick=True)
            self._root.deiconify()
        now = time.monotonic()
        wait = self._pace.wait(picture.seconds, now) if self._pace else 0.0
        if wait is None:
            self._react_until(now)
            return
        image = self._frames.draw(picture)
        self._react_until(now + wait)
        self._photo.configure(format="PPM", data=b"P6 %d %d 255 %b" % (*image.size, image.tobytes()))
        self._react_until(now)

    def add(self, said: VideoPrediction) -> None:
        assert self._frames is not None  # A prediction comes after its frames.
        self._frames.add(said)

    def finish(self, end: float) -> list[str]:
        """Show the last frame as long as the video does, and say how many were left out."""
        if self._pace is None:
            return []
        now = time.monotonic()
        if not self._closed:
            with suppress(WindowClosed):
                self._react_until(now + self._pace.until(end, now))
        if not self._pace.left_out:
            return []
        total = self._pace.shown + self._pace.left_out
        return [f"{self._pace.left_out} of {counted(total, 'frame')} came too late and were not shown in the window"]

    def close(self) -> None:
        if not self._closed:
            self._root.destroy()

    def _end(self, _event: Any) -> None:
        self._closed = True

    def _react_until(self, then: float) -> None:
        """Draw what has changed and take keys and clicks, until that time of the clock, and once if it has passed."""
        while True:
            self._root.update()
            if self._closed:
                raise WindowClosed
            left = then - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, REACTION))
