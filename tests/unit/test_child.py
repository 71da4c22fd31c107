"""How a child says why it cannot go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from clipmux.engine.child import LAST_WORDS_MOST, Setting, last_words
from clipmux.engine.children import INFERENCE, start_child
from clipmux.engine.messages import Failed
from clipmux.engine.sockets import make_addresses, remove_sockets, router
from clipmux.engine.wire import decode_control

BROKEN = """
from clipmux.engine.errors import {error}

def run(setting, context, link):
    raise {error}("'m" + chr(0xdce9) + "' cannot be used" + {more} * "!")
"""
"""A role that quotes a name which is no UTF-8, as Python has it."""


def test_words_are_sent_as_they_are_if_they_can_be() -> None:
    assert last_words("'é/语' has no labels") == "'é/语' has no labels"
    assert last_words("'m\udce9' is empty", " (so)") == r"'m\udce9' is empty (so)"
    assert last_words("x" * LAST_WORDS_MOST) == "x" * LAST_WORDS_MOST
    assert last_words("x" * LAST_WORDS_MOST + "yz", " (so)") == "x" * LAST_WORDS_MOST + "… (so)"


@pytest.mark.parametrize("more", [0, 100_000])
@pytest.mark.parametrize(
    ("error", "begins", "usage"),
    [
        ("ClipmuxError", "'m", False),
        ("UsageError", "'m", True),
        ("OSError", "OSError: 'm", False),
    ],
)
def test_whatever_ends_a_child_its_supervisor_hears_of(
    error: str, begins: str, usage: bool, more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BROKEN.format(error=error, more=more)
    (tmp_path / "broken_role.py").write_text(source.replace("from clipmux.engine.errors import OSError", ""))
    monkeypatch.syspath_prepend(tmp_path)
    addresses = make_addresses()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with router(context, addresses.control) as control, (tmp_path / "log").open("wb") as log:
        child = start_child(INFERENCE, "broken_role", Setting("inference-1", addresses, {}), log=log)
        assert control.poll(30_000), (tmp_path / "log").read_text()
        _, *frames = control.recv_multipart()
        assert child.reap() == 1
    context.term()
    remove_sockets(addresses)
    said = decode_control(frames)
    assert isinstance(said, Failed)
    assert said.message.startswith(rf"{begins}\udce9' cannot be used")
    assert len(said.message) < LAST_WORDS_MOST + 100
    assert said.usage is usage
    assert said.message.endswith(" (the log has more)") is (error == "OSError")
