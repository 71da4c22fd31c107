"""The short form of ``make mutants``."""

from __future__ import annotations

from pathlib import Path

import mutants
from namespaces import inside, joined, sent_packets

from clipmux.workers.sources import ENDINGS


def test_every_mutant_has_an_outcome_and_every_neighbour_its_own(tmp_path: Path) -> None:
    report = mutants.run_mutants(tmp_path, count=210, seed=0, timeout_s=200)
    assert not report.wrong, report
    assert report.mutants == 210 + 52
    assert report.neighbours == 21
    assert report.classified > 10
    assert report.restarts == 0
    unexpected = {kind for kind in report.listed if kind.endswith("Error")}
    assert not unexpected, "an error that decode.py has no name for"


def test_every_container_that_is_named_has_its_mutants() -> None:
    assert mutants.CODECS.keys() == ENDINGS


def test_packets_are_counted_to_the_loopback_address_too(tmp_path: Path) -> None:
    """Else the count of none would say nothing."""
    program = tmp_path / "connect.py"
    program.write_text("import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass")
    with joined() as (here, _):
        before = sent_packets(here)
        _, trouble = inside(here, program).communicate(timeout=30)
        assert not trouble
        assert sent_packets(here) > before
