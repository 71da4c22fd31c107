"""A decoder process: asks for a video, streams its clips out, tells the collector how many it sent."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clipmux.engine.child import Setting
from clipmux.engine.clips import Way, open_sender
from clipmux.engine.config import EngineConfig
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import VideoError
from clipmux.engine.messages import Assign, ClipKey, Goodbye, Hello, Next, Segment, Stop, VideoEnd, VideoFailed
from clipmux.engine.model import read_model
from clipmux.engine.sockets import Context, push_reports
from clipmux.engine.stages import Stages
from clipmux.engine.wire import encode

from .decode import Frame, decode
from .preprocess import open_preprocess
from .sources import Video
from .windows import Window, windows

log = logging.getLogger(__name__)

POLL_MS = 250


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    config = EngineConfig.from_json(setting.content["config"])
    decoder = Decoder(config, setting, context, link)
    decoder.run()


class Picture:
    """One preprocessed frame: uint8 ``[H, W, 3]`` and its times."""

    __slots__ = ("duration", "pixels", "seconds")

    def __init__(self, frame: Frame, pixels: npt.NDArray[np.uint8]) -> None:
        self.seconds = frame.seconds
        self.duration = frame.duration
        self.pixels = pixels


class Decoder:
    """Source → decode → windows → preprocess → send, in that order, a video at a time."""

    def __init__(self, config: EngineConfig, setting: Setting, context: Context, link: Link) -> None:
        model = read_model(config.model)
        self._stride = config.stride
        self._length = model.frames
        self._preprocess = open_preprocess(config.preprocess, model.height, model.width)
        self._link = link
        self._clips = open_sender(context, Way.from_json(setting.content["clips"]), setting.name)
        self._reports = push_reports(context, setting.addresses.reports)
        self._stages = Stages()
        self._frames_decoded = 0
        self._clips_sent = 0

    def run(self) -> None:
        gc.freeze()  # what is loaded stays: collecting after each video then takes a fraction of a millisecond
        self._link.send(Hello())
        while True:
            self._link.send(Next())
            order = expect(self._link.receive(None), Assign, Stop)
            if not isinstance(order, Assign):
                break
            self._decode(order)
        figures = {"frames": self._frames_decoded, "preprocess": self._preprocess.chosen}
        self._link.send(Goodbye({**self._stages.figures(), **figures}))
        self._clips.close()
        self._reports.close()

    def _decode(self, order: Assign) -> None:
        video = Video.from_dict(order.source)
        outcome: VideoEnd | VideoFailed
        try:
            outcome = self._stream(order, video)
        except VideoError as error:
            outcome = _failed(order, video, error)
        except Exception as error:  # a file that meets a fault of ours or of a codec must not cost the others
            log.exception("'%s' met an unexpected error", video.path)
            message = f"'{video.path}' met an unexpected error, {type(error).__name__}: {error}"
            outcome = _failed(order, video, VideoError("decode", type(error).__name__, message[:4000]))
        self._reports.send_multipart(encode(outcome))
        gc.collect()  # PyAV's frames are parts of reference cycles where they have side data: megabytes, few objects

    def _stream(self, order: Assign, video: Video) -> VideoEnd:
        """Send every clip of a video as it is complete."""
        first: Frame | None = None
        last: Frame | None = None
        decoded_at = 0.0
        frames = clips = 0

        def counted() -> Iterator[Frame]:
            nonlocal first, last, decoded_at, frames
            for frame in self._timed_frames(video):
                first = first or frame
                last = frame
                decoded_at = time.monotonic()
                frames += 1
                self._frames_decoded += 1
                self._beat()
                yield frame

        for window in windows(counted(), length=self._length, stride=self._stride, keep=self._picture):
            key = ClipKey(order.video, order.attempt, clips, segment_of(window))
            self._send(key, decoded_at, window)
            clips += 1
        if first is None or last is None:
            raise VideoError("decode", "NoFrames", f"'{video.path}' has no frame: nothing to classify")
        return VideoEnd(
            order.video, order.attempt, video.video_id, str(video.path), clips, frames, covered(first, last)
        )

    def _timed_frames(self, video: Video) -> Iterator[Frame]:
        frames = decode(video)
        while True:
            with self._stages.timed("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _picture(self, frame: Frame) -> Picture:
        with self._stages.timed("preprocess"):
            return Picture(frame, self._preprocess(frame))

    def _beat(self) -> None:
        self._link.beat(frames=self._frames_decoded, clips=self._clips_sent, busy_s=self._stages.seconds)

    def _send(self, key: ClipKey, decoded_at: float, window: Window[Picture]) -> None:
        """Send one clip; while the queue is full, wait and say so, for waiting is not stalling."""
        with self._stages.timed("send"):
            while (place := self._clips.place(POLL_MS)) is None:
                self._beat()
            np.stack([picture.pixels for picture in window.frames], out=place)
            self._clips.send(key, decoded_at, place)
            self._clips_sent += 1


def _failed(order: Assign, video: Video, error: VideoError) -> VideoFailed:
    return VideoFailed(
        order.video, order.attempt, video.video_id, str(video.path), error.stage, error.kind, error.message
    )


def segment_of(window: Window[Picture]) -> Segment:
    """The part of the video a window covers; the repeats of a padded one do not count."""
    first, last = window.frames[0], window.frames[window.covered - 1]
    return Segment(window.start + 1, window.start + window.covered + 1, covered(first, last))


def covered(first: Frame | Picture, last: Frame | Picture) -> tuple[float, float] | None:
    """From the first frame's presentation to the end of the last one's; None where frames have no time."""
    if first.seconds is None or last.seconds is None:
        return None
    return (float(first.seconds), float(last.seconds + (last.duration or 0.0)))
