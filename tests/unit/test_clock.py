"""Simulated time, cores that are shared evenly, and lines that serve one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.bench.clock import Clock, Cores, CoresByProcess, Line

arrivals = st.lists(st.tuples(st.floats(0, 10), st.floats(0.001, 5)), min_size=1, max_size=30)


def ends_of(
    cores: float, work: list[tuple[float, float]], kind: type[Cores | CoresByProcess] = Cores
) -> tuple[list[float], Clock, Cores | CoresByProcess]:
    """When each piece of work, (when it comes, CPU seconds), is done, each by a process of its own."""
    clock = Clock()
    shared = kind(clock, cores)
    ends = [0.0] * len(work)

    def begin(number: int, seconds: float) -> None:
        def done() -> None:
            ends[number] = clock.now

        shared.process().work(seconds, done)

    for number, (at, seconds) in enumerate(work):
        clock.at(at, lambda number=number, seconds=seconds: begin(number, seconds))  # type: ignore[misc]
    clock.run()
    return ends, clock, shared


def test_events_happen_in_order_of_time_and_of_asking() -> None:
    clock = Clock()
    happened: list[str] = []
    clock.at(2.0, lambda: happened.append("late"))
    clock.at(1.0, lambda: happened.append("first"))
    clock.at(1.0, lambda: (happened.append("second"), clock.at(0.0, lambda: happened.append("at once"))))  # type: ignore[arg-type,return-value]
    clock.run(1.5)
    assert happened == ["first", "second", "at once"]
    assert clock.now == 1.5
    clock.run()
    assert happened[-1] == "late"


@pytest.mark.parametrize(
    ("cores", "work", "ends"),
    [
        (1, [(0, 1)], [1]),
        (1, [(0, 1), (0, 1)], [2, 2]),  # both get half
        (2, [(0, 1), (0, 1)], [1, 1]),
        (2, [(0, 1), (0, 1), (0, 1)], [1.5, 1.5, 1.5]),
        (1, [(0, 2), (1, 0.5)], [2.5, 2]),  # alone for one second, then half until the other is done
        (0.5, [(0, 1)], [2]),  # others use half a core
    ],
)
def test_those_at_work_share_the_cores_evenly(cores: float, work: list[tuple[float, float]], ends: list[float]) -> None:
    assert ends_of(cores, work)[0] == pytest.approx(ends)


def test_a_process_of_many_threads_gets_no_more_than_one_of_one() -> None:
    clock = Clock()
    cores = CoresByProcess(clock, 2)
    many, one = cores.process(), cores.process()
    ends: list[tuple[str, float]] = []
    for process, name, threads in ((many, "many", 4), (one, "one", 1)):
        for _ in range(threads):
            process.work(1.0, lambda name=name: ends.append((name, clock.now)))  # type: ignore[misc]
    clock.run()
    # One core each, until the single thread is done after a second; then four quarters of work share two cores.
    assert ends == [("one", pytest.approx(1.0)), *[("many", pytest.approx(2.5))] * 4]
    assert cores.busy_s == pytest.approx(5)


@settings(deadline=None)
@given(st.sampled_from([0.5, 1, 2, 3, 8]), arrivals)
def test_with_one_thread_each_both_ways_of_sharing_are_one(cores: float, work: list[tuple[float, float]]) -> None:
    assert ends_of(cores, work, CoresByProcess)[0] == pytest.approx(ends_of(cores, work)[0])


@settings(deadline=None)
@given(st.sampled_from([0.5, 1, 2, 3, 8]), arrivals, st.sampled_from([Cores, CoresByProcess]))
def test_cores_give_exactly_what_is_asked_of_them(
    cores: float, work: list[tuple[float, float]], kind: type[Cores | CoresByProcess]
) -> None:
    ends, clock, shared = ends_of(cores, work, kind)
    total = sum(seconds for _, seconds in work)
    assert shared.busy_s == pytest.approx(total)
    assert total <= cores * clock.now * (1 + 1e-9)
    for (at, seconds), end in zip(work, ends, strict=True):
        assert end >= at + seconds - 1e-9


@settings(deadline=None)
@given(arrivals)
def test_a_line_serves_in_order_and_never_two_at_a_time(work: list[tuple[float, float]]) -> None:
    clock = Clock()
    line = Line(clock)
    ends: list[tuple[int, float]] = []
    coming = sorted(range(len(work)), key=lambda number: work[number][0])

    def come(number: int) -> None:
        line.serve(work[number][1], lambda: ends.append((number, clock.now)))
        assert line.busy_s <= clock.now + 1e-9

    for number in coming:
        clock.at(work[number][0], lambda number=number: come(number))  # type: ignore[misc]
    clock.run()
    assert [number for number, _ in ends] == coming
    free = 0.0
    for number, end in ends:
        free = max(free, work[number][0]) + work[number][1]
        assert end == pytest.approx(free)
    assert line.busy_s == pytest.approx(sum(seconds for _, seconds in work))
