"""One stream as the watcher sees it, by a clock that the test turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipmux.engine.messages import ClipKey, Segment, StreamState
from clipmux.workers.watched import BUCKET_S, LATENCIES_MOST, TIMELINE_S, Lines, Watched

LABELS = ("still", "moving")
UNIX = 1_800_000_000.0
SETTLE_S = 2.0
GAP_S = 3.0  # of clips that are a second long


def watched(**told: Any) -> Watched:
    usual = {"labels": [], "enter": 0.6, "leave": 0.4, "min_duration_s": 0.0, "smooth": 1}
    return Watched({"number": 0, "name": "door", "url": "x", **usual, **told}, LABELS, stride_s=1.0, settle_s=SETTLE_S)


def scored(
    stream: Watched, index: int, score: float, *, now: float, connection: int = 1, latency: float = 0.1
) -> Lines:
    key = ClipKey(0, connection, index, Segment(1, 17, (float(index), index + 1.0)))
    return stream.scored(key, np.array([1 - score, score], np.float32), now - latency, now, UNIX + now)


def state(stream: Watched, what: str, *, now: float, connection: int = 1, **figures: int) -> Lines:
    return stream.hear(StreamState(0, connection, what, "", now, figures), now, UNIX + now)


def test_an_event_has_the_times_at_which_its_clips_were_there() -> None:
    stream = watched()
    scored(stream, 0, 0.1, now=10.0)
    started = scored(stream, 1, 0.9, now=11.0)[-1]
    assert (started["label"], started["start_s"], started["start"]) == ("moving", 1.0, "2027-01-15T08:00:09.900Z")


def test_a_live_stream_of_which_nothing_is_scored_has_a_gap() -> None:
    stream = watched()
    state(stream, "live", now=0.0)
    scored(stream, 0, 0.9, now=1.0)
    assert stream.tick(1.0 + GAP_S + SETTLE_S, UNIX) == []
    ended = stream.tick(1.1 + GAP_S + SETTLE_S, UNIX)
    assert [(line["event"], line["end_s"]) for line in ended] == [("ended", 1.0)]
    assert stream.view(10.0)["labels"] == [], "what was seen so long ago is not what is there"


def test_clips_of_an_older_connection_are_too_late() -> None:
    stream = watched()
    scored(stream, 0, 0.9, now=1.0)
    lines = state(stream, "live", now=2.0, connection=2)
    assert [(line["event"], line["connection"]) for line in lines] == [("ended", 1)]
    assert scored(stream, 0, 0.9, now=2.1) == [], "of the first connection"
    assert state(stream, "stalled", now=2.2) == []
    assert stream.state == "live"
    (line, *_) = scored(stream, 0, 0.9, now=3.0, connection=2)
    assert line["connection"] == 2


def test_drops_are_those_of_all_connections_and_of_inference() -> None:
    stream = watched()
    state(stream, "live", now=0.0, dropped=3)
    state(stream, "live", now=1.0, dropped=5)
    state(stream, "stalled", now=2.0)  # said by the supervisor, who has no figures
    state(stream, "live", now=3.0, connection=2, dropped=2)
    stream.dropped("inference-1", 9)
    stream.dropped("inference-2", 4)  # of another device
    stream.dropped("inference-1", 10)
    assert stream.drops == 5 + 2 + 10 + 4


def test_it_is_settled_when_all_that_was_sent_is_scored_or_dropped_or_too_late() -> None:
    stream = watched()
    scored(stream, 0, 0.9, now=1.0)
    state(stream, "ended", now=1.0, clips=3)
    assert not stream.settled(1.1)
    stream.dropped("inference-1", 1)
    scored(stream, 1, 0.9, now=1.2)
    assert stream.settled(1.3)
    late = watched()
    state(late, "ended", now=1.0, clips=3)
    assert not late.settled(1.0 + SETTLE_S)
    assert late.settled(1.1 + SETTLE_S)


def test_latency_is_that_of_the_last_minute_and_all_memory_is_bounded() -> None:
    stream = watched()
    for index in range(2 * LATENCIES_MOST):
        scored(stream, index, 0.9 if index % 2 else 0.1, now=float(index), latency=(index % 100 + 1) / 100)
    now = float(2 * LATENCIES_MOST)
    latency = stream.view(now)["latency_s"]
    assert latency == {"p50": pytest.approx(0.62), "p99": pytest.approx(0.92)}  # of 33 to 92 hundredths
    assert len(stream.timeline(UNIX + now)) < TIMELINE_S / BUCKET_S + 1
    assert stream.view(now + 100)["latency_s"] is None
    assert stream.timeline(UNIX + now + TIMELINE_S + BUCKET_S) == []
