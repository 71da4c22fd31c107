"""What ``clipmux live`` does besides watching."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.live_run import _log_at, _print, _Signals

EVENT = {"stream": "门", "event": "started"}


def test_events_are_utf8_whatever_the_terminal_is(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as file:
        _print(EVENT, file)
        assert json.loads((tmp_path / "out").read_text(encoding="utf-8")) == EVENT


def test_events_that_cannot_be_written_are_a_sentence() -> None:
    with Path("/dev/full").open("w") as full, pytest.raises(ClipmuxError, match=r"No space left on device.*--output"):
        _print(EVENT, full)


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
