"""What a person is told while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from clipmux.engine.progress import say


@pytest.mark.parametrize("text", ["decode --connect [fd00::7]:7600", "exp[v2]", "q[/b]", "a:on:b", "[red]" * 40])
def test_a_line_is_said_as_it_is(text: str) -> None:
    said = io.StringIO()
    say(Console(file=said, width=40), text)
    assert said.getvalue() == f"{text}\n"
