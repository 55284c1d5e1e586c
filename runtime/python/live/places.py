"""Where live video comes from: a camera of this machine, or an address, as FFmpeg opens them."""

import sys
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import av

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.filesystem.path_checks import CAMERA
from clipstep.runtime.video import DEMUXERS
from clipstep.runtime.wording import without_secrets

CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's input device for cameras on each system."""
WEB, RTSP = "http,https,httpproxy,tcp,tls", "rtsp,rtp,tcp,udp,tls"
PROTOCOLS = {"http": WEB, "https": WEB, "rtsp": RTSP, "rtsps": RTSP}
"""For each scheme of an address, the protocols that FFmpeg may use for it and for what the server refers to. Files of this machine are none."""


class Place(NamedTuple):
    """What FFmpeg is to open."""

    name: str
    """As it is printed: without the user's name and password, and without what follows a `?`, where cameras have them, too."""
    file: str
    format: str | None
    """FFmpeg's input device; None for an address, whose format is found out."""
    options: Mapping[str, str]
    fix: str
    """What to do if it cannot be opened."""
    is_web: bool = False
    """Whether it may be a recording: if it says how long it is."""


def camera(device: str) -> Place:
    """Return the place of a camera of this machine, by its number or its name.

    Raises:
        ClipstepError: FFmpeg has no cameras on this system.
    """
    kind = CAMERA_FORMATS.get(sys.platform)
    if kind is None or not _is_available(kind):
        what = f"{CAMERA}{device}: the FFmpeg of PyAV takes no cameras on this system"
        raise ClipstepError(what, got=kind or sys.platform, fix="install PyAV's own wheel: pip install av")
    found = _found(kind)
    file, options = device, {}
    if kind == "v4l2" and device.isdecimal():
        file = f"/dev/video{device}"
    elif kind == "avfoundation":
        file, options = f"{device}:none", {"framerate": "30"}  # FFmpeg's default, 29.97, is a rate that most cameras of Macs refuse.
    elif kind == "dshow":
        names = list(found)
        file = f"video={names[int(device)] if device.isdecimal() and int(device) < len(names) else device}"
    cameras = ", ".join(f"{name} ({title})" if title else name for name, title in found.items())
    return Place(f"{CAMERA}{device}", file, kind, options, f"choose one of the cameras: {cameras}" if cameras else "connect a camera: none was found")


def address(url: str) -> Place:
    """Return the place of a network stream.

    Raises:
        ClipstepError: it is no address with a host and one of the schemes in `PROTOCOLS`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in PROTOCOLS:
        raise ClipstepError(
            f"{without_secrets(url)}: not an address of a video",
            expected=f"one that begins with {', '.join(f'{scheme}://' for scheme in PROTOCOLS)} and a host",
            fix="name a file without --url",
        )
    name = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}{parts.path}"
    rules = {"protocol_whitelist": PROTOCOLS[parts.scheme], "format_whitelist": ",".join(("rtsp", *DEMUXERS))}
    is_web = PROTOCOLS[parts.scheme] == WEB
    options = {**rules, **({"reconnect": "1", "reconnect_delay_max": "5"} if is_web else {"rtsp_transport": "tcp"})}
    return Place(name, url, None, options, "check the address, and whether its server runs", is_web)


def _is_available(kind: str) -> bool:
    return any(kind in name.split(",") for name in av.formats_available)


def _found(kind: str) -> dict[str, str]:
    """Return the names of the cameras that FFmpeg finds, and their titles."""
    try:
        return {device.name: device.description for device in av.enumerate_input_devices(kind)}
    except av.FFmpegError:  # Not all of FFmpeg's input devices can list what there is.
        return {}
