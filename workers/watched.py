"""What is known of one live stream: its state, scores, latency, drops and last five minutes. Pure, in bounded memory.

Times are ``time.monotonic()`` seconds unless named ``unix``; they are passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.messages import CONNECTING, ENDED, LIVE, ClipKey, StreamState

from .aggregate import top
from .events import GAP_S, Detector, Event, InOrder, Rule, Seen

TOP_K = 3
LATENCY_OVER_S = 60.0
LATENCIES_MOST = 4096
BUCKET_S = 2
TIMELINE_S = 300
EARLIER_CLIP_S = 0.5
"""How long a clip waits for an earlier one: runners overtake each other by less, and events come within a second."""


Lines = list[dict[str, Any]]
"""Events as JSON."""


class Watched:
    """One stream, as the watcher sees it.

    Args:
        told: what the supervisor says of it: ``number``, ``name``, ``url`` (without credentials), ``labels``,
            ``enter``, ``leave``, ``min_duration_s``, ``smooth``.
        labels: one name per class of the model.
        stride_s: stream time from one clip's start to the next's.
        settle_s: how long scores of clips may still come after a stream has ended.
        pace: how many times faster than the clock its own time may go; cameras' never does.
    """

    def __init__(
        self, told: dict[str, Any], labels: Sequence[str], *, stride_s: float, settle_s: float, pace: float = 1.0
    ) -> None:
        self.number: int = told["number"]
        self.name: str = told["name"]
        self.told = told
        self._labels = labels
        self._settle_s = settle_s
        rule = rule_of(told, stride_s)
        self._detector = Detector(labels, rule)
        self._silence_s = rule.gap_s / min(1.0, pace) + settle_s
        """A stream of which nothing was scored for so long has a gap, though no clip has come to show it."""
        self._connection = 1
        self._in_order = _in_order()
        self._state = StreamState(self.number, 1, CONNECTING, "", 0.0)
        self._latencies: deque[tuple[float, float]] = deque(maxlen=LATENCIES_MOST)
        self._timeline: deque[tuple[int, str, float]] = deque(maxlen=TIMELINE_S // BUCKET_S)
        self._clips = 0
        self._clips_here = 0
        """Scored in this connection."""
        self._dropped_before = 0
        """By the camera, in earlier connections."""
        self._dropped_by: dict[str, int] = {}
        """By each inference process, in all connections."""
        self._dropped_late_before = 0
        self._heard = 0.0
        self.picture_at: float | None = None
        """Unix time of its last thumbnail."""

    def tell(self, told: dict[str, Any], stride_s: float, unix: float) -> Lines:
        """Take what the supervisor says of it now; where that makes other events, those that are open end."""
        rule = rule_of(told, stride_s)
        lines: Lines = []
        if rule != rule_of(self.told, stride_s):
            lines = self.finish(unix)
            self._detector = Detector(self._labels, rule)
        self.told = told
        return lines

    def scored(
        self, key: ClipKey, scores: npt.NDArray[np.float32], decoded_at: float, now: float, unix: float
    ) -> Lines:
        """Take the scores of a clip, float32 ``[classes]``; returns what has happened.

        Args:
            key: which clip; its segment has seconds.
            scores: a copy is kept.
            decoded_at: when its last frame had been decoded.
            now: when the scores came.
            unix: the Unix time of ``now``.
        """
        if key.attempt < self._connection or key.segment.seconds is None:
            return []
        events = self._connect(key.attempt, unix) if key.attempt > self._connection else []
        self._heard = now
        self._clips += 1
        self._clips_here += 1
        self._latencies.append((now, now - decoded_at))
        start, end = key.segment.seconds
        seen = Seen(start, end, np.array(scores), at=unix - (now - decoded_at))
        return events + self._detect(self._in_order.add(key.index, seen, now), unix)

    def hear(self, state: StreamState, now: float) -> None:
        """Take what its camera or the supervisor says of it.

        A new connection does not mean that all clips of the one before are scored: the first that is scored of it does.
        """
        if state.connection < self._state.connection:
            return
        if state.connection > self._state.connection:
            self._dropped_before += int(self._state.figures.get("dropped", 0))
        if state.state != self._state.state:
            self._heard = now
        figures = state.figures or (self._state.figures if state.connection == self._state.connection else {})
        self._state = StreamState(state.stream, state.connection, state.state, state.detail, state.at, figures)

    def dropped(self, process: str, count: int) -> None:
        """Take how many of its clips an inference process has dropped so far."""
        self._dropped_by[process] = count

    def tick(self, now: float, unix: float) -> Lines:
        """Look for what has waited long enough: clips for earlier ones, events of a stream that gives no more clips."""
        events = self._detect(self._in_order.due(now), unix)
        ended = self._state.state not in (LIVE, CONNECTING) and self._nothing_more(now)
        if ended or now - self._heard > self._silence_s:
            events += self.finish(unix)
        return events

    def settled(self, now: float) -> bool:
        """The stream has ended, and so has everything that was to be told of it."""
        return self._state.state == ENDED and self._nothing_more(now)

    def finish(self, unix: float) -> Lines:
        """Nothing more will come of this connection: what waits has its turn, and all events end."""
        return self._detect(self._in_order.rest(), unix) + self._lines(self._detector.end())

    # -- what is shown -------------------------------------------------------------------------------------------------

    def view(self, now: float) -> dict[str, Any]:
        """What a page shows of it now, ready for JSON."""
        figures = self._state.figures
        return {
            "name": self.name,
            "url": self.told["url"],
            "state": self._state.state,
            "detail": self._state.detail,
            "connection": self._state.connection,
            "labels": self._leading(),
            "latency_s": self._latency(now),
            "clips": self._clips,
            "dropped": self.drops,
            "picture_at": self.picture_at,
            **{key: figures[key] for key in ("fps", "width", "height") if key in figures},
        }

    @property
    def drops(self) -> int:
        """Clips that were never scored, by whoever dropped them."""
        return self._dropped_before + int(self._state.figures.get("dropped", 0)) + self._dropped_late

    @property
    def state(self) -> str:
        return self._state.state

    @property
    def clips(self) -> int:
        """How many were scored."""
        return self._clips

    def timeline(self, unix: float) -> list[tuple[int, str, float]]:
        """The leading label and its smoothed score in each ``BUCKET_S`` seconds of the last five minutes.

        The first of each three is Unix time ÷ ``BUCKET_S``; times without a clip have none.
        """
        oldest = int(unix // BUCKET_S) - TIMELINE_S // BUCKET_S
        while self._timeline and self._timeline[0][0] <= oldest:
            self._timeline.popleft()
        return list(self._timeline)

    def _leading(self) -> list[dict[str, Any]]:
        smoothed = self._detector.smoothed
        if smoothed is None:
            return []
        best = top(smoothed.astype(np.float32), self._labels, TOP_K)
        return [{"label": item.label, "score": round(item.score, 4)} for item in best]

    def _latency(self, now: float) -> dict[str, float] | None:
        while self._latencies and self._latencies[0][0] < now - LATENCY_OVER_S:
            self._latencies.popleft()
        ordered = sorted(latency for _, latency in self._latencies)
        if not ordered:
            return None
        return {f"p{percent}": round(_percentile(ordered, percent), 4) for percent in (50, 99)}

    @property
    def _dropped_late(self) -> int:
        return sum(self._dropped_by.values())

    # -- clips in order ------------------------------------------------------------------------------------------------

    def _connect(self, connection: int, unix: float) -> Lines:
        events = self.finish(unix)
        self._connection = connection
        self._in_order = _in_order()
        self._clips_here = 0
        self._dropped_late_before = self._dropped_late
        return events

    def _detect(self, clips: Sequence[Seen], unix: float) -> Lines:
        lines: Lines = []
        for clip in clips:
            if np.isfinite(clip.scores).all():  # else it says nothing, as one that was dropped
                lines += self._lines(self._detector.add(clip))
        if clips:
            self._mark(unix)
        return lines

    def _lines(self, events: Sequence[Event]) -> Lines:
        """Events as they are written, sent and shown."""
        return [
            {
                "stream": self.name,
                "event": event.kind,
                "label": event.label,
                "start": _iso(event.start_at),
                "end": _iso(event.end_at),
                "start_s": event.start_s,
                "end_s": event.end_s,
                "peak": event.peak,
                "connection": self._connection,
            }
            for event in events
        ]

    def _mark(self, unix: float) -> None:
        """Let the last clip have its place on the timeline."""
        leading = self._leading()
        if not leading:
            return
        bucket = int(unix // BUCKET_S)
        if self._timeline and self._timeline[-1][0] >= bucket:
            self._timeline.pop()
        self._timeline.append((bucket, leading[0]["label"], leading[0]["score"]))

    def _nothing_more(self, now: float) -> bool:
        """No clip of this connection can still come, or none came for as long as one may take."""
        if now - self._heard > self._settle_s:
            return True
        sent = self._state.figures.get("clips")
        known = self._clips_here + self._dropped_late - self._dropped_late_before
        here = self._state.connection == self._connection
        # Only its camera's last word counts: others are a second old.
        return here and self._state.state == ENDED and sent is not None and known >= sent


def rule_of(told: dict[str, Any], stride_s: float) -> Rule:
    """What makes an event of a stream, from what was said of it."""
    return Rule(
        enter=told["enter"],
        leave=told["leave"],
        min_duration_s=told["min_duration_s"],
        smooth=told["smooth"],
        labels=tuple(told["labels"]),
        gap_s=stride_s + GAP_S,
    )


def _iso(unix: float | None) -> str | None:
    if unix is None:
        return None
    return datetime.fromtimestamp(unix, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_order() -> InOrder[Seen]:
    return InOrder(wait_s=EARLIER_CLIP_S)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of all are at most."""
    return ordered[-(-len(ordered) * percent // 100) - 1]
