"""When a run gets more decoders; every time is given, none passes."""

from __future__ import annotations

from clipmux.engine.growth import LOOK_EVERY_S, Growth, Load


def looked(growth: Growth, *, waits: float, fill: float = 0.0, looks: int = 6) -> list[int]:
    """What it answers, second by second, to decoders that wait for this share of their time."""
    added = []
    for second in range(looks):
        load = Load(busy_s=second * (1 - waits), wait_s=second * waits)
        added.append(growth.look(second * LOOK_EVERY_S, {f"d{n}": load for n in range(growth.count)}, fill))
    return added


def test_decoders_that_never_wait_are_doubled_up_to_the_most() -> None:
    growth = Growth(1, 6)
    assert looked(growth, waits=0.0) == [0, 1, 0, 2, 0, 2]  # a new one is looked at twice before it counts
    assert growth.count == 6
    assert growth.look(100.0, {f"d{n}": Load(100.0) for n in range(6)}, 0.0) == 0


def test_decoders_that_wait_for_room_are_enough() -> None:
    assert not any(looked(Growth(1, 8), waits=0.5))


def test_a_queue_that_fills_is_given_time_to_be_full() -> None:
    assert not any(looked(Growth(1, 8), waits=0.0, fill=0.6))


def test_a_decoder_without_work_asks_for_no_other() -> None:
    growth = Growth(2, 8)
    for second in range(5):
        loads = {"busy": Load(busy_s=float(second)), "idle": Load()}
        assert growth.look(float(second), loads, 0.0) == 0


def test_a_decoder_that_has_only_begun_says_nothing_yet() -> None:
    growth = Growth(1, 8)
    growth.look(0.0, {"d": Load()}, 0.0)
    assert growth.look(1.0, {"d": Load(busy_s=0.1)}, 0.0) == 0
    assert growth.look(2.0, {"d": Load(busy_s=1.1)}, 0.0) == 1


def test_while_a_dead_one_is_replaced_there_are_no_more() -> None:
    growth = Growth(2, 8)
    for second in range(5):
        assert growth.look(float(second), {"left": Load(busy_s=float(second))}, 0.0) == 0


def test_between_looks_nothing_changes() -> None:
    growth = Growth(1, 2)
    growth.look(0.0, {"d": Load()}, 0.0)
    assert growth.look(LOOK_EVERY_S / 2, {"d": Load(busy_s=0.5)}, 0.0) == 0
    assert growth.look(LOOK_EVERY_S, {"d": Load(busy_s=1.0)}, 0.0) == 1
