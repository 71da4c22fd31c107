"""Log lines as JSON: one a line, with what they are about."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer import Exit

from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.exits import exits
from clipmux.engine.logs import JSON, TEXT, JsonLine, WholeLines, about, log_supervisor
from clipmux.engine.prediction import Prediction
from clipmux.engine.run import show_failures


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Any]:
    """A logger whose lines a child would write, and what reads them."""
    logger = logging.getLogger("some.library")
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    handler = WholeLines(fd, JsonLine("decoder-3"))
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    logger.removeHandler(handler)
    os.close(fd)


def test_a_line_says_when_how_bad_who_and_what(logged: Any) -> None:
    before = datetime.now(timezone.utc)
    logging.getLogger("some.library").warning("it is %s", "odd\nvery 跳水")
    (line,) = logged()
    assert abs((datetime.fromisoformat(line.pop("time")) - before).total_seconds()) < 60
    assert line == {
        "level": "WARNING",
        "process": "decoder-3",
        "logger": "some.library",
        "message": "it is odd\nvery 跳水",
    }


def test_lines_are_about_the_video_that_the_process_is_at_in_whatever_thread(logged: Any) -> None:
    log = logging.getLogger("some.library")
    with about("v_archery", 2):
        log.error("inside")
        thread = threading.Thread(target=log.error, args=("a codec's thread",))
        thread.start()
        thread.join()
        log.error("of another", extra={"video": "b", "attempt": 1})
    log.error("outside")
    assert [(line.get("video"), line.get("attempt")) for line in logged()] == [
        ("v_archery", 2),
        ("v_archery", 2),
        ("b", 1),
        (None, None),
    ]


def test_an_error_brings_its_traceback_in_the_same_line(logged: Any) -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("some.library").exception("it failed")
    (line,) = logged()
    assert line["traceback"].endswith("ValueError: wrong")


@pytest.mark.parametrize("form", [TEXT, JSON])
def test_the_supervisors_own_lines_and_its_libraries_warnings_are_kept(form: str, tmp_path: Path) -> None:
    with log_supervisor(tmp_path / "log", form=form):
        logging.getLogger("clipmux.engine.run").info("ours")
        logging.getLogger("a.library").info("not needed")
        logging.getLogger("a.library").warning("theirs")
    logging.getLogger("clipmux.engine.run").info("afterwards")
    text = (tmp_path / "log").read_text().splitlines()
    assert len(text) == 2
    if form == TEXT:
        assert text[0].endswith(" INFO clipmux.engine.run: ours")
        assert text[1].endswith(" WARNING a.library: theirs")
    else:
        assert [json.loads(line)["message"] for line in text] == ["ours", "theirs"]
        assert {json.loads(line)["process"] for line in text} == {"supervisor"}


def test_a_line_of_text_is_one_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    name = "a\x1b]0;x\x07\nb\u202e\udcff 跳水.mp4"
    with log_supervisor(tmp_path / "log", form=TEXT):
        try:
            raise ValueError(name)
        except ValueError:
            logging.getLogger("clipmux.engine.run").exception("'%s' failed", name)
    first, *traceback = (tmp_path / "log").read_text().splitlines()
    assert first.endswith(r": 'a\x1b]0;x\x07\nb\u202e\udcff 跳水.mp4' failed")
    assert traceback[-2:] == [r"ValueError: a\x1b]0;x\x07", r"b\u202e\udcff 跳水.mp4"]


def test_what_a_file_is_called_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\nb"
    error = VideoError("open", "EmptyFile", f"'{name}' is empty")
    screen = io.StringIO()
    show_failures([Prediction(name, name, error=error)], Console(file=screen))
    assert screen.getvalue() == r"failed at open: 'a\x1b[31m\nb' is empty" + "\n"

    @exits
    def wrong() -> None:
        raise UsageError(f"there is no '{name}'")

    with pytest.raises(Exit):
        wrong()
    assert capsys.readouterr().err == r"clipmux: there is no 'a\x1b[31m\nb'" + "\n"
