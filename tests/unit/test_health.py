"""When a stage is idle, stuck, dead or well."""

from __future__ import annotations

import pytest

from clipmux.engine.health import judge
from clipmux.engine.observer import Look, ProcessLook, _progressed

NOW = 1000.0


def process(name: str, *, at_work: bool = True, silent: float = 0.0) -> ProcessLook:
    return ProcessLook(name.partition("-")[0], name, 1, at_work, NOW - silent)


def state(*processes: ProcessLook, role: str, unfinished: bool = True, age: float = 0.0) -> str:
    look = Look(NOW - age, processes, (role,), unfinished=unfinished)
    return judge(look, NOW, stuck_after=10.0).stages[role].state


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process("inference-1")], "ok"),
        ([process("inference-1", silent=9.9)], "ok"),
        ([process("inference-1", silent=10.1)], "stuck"),
        ([process("inference-1", at_work=False, silent=500)], "idle"),
        ([], "dead"),
    ],
)
def test_a_stage_of_one_process(processes: list[ProcessLook], expected: str) -> None:
    assert state(*processes, role="inference") == expected


def test_a_stage_without_a_process_or_work_is_idle() -> None:
    assert state(role="inference", unfinished=False) == "idle"


def test_one_decoder_that_works_is_progress_and_the_silent_one_is_named() -> None:
    look = Look(NOW, (process("decoder-1", silent=50), process("decoder-2", silent=1)), ("decoder",), unfinished=True)
    health = judge(look, NOW, stuck_after=10.0)
    assert health.good
    assert health.to_json()["stages"]["decoder"] == {
        "state": "ok",
        "processes": 2,
        "silent": ("decoder-1",),
        "silent_s": 1.0,
    }


def test_an_idle_decoder_does_not_hide_that_the_working_ones_are_stuck() -> None:
    decoders = (process("decoder-1", silent=50), process("decoder-2", at_work=False))
    assert state(*decoders, role="decoder") == "stuck"


def test_a_supervisor_that_stopped_turning_is_stuck() -> None:
    health = judge(Look(NOW - 11), NOW, stuck_after=10.0)
    assert not health.good
    assert health.to_json()["stuck"] == ["supervisor"]


def test_every_stuck_stage_is_named() -> None:
    look = Look(NOW, (process("inference-1", silent=20),), ("inference", "collector"), unfinished=True)
    content = judge(look, NOW, stuck_after=10.0).to_json()
    assert content["status"] == "stuck"
    assert content["stuck"] == ["inference", "collector"]
    assert content["stages"]["collector"]["state"] == "dead"


@pytest.mark.parametrize(
    ("held", "holds", "scored", "progress"),
    [(8, 8, 0, False), (8, 8, 1, True), (0, 8, 0, True), (8, 0, 8, True), (0, 0, 0, True)],
)
def test_a_device_that_holds_clips_and_gives_none_back_makes_no_progress(
    held: int, holds: int, scored: int, progress: bool
) -> None:
    before = {"clips": 100, "now": {"in_device": held}}
    assert _progressed(before, {"clips": 100 + scored, "now": {"in_device": holds}}) is progress


def test_a_beat_that_says_nothing_of_a_device_is_progress() -> None:
    assert _progressed({}, {})
    assert _progressed({"clips": 1}, {"clips": 1})


def test_roles_that_may_be_away_do_not_count() -> None:
    look = Look(NOW, (), ("camera", "inference"), unfinished=True, apart=frozenset({"camera"}))
    assert judge(look, NOW, stuck_after=10.0).to_json()["stuck"] == ["inference"]
