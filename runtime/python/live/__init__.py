"""Video that goes on while it is read: cameras and network streams."""

from clipstep.runtime.live.live_video import LiveVideo

__all__ = ["LiveVideo"]
