"""Servers of live video on loopback: RTSP as cameras speak it (RFC 2326 and 6184, over TCP), and HTTP."""

import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np

MOST = 1200
"""Bytes of a packet; a larger unit of H.264 is cut up."""
CLOCK = 90_000


def h264_pictures(levels: Sequence[int], size: int = 64) -> list[bytes]:
    """Return one grey picture of each level, as H.264's byte stream; each can be decoded without those before."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt, encoder.framerate = "yuv420p", 25
    encoder.options = {"tune": "zerolatency", "g": "1", "x264-params": "repeat-headers=1", "crf": "10"}
    encoder.thread_count = 1
    frames = [av.VideoFrame.from_ndarray(np.full((size, size, 3), level, np.uint8), format="rgb24") for level in levels]
    return [bytes(packet) for frame in [*frames, None] for packet in encoder.encode(frame)]


def rtp_packets(picture: bytes, number: int, timestamp: int) -> Iterator[bytes]:
    """Yield the RTP packets of a picture, the first of which has that sequence number."""
    units = [unit.rstrip(b"\0") for unit in picture.split(b"\0\0\1") if unit.strip(b"\0")]
    payloads = [payload for unit in units for payload in _payloads(unit)]
    for index, payload in enumerate(payloads):
        last = 0x80 if index == len(payloads) - 1 else 0
        yield struct.pack(">BBHII", 0x80, last | 96, (number + index) % 65536, timestamp % 2**32, 0xC0FFEE) + payload


def _payloads(unit: bytes) -> Iterator[bytes]:
    if len(unit) <= MOST:
        yield unit
        return
    indicator, kind, body = unit[0] & 0xE0 | 28, unit[0] & 0x1F, unit[1:]
    for at in range(0, len(body), MOST):
        start, end = 0x80 * (at == 0), 0x40 * (at + MOST >= len(body))
        yield bytes((indicator, kind | start | end)) + body[at : at + MOST]


class RtspServer:
    """Sends the same pictures to each client, from the first one on, again and again.

    `fps`: how many are sent a second; `limit`: close a connection after so many, as a camera does whose power fails; `connections`: how many are
    accepted.
    """

    def __init__(self, pictures: Sequence[bytes], fps: float, limit: int | None = None, connections: int = 99) -> None:
        self._pictures, self._fps, self._limit, self._connections = pictures, fps, limit, connections
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.requests: list[str] = []
        self.is_open = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/door"

    def close(self) -> None:
        self.is_open = False
        self._listening.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "RtspServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            for _ in range(self._connections):
                connection, _ = self._listening.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self._listening.close()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            while self.is_open and (request := lines.readline().decode()):
                headers = {}
                while line := lines.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                self.requests.append(request.split()[0])
                self._answer(connection, request.split()[0], headers.get("cseq", "0"))

    def _answer(self, connection: socket.socket, method: str, sequence: str) -> None:
        description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
        description += "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
        more, body = {
            "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
            "DESCRIBE": ("Content-Type: application/sdp\r\n", description),
            "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
        }.get(method, ("Session: 1\r\n", ""))
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{more}{length}\r\n{body}".encode())
        if method == "PLAY":
            threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        number = sent = 0
        start = time.monotonic()
        with suppress(OSError):
            while self.is_open and (self._limit is None or sent < self._limit):
                time.sleep(max(0.0, start + sent / self._fps - time.monotonic()))
                for packet in rtp_packets(self._pictures[sent % len(self._pictures)], number, round(sent * CLOCK / self._fps)):
                    connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                    number += 1
                sent += 1
            connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve what `answer` writes to each GET request, and yield the address of the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def respond(request: BaseHTTPRequestHandler, body: bytes, kind: str = "video/mp4") -> None:
    """Answer with a whole file."""
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def jpeg_stream(request: BaseHTTPRequestHandler, levels: Sequence[int], fps: float) -> None:
    """Answer as webcams do: one JPEG after the other, as they are taken."""
    from PIL import Image

    request.send_response(200)
    request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
    request.end_headers()
    for level in levels:
        held = io.BytesIO()
        Image.new("RGB", (64, 64), (level,) * 3).save(held, "JPEG")
        request.wfile.write(b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(held.getvalue()), held.getvalue()))
        time.sleep(1 / fps)
