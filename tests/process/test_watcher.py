"""A real watcher process: scores in over real sockets, events out to the supervisor and to files."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from stage import CLIP_S, Stage, stage, told

from clipmux.engine.messages import Failed, Goodbye, Stop
from clipmux.engine.processes import INTERRUPTED_STOP_S
from clipmux.engine.streams import LiveConfig


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(event["stream"], event["event"], event["label"]) for event in events]


def test_scores_become_events_in_the_file_and_for_the_supervisor(tmp_path: Path) -> None:
    output = tmp_path / "events.jsonl"
    output.write_text('{"before": 1}\n{"torn"')
    with stage(tmp_path, output=str(output)) as play:
        play.streams([told(0, "door"), told(1, "yard", labels=["running"])])
        for number in (0, 1):
            play.state(number)
        for score in (0.1, 0.9, 0.8, 0.2):
            play.clip(0, score)
            play.clip(1, score)  # a label that is not of interest there
        started, ended = play.events(2)
        before = datetime.now(timezone.utc).timestamp()
        assert kinds([started, ended]) == [("door", "started", "walking"), ("door", "ended", "walking")]
        assert (started["start_s"], started["end_s"], started["end"]) == (CLIP_S, None, None)
        assert (ended["start_s"], ended["end_s"]) == (CLIP_S, 3 * CLIP_S)
        assert (started["peak"], ended["peak"]) == (pytest.approx(0.9), pytest.approx(0.9))
        assert started["start"] == ended["start"]
        times = [datetime.fromisoformat(ended[key].replace("Z", "+00:00")).timestamp() for key in ("start", "end")]
        assert before - 5 < times[0] < times[1] < before
        figures = play.stop("watcher")
        assert (figures["events"], figures["refused"]) == (2, 0)
    first, *rest = output.read_text().splitlines()
    assert first == '{"before": 1}'
    assert [json.loads(line) for line in rest[1:]] == [started, ended]


def test_clips_out_of_order_and_lost_ones(tmp_path: Path) -> None:
    with stage(tmp_path) as play:
        play.streams([told(0, "door")])
        play.state(0)
        for index, score in ((0, 0.1), (2, 0.2), (1, 0.9)):  # two runners
            play.scores(0, index, score)
        _, ended = play.events(2)
        assert (ended["start_s"], ended["end_s"]) == (CLIP_S, 2 * CLIP_S)
        play.scores(0, 4, 0.9)  # 3 never comes
        started = play.events(3)[-1]
        assert started["start_s"] == 4 * CLIP_S
        play.scores(0, 20, 0.9)  # a gap
        ended, again = play.events(5)[-2:]
        assert (ended["event"], ended["end_s"]) == ("ended", 5 * CLIP_S)
        assert (again["event"], again["start_s"]) == ("started", 20 * CLIP_S)


@pytest.mark.parametrize("what", ["new connection", "stalled", "taken away", "stop"])
def test_what_ends_an_event_that_goes_on(what: str, tmp_path: Path) -> None:
    with stage(tmp_path, max_latency_s=0.1) as play:
        play.streams([told(0, "door"), told(1, "yard")])
        play.state(0)
        for _ in range(3):
            play.clip(0, 0.9)
        play.events(1)
        if what == "new connection":
            play.clip(0, 0.2, connection=2)
            play.scores(0, 99, 0.9, connection=1)  # too late
        elif what == "stalled":
            play.state(0, "stalled", detail="no frame for 5 s")
        elif what == "taken away":
            play.streams([told(1, "yard")])
        else:
            play.stop("watcher")
        ended = play.events(2)[-1]
        assert (ended["event"], ended["end_s"], ended["connection"]) == ("ended", 3 * CLIP_S, 1)
        play.listen(0.3)
        assert len(play.happened) == 2


def test_a_stream_that_has_ended_is_settled_when_its_last_clip_is_scored(tmp_path: Path) -> None:
    with stage(tmp_path, max_latency_s=60.0) as play:
        play.streams([told(0, "door")])
        play.state(0)
        play.clip(0, 0.9)
        play.state(0, "ended", clips=4)
        play.clip(0, 0.9)
        play.events(1)
        play.listen(0.7)
        assert play.beats["settled"] == []
        play.clip(0, 0.9)
        play.drops((0, 1))
        ended = play.events(2)[-1]
        assert (ended["event"], ended["end_s"]) == ("ended", 3 * CLIP_S)
        play.listen(0.7)
        assert play.beats["settled"] == [0]


def test_streams_that_stay_the_same_are_not_touched_by_a_reload(tmp_path: Path) -> None:
    with stage(tmp_path) as play:
        play.streams([told(0, "door")])
        play.clip(0, 0.9)
        play.events(1)
        play.streams([told(0, "door"), told(1, "yard")])
        play.clip(1, 0.9)
        play.clip(0, 0.1)
        assert kinds(play.events(3)) == [
            ("door", "started", "walking"),
            ("yard", "started", "walking"),
            ("door", "ended", "walking"),
        ]


def test_garbage_is_refused_and_counted(tmp_path: Path) -> None:
    with stage(tmp_path) as play:
        play.streams([told(0, "door")])
        for frames in ([b""], [b"\xc1" * 10], [b"\x93\x01\xa6Scores\x90"], [b"a", b"b", b"c"]):
            play.garbage(*frames)
        play.clip(7, 0.9)  # there is no such stream
        play.clip(0, 0.9)
        play.events(1)
        assert play.stop("watcher")["refused"] == 4


def test_what_a_webhook_that_hangs_was_not_given_is_said_before_the_supervisor_loses_patience(tmp_path: Path) -> None:
    """Although reports keep coming after the order to stop, and are heard out as long as any may be."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with stage(tmp_path, webhook=webhook) as play:
            play.streams([told(0, "door")])
            play.state(0)
            play.clip(0, 0.9)
            play.events(1)
            play.tell("watcher", Stop())
            ordered, left = time.monotonic(), False
            while not left:
                play.state(0)
                left = any(isinstance(message, Goodbye) for _, message in play.listen(0.05))
                assert time.monotonic() - ordered < INTERRUPTED_STOP_S
            assert play.children.pop("watcher").reap() == 0
            assert time.monotonic() - ordered < INTERRUPTED_STOP_S
            assert f"--webhook {webhook.rstrip('/')} was not given the last 2 events" in play.log.read_text()


@pytest.mark.parametrize(
    ("config", "mention"),
    [
        ({"output": "/absent/events.jsonl"}, "--output '/absent/events.jsonl' cannot be written"),
        ({"webhook": "ftp://user:secret@example.org/"}, "--webhook is not a URL of http or https"),
        ({"mqtt": "mqtt://127.0.0.1/a/+"}, "--mqtt has the topic 'a/+'"),
    ],
)
def test_wrong_sinks_are_refused_with_a_sentence(config: dict[str, Any], mention: str, tmp_path: Path) -> None:
    play = Stage(tmp_path, **config)
    try:
        failed = play.start("watcher")
        assert isinstance(failed, Failed)
        assert failed.usage
        assert mention in failed.message
        assert "secret" not in failed.message
    finally:
        play.close()


def test_the_settings_of_a_watcher_are_those_of_live() -> None:
    """What ``Stage`` gives it is what the supervisor does."""
    assert {"model", "frame_rate", "stride_s", "max_latency_s", "output", "webhook", "mqtt"} <= set(
        LiveConfig(model="demo").to_json()
    )
