"""What a run may be asked to show, and what not."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import UsageError
from clipmux.engine.watching import Watching, watched


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_format": "xml"}, "--log-format is 'xml': give one of text, json"),
        ({"stuck_after_s": 0.0}, "--stuck-after is 0: give seconds above 0"),
        ({"stuck_after_s": float("nan")}, "--stuck-after is nan"),
        ({"trace": Path(__file__)}, "which exists: give another file"),
        ({"trace": Path("x" * 300)}, "(File name too long): give another file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Watching(**options)
    assert said in str(refusal.value)


def test_a_server_is_there_while_it_is_wanted() -> None:
    with watched(Watching(metrics="127.0.0.1:0")) as observer:
        assert urllib.request.urlopen(f"{observer.shown_at}/healthz", timeout=10).status == 200  # noqa: S310
    assert not [thread for thread in threading.enumerate() if thread.name == "status"]


def test_nothing_is_served_unless_asked_for() -> None:
    with watched(Watching()) as observer:
        assert observer.shown_at == ""
        assert not [thread for thread in threading.enumerate() if thread.name == "status"]
