"""How clips get from a decoder to inference: pixels in memory that both share, or in a frame of the socket.

Which of the two is decided once, by ``open_sender`` and ``open_receiver``, from what the supervisor says; nobody else
knows. ZeroMQ carries the header either way.

*Socket*: PUSH and PULL; the high-water marks of both ends bound what waits.

*Shared*: a slot of the clip memory is lent by inference to one decoder at a time. The decoder claims its seat, is
granted the seat's slots, fills one and sends its number. Inference grants it again once the pixels are in a staging
batch. A full queue is a decoder without a slot. Since only what is lent to its sender is taken, one look refuses a
number out of range, a slot of another seat, one that was sent already, and whatever a dead decoder's socket still
delivers after another has claimed its seat. A clip that inference holds is never lent, so nobody writes to it, and no
clip can be scored with the pixels of another, whenever its decoder died.
"""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from .clip_memory import Layout, Slot, map_all, map_seat
from .errors import MessageError
from .messages import Claim, Clip, ClipKey, Grant, Placed, quoted
from .sockets import Context, Socket, dealer_clips, pull_clips, push_clips, router_clips
from .wire import CLIP_HEADER_MOST, decode_clip, decode_grant, decode_placed, encode

log = logging.getLogger(__name__)

LEAST = 2
"""Slots of a decoder at least: one to fill, one on its way."""


@dataclass(frozen=True)
class Way:
    """What a child is told of the way that clips take.

    Args:
        address: inference's socket.
        shape: ``[T, H, W, C]`` of a clip.
        hwm: clips that each end of a decoder's socket may hold, where pixels travel through it.
        layout: of the clip memory; None where pixels travel through the socket.
        fd: the inherited descriptor of the clip memory.
        seat: a decoder's place in it.
        turn: grows with every process that is started.
    """

    address: str
    shape: tuple[int, int, int, int]
    hwm: int
    layout: Layout | None = None
    fd: int = -1
    seat: int = -1
    turn: int = 0

    def to_json(self) -> dict[str, Any]:
        layout = None if self.layout is None else self.layout.to_json()
        return {**vars(self), "layout": layout}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Way:
        layout = None if content["layout"] is None else Layout.from_json(content["layout"])
        return cls(**{**content, "shape": tuple(content["shape"]), "layout": layout})


class ClipSender(ABC):
    """A decoder's end."""

    @abstractmethod
    def place(self, timeout_ms: int) -> Slot | None:
        """Where to assemble the next clip, uint8 ``[T, H, W, C]``; None if there is no room after ``timeout_ms``."""

    @abstractmethod
    def send(self, key: ClipKey, decoded_at: float, pixels: Slot) -> None:
        """Send a clip; only when ``place`` has just given one.

        Args:
            key: which clip.
            decoded_at: when its last frame had been decoded.
            pixels: what ``place`` gave, filled; or a clip from elsewhere, which is never written to again.
        """

    @abstractmethod
    def close(self) -> None:
        """What was sent still arrives."""


class ClipReceiver(ABC):
    """Inference's end.

    Attributes:
        socket: becomes readable when there may be something to receive.
        refused: messages that were refused so far.
    """

    socket: Socket
    refused: int = 0
    room: int = 0
    """Clips that may wait between all decoders and here; 0 where the sockets' own marks bound them."""

    @abstractmethod
    def receive(self, most: int) -> list[Clip]:
        """Clips that have arrived, ``most`` at most, without waiting. Their pixels hold until ``release``."""

    @abstractmethod
    def release(self, clips: Sequence[Clip]) -> None:
        """The pixels of these clips are not needed any more."""

    def close(self) -> None:
        self.socket.close(linger=0)

    def _refuse(self, error: MessageError) -> None:
        self.refused += 1
        log.warning("a clip was refused: %s", error)


def open_sender(context: Context, way: Way, name: str) -> ClipSender:
    """A decoder's end.

    Args:
        context: of the process.
        way: what the supervisor said.
        name: of the process, unique over all that ever connect.
    """
    if way.layout is None:
        return _SocketSender(context, way)
    return _SharedSender(context, way, way.layout, name)


def open_receiver(context: Context, way: Way, *, enough: int) -> ClipReceiver:
    """Inference's end.

    Args:
        context: of the process.
        way: what the supervisor said.
        enough: clips that keep the device busy. Where pixels are in the clip memory, no more are let wait, however much
            memory there is: a decoder that runs further ahead makes every clip wait longer, and on a CPU it takes the
            time for that from inference.
    """
    if way.layout is None:
        return _SocketReceiver(context, way)
    return _SharedReceiver(context, way, way.layout, enough)


class _SocketSender(ClipSender):
    def __init__(self, context: Context, way: Way) -> None:
        self._shape = way.shape
        self._socket = push_clips(context, way.address, hwm=way.hwm)

    def place(self, timeout_ms: int) -> Slot | None:
        if not self._socket.poll(timeout_ms, zmq.POLLOUT):
            return None
        return np.empty(self._shape, np.uint8)

    def send(self, key: ClipKey, decoded_at: float, pixels: Slot) -> None:
        self._socket.send_multipart(encode(Clip(key, decoded_at, pixels)), copy=False)

    def close(self) -> None:
        self._socket.close()


class _SocketReceiver(ClipReceiver):
    def __init__(self, context: Context, way: Way) -> None:
        self._shape = way.shape
        most = max(int(np.prod(way.shape)), CLIP_HEADER_MOST)
        self.socket = pull_clips(context, way.address, hwm=way.hwm, message_bytes=most)

    def receive(self, most: int) -> list[Clip]:
        clips: list[Clip] = []
        for _ in range(most):
            try:
                frames = self.socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            try:
                clips.append(decode_clip([frame.buffer for frame in frames], self._shape))
            except MessageError as error:
                self._refuse(error)
        return clips

    def release(self, clips: Sequence[Clip]) -> None:
        """The frames go with the clips."""


class _SharedSender(ClipSender):
    def __init__(self, context: Context, way: Way, layout: Layout, name: str) -> None:
        self._slots = map_seat(way.fd, layout, way.seat)
        self._free: list[int] = []
        self._socket = dealer_clips(context, way.address, name, hwm=layout.slots)
        self._socket.send_multipart(encode(Claim(way.seat, way.turn)))

    def place(self, timeout_ms: int) -> Slot | None:
        if not self._free and self._socket.poll(timeout_ms):
            with contextlib.suppress(zmq.Again):
                while True:
                    frames = self._socket.recv_multipart(flags=zmq.NOBLOCK)
                    self._free += decode_grant(frames, self._slots.keys()).slots
        return self._slots[self._free[-1]] if self._free else None

    def send(self, key: ClipKey, decoded_at: float, pixels: Slot) -> None:
        number = self._free.pop()
        if pixels is not (slot := self._slots[number]):
            np.copyto(slot, pixels)
        self._socket.send_multipart(encode(Placed(key, decoded_at, number)))

    def close(self) -> None:
        self._socket.close()


class _SharedReceiver(ClipReceiver):
    def __init__(self, context: Context, way: Way, layout: Layout, enough: int) -> None:
        self._layout = layout
        self._share = min(layout.slots, max(LEAST, -(-enough // layout.seats)))
        self.room = layout.seats * self._share
        self._slots = map_all(way.fd, layout)
        self._owners: dict[int, bytes] = {}
        """The decoder in each seat, and its turn."""
        self._turns: dict[int, int] = {}
        self._lent: dict[int, bytes] = {}
        """Who may send each slot; those that are missing are held here, or nobody has claimed their seat."""
        self._held: set[int] = set()
        self.socket = router_clips(context, way.address, hwm=layout.slots, message_bytes=CLIP_HEADER_MOST)

    def receive(self, most: int) -> list[Clip]:
        clips: list[Clip] = []
        for _ in range(most):
            try:
                sender, *frames = self.socket.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                message = decode_placed(frames)
                if isinstance(message, Claim):
                    self._seat(sender, message)
                else:
                    clips.append(self._take(sender, message))
            except MessageError as error:
                self._refuse(error)
        return clips

    def release(self, clips: Sequence[Clip]) -> None:
        grants: dict[int, list[int]] = {}
        for clip in clips:
            if clip.slot is not None:
                grants.setdefault(clip.slot // self._layout.slots, []).append(clip.slot)
        for seat, numbers in grants.items():
            self._held.difference_update(numbers)
            self._grant(self._owners[seat], numbers)

    def _take(self, sender: bytes, placed: Placed) -> Clip:
        slot = placed.slot
        if self._lent.get(slot) != sender:
            raise MessageError(f"slot {slot} is not lent to {quoted(sender)}, which sent it")
        del self._lent[slot]
        self._held.add(slot)
        return Clip(placed.key, placed.decoded_at, self._slots[slot], slot)

    def _seat(self, sender: bytes, claim: Claim) -> None:
        """Lend a seat's slots to its new decoder; those that are held follow as they are released."""
        seat = claim.seat
        if seat >= self._layout.seats or claim.turn <= self._turns.get(seat, 0):
            raise MessageError(f"{quoted(sender)} claims seat {seat} of {self._layout.seats} in turn {claim.turn}")
        self._owners[seat], self._turns[seat] = sender, claim.turn
        slots = self._layout.of_seat(seat)[: self._share]
        self._grant(sender, [slot for slot in slots if slot not in self._held])

    def _grant(self, decoder: bytes, slots: list[int]) -> None:
        self._lent.update(dict.fromkeys(slots, decoder))
        with contextlib.suppress(zmq.ZMQError):  # it is gone; the next one in its seat is granted them
            self.socket.send_multipart([decoder, *encode(Grant(tuple(slots)))], flags=zmq.NOBLOCK)
