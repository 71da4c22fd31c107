"""The inference process: clips in, batches through the device, clip scores out."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from typing import Any

import numpy as np
import zmq

from .backends import choose, keep_to_cores, open_backend
from .batcher import Batcher, Waiting
from .child import Setting
from .clips import ClipReceiver, Way
from .config import AHEAD, EngineConfig
from .control import BEAT_EVERY_S, Link, expect
from .device import Device, Result
from .errors import ClipmuxError, UsageError
from .fair import FairBatcher
from .histogram import Histogram
from .messages import Clip, Drops, Expect, Goodbye, Hello, Scores, Stop, Streams
from .model import ModelFolder, read_model
from .sockets import Context, push_reports, send_waiting
from .stages import Stages
from .streams import LiveConfig
from .trace import Laps, Trace
from .wire import encode

log = logging.getLogger(__name__)

TURN = 16
"""Clips taken from the socket before the device is looked after again."""
DROPS_EVERY_S = 1.0
LAST_WAIT_S = 0.02
"""How long to wait for clips that may still be inside the sockets once all decoders are done."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    config = EngineConfig.from_json(setting.content["config"])
    inference = Inference(config, setting, context, link)
    inference.run()


def _the_model(config: EngineConfig, setting: Setting) -> ModelFolder:
    """The model folder; where this process was started elsewhere, it must be the one that the engine has."""
    model = read_model(config.model)
    there = setting.content.get("same_model")
    if there is not None and model.to_json() != there:
        raise UsageError(f"'{model.path}' is another model than the run's '{there['name']}': give it with --model")
    return model


class Inference:
    """Receive → batch → infer → score → send, as four steps of one loop that never waits for one of them alone."""

    def __init__(self, config: EngineConfig, setting: Setting, context: Context, link: Link) -> None:
        model = _the_model(config, setting)
        self._process = setting.name
        device = self._name = config.devices[setting.content["device"]]
        keep_to_cores(device)
        name = choose(config.backend, device, model.target)
        self._backend = open_backend(
            name, model, device=device, max_batch=config.max_batch, null_delay_ms=config.null_delay_ms
        )
        self._classes = len(model.labels)
        self._clip_shape = model.clip_shape
        self._device: Device[list[Clip]] = Device(self._backend, model.clip_shape)
        self._max_delay = config.max_delay_s
        self._link = link
        self._batcher, enough = self._waiting(config, setting)
        (way,) = setting.content["clips"]
        self._clips = ClipReceiver(context, Way.from_json(way), enough=enough)
        self._reports = push_reports(context, setting.addresses.reports)
        self._more = True
        self._left = False
        """The last look at the socket may not have emptied it."""
        self._stopping = False
        self._stages = Stages()
        self._latency = Histogram()
        self._batches: Counter[int] = Counter()
        self._in_device = 0
        runners = (f"runner {number}" for number in range(self._backend.runners))
        self._trace = Trace(setting.trace, setting.name, tracks=("main", *runners))
        self._laps = Laps(self._trace, self._stages, ("copy", "send"))
        self._began, self._ended = 0.0, 0.0  # the first batch, the last score
        self._drops_told: dict[int, int] = {}
        self._drops_at = 0.0

    def run(self) -> None:
        self._warm_up()
        self._link.send(Hello(self._about()))
        while not self._stopping:
            self._receive()
            self._give_up()
            self._dispatch()
            self._send_scores()
            self._obey()
            self._laps.lap()
            self._trace.tick()
            self._wait()
        self._trace.write()
        self._device.close()
        self._link.send(Goodbye(self._figures()))
        self._clips.close()
        self._reports.close()

    def _waiting(self, config: EngineConfig, setting: Setting) -> tuple[Waiting[Clip], int]:
        """Where clips wait for the device, and how many may be on their way: of streams, as many as there is room."""
        size = self._backend.preferred_batch
        if (content := setting.content.get("live")) is None:
            batcher: Batcher[Clip] = Batcher(
                size=size,
                max_delay=config.max_delay_s,
                video_of=lambda clip: clip.key.video,
                runners=self._backend.runners,
            )
            return batcher, AHEAD * size
        live = LiveConfig.from_json(content)
        capacity = max(size, live.max_streams * live.clips_in_time)
        fair: FairBatcher[Clip] = FairBatcher(
            size=size,
            max_delay=config.max_delay_s,
            max_latency=live.max_latency_s,
            capacity=capacity,
            stream_of=lambda clip: clip.key.video,
            decoded_at=lambda clip: clip.decoded_at,
            runners=self._backend.runners,
        )
        return fair, capacity

    def _warm_up(self) -> None:
        """One empty clip, so that a device or network that cannot work says so before any video is handed out."""
        self._device.submit([np.zeros(self._clip_shape, np.uint8)], [])
        while not (results := self._device.finished()):
            zmq.select([self._device.fileno()], [], [], 1.0)
        classes = results[0].scores.shape[-1]
        if classes != self._classes:
            raise ClipmuxError(f"the network gives {classes} scores, its model.json lists {self._classes} labels")

    def _receive(self) -> None:
        most = min(TURN, self._batcher.room)
        clips = self._clips.receive(most)
        for clip in clips:
            self._batcher.add(clip, time.monotonic())
        self._left = 0 < most == len(clips)

    def _give_up(self) -> None:
        """Only streams may lose clips: see engine/fair.py. Told about once a second."""
        now = time.monotonic()
        if dropped := self._batcher.dropped(now):
            self._clips.release(dropped)
        if now - self._drops_at >= DROPS_EVERY_S and (drops := self._batcher.drops) != self._drops_told:
            self._drops_told, self._drops_at = drops, now
            message = Drops(self._process, [[stream, count] for stream, count in drops.items()])
            self._reports.send_multipart(encode(message))

    def _dispatch(self) -> None:
        while self._device.free:
            clips = self._batcher.take(time.monotonic(), idle=self._device.idle, more=self._more_may_come())
            if not clips:
                return
            self._began = self._began or time.monotonic()
            with self._stages.timed("copy"):
                self._device.submit([clip.pixels for clip in clips], clips)
            self._in_device += len(clips)
            self._clips.release(clips)

    def _more_may_come(self) -> bool:
        """Further clips may be on their way: not if those who sent what is here have no slot for another."""
        if self._left or self._batcher.room <= 0:
            return True
        partial = self._device.idle and len(self._batcher) < self._batcher.size
        return self._more and not (partial and self._clips.exhausted)

    def _send_scores(self) -> None:
        for result in self._device.finished():
            now = self._ended = time.monotonic()
            for clip in result.tag:
                self._latency.add(now - clip.decoded_at)
            self._batches[len(result.tag)] += 1
            self._batcher.took(len(result.tag), result.seconds)
            self._stages.add("infer", result.seconds)
            self._in_device -= len(result.tag)
            self._show(result)
            with self._stages.timed("send"):
                keys, ages = tuple(clip.key for clip in result.tag), tuple(now - clip.decoded_at for clip in result.tag)
                send_waiting(self._reports, encode(Scores(keys, result.scores, ages)), self._beat)
        self._beat()

    def _beat(self) -> None:
        if self._link.beat_due:
            self._link.beat(**self._counts())

    def _obey(self) -> None:
        while (message := self._link.receive(0)) is not None:
            order = expect(message, Expect, Streams, Stop)
            if isinstance(order, Expect):
                self._more = order.more
            elif isinstance(order, Stop):
                self._stopping = True
            elif isinstance(order, Streams) and isinstance(self._batcher, FairBatcher):
                self._batcher.weigh({stream["number"]: stream["weight"] for stream in order.streams})

    def _wait(self) -> None:
        """Until a clip, a result or an order comes, or a partial batch is due."""
        if self._stopping or self._left or (self._device.free and self._batcher.full(idle=self._device.idle)):
            return
        watched: list[Any] = [self._device.fileno(), self._link.socket]
        if self._batcher.room > 0:
            watched.append(self._clips.socket)
        timeout = BEAT_EVERY_S
        due = self._batcher.due(time.monotonic())
        if due is not None and self._device.idle:
            timeout = min(timeout, due if self._more else LAST_WAIT_S)
        zmq.select(watched, [], [], math.ceil(timeout * 1000) / 1000)

    def _busy_share(self) -> float:
        """How much of the time between the first batch and the last score its runners had something to do."""
        time_to_use = self._backend.runners * (self._ended - self._began)
        return self._stages.seconds.get("infer", 0.0) / time_to_use if time_to_use > 0 else 0.0

    def _counts(self) -> dict[str, Any]:
        """What a beat tells."""
        return {
            "device": self._name,
            "clips": self._scored(),
            "busy_s": self._stages.seconds,
            "batch_sizes": {str(size): count for size, count in self._batches.items()},
            "latency": self._latency.counts(),
            "latency_s": self._latency.seconds,
            "refused": self._clips.refused,
            "drops": self._drops(),
            "now": {
                "in_batcher": len(self._batcher),
                "in_device": self._in_device,
                "call_s": self._device.longest_call_s(),
            },
        }

    def _show(self, result: Result[list[Clip]]) -> None:
        """A batch, in the trace: when it was on which runner, and how many clips of how many videos it had."""
        if self._trace.on:
            clips = result.tag
            oldest = result.began - min(clip.decoded_at for clip in clips)
            self._trace.span(
                "infer",
                result.began,
                result.began + result.seconds,
                track=1 + result.runner,
                clips=len(clips),
                videos=len({clip.key.video for clip in clips}),
                oldest_ms=round(1000 * oldest),
            )

    def _drops(self) -> dict[str, int]:
        """Clips that were given up, by stream."""
        return {str(stream): count for stream, count in self._batcher.drops.items()}

    def _scored(self) -> int:
        return sum(size * count for size, count in self._batches.items())

    def _about(self) -> dict[str, Any]:
        return {
            "backend": self._backend.name,
            "device": self._backend.device,
            "chosen": self._backend.chosen,
            "preferred_batch": self._backend.preferred_batch,
            "runners": self._backend.runners,
            "places": self._device.places,
            "room": self._clips.room,
        }

    def _figures(self) -> dict[str, Any]:
        return {
            **self._stages.figures(),
            "device": self._name,
            "clips": self._scored(),
            "batches": sum(self._batches.values()),
            "batch_sizes": {str(size): count for size, count in sorted(self._batches.items())},
            "preferred_batch": self._backend.preferred_batch,
            "busy_share": self._busy_share(),
            "latency": self._latency.counts(),
            "refused": self._clips.refused,
            "drops": self._drops(),
        }
