"""What ``clipmux live`` does besides watching."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from rich.console import Console

from clipmux.engine import live_run
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.live_run import _log_at, _Signals, _Told, watch_streams
from clipmux.engine.observer import Observer
from clipmux.engine.streams import LiveConfig

EVENT = {"stream": "门", "event": "started"}


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[str]]]:
    """Its two ends."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", 0) as out, os.fdopen(writer, "w") as into:
        yield out, into


def read_numbers(reader: IO[bytes], count: int) -> list[int]:
    """So many events' numbers. Whole lines, or this fails."""
    with open(reader.fileno(), "rb", closefd=False) as lines:
        return [json.loads(lines.readline())["n"] for _ in range(count)]


def test_events_are_utf8_whatever_the_terminal_is(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as file:
        with _Told(file, say=pytest.fail) as told:
            told.tell(EVENT)
        assert json.loads((tmp_path / "out").read_text(encoding="utf-8")) == EVENT


@pytest.mark.parametrize("when", ["meanwhile", "at the end"])
def test_events_that_cannot_be_written_are_a_sentence(when: str) -> None:
    def tell(file: IO[str]) -> None:
        with _Told(file, say=pytest.fail) as told:
            told.tell(EVENT)
            deadline = time.monotonic() + 10
            while when == "meanwhile":
                told.check()
                assert time.monotonic() < deadline, "nothing is raised"

    sentence = r"^events cannot be written to standard output \(No space left on device\): .*--output"
    with Path("/dev/full").open("w") as full, pytest.raises(ClipmuxError, match=sentence):
        tell(full)


def test_a_reader_of_events_that_has_gone_ends_the_command() -> None:
    with pipe() as (reader, writer):
        reader.close()
        told = _Told(writer, say=pytest.fail)
        told.tell(EVENT)
        with pytest.raises(BrokenPipeError):
            told.__exit__(None, None, None)


def test_a_pipe_that_is_full_and_does_not_block_is_waited_for() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer.fileno(), False)
        with _Told(writer, say=pytest.fail) as told:
            for number in range(9000):
                told.tell({"n": number})
            time.sleep(0.2)
            told.check()
            assert read_numbers(reader, 9000) == list(range(9000))


@pytest.mark.timeout(30)
def test_who_interrupts_twice_does_not_wait_for_a_reader_that_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "LAST_EVENTS_S", 60.0)
    said: list[str] = []
    with pipe() as (reader, writer):
        told = _Told(writer, say=said.append)
        for number in range(9000):
            told.tell({"n": number})
        told.__exit__(KeyboardInterrupt, None, None)
        assert len(said) == 1
        assert read_numbers(reader, 9000) == list(range(9000))  # which lets the thread end


class Flood:
    """Stands in for the supervisor: 9000 events, a hangup in their midst, and SIGTERM when all have been taken."""

    page, about = "", {"chosen": "nothing"}
    streams: dict[int, Any] = {}  # noqa: RUF012
    totals: dict[str, float] = {}  # noqa: RUF012
    interrupted = False

    def __init__(self, *_: object, **__: object) -> None:
        self.reloads: list[object] = []

    def start(self) -> None:
        pass

    def interrupt(self) -> None:
        self.interrupted = True

    def reload(self, streams: object) -> None:
        self.reloads.append(streams)

    def watch(self, *, on_tick: Callable[[], None]) -> Iterator[dict[str, Any]]:
        for turn in range(9):
            yield from ({"n": 1000 * turn + number} for number in range(1000))
            signal.raise_signal(signal.SIGHUP)
            on_tick()
            assert len(self.reloads) == turn + 1
        signal.raise_signal(signal.SIGTERM)
        assert self.interrupted

    def stop(self) -> list[Any]:
        return []

    def take_events(self) -> list[dict[str, Any]]:
        return [{"n": 9000}]


@pytest.mark.timeout(30)
def test_a_reader_of_events_that_pauses_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Events go on being taken, a hangup is heard, and SIGTERM ends the command; what was read then is in order."""
    monkeypatch.setattr(live_run, "read_model", lambda _: SimpleNamespace(labels=()))
    monkeypatch.setattr(live_run, "kind_of_watch", lambda _: Flood)
    monkeypatch.setattr(live_run, "LAST_EVENTS_S", 0.3)
    said, log = io.StringIO(), tmp_path / "log"
    with pipe() as (reader, writer):
        monkeypatch.setattr(sys, "stdout", writer)
        status = watch_streams(
            ["rtsp://10.0.0.1/cam"], None, EngineConfig(model="demo"), LiveConfig(model="demo"),
            http=None, log_file=log, console=Console(file=said), observer=Observer(),
        )  # fmt: skip
        assert status == 0
        assert read_numbers(reader, 9001) == list(range(9001))  # which lets the thread end
    told = said.getvalue().split("standard output did not take ")[1]
    assert told.endswith(" events: its reader paused for too long\n")
    assert 0 < int(told.split()[0]) <= 9001
    assert f"standard output was not given the last {told.split()[0]} events" in log.read_text()


def test_a_temporary_log_may_be_cleaned_away_meanwhile() -> None:
    with _log_at(None, "text") as log:
        shutil.rmtree(log.parent)


def test_a_hangup_that_came_too_early_is_heard_later() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    signal.raise_signal(signal.SIGHUP)  # to this thread: those of other tests block nothing
    supervisor: Any = None
    with _Signals(supervisor) as signals:
        assert signals.take_hangup()
        assert not signals.take_hangup()


def test_no_place_for_a_temporary_log_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="or give --log"), _log_at(None, "text"):
        pass
