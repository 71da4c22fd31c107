"""Seats of decoders elsewhere, without any process."""

from __future__ import annotations

from pathlib import Path

from clipmux.engine.config import EngineConfig
from clipmux.engine.hosting import Host
from clipmux.engine.hosts import HostingSupervisor
from clipmux.engine.model import read_model


def test_a_start_that_was_put_off_goes_with_its_host(tmp_path: Path) -> None:
    """Else whoever has the seat next would have two decoders in it."""
    config = EngineConfig("demo", bind="127.0.0.1:7600", far_decoders=2, workers=1)
    supervisor = HostingSupervisor(config, read_model("demo"), run_folder=None, log_file=tmp_path / "log")
    leaves, stays = Host("host-1", "a", 0.0), Host("host-2", "b", 0.0)
    supervisor._hosts = {host.name: host for host in (leaves, stays)}
    supervisor._seats = {1: leaves, 2: stays}
    supervisor._far_due = [(5.0, 1), (6.0, 2)]
    supervisor._lose(leaves, "left")
    assert supervisor._far_due == [(6.0, 2)]
