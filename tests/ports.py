"""TCP ports that nothing listens at."""

from __future__ import annotations

import os
import socket


def free_ports(count: int) -> int:
    """The first of so many free ports that follow each other; other processes of these tests look elsewhere first."""
    for port in range(20_000 + os.getpid() % 9_000, 60_000, count):
        try:
            for each in range(port, port + count):
                socket.create_server(("127.0.0.1", each)).close()
        except OSError:
            continue
        return port
    raise AssertionError(f"no {count} free ports")
