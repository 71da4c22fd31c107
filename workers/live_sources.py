"""Frames of streams as they come: from the network, a device, or a file that is played at its own pace.

What a stream may open besides itself is limited to the protocols of its own scheme. Whatever is wrong with it comes
out as a ``SourceError``, whose sentence holds no credentials.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import av
from av.packet import Packet
from av.video.stream import VideoStream

from clipmux.engine.errors import ClipmuxError, VideoError
from clipmux.engine.streams import WHITELISTS, LiveConfig, StreamConfig

from .decode import TITLES_OF_ANY_BYTES, Frame, decode
from .sources import Video
from .time_windows import GAP_S

TOGETHER_S = 0.2
"""So much of a stream is decoded in one go, if it can wait."""
SLICE_S = 0.25
"""Waiting goes in slices of this, so that whoever waits can say that it is alive."""
ANALYZE_S, ANALYZE_RTSP_S = 1.0, 0.1
"""So much of a stream libav reads, if it must, before it says what is in it; of RTSP its description says that."""
BEHIND_S = 2.0
"""A camera process that is further behind its camera than this …"""
BEHIND_FOR_S = 5.0
"""… for so long connects anew, and what had piled up is gone."""
SLOW_CLOCK = 0.25
"""A clock may lose this share of the time that was spent waiting for packets, when nothing was queued, before it looks
like falling behind: one that stamps 1/25 s on each of 24 frames a second loses 4%."""
IDLE = 0.05
"""Without times of a camera's own: who waits for packets for a smaller share of the time does not keep up."""
NO_TIMES = 0x80
"""libav's ``AVFMT_NOTIMESTAMPS``, a flag of formats (avformat.h)."""
FIRST_PICTURE_S = 120.0
"""A stream that is joined midway has its first picture with the next keyframe; one in a minute is rare, but there."""


class SourceError(ClipmuxError):
    """The stream cannot be read, now; trying again may help."""


class Received(NamedTuple):
    """A frame, and when it was there (``time.monotonic()`` seconds): read from the network, or due.

    Args:
        waited: seconds of waiting for packets since the frame before it; 0 where nothing is waited for.
        timed: its presentation time is the source's own, not that of its arrival.
    """

    frame: Frame
    at: float
    waited: float = 0.0
    timed: bool = True


class _Came(NamedTuple):
    """A packet, when it was read, and how long that was waited for."""

    packet: Packet[VideoStream]
    at: float
    waited: float


Tick = Callable[[], None]
"""Called at least every quarter of a second where there is waiting to be done."""
StartAt = Callable[[float], float]
"""When a file that could begin now (``time.monotonic()`` seconds) is to begin."""
Completes = Callable[[], float | None]
"""The presentation time from which on a frame completes a clip; None: one is as good as the next."""


def open_source(
    stream: StreamConfig,
    live: LiveConfig,
    tick: Tick,
    completes: Completes = lambda: None,
    start_at: StartAt = lambda now: now,
) -> Iterator[Received]:
    """The frames of a stream. One that ends by itself (a file, not looped) simply ends.

    Frames are decoded a few at a time, ``TOGETHER_S`` of them: a process that wakes for each one finds its caches cold,
    and computes for longer. No clip is later for it: the frame that completes one is decoded at once.

    Args:
        stream: where from.
        live: how.
        tick: called while it waits, and for each packet: a picture may need many.
        completes: asked what the frames are for.
        start_at: asked when a file is to begin.

    Raises:
        SourceError: it cannot be opened or read on.
        VideoError: a file that cannot be decoded; trying again would not help.
    """
    if not is_paced(stream):
        return keeping_up(_of_network(stream, live, tick, completes))
    if stream.scheme == "file":
        frames = _of_file(Path(stream.url), loop=live.loop)
        return _paced(frames, live.pace, live.max_latency_s, tick, completes, start_at)
    frames = (received.frame for received in _of_network(stream, live, tick, lambda: None))
    return _paced(frames, 1.0, live.max_latency_s, tick, completes, start_at)


def _of_file(path: Path, *, loop: bool) -> Iterator[Frame]:
    """A file's frames; looped, its time goes on as if the next round had been recorded right after the last one."""
    video = Video(path.stem or str(path), path, "frames" if path.is_dir() else "file")
    if video.kind == "frames":
        raise VideoError("open", "NotAStream", f"'{path}' is a folder: give a file, a device or a URL")
    offset = 0.0
    while True:
        first: float | None = None
        end = 0.0
        for frame in decode(video):
            seconds = frame.seconds or 0.0
            first = seconds if first is None else first
            end = seconds + (frame.duration or 0.0)
            yield Frame(frame.picture, seconds + offset, frame.duration, frame.display)
        if not loop or first is None or end <= first:
            return
        offset += end - first


def _paced(
    frames: Iterator[Frame], pace: float, behind_s: float, tick: Tick, completes: Completes, start_at: StartAt
) -> Iterator[Received]:
    """Hold frames back until they are due. Who falls behind by more than ``behind_s`` plays on from there, later.

    So does one whose times jump: what they say of the time between two frames is no longer known.
    """
    began: float | None = None
    before = 0.0
    for frame in frames:
        seconds = frame.seconds or 0.0
        now = time.monotonic()
        if began is None or is_jump(before, seconds) or now - (began + seconds / pace) > behind_s:
            began = start_at(now) - seconds / pace
        before = seconds
        due = began + seconds / pace
        if due > now:  # all that were due have been given
            needed = completes()
            last = due if needed is None else max(due, min(due + TOGETHER_S, began + needed / pace))
            while (wait := last - time.monotonic()) > 0:
                tick()
                time.sleep(min(wait, SLICE_S))
        yield Received(frame, due)


def _of_network(stream: StreamConfig, live: LiveConfig, tick: Tick, completes: Completes) -> Iterator[Received]:
    """What a camera sends, each frame as soon as it is decoded; damaged pictures are left out."""
    try:
        container = _open(stream, live)
    except av.FFmpegError as error:
        raise SourceError(f"cannot be opened ({_said(error)})") from None
    except ValueError as error:  # PyAV's, for formats that this FFmpeg does not have
        raise SourceError(f"cannot be opened (this FFmpeg has no {error})") from None
    with container:
        if not container.streams.video or container.streams.video[0].codec_context is None:
            raise SourceError("has no video that can be decoded here")
        video = container.streams.video[0]
        codec = video.codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"
        base = float(video.time_base or 0) if has_times(container.format) else None
        connected = time.monotonic()
        pictured, waited = False, 0.0
        for packet, at, waited_for_it in _in_groups(_packets(container, video), base, completes):
            tick()
            waited += waited_for_it
            pictures: list[av.VideoFrame] = []
            # Lost or garbled packets: the next whole picture will do. ValueErrors are PyAV 19's, of a codec that
            # cannot be opened.
            with contextlib.suppress(av.FFmpegError, ValueError):
                pictures = codec.decode(packet)
            for picture in pictures:
                if not picture.is_corrupt:
                    yield _received(picture, base, at, at - connected, waited)
                    pictured, waited = True, 0.0
            if not pictured and at - connected > FIRST_PICTURE_S:  # it ticks, so nobody else would give it up
                raise SourceError(f"has sent no whole picture for {FIRST_PICTURE_S:g} s")


def _received(picture: av.VideoFrame, base: float | None, at: float, arrived: float, waited: float) -> Received:
    """A picture with its own time, or, where it has none, with that of its arrival (seconds since it was connected)."""
    if base is None or picture.pts is None:
        return Received(Frame(picture, arrived, None), at, waited, timed=False)
    return Received(
        Frame(picture, picture.pts * base, picture.duration * base if picture.duration else None), at, waited
    )


def has_times(form: av.ContainerFormat) -> bool:
    """Whether a format says when its pictures are to be shown.

    Where it does not (MJPEG over HTTP, bare H.264), libav counts the pictures as if there were 25 a second. It says so
    itself of all but its formats of images in a row.
    """
    return not form.flags & NO_TIMES and not form.name.endswith("_pipe")


def _packets(container: av.container.InputContainer, video: VideoStream) -> Iterator[Packet[VideoStream]]:
    """What comes, until no more does.

    Raises:
        SourceError: always, in the end.
    """
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            raise SourceError("has ended") from None
        except av.FFmpegError as error:
            raise SourceError(f"cannot be read on ({_said(error)})") from None
        if packet.size:
            yield packet


def _in_groups(packets: Iterator[Packet[VideoStream]], base: float | None, completes: Completes) -> Iterator[_Came]:
    """Packets, held back while they complete no clip, for ``TOGETHER_S`` at most; those without times are not.

    Once one has come that does, none is held back until the clip is there: pictures may come out in another order.
    """
    held: list[_Came] = []
    latest = -math.inf
    asked = time.monotonic()
    try:
        for packet in packets:
            now = time.monotonic()
            held.append(_Came(packet, now, now - asked))
            seconds = math.inf if base is None or packet.pts is None else packet.pts * base
            latest = seconds if seconds < latest - GAP_S else max(latest, seconds)
            needed = completes()
            if needed is None or latest >= needed or now - held[0].at >= TOGETHER_S:
                yield from held
                held.clear()
            asked = time.monotonic()
    except SourceError:
        yield from held
        raise


def keeping_up(frames: Iterator[Received]) -> Iterator[Received]:
    """The same frames, until they come late for a while: then this machine does not keep up, and a queue has grown.

    A frame is as late as its arrival is behind what its time says. A camera's clock that runs slow looks the same, but
    for one thing: who has a queue before it never waits for packets. Of frames without times of their own only that is
    known.

    Worked example: stamped 1/25 s apart, 24 a second come, and each is waited for for 20 ms of its 42. It seems to come
    1.7 ms later than the one before it, and 5 ms of that may be its clock's fault: it is in time. Were it not waited
    for, it would be 2 s late after 50 s.

    Raises:
        SourceError: that.
    """
    base: float | None = None
    before = last_at = behind_since = unwaited = 0.0
    for received in frames:
        seconds, at = received.frame.seconds or 0.0, received.at
        offset = at - seconds
        if base is None or (received.timed and is_jump(before, seconds)):  # its clock tells another time from here on
            base, behind_since, last_at, unwaited = offset, at, at, 0.0
        base = min(offset, base + SLOW_CLOCK * received.waited)
        unwaited = max(0.0, unwaited + at - last_at - received.waited / IDLE)
        before, last_at = seconds, at
        late = offset - base if received.timed else unwaited
        if late <= BEHIND_S:
            behind_since = at
        elif at - behind_since > BEHIND_FOR_S:
            how = f"is read {late:.1f} s late" if received.timed else "comes faster than it is decoded"
            raise SourceError(f"{how}, so it is connected anew")
        yield received


def is_jump(before: float, seconds: float) -> bool:
    """From one frame's presentation time to the next's: backwards, or further than a gap."""
    return not 0 <= seconds - before <= GAP_S


def _open(stream: StreamConfig, live: LiveConfig) -> av.container.InputContainer:
    scheme = stream.scheme
    timeouts = (live.open_timeout_s, 2 * live.stall_s)  # stalls are the supervisor's to notice; this is for the rest
    if scheme == "device":
        return av.open(stream.url, "r", format="v4l2", timeout=timeouts)
    options = {
        "protocol_whitelist": WHITELISTS[scheme] + (",crypto" if _is_playlist(stream) else ""),
        "analyzeduration": str(round(ANALYZE_S * 1_000_000)),
    }
    if scheme in ("rtsp", "rtsps"):
        options["analyzeduration"] = str(round(ANALYZE_RTSP_S * 1_000_000))
        options["rtsp_transport"] = "tcp" if scheme == "rtsps" else live.rtsp_transport
        options["allowed_media_types"] = "video"
    form = "mpegts" if scheme in ("udp", "tcp", "srt") else None
    container: av.container.InputContainer = av.open(
        stream.url, "r", format=form, container_options=options, timeout=timeouts, **TITLES_OF_ANY_BYTES
    )
    return container


def is_paced(stream: StreamConfig) -> bool:
    """Its frames are held back until they are due: a file, or a playlist, whose segments come whole."""
    return stream.scheme == "file" or _is_playlist(stream)


def _is_playlist(stream: StreamConfig) -> bool:
    return stream.scheme in ("http", "https") and urlsplit(stream.url).path.lower().endswith(".m3u8")


def _said(error: av.FFmpegError) -> str:
    """libav's words without the URL that its exceptions carry along."""
    if isinstance(error, av.ExitError):
        return "it did not answer in time"
    return str(error.strerror or type(error).__name__)
