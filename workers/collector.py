"""The collector process: clip scores in, predictions out. It is the only writer of results."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from clipmux.engine.child import Setting
from clipmux.engine.config import EngineConfig
from clipmux.engine.control import Link, expect
from clipmux.engine.errors import MessageError, VideoError
from clipmux.engine.messages import Done, Goodbye, Hello, Report, Scores, Stop, VideoEnd, VideoFailed
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.prediction import Prediction
from clipmux.engine.sockets import Context, pull_reports
from clipmux.engine.stages import Stages
from clipmux.engine.trace import Laps, Trace
from clipmux.engine.wire import HEADER_MOST, Frames, TooLongError, decode_report, encode

from .aggregate import VideoScores
from .events import GAP_S, Rule
from .results import RESULTS, Journal, too_long
from .segments import VideoSegments

log = logging.getLogger(__name__)

SYNC_EVERY_S = 0.5
"""Work at risk if the machine itself stops; a crash of any process loses nothing that was reported."""


def run(setting: Setting, context: Context, link: Link) -> None:
    """The role: see engine/child.py."""
    config = EngineConfig.from_json(setting.content["config"])
    folder = setting.content["run_folder"]
    journal = Journal(Path(folder), segments=config.segments) if folder else None
    finished = Finished(setting.content["handed"], setting.content["pending"])
    collector = Collector(config, setting, context, link, journal, finished)
    collector.run()


@dataclass
class Open:
    """A video whose outcome is not known yet, as one attempt at it has it so far."""

    attempt: int
    scores: VideoScores
    segments: VideoSegments | None
    end: VideoEnd | None = None


class Collector:
    """Receive → collect → write. A video is finished when it has as many scores as its decoder *sent* clips."""

    def __init__(
        self,
        config: EngineConfig,
        setting: Setting,
        context: Context,
        link: Link,
        journal: Journal | None,
        finished: Finished,
    ) -> None:
        model = read_model(config.model)
        self._labels = model.labels
        self._top_k = config.top_k
        self._per_clip = config.per_clip
        self._segment_rule = segment_rule(config, model) if config.segments else None
        self._link = link
        self._reports = pull_reports(context, setting.addresses.reports)
        self._journal = journal
        self._open: dict[int, Open] = {}
        self._finished = finished
        self._stages = Stages()
        self._trace = Trace(setting.trace, setting.name)
        self._laps = Laps(self._trace, self._stages, ("collect", "write"))
        self._synced_at = time.monotonic()
        self._refused = 0

    def run(self) -> None:
        self._link.send(Hello())
        poller = zmq.Poller()
        poller.register(self._reports, zmq.POLLIN)
        poller.register(self._link.socket, zmq.POLLIN)
        stopping = False
        while not stopping:
            events = dict(poller.poll(round(SYNC_EVERY_S * 1000)))
            if self._reports in events:
                self._receive()
            if self._link.socket in events:
                expect(self._link.receive(None), Stop)
                stopping = True
            self._sync(now=stopping)
            self._link.beat(busy_s=self._stages.seconds, refused=self._refused, now={"open": len(self._open)})
            self._laps.lap(last=stopping)
            self._trace.tick()
        self._trace.write()
        if self._journal:
            self._journal.close()
        self._link.send(Goodbye({**self._stages.figures(), "refused": self._refused, "unfinished": len(self._open)}))
        self._reports.close(linger=0)

    def _receive(self) -> None:
        try:
            report = decode_report(self._reports.recv_multipart(), len(self._labels))
        except MessageError as error:
            self._refused += 1
            log.warning("a report was refused: %s", error)
            return
        with self._stages.timed("collect"):
            self._collect(report)

    def _collect(self, report: Report) -> None:
        if isinstance(report, VideoFailed):
            if (video := self._current(report.video, report.attempt)) is not None:
                self._finish(report.video, failed(report, video.attempt))
        elif isinstance(report, VideoEnd):
            if (video := self._current(report.video, report.attempt)) is not None:
                video.end = report
                self._finish_if_complete(report.video, video)
        else:
            self._add(report)

    def _add(self, report: Scores) -> None:
        for key, scores in zip(report.keys, report.scores, strict=True):
            video = self._current(key.video, key.attempt)
            if video is not None:
                video.scores.add(key.index, key.segment, scores)
                if video.segments is not None:
                    video.segments.add(key.index, key.segment, scores)
                self._finish_if_complete(key.video, video)

    def _current(self, number: int, attempt: int) -> Open | None:
        """The video's state for this attempt; None if it is finished or a later attempt has begun."""
        if number in self._finished:
            return None
        video = self._open.get(number)
        if video is None or video.attempt < attempt:
            scores = VideoScores(self._labels, top_k=self._top_k, per_clip=self._per_clip)
            segments = VideoSegments(self._labels, self._segment_rule) if self._segment_rule else None
            video = self._open[number] = Open(attempt, scores, segments)
        return video if video.attempt == attempt else None

    def _finish_if_complete(self, number: int, video: Open) -> None:
        end = video.end
        if end is None or len(video.scores) < end.clips:
            return
        try:
            labels = video.scores.mean()
        except VideoError as error:
            self._fail(number, end, error)
            return
        prediction = Prediction(
            video_id=end.video_id,
            path=end.path,
            labels=labels,
            clips=end.clips,
            frames=end.frames,
            seconds=end.seconds,
            per_clip=video.scores.clips(),
            attempt=end.attempt,
        )
        self._finish(number, prediction, None if video.segments is None else video.segments.finish())

    def _finish(self, number: int, prediction: Prediction, segments: dict[str, Any] | None = None) -> None:
        """Write first, report after: whoever hears of an outcome can rely on it."""
        line = prediction.to_json()
        try:
            done = told(Done(number, line))  # first: what cannot be reported must not be written
            if self._journal:
                if segments is not None:
                    segments = {key: line[key] for key in ("video_id", "path")} | segments
                with self._stages.timed("write"):
                    self._journal.write(line, segments)
        except VideoError as error:
            self._fail(number, prediction, error)
            return
        self._open.pop(number, None)
        self._finished.add(number)
        self._link.socket.send_multipart(done)

    def _fail(self, number: int, video: VideoEnd | Prediction, error: VideoError) -> None:
        """Finish a video whose clips were all scored, and which has failed all the same."""
        log.warning("'%s' has failed: %s", video.video_id, error)
        self._finish(number, Prediction(video.video_id, video.path, attempt=video.attempt, error=error))

    def _sync(self, *, now: bool) -> None:
        if self._journal and (now or time.monotonic() - self._synced_at >= SYNC_EVERY_S):
            with self._stages.timed("write"):
                self._journal.sync()
            self._synced_at = time.monotonic()


class Finished:
    """The numbers of all finished videos, in memory that does not grow with the run.

    Numbers are handed out in order, so nearly all finished ones lie below the first that is not.

    Args:
        handed: how many were handed out before.
        pending: those of them that are not finished.
    """

    def __init__(self, handed: int = 0, pending: Collection[int] = ()) -> None:
        self._below = min(pending, default=handed)
        self._above = set(range(self._below, handed)) - set(pending)

    def __contains__(self, number: int) -> bool:
        return number < self._below or number in self._above

    def add(self, number: int) -> None:
        self._above.add(number)
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1


def segment_rule(config: EngineConfig, model: ModelFolder) -> Rule:
    """What makes a segment, from what was asked for."""
    return Rule(
        enter=config.enter,
        leave=config.leave,
        min_duration_s=config.min_duration_s,
        smooth=config.smooth,
        gap_s=config.stride / config.sampling_rate(model) + GAP_S,
    )


def told(done: Done) -> Frames:
    """The frames of an outcome.

    Raises:
        VideoError: it is longer than any message may be.
    """
    try:
        return encode(done)
    except TooLongError as error:
        raise too_long(RESULTS, error.length, HEADER_MOST) from None


def failed(report: VideoFailed, attempt: int) -> Prediction:
    """The outcome of a video that cannot be classified."""
    error = VideoError(report.stage, report.kind, report.message)
    return Prediction(report.video_id, report.path, attempt=attempt, error=error)
