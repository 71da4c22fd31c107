"""Events of scores: hysteresis, durations and gaps, against a plain reading of the rule; order of arrival."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmux.workers.events import ENDED, STARTED, Detector, Event, InOrder, Rule, Seen

LABELS = ("still", "moving", "gone")
SCORES = st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0])


def seen(index: int, score: float, *, at: float | None = None) -> Seen:
    """A clip of one second whose class 1 has this score."""
    return Seen(float(index), index + 1.0, np.array([0.0, score, 0.0], np.float32), at)


def detected(clips: Sequence[Seen], rule: Rule) -> list[Event]:
    detector = Detector(LABELS, rule)
    events = [event for clip in clips for event in detector.add(clip)]
    return events + detector.end()


def spans(events: Sequence[Event]) -> list[tuple[float, float | None]]:
    return [(event.start_s, event.end_s) for event in events if event.kind == ENDED]


def test_the_worked_example() -> None:
    scores = [0.1, 0.7, 0.5, 0.8, 0.3, 0.9, 0.2]
    rule = Rule(enter=0.6, leave=0.4, min_duration_s=2.0, smooth=1)
    detector = Detector(LABELS, rule)
    told = [detector.add(seen(index, score)) for index, score in enumerate(scores)]
    assert [len(events) for events in told] == [0, 0, 1, 0, 1, 0, 0]
    assert told[2] == [Event(STARTED, "moving", 1.0, None, pytest.approx(0.7))]
    assert told[4] == [Event(ENDED, "moving", 1.0, 4.0, pytest.approx(0.8))]
    assert detector.end() == []


def test_a_score_is_the_mean_over_the_last_clips() -> None:
    detector = Detector(LABELS, Rule(smooth=3, enter=0.6, leave=0.4, min_duration_s=0.0))
    means = []
    for index, score in enumerate([0.9, 0.0, 0.0, 0.9, 0.9]):
        detector.add(seen(index, score))
        assert detector.smoothed is not None
        means.append(float(detector.smoothed[1]))
    assert means == pytest.approx([0.9, 0.45, 0.3, 0.3, 0.6])


def test_wall_times_are_those_of_the_clips() -> None:
    clips = [seen(index, score, at=1000.0 + index) for index, score in enumerate([0.0, 0.9, 0.9, 0.0])]
    started, ended = detected(clips, Rule(smooth=1, min_duration_s=0.0))
    assert (started.start_at, started.end_at) == (1000.0, None)
    assert (ended.start_at, ended.end_at) == (1000.0, 1002.0)


def test_only_labels_of_interest_make_events() -> None:
    scores = np.array([0.9, 0.9, 0.9], np.float32)
    clips = [Seen(float(index), index + 1.0, scores) for index in range(3)]
    assert {event.label for event in detected(clips, Rule(smooth=1))} == set(LABELS)
    assert {event.label for event in detected(clips, Rule(smooth=1, labels=("gone",)))} == {"gone"}


@pytest.mark.parametrize("jump", [3.0, -1.0], ids=["ahead", "back"])
def test_a_gap_ends_events_at_the_last_clip_before_it(jump: float) -> None:
    rule = Rule(smooth=1, min_duration_s=0.0, gap_s=3.0)
    before = [seen(10, 0.9), seen(11, 0.9)]
    after = [seen(int(12 + jump if jump > 0 else 11 + jump), 0.9)]
    assert spans(detected(before + after, rule)) == [(10.0, 12.0), (after[0].start_s, after[0].end_s)]
    lost = [seen(14, 0.9)]  # as far as the rule allows
    assert spans(detected(before + lost, rule)) == [(10.0, 15.0)]


def test_smoothing_begins_anew_after_a_gap() -> None:
    detector = Detector(LABELS, Rule(smooth=10))
    detector.add(seen(0, 1.0))
    detector.add(seen(100, 0.2))
    assert detector.smoothed is not None
    assert detector.smoothed[1] == pytest.approx(0.2)


def read_plainly(scores: Sequence[float], rule: Rule) -> list[tuple[float, float]]:
    """Spans by the rule's words alone: clips of a second, all there."""
    smoothed = [
        float(np.mean(np.array(scores[max(0, i + 1 - rule.smooth) : i + 1], np.float32), dtype=np.float64))
        for i in range(len(scores))
    ]
    found: list[tuple[float, float]] = []
    i = 0
    while i < len(scores):
        if smoothed[i] >= rule.enter:
            end = i
            while end < len(scores) and smoothed[end] >= rule.leave:
                end += 1
            if end - i >= rule.min_duration_s:
                found.append((float(i), float(end)))
            i = end
        i += 1
    return found


@given(
    scores=st.lists(SCORES, max_size=40),
    thresholds=st.tuples(SCORES, SCORES).map(sorted),
    duration=st.integers(0, 5),
    smooth=st.integers(1, 5),
)
def test_events_are_those_of_the_rule(scores: list[float], thresholds: list[float], duration: int, smooth: int) -> None:
    leave, enter = thresholds
    rule = Rule(enter=enter, leave=leave, min_duration_s=float(duration), smooth=smooth, labels=("moving",))
    events = detected([seen(index, score) for index, score in enumerate(scores)], rule)
    assert spans(events) == read_plainly(scores, rule)
    assert [event.kind for event in events] == [STARTED, ENDED] * (len(events) // 2)
    for started, ended in zip(events[::2], events[1::2], strict=True):
        assert started.start_s == ended.start_s
        assert started.peak <= ended.peak


@given(st.permutations(range(12)))
def test_any_order_of_arrival_comes_out_in_order(order: list[int]) -> None:
    queue: InOrder[int] = InOrder(wait_s=math.inf)
    assert [item for number in order for item in queue.add(number, number, 0.0)] == list(range(12))
    assert len(queue) == 0


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 5))
def test_what_is_missing_is_given_up_when_too_much_waits(numbers: list[int], most: int) -> None:
    queue: InOrder[int] = InOrder(wait_s=math.inf, most=most)
    out: list[int] = []
    for number in numbers:
        out += queue.add(number, number, 0.0)
        assert len(queue) <= most
    out += queue.rest()
    assert out == sorted(set(out))
    assert set(out) <= set(numbers)


def test_what_is_missing_is_given_up_after_a_while() -> None:
    queue: InOrder[str] = InOrder(wait_s=0.5)
    assert queue.add(0, "a", 0.0) == ["a"]
    assert queue.add(2, "c", 1.0) == []
    assert queue.add(4, "e", 1.3) == []
    assert queue.due(1.4) == []
    assert queue.due(1.5) == ["c"], "e has waited for 0.2 s only"
    assert queue.add(1, "b", 1.6) == [], "too late"
    assert queue.add(3, "d", 1.6) == ["d", "e"], "in time"
    assert queue.due(9.0) == []
