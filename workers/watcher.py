"""The watcher process: the collector of live streams. Scores in, events out; it is the only writer of both.

Whoever shows something reads what it publishes, and can therefore hold up nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from typing import Any

import msgpack
import zmq

from clipmux.engine.child import Setting
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import MessageError
from clipmux.engine.messages import (
    LIVE,
    Beat,
    Drops,
    Goodbye,
    Happened,
    Hello,
    LiveReport,
    Scores,
    Stop,
    Streams,
    StreamState,
    Thumbnail,
    Totals,
)
from clipmux.engine.model import read_model
from clipmux.engine.sockets import Context, publish_feed, pull_reports
from clipmux.engine.stages import Stages
from clipmux.engine.streams import LiveConfig
from clipmux.engine.wire import decode_live_report

from .event_sinks import open_sinks
from .watched import Watched

log = logging.getLogger(__name__)

TICK_S = 0.1
AT_ONCE = 256
"""Reports taken before anything else is looked after."""
SNAPSHOT_EVERY_S = 0.25
HISTORY_EVERY_S = 2.0
EVENTS_KEPT = 200
SETTLE_S = 1.0
"""How long after the latest that scores may come they are still waited for."""
SILENCE_S, LAST_REPORTS_S = 0.2, 1.0
SINKS_CLOSE_S = 1.5
"""With ``LAST_REPORTS_S`` it is less than the supervisor gives us, so that we can still say what is left."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    config = LiveConfig.from_json(setting.content["config"])
    Watcher(config, setting, context, link).run()


class Watcher:
    """Receive → detect → tell → publish, as steps of one loop that never waits for one of them alone."""

    def __init__(self, config: LiveConfig, setting: Setting, context: Context, link: Link) -> None:
        model = read_model(config.model)
        self._labels = model.labels
        self._stride_s = config.stride_s
        self._pace = config.pace
        self._settle_s = config.max_latency_s + SETTLE_S
        self._sinks = open_sinks(output=config.output, webhook=config.webhook, mqtt=config.mqtt)
        self._link = link
        self._reports = pull_reports(context, setting.addresses.reports)
        self._feed = publish_feed(context, setting.content["feed"]) if setting.content["http"] else None
        self._streams: dict[int, Watched] = {}
        self._totals: dict[str, Any] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._told = 0
        self._first = round(1000 * time.time())
        """Numbers of events go on rising when a watcher begins anew."""
        self._refused = 0
        self._stages = Stages()
        self._snapshot_at = self._history_at = self._beat_at = 0.0
        self._stopping = False

    def run(self) -> None:
        self._link.send(Hello())
        poller = zmq.Poller()
        poller.register(self._reports, zmq.POLLIN)
        poller.register(self._link.socket, zmq.POLLIN)
        while not self._stopping:
            poller.poll(round(TICK_S * 1000))
            self._obey()  # first: reports may be of streams that it has just been told of
            self._receive()
            self._look()
            self._publish()
        self._hear_out()
        for stream in self._streams.values():
            self._tell(stream.finish(time.time()))
        deadline = time.monotonic() + SINKS_CLOSE_S
        for sink in self._sinks:
            sink.close(max(0.0, deadline - time.monotonic()))
        self._link.send(Goodbye({**self._stages.figures(), "events": self._told, "refused": self._refused}))
        self._reports.close(linger=0)
        if self._feed is not None:
            self._feed.close(linger=0)

    # -- receive -------------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                frames = self._reports.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                report = decode_live_report(frames, len(self._labels))
            except MessageError as error:
                self._refused += 1
                log.warning("a report was refused: %s", error)
                continue
            with self._stages.timed("collect"):
                self._take(report)

    def _take(self, report: LiveReport) -> None:
        now, unix = time.monotonic(), time.time()
        if isinstance(report, Scores):
            for key, scores, age in zip(report.keys, report.scores, report.ages, strict=True):
                if stream := self._streams.get(key.video):  # else it was taken away
                    self._tell(stream.scored(key, scores, now - age, now, unix))
        elif isinstance(report, StreamState):
            if stream := self._streams.get(report.stream):
                stream.hear(report, now)
        elif isinstance(report, Drops):
            for number, count in report.counts:
                if stream := self._streams.get(number):
                    stream.dropped(report.process, count)
        elif stream := self._streams.get(report.stream):
            stream.picture_at = unix - (now - report.at)
            self._send_feed(b"thumb", packed_thumbnail(stream.name, report))

    def _obey(self) -> None:
        while (message := self._link.receive(0)) is not None:
            order = expect(message, Streams, Totals, Stop)
            if isinstance(order, Streams):
                self._change(order)
            elif isinstance(order, Totals):
                self._totals = order.figures
            else:
                self._stopping = True

    def _change(self, order: Streams) -> None:
        """Have these streams, and no others; those that are there go on."""
        wanted = {told["number"]: told for told in order.streams}
        for number in self._streams.keys() - wanted.keys():
            stream = self._streams.pop(number)
            self._tell(stream.finish(time.time()))
        for number, told in wanted.items():
            if number in self._streams:
                self._tell(self._streams[number].tell(told, self._stride_s, time.time()))
            else:
                self._streams[number] = Watched(
                    told, self._labels, stride_s=self._stride_s, settle_s=self._settle_s, pace=self._pace
                )
        self._snapshot_at = self._history_at = 0.0

    def _look(self) -> None:
        """What happens because nothing came."""
        now, unix = time.monotonic(), time.time()
        for stream in self._streams.values():
            self._tell(stream.tick(now, unix))
        if now - self._beat_at >= 0.5:
            self._beat_at = now
            settled = [stream.number for stream in self._streams.values() if stream.settled(now)]
            self._link.send(Beat({"settled": settled, "streams": len(self._streams), "events": self._told}))

    def _hear_out(self) -> None:
        """What had been sent before the order to stop; for a bounded time."""
        deadline = time.monotonic() + LAST_REPORTS_S
        while (left := deadline - time.monotonic()) > 0 and self._reports.poll(round(min(SILENCE_S, left) * 1000)):
            self._receive()

    # -- tell ----------------------------------------------------------------------------------------------------------

    def _tell(self, lines: list[dict[str, Any]]) -> None:
        """Events, as they are written, to all who want them."""
        for line in lines:
            body = json.dumps(line, ensure_ascii=False).encode()
            for sink in self._sinks:
                sink.put(body)
            self._told += 1
            self._link.send(Happened(line))
            numbered = {"id": self._first + self._told, **line}
            self._events.append(numbered)
            self._send_feed(b"event", json.dumps(numbered, ensure_ascii=False).encode())

    # -- publish -------------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        if self._feed is None:
            return
        now, unix = time.monotonic(), time.time()
        if now - self._snapshot_at >= SNAPSHOT_EVERY_S:
            self._snapshot_at = now
            self._send_feed(b"snapshot", json.dumps(self._snapshot(now, unix), ensure_ascii=False).encode())
        if now - self._history_at >= HISTORY_EVERY_S:
            self._history_at = now
            timelines = {stream.name: stream.timeline(unix) for stream in self._streams.values()}
            history = {"at": unix, "timelines": timelines, "events": list(self._events)}
            self._send_feed(b"history", json.dumps(history, ensure_ascii=False).encode())

    def _snapshot(self, now: float, unix: float) -> dict[str, Any]:
        streams = list(self._streams.values())
        counted = {
            "streams": len(streams),
            "live": sum(stream.state == LIVE for stream in streams),
            "clips": sum(stream.clips for stream in streams),
            "dropped": sum(stream.drops for stream in streams),
            "events": self._told,
        }
        return {"at": unix, "totals": {**self._totals, **counted}, "streams": [stream.view(now) for stream in streams]}

    def _send_feed(self, topic: bytes, body: bytes) -> None:
        if self._feed is not None:
            self._feed.send_multipart([topic, body])  # a PUB socket never waits: who is slow misses some


def packed_thumbnail(stream: str, thumbnail: Thumbnail) -> bytes:
    packed: bytes = msgpack.packb([stream, thumbnail.jpeg])
    return packed
