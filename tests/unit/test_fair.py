"""Which clips of which streams go next, and which are given up, by a clock that the test turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.fair import FairBatcher


class Item(NamedTuple):
    stream: int
    at: float
    number: int = 0


def batcher(
    *, size: int = 4, max_delay: float = 0.5, max_latency: float = 10.0, capacity: int = 100, runners: int = 1
) -> FairBatcher[Item]:
    return FairBatcher(
        size=size,
        max_delay=max_delay,
        max_latency=max_latency,
        capacity=capacity,
        stream_of=lambda item: item.stream,
        decoded_at=lambda item: item.at,
        runners=runners,
    )


def filled(waiting: Mapping[int, int], **options: float) -> FairBatcher[Item]:
    """Streams with so many clips waiting since time 0."""
    fair = batcher(**options)  # type: ignore[arg-type]
    fair.weigh(dict.fromkeys(waiting, 1.0))
    for stream, count in waiting.items():
        for number in range(count):
            fair.add(Item(stream, 0.0, number), 0.0)
    return fair


def taken(fair: FairBatcher[Item], now: float = 0.0) -> list[tuple[int, int]]:
    return [(item.stream, item.number) for item in fair.take(now, idle=True, more=False)]


def test_streams_take_turns_and_each_is_in_order() -> None:
    fair = filled({0: 9, 1: 2, 2: 3}, size=7)
    assert taken(fair) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]


def test_what_waits_is_shared_out_among_runners_and_batches_grow_with_it() -> None:
    fair = filled({0: 3, 1: 2}, size=8, runners=2)
    assert [len(taken(fair)) for _ in range(4)] == [3, 1, 1, 0]
    assert len(taken(filled({0: 40}, size=8, runners=2))) == 8


def test_a_flood_costs_the_others_nothing() -> None:
    fair = filled({0: 50})
    taken(fair)
    fair.add(Item(1, 1.0), 1.0)
    assert (1, 0) in taken(fair, 1.0)[:2]


def test_who_had_nothing_to_offer_has_saved_nothing_up() -> None:
    fair = filled({0: 40, 1: 1})
    for _ in range(5):
        taken(fair)
    for number in range(10):
        fair.add(Item(1, 0.0, number), 0.0)
    assert Counter(stream for stream, _ in taken(fair) + taken(fair)) == {0: 4, 1: 4}


def test_weights_are_shares_of_the_device() -> None:
    fair = filled({0: 40, 1: 40, 2: 40}, size=35, capacity=120)
    fair.weigh({0: 1.0, 1: 2.0, 2: 0.5})
    assert Counter(stream for stream, _ in taken(fair)) == {0: 10, 1: 20, 2: 5}


def test_a_busy_device_gets_nothing_since_clips_can_only_be_given_up_here() -> None:
    fair = filled({0: 8})
    assert fair.take(0.0, idle=False, more=True) == []
    assert not fair.full(idle=False)
    assert fair.full(idle=True)
    assert len(fair.take(0.0, idle=True, more=True)) == 4


@pytest.mark.parametrize(
    ("now", "more", "goes"), [(0.0, True, False), (0.25, True, False), (0.5, True, True), (0.0, False, True)]
)
def test_a_partial_batch_goes_when_its_oldest_clip_has_waited(now: float, more: bool, goes: bool) -> None:
    fair = filled({0: 1, 1: 2})
    assert fair.due(0.25) == 0.25
    assert len(fair.take(now, idle=True, more=more)) == (3 if goes else 0)


def test_what_can_no_longer_be_in_time_is_given_up_and_counted() -> None:
    fair = batcher(max_latency=10.0)
    for number, at in enumerate([0.0, 3.0, 6.0]):
        fair.add(Item(7, at, number), at)
    assert fair.dropped(10.0) == []
    assert [item.number for item in fair.dropped(10.5)] == [0]
    fair.took(1, 0.5)  # a batch of four is expected to take two
    assert [item.number for item in fair.dropped(11.5)] == [1]
    assert fair.dropped(11.5) == []
    assert fair.drops == {7: 2}
    assert taken(fair, 11.5) == [(7, 2)]


def test_a_device_that_was_too_slow_once_is_tried_again() -> None:
    fair = filled({0: 4}, max_latency=1.0)
    fair.took(1, 30.0)  # the machine stood still: no clip could make it, and no other batch would tell that it is over
    assert [item.number for item in fair.take(0.4, idle=True, more=False)] == [0]


def test_the_device_is_believed_to_be_as_slow_as_it_lately_was() -> None:
    fair = batcher(max_latency=10.0)
    fair.took(4, 4.8)
    for _ in range(8):
        fair.took(4, 1.0)
    fair.add(Item(0, 0.0), 0.0)
    assert fair.dropped(8.9) == []  # a batch takes 1.0
    assert len(fair.dropped(9.1)) == 1


def test_a_batch_takes_half_of_the_time_there_is_at_most() -> None:
    fair = filled({0: 9}, max_latency=10.0)
    fair.took(1, 2.0)
    assert fair.full(idle=True)
    assert len(fair.take(0.0, idle=True, more=True)) == 2
    fair.took(2, 0.1)
    assert len(fair.take(0.0, idle=True, more=True)) == 2  # the slowest of the last ones counts


def test_more_than_there_is_room_for_costs_the_oldest_of_who_is_most_over_its_share() -> None:
    fair = filled({0: 3, 1: 5}, capacity=8)
    fair.add(Item(0, 1.0, 3), 1.0)
    assert [(item.stream, item.number) for item in fair.dropped(1.0)] == [(1, 0)]
    fair.weigh({0: 1.0, 1: 4.0})
    fair.add(Item(1, 2.0, 5), 2.0)
    assert [(item.stream, item.number) for item in fair.dropped(2.0)] == [(0, 0)]
    assert fair.drops == {0: 1, 1: 1}
    assert len(fair) == 8


def test_streams_that_are_gone_leave_nothing_but_their_count() -> None:
    fair = filled({0: 2, 1: 2})
    fair.weigh({1: 1.0})
    assert [item.stream for item in fair.dropped(0.0)] == [0, 0]
    assert len(fair) == 2
    assert fair.drops == {0: 2}


def test_there_is_always_room_for_a_batch() -> None:
    fair = filled({0: 9}, capacity=10)
    assert fair.room == 4
    assert filled({}, capacity=10).room == 10


def test_drops_follow_the_weights_when_everybody_offers_too_much() -> None:
    """Three times what the device can do for a while: who has twice the weight is scored twice as often."""
    fair = batcher(size=4, max_delay=0.0, max_latency=1.0, capacity=1000)
    weights = {0: 1.0, 1: 1.0, 2: 2.0, 3: 4.0}
    fair.weigh(weights)
    scored: Counter[int] = Counter()
    for turn in range(4000):
        now = turn / 100
        if turn % 2 == 0:
            for stream in weights:
                fair.add(Item(stream, now), now)
        if turn % 6 == 0:
            scored.update(item.stream for item in fair.take(now, idle=True, more=True))
        assert all(now - item.at > 0.9 for item in fair.dropped(now))
    total = sum(scored.values())
    for stream, weight in weights.items():
        assert scored[stream] / total == pytest.approx(weight / 8, rel=0.02)
        assert fair.drops[stream] == pytest.approx(2000 - scored[stream], abs=60)


events = st.lists(
    st.tuples(st.sampled_from(["add", "add", "take", "pass", "weigh"]), st.integers(0, 3), st.floats(0, 2)), max_size=80
)


@settings(deadline=None)
@given(events, st.integers(1, 4), st.integers(4, 12))
def test_every_clip_goes_once_or_is_given_up_once(steps: list[tuple[str, int, float]], size: int, room: int) -> None:
    fair = batcher(size=size, max_latency=3.0, capacity=room)
    now, added = 0.0, 0
    gone: list[Item] = []
    dropped: list[Item] = []
    for step, stream, value in steps:
        if step == "add":
            fair.add(Item(stream, now, added), now)
            added += 1
        elif step == "take":
            batch = fair.take(now, idle=value < 1, more=value < 1.5)
            assert len(batch) <= size
            assert all(now - item.at <= 3.0 for item in batch)
            gone += batch
        elif step == "weigh":
            fair.weigh({stream: 1.0, (stream + 1) % 4: value + 0.1})
        else:
            now += value
        dropped += fair.dropped(now)
        assert len(fair) + len(gone) + len(dropped) == added
        assert len(fair) <= room
    for one in range(4):
        numbers = [item.number for item in gone if item.stream == one]
        assert numbers == sorted(numbers)
    assert sum(fair.drops.values()) == len(dropped)
    while batch := fair.take(now, idle=True, more=False):
        gone += batch
    assert sorted(item.number for item in gone + dropped) == list(range(added))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"max_delay": -1.0}, {"max_latency": 0.0}, {"capacity": 3}])
def test_what_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        batcher(**wrong)  # type: ignore[arg-type]
