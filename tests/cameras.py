"""Cameras for tests: an RTSP server of the system's GStreamer, a wire that can be cut and garbled, a TS source."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import pytest
from typing_extensions import Self

from clipmux.bench.videos import Encoding, available_encodings, write_short_videos

SERVER = Path(__file__).with_name("rtsp_server.py")
PYTHON = "/usr/bin/python3"
"""The system's, which has GStreamer's bindings."""
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"


def needs_rtsp_server() -> None:
    """Skip without GStreamer's RTSP server; fail under CI."""
    look = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    with contextlib.suppress(OSError):
        if subprocess.run([PYTHON, "-c", look], capture_output=True, check=False).returncode == 0:
            return
    reason = f"there is no RTSP server: apt-get install {PACKAGES}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def long_video(folder: Path, *, kind: str = "h264-mp4", size: tuple[int, int] = (160, 120), seconds: int = 600) -> Path:
    """A video of a shape that moves left for ten seconds, over and over, with a keyframe every ten."""
    encoding: Encoding = next(one for one in available_encodings() if one.name == kind)
    (video,) = write_short_videos(folder, 1, frames=250, size=size, rate=Fraction(25), encoding=encoding, distinct=1)
    path = folder / f"long{video.path.suffix}"
    with av.open(str(path), "w") as output:
        stream: Any = None
        for turn in range(seconds // 10):
            with av.open(str(video.path)) as container:
                source = container.streams.video[0]
                stream = stream or output.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.pts is not None and packet.dts is not None:
                        offset = round(turn * 10 / source.time_base)
                        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                        packet.stream = stream
                        output.mux(packet)
    return path


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


class Camera:
    """An RTSP server that can be killed and started again, with the same or another video.

    Args:
        video: an MP4 file.
        codec: of it, ``h264`` or ``h265``.
        address: to listen at.
        within: what to execute it with, such as ``ip netns exec NAME``.
    """

    def __init__(
        self, video: Path, codec: str = "h264", *, address: str = "127.0.0.1", within: tuple[str, ...] = ()
    ) -> None:
        self.port = free_port()
        self.url = f"rtsp://{address}:{self.port}/cam"
        self._address = address
        self._within = within
        self._process: subprocess.Popen[str] | None = None
        self.start(video, codec)

    def start(self, video: Path, codec: str = "h264") -> None:
        self._process = subprocess.Popen(
            [*self._within, PYTHON, str(SERVER), str(self.port), str(video), codec, self._address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Wire:
    """A TCP connection that passes through here: it can be still, as if cut, or garble what the camera says.

    Attributes:
        still: nothing passes; nobody is told.
        garble: one byte in so many is another one.
    """

    def __init__(self, port: int) -> None:
        self.still = False
        self.garble = 0
        self._to = port
        self._random = random.Random(1)  # noqa: S311
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._ending = False
        self._thread = threading.Thread(target=self._pass_on)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._thread.join()

    def _pass_on(self) -> None:
        while not self._ending:
            if self.still:
                time.sleep(0.05)
                continue
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listening:
                    self._connect()
                else:
                    self._carry(key)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _connect(self) -> None:
        near, _ = self._listening.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        self._selector.register(near, selectors.EVENT_READ, (far, False))
        self._selector.register(far, selectors.EVENT_READ, (near, True))

    def _carry(self, key: selectors.SelectorKey) -> None:
        source: Any = key.fileobj
        other, from_camera = key.data
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
        if data and from_camera and self.garble:
            garbled = bytearray(data)
            for _ in range(max(1, len(data) // self.garble)):
                garbled[self._random.randrange(len(data))] = self._random.randrange(256)
            data = bytes(garbled)
        try:
            if not data:
                raise OSError
            other.sendall(data)
        except OSError:
            for end in (source, other):
                with contextlib.suppress(KeyError, ValueError):  # closed already
                    self._selector.unregister(end)
                end.close()


@contextlib.contextmanager
def transport_stream(video: Path) -> Iterator[int]:
    """A TCP port at which a transport stream of a video begins again and again, its times jumping back; yields it."""
    with av.open(str(video)) as container:
        seconds = float(container.duration or 0) / 1_000_000
    content = video.read_bytes()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.1)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            with contextlib.suppress(TimeoutError), contextlib.suppress(OSError):
                client, _ = listening.accept()
                with client:
                    while not ending.is_set():
                        for at in range(0, len(content), 1880):
                            client.sendall(content[at : at + 1880])
                            if ending.wait(seconds * 1880 / len(content)):
                                break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ending.set()
        thread.join()
        listening.close()
