"""A child's end of the control channel to the supervisor."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import zmq

from .errors import MessageError
from .messages import Beat, Control
from .sockets import Context, dealer
from .wire import decode_control, encode

BEAT_EVERY_S = 0.5


class Link:
    """Send to and receive from the supervisor.

    Args:
        context: the process's ZeroMQ context.
        address: the supervisor's control socket.
        name: this child's name, unique over all that ever connect.
    """

    def __init__(self, context: Context, address: str, name: str) -> None:
        self.name = name
        self.socket = dealer(context, address, name)
        self._beat_at = 0.0

    def send(self, message: Control) -> None:
        self.socket.send_multipart(encode(message))

    def receive(self, timeout_s: float | None) -> Control | None:
        """The next message, or None after ``timeout_s`` seconds (None: wait for ever)."""
        if not self.socket.poll(None if timeout_s is None else round(timeout_s * 1000)):
            return None
        return decode_control(self.socket.recv_multipart())

    @property
    def beat_due(self) -> bool:
        """A beat would be sent now; for those whose counts take some making."""
        return time.monotonic() - self._beat_at >= BEAT_EVERY_S

    def beat(self, **counts: Any) -> None:
        """Tell of progress, twice a second at most; a beat that finds the channel full is not missed."""
        if not self.beat_due:
            return
        self._beat_at = time.monotonic()
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart(encode(Beat(counts)), flags=zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close()


def expect(message: Control | None, *kinds: type[Control]) -> Control:
    """The message, if it is of one of these kinds.

    Raises:
        MessageError: it is not.
    """
    if not isinstance(message, kinds):
        raise MessageError(f"the supervisor sent {type(message).__name__}, which does not belong here")
    return message
