"""What decoders do besides decoding: ask for a video, send its clips, tell the collector how many were *sent*."""

from __future__ import annotations

import gc
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.child import Setting
from clipmux.engine.clips import ClipSender, Way
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import VideoError
from clipmux.engine.gather import gather
from clipmux.engine.logs import about
from clipmux.engine.messages import Assign, ClipKey, Control, Goodbye, Hello, Next, Opened, Stop, VideoEnd, VideoFailed
from clipmux.engine.sockets import WAIT_MS, Context, push_reports, send_waiting
from clipmux.engine.stages import Stages
from clipmux.engine.trace import Laps, Trace
from clipmux.engine.wire import encode

from .sources import Video

log = logging.getLogger(__name__)


class Streamer(ABC):
    """A decoder process around its decoding.

    Attributes:
        stages: where its time goes.
        frames: decoded so far.
        clips: sent so far.
        shape: of a clip, ``[T, H, W, C]``.
    """

    def __init__(self, setting: Setting, context: Context, link: Link) -> None:
        self.stages = Stages()
        self.frames = 0
        self.clips = 0
        self._link = link
        self._trace = Trace(setting.trace, setting.name)
        self._laps = Laps(self._trace, self.stages, ("decode", "preprocess", "send"))
        ways = [Way.from_json(way) for way in setting.content["clips"]]
        self.shape = ways[0].layout.shape
        self._sender = ClipSender(context, ways, setting.name)
        self._reports = push_reports(context, setting.addresses.reports)

    @abstractmethod
    def stream(self, order: Assign, video: Video) -> VideoEnd:
        """Send every clip of a video as it is complete.

        Raises:
            VideoError: the video cannot be classified.
        """

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """What it adds to its part of the summary."""

    def run(self) -> None:
        gc.freeze()  # what is loaded stays: collecting after each video then takes a fraction of a millisecond
        self._link.send(Hello())
        while True:
            self._link.send(Next())
            order = expect(self._order(), Assign, Stop)
            if not isinstance(order, Assign):
                break
            send_waiting(self._reports, encode(self._shown_outcome(order)), self.beat)
            gc.collect()  # PyAV's frames are in reference cycles where they have side data: megabytes, few objects
        self._link.send(Goodbye({**self.stages.figures(), "frames": self.frames, **self.figures()}))
        self._sender.close()
        self._reports.close()

    def beat(self) -> None:
        """Tell of progress, now and then."""
        self._link.beat(frames=self.frames, clips=self.clips, busy_s=self.stages.seconds)

    def opened(self, order: Assign) -> None:
        """Tell that the first frame is there; what must not take long from now on is the next one."""
        self._link.send(Opened(order.video))

    def send(self, key: ClipKey, decoded_at: float, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
        """Send one clip; while the queue is full, wait and say so, for waiting is not stalling.

        Args:
            key: which clip.
            decoded_at: when its last frame had been decoded.
            pictures: its frames, uint8 ``[H, W, 3]`` each; copied.
        """
        with self.stages.timed("send"):
            while (place := self._sender.place(WAIT_MS)) is None:
                self.beat()
            gather(place, pictures)
            self._sender.send(key, decoded_at, place)
            self.clips += 1
        self._laps.lap()

    def _order(self) -> Control:
        """What the supervisor says next; while it says nothing, beat."""
        while (order := self._link.receive(WAIT_MS / 1000)) is None:
            self.beat()
        return order

    def _shown_outcome(self, order: Assign) -> VideoEnd | VideoFailed:
        """The outcome of a video, which the log and the trace say that this process is at."""
        video, began, clips, frames = Video.from_dict(order.source), time.monotonic(), self.clips, self.frames
        self._laps.begin()
        with about(video.video_id, order.attempt):
            outcome = self._outcome(order, video)
        self._laps.lap(last=True)
        about_it: dict[str, Any] = {"video": video.video_id, "attempt": order.attempt}
        about_it |= {"clips": self.clips - clips, "frames": self.frames - frames}
        if isinstance(outcome, VideoFailed):
            about_it["failed_at"] = outcome.stage
        self._trace.span("video", began, time.monotonic(), **about_it)
        self._trace.write()
        return outcome

    def _outcome(self, order: Assign, video: Video) -> VideoEnd | VideoFailed:
        try:
            return self.stream(order, video)
        except VideoError as error:
            return _failed(order, video, error)
        except Exception as error:  # a file that meets a fault of ours or of a codec must not cost the others
            log.exception("'%s' met an unexpected error", video.shown)
            message = f"'{video.shown}' met an unexpected error, {type(error).__name__}: {error}"
            return _failed(order, video, VideoError("decode", type(error).__name__, message[:4000]))


def _failed(order: Assign, video: Video, error: VideoError) -> VideoFailed:
    return VideoFailed(order.video, order.attempt, video.video_id, video.shown, error.stage, error.kind, error.message)
