"""A decoder process: source → decode → windows → preprocess → send, a video at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.child import Setting
from clipmux.engine.config import EngineConfig
from clipmux.engine.control import Link
from clipmux.engine.errors import VideoError
from clipmux.engine.files import FileReader
from clipmux.engine.jail import allow_cpu
from clipmux.engine.messages import Assign, ClipKey, Segment, VideoEnd
from clipmux.engine.sockets import Context

from .decode import Frame, decode
from .moved import Moved
from .preprocess import open_preprocess
from .sources import Video
from .streamer import Streamer
from .time_windows import TimedWindow, TimeWindows
from .windows import Window, in_a_window, windows


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


class Decoder(Streamer):
    """Source → decode → windows → preprocess → send, in that order, a video at a time."""

    def __init__(self, config: EngineConfig, setting: Setting, context: Context, link: Link) -> None:
        super().__init__(setting, context, link)
        self._length, height, width, _ = self.shape
        self._guards = config.guards
        self._jail = setting.content.get("jail", "")
        self._stride = config.stride
        self._threads = config.decode_threads
        self._rate: float | None = setting.content["rate"] if config.segments else None
        self._preprocess = open_preprocess(config.preprocess, height, width)
        self._moved = Moved.from_json(setting.content["moved"]) if "moved" in setting.content else Moved()
        self._files = FileReader(context, setting.addresses.files) if setting.content.get("fetch") else None

    def stream(self, order: Assign, video: Video) -> VideoEnd:
        allow_cpu(self._guards.kernel_cpu_s)
        here, source = self._moved.video(video), None
        if (files := self._files) is not None and not video.url:
            if video.kind == "frames":
                what = f"'{video.shown}' is a folder of frames, which decode --fetch does not fetch"
                raise VideoError("open", "NotAFile", f"{what}: let this host reach the folder")
            here, source = video, lambda: files.open(order.video)
        first: Frame | None = None
        last: Frame | None = None
        decoded_at = 0.0
        frames = clips = 0

        def counted() -> Iterator[Frame]:
            nonlocal first, last, decoded_at, frames
            for frame in self._timed_frames(here, source):
                if first is None:
                    first = frame
                    self.opened(order)
                last = frame
                decoded_at = time.monotonic()
                frames += 1
                self.frames += 1
                self.beat()
                yield frame

        for segment, pictures in self._clips(counted(), video):
            key = ClipKey(order.video, order.attempt, clips, segment)
            self.send(key, decoded_at, [picture.pixels for picture in pictures])
            clips += 1
        if first is None or last is None:
            raise VideoError("decode", "NoFrames", f"'{video.shown}' has no frame: nothing to classify")
        return VideoEnd(order.video, order.attempt, video.video_id, video.shown, clips, frames, covered(first, last))

    def _clips(self, frames: Iterator[Frame], video: Video) -> Iterator[tuple[Segment, tuple[Picture, ...]]]:
        if self._rate is None:
            for window in windows(frames, length=self._length, stride=self._stride, keep=self._picture):
                yield segment_of(window), window.frames
        else:
            for timed in timed_windows(frames, video, self._length, self._stride, self._rate, self._picture):
                yield Segment(timed.start + 1, timed.start + timed.covered + 1, timed.seconds), timed.frames

    def figures(self) -> dict[str, Any]:
        return {"preprocess": self._preprocess.chosen, "jail": self._jail}

    def _timed_frames(self, video: Video, source: Callable[[], Any] | None) -> Iterator[Frame]:
        frames = decode(video, threads=self._threads, guards=self._guards, wanted=self._wanted, source=source)
        while True:
            with self.stages.timed("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _wanted(self, number: int) -> bool:
        return self._rate is not None or in_a_window(number, length=self._length, stride=self._stride)

    def _picture(self, frame: Frame) -> Picture:
        with self.stages.timed("preprocess"):
            return Picture(frame, self._preprocess(frame))


def timed_windows(
    frames: Iterator[Frame], video: Video, length: int, stride: int, rate: float, keep: Callable[[Frame], Picture]
) -> Iterator[TimedWindow[Picture]]:
    """Clips sampled in time at ``rate``, as of a live stream; ``stride`` is in frames of that rate.

    Before a gap as at the end, the clip that has begun is filled up; frames count on after it.
    """
    cutter = TimeWindows(length=length, rate=rate, stride_s=stride / rate, keep=keep)
    before = 0

    def numbered(clips: Iterable[TimedWindow[Picture]]) -> Iterator[TimedWindow[Picture]]:
        return (dataclasses.replace(clip, start=before + clip.start) for clip in clips)

    for frame in frames:
        if frame.seconds is None:
            raise VideoError(
                "decode", "NoTimes", f"'{video.shown}' is a folder of frames, which have no times: leave out --segments"
            )
        if cutter.breaks(frame.seconds):
            yield from numbered(cutter.end())
            before += cutter.taken
        yield from numbered(cutter.add(frame, frame.seconds, frame.duration))
    yield from numbered(cutter.end())


def segment_of(window: Window[Picture]) -> Segment:
    """The part of the video a window covers; the repeats of a padded one do not count."""
    first, last = window.frames[0], window.frames[window.covered - 1]
    return Segment(window.start + 1, window.start + window.covered + 1, covered(first, last))


def covered(first: Frame | Picture, last: Frame | Picture) -> tuple[float, float] | None:
    """From the first frame's presentation to the end of the last one's; None where frames have no time."""
    if first.seconds is None or last.seconds is None:
        return None
    return (float(first.seconds), float(last.seconds + (last.duration or 0.0)))
