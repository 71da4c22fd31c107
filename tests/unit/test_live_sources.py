"""Frames of streams a few at a time: all of them, in order, none before it is due, and none late that is needed."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from media import moving, write_video
from PIL import Image

from clipmux.engine.streams import LiveConfig, StreamConfig
from clipmux.workers import live_sources
from clipmux.workers.decode import Frame
from clipmux.workers.live_sources import (
    BEHIND_FOR_S,
    Received,
    SourceError,
    _in_groups,
    _paced,
    has_times,
    keeping_up,
    open_source,
)

BASE = 1 / 90_000
LIVE = LiveConfig("demo")
PICTURE = Image.new("RGB", (2, 2))


@dataclass
class Packet:
    """As much of a packet as is looked at."""

    pts: int | None
    size: int = 1


def at_fps(fps: float, order: list[int]) -> Iterator[Any]:
    """Packets of these frames, in this order, and then the end of the connection."""
    for number in order:
        yield Packet(round(number / fps / BASE))
    raise SourceError("has ended")


def groups(packets: Iterator[Any], needed: Any) -> list[list[int]]:
    """What is let through after each packet that comes."""
    came: list[list[int]] = []

    def watched() -> Iterator[Any]:
        for packet in packets:
            came.append([])
            yield packet

    with contextlib.suppress(SourceError):
        for packet, at, waited in _in_groups(watched(), BASE, needed):
            assert waited >= 0
            assert at <= time.monotonic()
            came[-1].append(-1 if packet.pts is None else packet.pts)
    return came


def test_packets_wait_for_the_one_that_completes_a_clip() -> None:
    came = groups(at_fps(10, list(range(7))), lambda: 0.4)
    assert [len(each) for each in came] == [0, 0, 0, 0, 5, 1, 1]  # it goes on until the clip is there
    assert [pts for each in came for pts in each] == [round(number / 10 / BASE) for number in range(7)]


def test_packets_in_another_order_wait_for_none_that_is_needed() -> None:
    came = groups(at_fps(10, [0, 3, 1, 2, 6, 4, 5]), lambda: 0.3)
    assert [len(each) for each in came] == [0, 2, 1, 1, 1, 1, 1]


def test_what_is_held_when_the_connection_ends_is_not_lost() -> None:
    assert sum(len(each) for each in groups(at_fps(10, [0, 1, 2]), lambda: 9.0)) == 3


def test_nothing_waits_without_a_clip_that_has_begun_or_without_times() -> None:
    assert [len(each) for each in groups(at_fps(10, [0, 1, 2]), lambda: None)] == [1, 1, 1]

    def untimed() -> Iterator[Any]:
        yield from (Packet(None), Packet(None))
        raise SourceError("has ended")

    assert [len(each) for each in groups(untimed(), lambda: 9.0)] == [1, 1]


def test_times_that_begin_anew_wait_again() -> None:
    came = groups(at_fps(10, [90, 91, 0, 1, 2]), iter((9.0, 9.0, 0.2, 0.2, 0.2)).__next__)
    assert [len(each) for each in came] == [1, 1, 0, 0, 3]


def test_a_files_frames_come_a_few_at_a_time_and_none_before_it_is_due() -> None:
    """Fifty a second, of which the ninth, the nineteenth and so on complete clips."""
    decoded: list[float] = []

    def frames() -> Iterator[Frame]:
        for number in range(40):
            decoded.append(time.monotonic())
            yield Frame(PICTURE, number / 50, 1 / 50)

    last = -1

    def completes() -> float | None:
        return None if last < 0 else (9 + 10 * math.floor((last + 1) / 10) - 0.5) / 50

    ticks: list[None] = []
    for number, received in enumerate(
        _paced(frames(), 1.0, 9.0, lambda: ticks.append(None), completes, lambda now: now)
    ):
        assert received.at <= time.monotonic()
        assert received.frame.seconds == number / 50
        last = number
    assert len(decoded) == 40
    assert len(ticks) < 20, "it woke for each of them"


def test_a_file_begins_when_it_is_told_to() -> None:
    began = time.monotonic()
    frames = iter([Frame(PICTURE, 3.0, 0.04), Frame(PICTURE, 3.04, 0.04)])
    first, second = _paced(frames, 1.0, 9.0, lambda: None, lambda: None, lambda now: now + 0.1)
    assert first.at >= began + 0.1
    assert second.at - first.at == pytest.approx(0.04)


@pytest.mark.parametrize("jump", [1000.0, -1000.0])
def test_a_file_whose_times_jump_plays_on(jump: float) -> None:
    times = [0.0, 0.02, 0.04, 0.06 + jump, 0.08 + jump]
    frames = (Frame(PICTURE, seconds, 0.02) for seconds in times)
    began = time.monotonic()
    received = list(_paced(frames, 1.0, 1.0, lambda: None, lambda: None, lambda now: now))
    assert [one.frame.seconds for one in received] == times
    assert max(one.at for one in received) < began + 60


@pytest.mark.parametrize("jumps", [{50: -10.0}, {50: -3.0}, {50: 8.0, 51: -8.0}, {50: 1000.0}])
def test_a_clock_that_jumps_is_not_taken_for_falling_behind(jumps: dict[int, float]) -> None:
    """A frame every tenth of a second, for long enough; at some of them its clock is set."""
    shift, frames = 0.0, []
    for number in range(50 + round(20 * BEHIND_FOR_S)):
        shift += jumps.get(number, 0.0)
        frames.append(Received(Frame(PICTURE, 100 + number / 10 + shift, 0.1), number / 10))
    assert list(keeping_up(iter(frames))) == frames


def test_falling_behind_is_noticed_after_a_jump_too() -> None:
    late = (Received(Frame(PICTURE, number / 10 - 50 * (number > 9), 0.1), number / 5) for number in range(1000))
    with pytest.raises(SourceError, match="late"):
        list(keeping_up(late))


def camera(fps: float, *, stamped: float, busy: float, seconds: float = 1800, timed: bool = True) -> Iterator[Received]:
    """Frames of one who gives ``fps`` and says that it is ``stamped``, read by one who is busy for a share of the time.

    Who would be busy for longer than there is time takes so much longer, and never waits.
    """
    interval = max(1.0, busy) / fps
    for number in range(round(seconds / interval)):
        at = number * interval
        frame = Frame(PICTURE, number / stamped if timed else at, None)
        yield Received(frame, at, (1 - min(1.0, busy)) * interval, timed)


@pytest.mark.parametrize("fps", [24.9, 24.0])
@pytest.mark.parametrize("busy", [0.05, 0.8])
def test_a_slow_clock_is_not_taken_for_falling_behind(fps: float, busy: float) -> None:
    assert sum(1 for _ in keeping_up(camera(fps, stamped=25, busy=busy))) == round(1800 * fps)


@pytest.mark.parametrize("busy", [1.003, 1.5])
@pytest.mark.parametrize("fps", [25.0, 24.0])
def test_who_decodes_a_little_too_slowly_notices(fps: float, busy: float) -> None:
    with pytest.raises(SourceError, match=r"is read 2\.\d s late|is read [3-9]\.\d s late"):
        list(keeping_up(camera(fps, stamped=fps, busy=busy)))


@pytest.mark.parametrize("fps", [2.0, 10.0, 60.0])
def test_of_frames_without_times_only_a_queue_is_noticed(fps: float) -> None:
    idle = camera(fps, stamped=25, busy=0.9, timed=False)
    assert sum(1 for _ in keeping_up(idle)) == round(1800 * fps)
    with pytest.raises(SourceError, match="faster than it is decoded"):
        list(keeping_up(camera(fps, stamped=25, busy=1.1, timed=False)))


@pytest.mark.parametrize(
    ("names", "has"),
    [
        (["rtsp", "mpegts", "flv", "mov", "matroska", "hls", "avi", "ogg"], True),
        (["mpjpeg", "mjpeg", "jpeg_pipe", "h264", "hevc", "m4v", "mpegvideo"], False),
    ],
)
def test_which_formats_say_when_pictures_are_shown(names: list[str], has: bool) -> None:
    assert {name: has_times(av.ContainerFormat(name, "r")) for name in names} == dict.fromkeys(names, has)


@contextlib.contextmanager
def serving(content: bytes, *, kind: str | None = None) -> Iterator[int]:
    """A TCP port at which one who comes is given this, as the answer to a request for ``kind`` if there is one."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # who reads has gone
                connection, _ = server.accept()
                with connection:
                    if kind is not None:
                        while b"\r\n\r\n" not in connection.recv(65536):
                            pass
                        head = f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
                        connection.sendall(head.encode())
                    connection.sendall(content)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(30)


def encoded(codec: str, pix_fmt: str, count: int) -> list[bytes]:
    """Packets of a bare stream that is said to have 25 pictures a second."""
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, pix_fmt, Fraction(1, 25)
    packets = []
    for number, pixels in enumerate(moving(count)):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
        frame.pts = number
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace;boundary=next", "video/x-motion-jpeg", "video/mp4v-es"])
def test_pictures_of_a_format_without_times_have_those_of_their_arrival(kind: str) -> None:
    """libav would give each of them 1/25 s, however many there are in a second."""
    if kind == "video/mp4v-es":
        content = b"".join(encoded("mpeg4", "yuv420p", 100))
    else:
        head = b"--next\r\nContent-Type: image/jpeg\r\n\r\n" if "multipart" in kind else b""
        content = b"".join(head + jpeg + b"\r\n" * bool(head) for jpeg in encoded("mjpeg", "yuvj420p", 100))
    frames: list[Received] = []
    with serving(content, kind=kind) as port, pytest.raises(SourceError, match="has ended"):
        frames.extend(open_source(StreamConfig("cam", f"http://127.0.0.1:{port}/"), LIVE, lambda: None))
    assert len(frames) > 90
    connected = frames[0].at - (frames[0].frame.seconds or 0.0)
    for received in frames:
        assert received.frame.seconds == pytest.approx(received.at - connected, abs=1e-6)
        assert received.frame.duration is None
        assert not received.timed


def joined_midway(folder: Path, *, until: int | None) -> bytes:
    """A transport stream of 100 pictures whose second keyframe is the 61st, from the 10th to that before ``until``."""
    options = {"x264-params": "keyint=60:min-keyint=60:scenecut=0:bframes=0"}
    whole = write_video(folder / "whole.ts", moving(100), gop=60, options=options)
    path = folder / "midway.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mpegts") as output:
        video = source.streams.video[0]
        stream = output.add_stream_from_template(video)
        for number, packet in enumerate(packet for packet in source.demux(video) if packet.size):
            if number >= 10 and (until is None or number < until):
                packet.stream = stream
                output.mux(packet)
    return path.read_bytes()


def test_who_waits_for_the_first_picture_says_that_it_is_alive(tmp_path: Path) -> None:
    ticks: list[None] = []
    with serving(joined_midway(tmp_path, until=None)) as port:
        next(open_source(StreamConfig("cam", f"tcp://127.0.0.1:{port}"), LIVE, lambda: ticks.append(None)))
    assert len(ticks) > 50


def test_who_never_sees_a_picture_connects_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sources, "FIRST_PICTURE_S", 0.0)
    with serving(joined_midway(tmp_path, until=60)) as port, pytest.raises(SourceError, match="no whole picture"):
        next(open_source(StreamConfig("cam", f"tcp://127.0.0.1:{port}"), LIVE, lambda: None))
