"""TCP ports that nothing listens at."""

from __future__ import annotations

import os
import socket


def free_ports(count: int) -> int:
    """The first of so many free ports that follow each other; other processes of these tests look elsewhere first."""
    # 64 for each of neighbouring processes, below those that the system gives to whoever connects
    for port in range(20_000 + os.getpid() % 180 * 64, 60_000, count):
        try:
            for each in range(port, port + count):
                socket.create_server(("127.0.0.1", each)).close()
        except OSError:
            continue
        return port
    raise AssertionError(f"no {count} free ports")
