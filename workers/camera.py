"""A camera process: one stream, source → decode → time windows → preprocess → send, and connecting anew for ever.

It never waits for the device: a clip for which there is no room is dropped and counted. It never waits for the watcher
either: what it tells of itself is told again a second later.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import time
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import zmq
from PIL import Image

from clipmux.engine.backoff import Backoff
from clipmux.engine.child import Setting
from clipmux.engine.clips import ClipSender, Way
from clipmux.engine.config import EngineConfig
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.gather import gather
from clipmux.engine.messages import (
    CONNECTING,
    ENDED,
    LIVE,
    RECONNECTING,
    THUMBNAIL_MOST,
    ClipKey,
    Goodbye,
    Hello,
    Segment,
    Stop,
    StreamState,
    Thumbnail,
)
from clipmux.engine.model import read_model
from clipmux.engine.sockets import Context, push_reports
from clipmux.engine.stages import Stages
from clipmux.engine.streams import LiveConfig, StreamConfig
from clipmux.engine.wire import encode

from .exact import with_known_matrix
from .live_sources import SLICE_S, Received, SourceError, is_paced, open_source
from .preprocess import open_preprocess
from .time_windows import TimedWindow, TimeWindows
from .turns import turn_of, until_turn

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.5, 4.0
STEADY_S = 10.0
"""A connection that lasted so long was a good one: the next wait is short again."""
TELL_EVERY_S = 1.0
COLLECT_EVERY_S = 2.0
THUMBNAIL_WIDTH = 320
QUALITIES = (75, 50, 25)
"""Of a thumbnail: the first that is small enough."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    with contextlib.suppress(Stopped):
        Camera(setting, context, link).run()


class Stopped(Exception):  # noqa: N818  (not a fault)
    """The supervisor said stop."""


class Picture(NamedTuple):
    """One preprocessed frame: uint8 ``[H, W, 3]``, and when it was there."""

    pixels: npt.NDArray[np.uint8]
    at: float


class Camera:
    """One stream, through as many connections as it takes.

    Attributes:
        counts: frames, clips and dropped clips of all connections.
        figures: what the watcher is told of this connection.
        stages: where its time goes.
    """

    def __init__(self, setting: Setting, context: Context, link: Link) -> None:
        content = setting.content
        config = EngineConfig.from_json(content["config"])
        model = read_model(config.model)
        self.counts = Counter(frames=0, clips=0, dropped=0)
        self.figures: dict[str, Any] = {"frames": 0, "clips": 0, "dropped": 0}
        self.stages = Stages()
        self._live = LiveConfig.from_json(content["live"])
        self._stream = StreamConfig.from_json(content["stream"])
        self._number: int = content["number"]
        self._connection: int = content["connection"]
        self._thumbnails: bool = content["thumbnails"]
        self._preprocess = open_preprocess(config.preprocess, model.height, model.width)
        self._windows: TimeWindows[Received, Picture] = TimeWindows(
            length=model.frames,
            rate=self._live.frame_rate,
            stride_s=self._live.stride_s,
            keep=self._picture,
            first_stride_s=self._first_stride,
        )
        self._link = link
        ways = [Way.from_json(way) for way in content["clips"]]
        self._sender = ClipSender(context, ways, setting.name)
        self._turn = turn_of(ways[0].seat)
        self._clip_s = (model.frames - 1) / self._live.frame_rate
        self._reports = push_reports(context, setting.addresses.reports)
        self._backoff = Backoff(first=RETRY_FIRST_S, most=RETRY_MOST_S, random=Random())  # noqa: S311
        self._state, self._detail = RECONNECTING if content["again"] else CONNECTING, ""
        self._index = 0
        self._size: tuple[int, int] | None = None
        self._at = 0.0
        """When the last frame was there."""
        self._live_since = 0.0
        self._said_hello = False
        self._ticked_at = self._told_at = self._collected_at = self._pictured_at = 0.0
        self._frames_told = 0

    def run(self) -> None:
        gc.freeze()  # what is loaded stays: collecting then takes a fraction of a millisecond
        self._tell(self._state, "")
        if self._stream.scheme != "file":
            self._hello()
        while self._state != ENDED:
            try:
                for received in open_source(self._stream, self._live, self._tick, self._completes, self._start_at):
                    self._take(received)
                self._end()
            except SourceError as error:
                self._wait(str(error))
            except VideoError as error:
                if self._stream.scheme != "file":  # what comes next may be another picture
                    self._wait(error.message)
                elif self._said_hello:  # trying again would not help
                    self._tell(ENDED, error.message)
                else:
                    raise UsageError(error.message) from None
        self._link.send(Goodbye({**self.stages.figures(), **self.counts}))
        self._sender.close()
        self._reports.close()

    def _completes(self) -> float | None:
        return self._windows.completes_at

    def _start_at(self, now: float) -> float:
        """When a file begins to play, so that its clips, which are those of a run, end when it is its turn."""
        pace, stride = self._live.pace, self._live.stride_s / self._live.pace
        return now + until_turn(now + self._clip_s / pace, self._turn, stride)

    def _first_stride(self) -> float:
        """Of a camera the second clip begins sooner, so that it and all that follow end when it is its turn."""
        stride = self._live.stride_s
        if is_paced(self._stream):
            return stride
        return until_turn(self._at + self._clip_s, self._turn, stride) or stride

    # -- one frame -----------------------------------------------------------------------------------------------------

    def _take(self, received: Received) -> None:
        frame, at = received.frame, received.at
        self._at = at
        seconds = frame.seconds or 0.0
        self._count("frames")
        if self._state != LIVE:
            self._hello()
            self._begin(seconds, at, "")
        elif self._windows.breaks(seconds):  # its clock no longer says what it said: everything begins anew
            if self._stream.scheme == "file":  # whose clips are those of a run
                self._send_all(self._windows.end())
            self._next_connection()
            self._begin(seconds, at, "its clock jumped")
        size = (frame.picture.width, frame.picture.height)
        if size != self._size:
            self._size = size
            self._windows.cut()
        self._send_all(self._windows.add(received, seconds, frame.duration))
        if self._thumbnails and at - self._pictured_at >= TELL_EVERY_S:
            self._pictured_at = at
            self._send_thumbnail(frame.picture, at)
        self._tick()

    def _begin(self, seconds: float, at: float, detail: str) -> None:
        """The first frame of a connection is there."""
        now = time.monotonic()
        self._live_since = now
        self.figures["wall_offset"] = time.time() - (now - at) - seconds
        self._tell(LIVE, detail)

    def _picture(self, received: Received) -> Picture:
        with self.stages.timed("preprocess"):
            return Picture(self._preprocess(received.frame), received.at)

    def _send_all(self, windows: Iterable[TimedWindow[Picture]]) -> None:
        for window in windows:
            self._send(window)

    def _send(self, window: TimedWindow[Picture]) -> None:
        """Send one clip, or drop it if there is no room."""
        index = self._index
        self._index += 1
        place = self._sender.place(0)
        if place is None:
            self._count("dropped")
            return
        gather(place, [picture.pixels for picture in window.frames])
        segment = Segment(window.start + 1, window.start + window.covered + 1, window.seconds)
        key = ClipKey(self._number, self._connection, index, segment)
        self._sender.send(key, window.frames[window.covered - 1].at, place)
        self._count("clips")

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        self.figures[name] += 1

    # -- beginnings and ends -------------------------------------------------------------------------------------------

    def _hello(self) -> None:
        """Once: it works, as far as that is in its own hands. A file must have had a frame."""
        if not self._said_hello:
            self._said_hello = True
            self._link.send(Hello({"preprocess": self._preprocess.chosen}))

    def _end(self) -> None:
        self._send_all(self._windows.end())
        self._tell(ENDED, "")

    def _next_connection(self) -> None:
        self._connection += 1
        self._index = 0
        self._frames_told = 0
        self.figures.update(frames=0, clips=0, dropped=0)
        self._windows.cut()

    def _wait(self, why: str) -> None:
        """The connection is lost, or was not made: wait before the next try."""
        if self._state == LIVE:
            if time.monotonic() - self._live_since > STEADY_S:
                self._backoff.reset()
            self._next_connection()
        if why != self._detail:
            log.warning("%s ('%s') %s; trying until it is back", self._stream.name, self._stream.shown, why)
        self._tell(RECONNECTING, why)
        until = time.monotonic() + self._backoff.next()
        while (left := until - time.monotonic()) > 0:
            self._tick()
            time.sleep(min(left, SLICE_S))

    # -- what it says and hears ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """A few times a second: hear, say that all is well, tidy up."""
        now = time.monotonic()
        if now - self._ticked_at < SLICE_S:
            return
        self._ticked_at = now
        while (message := self._link.receive(0)) is not None:
            expect(message, Stop)
            raise Stopped
        self._link.beat(
            **self.counts,
            state=self._state,
            detail=self._detail,
            connection=self._connection,
            busy_s=self.stages.seconds,
        )
        if now - self._told_at >= TELL_EVERY_S:
            self._tell(self._state, self._detail)
        if now - self._collected_at >= COLLECT_EVERY_S:  # PyAV's frames can be in reference cycles: megabytes each
            self._collected_at = now
            gc.collect()

    def _tell(self, state: str, detail: str) -> None:
        """Tell the watcher how the stream is."""
        now = time.monotonic()
        if state == self._state == LIVE:
            self.figures["fps"] = (self.figures["frames"] - self._frames_told) / max(now - self._told_at, 0.001)
        self._state, self._detail = state, detail
        self._told_at, self._frames_told = now, self.figures["frames"]
        if self._size is not None:
            self.figures["width"], self.figures["height"] = self._size
        self._report(StreamState(self._number, self._connection, state, detail, now, self.figures))

    def _report(self, message: StreamState | Thumbnail) -> None:
        with contextlib.suppress(zmq.Again):  # a watcher that does not keep up is told again in a second
            self._reports.send_multipart(encode(message), flags=zmq.NOBLOCK)

    def _send_thumbnail(self, picture: av.VideoFrame | Image.Image, at: float) -> None:
        with self.stages.timed("thumbnail"):
            width = min(THUMBNAIL_WIDTH, picture.width)
            height = max(2, round(picture.height * width / picture.width / 2) * 2)
            if isinstance(picture, av.VideoFrame):
                try:
                    small = with_known_matrix(picture).reformat(width=width, height=height, format="rgb24")
                except (av.FFmpegError, ValueError):  # no clip comes of it either, and that says why
                    return
                image = Image.fromarray(small.to_ndarray())
            else:
                image = picture.resize((width, height))
            for quality in QUALITIES:
                file = io.BytesIO()
                image.save(file, "JPEG", quality=quality)
                if file.tell() <= THUMBNAIL_MOST:
                    self._report(Thumbnail(self._number, self._connection, at, file.getvalue()))
                    return
