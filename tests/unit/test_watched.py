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


def state(stream: Watched, what: str, *, now: float, connection: int = 1, **figures: int) -> None:
    stream.hear(StreamState(0, connection, what, "", now, figures), now)


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


def test_a_new_connections_first_clip_ends_the_one_before_and_not_its_first_word() -> None:
    stream = watched()
    scored(stream, 0, 0.9, now=1.0)
    state(stream, "reconnecting", now=2.0, connection=2)
    scored(stream, 1, 0.9, now=2.1)  # was on its way
    state(stream, "live", now=2.2, connection=2)
    state(stream, "stalled", now=2.3)  # of the first connection, and late
    assert stream.state == "live"
    lines = scored(stream, 0, 0.9, now=3.0, connection=2)
    assert [(line["event"], line["connection"], line["end_s"]) for line in lines] == [
        ("ended", 1, 2.0),
        ("started", 2, None),
    ]
    assert scored(stream, 2, 0.9, now=3.1) == [], "of the first connection"
    assert stream.view(3.1)["clips"] == 3


def test_what_is_on_its_way_is_waited_for_when_a_stream_ends_in_a_connection_without_clips() -> None:
    stream = watched()
    scored(stream, 0, 0.9, now=1.0)
    state(stream, "ended", now=1.0, connection=2, clips=0)
    assert not stream.settled(1.1)
    scored(stream, 1, 0.9, now=1.2)
    assert not stream.settled(1.1 + SETTLE_S)
    assert stream.settled(1.3 + SETTLE_S)


def test_another_rule_ends_what_is_open_and_another_weight_does_not() -> None:
    stream = watched()
    state(stream, "live", now=0.0, dropped=3)
    scored(stream, 0, 0.9, now=1.0)
    assert stream.tell({**stream.told, "weight": 2.0}, 1.0, UNIX) == []
    (ended,) = stream.tell({**stream.told, "enter": 0.95}, 1.0, UNIX)
    assert ended["event"] == "ended"
    assert scored(stream, 1, 0.9, now=2.0) == []
    assert (stream.state, stream.clips, stream.drops) == ("live", 2, 3)


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


def test_scores_that_are_no_numbers_start_and_end_nothing() -> None:
    stream = watched()
    assert scored(stream, 0, float("nan"), now=1.0) == []
    assert [line["label"] for line in scored(stream, 1, 0.9, now=2.0)] == ["moving"]
    assert scored(stream, 2, float("nan"), now=3.0) == []
    assert stream.view(3.0)["labels"][0]["label"] == "moving"
    lines = scored(stream, 3, 0.1, now=4.0)
    assert [line["end_s"] for line in lines if (line["event"], line["label"]) == ("ended", "moving")] == [2.0]
