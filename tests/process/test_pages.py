"""Pages that show what a command prints: it prints that."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import examples, printed

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCALING = examples((DOCS / "scaling.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("command", "shown"), SCALING, ids=[command for command, _ in SCALING])
def test_it_prints_what_the_page_shows(command: str, shown: str) -> None:
    """After a change that is meant: ``python tests/pages.py docs/scaling.md``."""
    assert printed(command) == shown


def test_there_are_examples() -> None:
    assert len(SCALING) >= 5
