"""The short form of ``make fuzz``."""

from __future__ import annotations

import fuzz


def test_foreign_headers_are_refused_by_name() -> None:
    session = fuzz.fuzz_headers(30_000, seed=0)
    assert not session.faults, "\n".join(session.faults)
    assert session.tries == 30_000
    assert session.outcomes["control: read"] > 100, "some must be near enough to be taken"


def test_foreign_documents_are_refused_by_name() -> None:
    session = fuzz.fuzz_documents(500, seed=0)
    assert not session.faults, "\n".join(session.faults)
    assert session.tries == 500
