"""A trace keeps the rules of its format, wherever it is cut, and costs neither memory nor disk beyond its bounds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from trace_rules import check_trace, read_trace, read_trace_file

from clipmux.engine.errors import UsageError
from clipmux.engine.stages import Stages
from clipmux.engine.trace import WRITE_AT, Laps, Trace, TraceFile


def made(path: Path) -> list[dict[str, object]]:
    """A trace of two processes in one file, each with spans that nest, a mark and a video."""
    file = TraceFile(path)
    one, two = Trace(file.fd, "supervisor"), Trace(file.fd, "inference-1", tracks=("main", "runner 0"))
    one.step("b", 'a "video"\n跳水', 7, attempt=1)
    one.step("n", 'a "video"\n跳水', 7, attempt=2)
    two.span("infer", 10.0, 10.5, track=1, clips=8)
    two.span("infer", 10.5, 10.75, track=1, clips=3)
    two.span("send", 10.25, 10.3)
    one.mark("decoder-3 was killed by SIGKILL")
    one.step("e", 'a "video"\n跳水', 7, attempt=2)
    for trace in (one, two):
        trace.write()
    file.close()
    return read_trace_file(path)


def test_events_keep_the_rules_and_the_whole_file_is_json(tmp_path: Path) -> None:
    events = made(tmp_path / "trace.json")
    check_trace(events)
    assert json.loads((tmp_path / "trace.json").read_bytes()) == events
    infer = next(event for event in events if event["name"] == "infer")
    assert (infer["ts"], infer["dur"], infer["tid"], infer["args"]) == (10_000_000, 500_000, 2, {"clips": 8})
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} == {
        "supervisor",
        "inference-1",
        "main",
        "runner 0",
    }


def test_a_trace_that_was_cut_anywhere_is_read_up_to_there(tmp_path: Path) -> None:
    events = made(tmp_path / "trace.json")
    content = (tmp_path / "trace.json").read_bytes()
    before = 0
    for size in range(1, len(content) + 1):
        read = read_trace(content[:size])
        assert read == events[: len(read)]
        assert len(read) in (before, before + 1)
        before = len(read)
    assert before == len(events)


def test_spans_that_overlap_are_found_by_the_rules(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace.json")
    trace = Trace(file.fd, "x")
    trace.span("a", 1.0, 2.0)
    trace.span("b", 1.5, 2.5)
    trace.write()
    file.close()
    with pytest.raises(AssertionError):
        check_trace(read_trace_file(tmp_path / "trace.json"))


def test_what_is_kept_in_memory_is_bounded_and_old_events_are_written(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace.json")
    trace = Trace(file.fd, "x")
    kept = []
    for number in range(2000):
        trace.span("a", number, number + 0.5, text="x" * 100)
        kept.append(trace._size)
    assert max(kept) < WRITE_AT + 500
    trace.write()
    trace.span("late", 3000.0, 3001.0)
    trace._written_at -= 10
    trace.tick()
    assert read_trace_file(tmp_path / "trace.json")[-1]["name"] == "late"
    file.close()


def test_the_file_stops_growing_at_its_bound_and_can_be_read(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace.json")
    traces = [Trace(file.fd, f"decoder-{number}", most=100_000) for number in range(3)]
    for number in range(3000):
        for trace in traces:
            trace.span("a", number, number + 0.5)
    file.close()
    assert not any(trace.on for trace in traces)
    assert 60_000 < (tmp_path / "trace.json").stat().st_size < 101_000
    check_trace(read_trace_file(tmp_path / "trace.json"))


def test_a_full_disk_ends_the_trace_only() -> None:
    fd = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    trace = Trace(fd, "x")
    trace.span("a", 1.0, 2.0)
    trace.write()
    assert not trace.on
    trace.span("b", 2.0, 3.0)
    os.close(fd)


def test_no_trace_keeps_nothing() -> None:
    trace = Trace(-1, "x")
    trace.span("a", 1.0, 2.0)
    trace.mark("b")
    trace.step("b", "c", 1)
    trace.write()
    assert not trace._lines


def test_laps_tell_what_each_stage_took_in_few_spans_that_do_not_overlap(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace.json")
    trace, stages, began = Trace(file.fd, "decoder-1"), Stages(), time.monotonic()
    laps = Laps(trace, stages, ("decode", "send"))
    for _ in range(400):
        for stage in ("decode", "send", "elsewhere"):
            with stages.timed(stage):
                time.sleep(0.0002)
        laps.lap()
    laps.lap(last=True)
    trace.span("video", began, time.monotonic())
    trace.write()
    file.close()
    events = read_trace_file(tmp_path / "trace.json")
    check_trace(events)
    spans = [event for event in events if event["ph"] == "X"]
    assert {span["name"] for span in spans} == {"decode", "send", "video"}
    assert len(spans) < 100
    for stage in ("decode", "send"):
        told = sum(span["dur"] for span in spans if span["name"] == stage) / 1e6
        assert told == pytest.approx(stages.seconds[stage], abs=0.001)


def test_a_file_that_exists_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text("mine")
    with pytest.raises(UsageError, match="which exists: give another file"):
        TraceFile(tmp_path / "trace.json")
    with pytest.raises(UsageError, match="folder that exists"):
        TraceFile(tmp_path / "no" / "trace.json")
    assert (tmp_path / "trace.json").read_text() == "mine"
