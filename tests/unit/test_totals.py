"""Sums over processes never fall, whoever dies, and forget nothing that was told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clipmux.engine.totals import Totals


def test_what_an_ended_process_counted_stays() -> None:
    totals = Totals()
    totals.note("decoder-1", "decoder", {"clips": 5, "busy_s": {"decode": 1.5}, "now": {"waiting": 3}, "text": "x"})
    totals.note("decoder-2", "decoder", {"clips": 2, "busy_s": {"decode": 0.5, "send": 0.25}})
    before = totals.sums()
    totals.ended("decoder-1")
    totals.ended("decoder-9")  # it never told anything
    assert totals.sums()["decoder"] == before["decoder"]
    totals.note("decoder-3", "decoder", {"clips": 1})
    assert totals.sums()["decoder"] == {("clips",): 8, ("busy_s", "decode"): 2.0, ("busy_s", "send"): 0.25}
    assert before["decoder"][("clips",)] == 7, "what was handed out does not change"


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 100))), max_size=60)


@given(EVENTS)
def test_sums_never_fall(events: list[tuple[int, int | None]]) -> None:
    """Four seats, each with a process after another: it counts on by some clips, or (None) dies."""
    totals, processes, clips, told, before = Totals(), [0] * 4, [0] * 4, 0, 0.0
    for seat, more in events:
        name = f"decoder-{seat}-{processes[seat]}"
        if more is None:
            totals.ended(name)
            processes[seat] += 1
            clips[seat] = 0
        else:
            clips[seat] += more
            told += more
            totals.note(name, "decoder", {"clips": clips[seat]})
        now = totals.sums().get("decoder", {}).get(("clips",), 0.0)
        assert now >= before
        before = now
    assert before == told
