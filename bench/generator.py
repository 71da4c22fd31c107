"""A decoder process without the decoding: the same clip again and again, sent as fast as the queue takes it.

A "video" is only a number of frames, those of so many clips.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from clipmux.engine.child import Setting
from clipmux.engine.config import EngineConfig
from clipmux.engine.control import Link
from clipmux.engine.messages import Assign, ClipKey, Segment, VideoEnd
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.sockets import Context
from clipmux.workers.sources import Video
from clipmux.workers.streamer import Streamer

from .inference import noise_batch

FRAMES_PER_S = 30.0
"""What the times of clips say."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    model = read_model(EngineConfig.from_json(setting.content["config"]).model)
    Generator(model, setting, context, link).run()


def generated(model: ModelFolder, clips: int, number: int) -> Video:
    """A video of so many clips, which only a generator can play."""
    return Video(f"generated-{number}", Path("generated"), "frames", last=clips * model.frames)


def clip_key(video: int, attempt: int, index: int, frames: int) -> ClipKey:
    """The key of a video's clip: clips of so many frames follow one another without a gap."""
    start, stop = index * frames, (index + 1) * frames
    return ClipKey(video, attempt, index, Segment(start + 1, stop + 1, (start / FRAMES_PER_S, stop / FRAMES_PER_S)))


class Generator(Streamer):
    """Fill → send."""

    def __init__(self, model: ModelFolder, setting: Setting, context: Context, link: Link) -> None:
        super().__init__(setting, context, link)
        self._length = model.frames
        self._pictures = list(noise_batch(model, 1)[0])
        self._first_at = 0.0

    def stream(self, order: Assign, video: Video) -> VideoEnd:
        frames = video.last or 0
        clips = frames // self._length
        self._first_at = self._first_at or time.monotonic()
        for index in range(clips):
            self.send(clip_key(order.video, order.attempt, index, self._length), time.monotonic(), self._pictures)
            self.frames += self._length
            self.beat()
        seconds = (0.0, frames / FRAMES_PER_S)
        return VideoEnd(order.video, order.attempt, video.video_id, video.shown, clips, frames, seconds)

    def figures(self) -> dict[str, Any]:
        return {"first_at": self._first_at, "preprocess": "none"}
