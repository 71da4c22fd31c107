"""A trace read as Chrome and Perfetto read a JSON array of events, and held against the rules of the format.

The rules are those of "Trace Event Format" and of Perfetto's importer: the array may lack its end and have a comma
before it, a torn last event is dropped; a complete event has a start and a length in microseconds; those of one track
(process and thread) must follow one another or nest, since others are not shown; begin and end of a video are joined by
category, id and process (as numbers of a process of their own: others are joined across processes, or not at all).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

PHASES = {"X", "i", "M", "b", "n", "e"}


def read_trace(content: bytes) -> list[dict[str, Any]]:
    """The events of a trace, which may have been cut anywhere."""
    text = content.decode("ascii")
    assert text[0] == "["
    decoder = json.JSONDecoder()
    events, place = [], 1
    while True:
        while place < len(text) and text[place] in " \n,":
            place += 1
        if place == len(text):
            return events
        if text[place] == "]":
            assert not text[place + 1 :].strip()
            return events
        try:
            event, place = decoder.raw_decode(text, place)
        except ValueError:
            assert "\n" not in text[place:].rstrip("\n"), f"a broken event that is not the last: {text[place:][:200]}"
            return events
        events.append(event)


def read_trace_file(path: Path) -> list[dict[str, Any]]:
    return read_trace(path.read_bytes())


def check_trace(events: list[dict[str, Any]]) -> None:
    """Every event keeps the rules by itself and beside the others."""
    spans = defaultdict(list)
    begun: dict[tuple[int, str, str], int] = {}
    for event in events:
        assert event["ph"] in PHASES, event
        assert isinstance(event["name"], str), event
        assert event["name"], event
        for name in ("pid", "tid"):
            assert isinstance(event[name], int), event
            assert 0 < event[name] < 1 << 32, event
        assert isinstance(event.get("args", {}), dict), event
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name"), event
            assert isinstance(event["args"]["name"], str), event
            continue
        assert isinstance(event["ts"], int), event
        assert event["ts"] >= 0, event
        if event["ph"] == "X":
            assert isinstance(event["dur"], int), event
            assert event["dur"] >= 0, event
            spans[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
        elif event["ph"] == "i":
            assert event["s"] in "gpt", event
        else:
            key = (event["pid"], event["cat"], event["id2"]["local"])
            assert int(event["id2"]["local"], 16) >= 0, event
            begun[key] = begun.get(key, 0) + {"b": 1, "n": 0, "e": -1}[event["ph"]]
            assert begun[key] in (0, 1), event
    for track, found in spans.items():
        _check_nesting(track, found)


def _check_nesting(track: tuple[int, int], spans: list[tuple[int, int, str]]) -> None:
    outer: list[tuple[int, int, str]] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        while outer and outer[-1][1] <= span[0]:
            outer.pop()
        assert not outer or span[1] <= outer[-1][1], (track, outer[-1], span)
        outer.append(span)


def named(events: list[dict[str, Any]]) -> dict[str, set[str]]:
    """By process name without its number, the names of its spans."""
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    found: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event["ph"] == "X":
            found[processes[event["pid"]].rpartition("-")[0] or processes[event["pid"]]].add(event["name"])
    return found
