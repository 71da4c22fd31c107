"""How clips get from decoders to inference processes, and how it is bounded what is on its way.

A slot is room for one clip. Each inference process lends its slots; each decoder has a seat there, which it claims
once, and is granted the seat's slots. It fills one and sends its number with the clip; inference grants it again once
the pixels are in a staging batch. A full queue is a decoder without a slot, and the clips of a decoder that are on
their way to a device are the slots it lacks: of several devices it takes the one that it has most slots of.

Since only what is lent to its sender is taken, one look refuses a number out of range, a slot of another seat, one that
was sent already, and whatever a dead decoder's socket still delivers after another has claimed its seat. A clip that
inference holds is never lent, so nobody writes to it, and no clip can be scored with the pixels of another, whenever
its decoder died.

Where a slot is, the supervisor decides, and only ``_End`` and ``ClipReceiver`` know. *Shared*: in the clip memory, and
only a header goes through the socket. *Socket*: in the decoder's own memory, and the pixels follow the header in a
second frame, without a copy; a slot that is granted again has left.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from .clip_memory import Layout, Slot, map_all, map_seat
from .errors import MessageError
from .messages import Claim, Clip, ClipKey, Grant, Placed, quoted
from .sockets import Context, Socket, dealer_clips, router_clips
from .squeezed import squeeze
from .wire import CLIP_HEADER_MOST, decode_clip, decode_grant, decode_placed, encode

log = logging.getLogger(__name__)

CLAIM_AGAIN_S = 1.0
"""A seat is claimed again while nothing was granted: who it was claimed of may have died before it heard."""

UNKNOWN = 0.0
"""When a clip of another machine was decoded; its arrival counts in place of that."""

LEAST = 2
"""Slots of a decoder at least: one to fill, one on its way."""


@dataclass(frozen=True)
class Way:
    """What a child is told of the way that clips take to one inference process.

    Args:
        address: inference's socket.
        layout: of its slots.
        fd: the inherited descriptor of the clip memory that they are in; -1 where pixels travel through the socket.
        seat: a decoder's.
        turn: grows with every process that is started.
        far: the decoder is on another machine, whose clock is another.
        squeezed: clips may come as JPEG; a decoder is to send them so.
    """

    address: str
    layout: Layout
    fd: int = -1
    seat: int = -1
    turn: int = 0
    far: bool = False
    squeezed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "layout": self.layout.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Way:
        return cls(**{**content, "layout": Layout.from_json(content["layout"])})


class ClipSender:
    """A decoder's end.

    Args:
        context: of the process.
        ways: to each of the inference processes.
        name: of the process, unique over all that ever connect.
    """

    def __init__(self, context: Context, ways: Sequence[Way], name: str) -> None:
        ends = [_End(context, way, name) for way in ways]
        first = max(0, ways[0].seat) % len(ends)
        self._ends = ends[first:] + ends[:first]  # where all have as many slots, not all decoders take the same
        self._end = self._ends[0]
        self._poller = zmq.Poller()
        for end in self._ends:
            self._poller.register(end.socket, zmq.POLLIN)

    def place(self, timeout_ms: int) -> Slot | None:
        """Where to assemble the next clip, uint8 ``[T, H, W, C]``; None if there is no room after ``timeout_ms``."""
        if len(self._ends) > 1 or not self._end.free:
            self._hear(timeout_ms)
        return self._end.place() if self._end.free else None

    def send(self, key: ClipKey, decoded_at: float, pixels: Slot) -> None:
        """Send a clip; only when ``place`` has just given one.

        Args:
            key: which clip.
            decoded_at: when its last frame had been decoded.
            pixels: what ``place`` gave, filled; or a clip from elsewhere, which is never written to again.
        """
        self._end.send(key, decoded_at, pixels)

    def close(self) -> None:
        """What was sent still arrives."""
        for end in self._ends:
            end.socket.close()

    def _hear(self, timeout_ms: int) -> None:
        """Take what is granted, and choose where the next clip goes."""
        for wait_ms in (0, timeout_ms):
            if wait_ms:
                self._poller.poll(wait_ms)
            for end in self._ends:
                end.hear()
            self._end = max(self._ends, key=lambda end: len(end.free))
            if self._end.free:
                return


class _End:
    """A decoder's end of one way."""

    def __init__(self, context: Context, way: Way, name: str) -> None:
        self.free: list[int] = []
        self._shape = way.layout.shape
        self._shared = way.fd >= 0
        self._far = way.far
        self._squeezed = way.squeezed
        self._slots = map_seat(way.fd, way.layout, way.seat) if self._shared else {}
        self._known = way.layout.of_seat(way.seat)
        self._claim = Claim(way.seat, way.turn)
        self._claimed_at: float | None = time.monotonic()
        """None once something was granted."""
        self.socket = dealer_clips(context, way.address, name, hwm=_hwm(way.layout))
        self.socket.send_multipart(encode(self._claim))

    def hear(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self.socket.recv_multipart(flags=zmq.NOBLOCK)
                self.free += decode_grant(frames, self._known).slots
                self._claimed_at = None
        if self._claimed_at is not None and time.monotonic() - self._claimed_at > CLAIM_AGAIN_S:
            self._claimed_at = time.monotonic()
            with contextlib.suppress(zmq.Again):
                self.socket.send_multipart(encode(self._claim), flags=zmq.NOBLOCK)

    def place(self) -> Slot:
        number = self.free[-1]
        if (slot := self._slots.get(number)) is None:
            slot = self._slots[number] = np.empty(self._shape, np.uint8)
        return slot

    def send(self, key: ClipKey, decoded_at: float, pixels: Slot) -> None:
        number = self.free.pop()
        if self._far:
            decoded_at = UNKNOWN
        if not self._shared:
            frames = encode(Clip(key, decoded_at, pixels, number))
            if self._squeezed and (jpeg := squeeze(pixels)) is not None:
                frames = [frames[0], jpeg]
            self.socket.send_multipart(frames, copy=False)
            return
        if pixels is not (slot := self._slots[number]):
            np.copyto(slot, pixels)
        self.socket.send_multipart(encode(Placed(key, decoded_at, number)))


@dataclass
class _Seat:
    """A decoder, as inference sees it: ``used`` of its slots are lent to it or held here, ``spare`` are neither."""

    owner: bytes
    turn: int
    spare: list[int]
    used: int
    gone: bool = False


class ClipReceiver:
    """Inference's end.

    Args:
        context: of the process.
        way: what the supervisor said.
        enough: clips that keep the device busy. No more are let wait, however much memory there is: a decoder that runs
            further ahead makes every clip wait longer, and on a CPU it takes the time for that from inference.

    Attributes:
        socket: becomes readable when there may be something to receive.
        refused: messages that were refused so far.
        room: clips that may be on their way from all decoders.
    """

    def __init__(self, context: Context, way: Way, *, enough: int) -> None:
        layout = self._layout = way.layout
        self.refused = 0
        self._enough = enough
        self.room = layout.seats * self._share(layout.seats)
        self._shared = way.fd >= 0
        self._squeezed = way.squeezed
        self._slots = map_all(way.fd, layout) if self._shared else {}
        self._seats: dict[int, _Seat] = {}
        """Those that were claimed."""
        self._lent: dict[int, bytes] = {}
        """Who may send each slot; those that are missing are held here, or nobody has claimed their seat."""
        self._held: set[int] = set()
        most = CLIP_HEADER_MOST if self._shared else max(CLIP_HEADER_MOST, math.prod(layout.shape))
        self.socket: Socket = router_clips(context, way.address, hwm=_hwm(layout), message_bytes=most)

    def receive(self, most: int) -> list[Clip]:
        """Clips that have arrived, ``most`` at most, without waiting. Their pixels hold until ``release``."""
        clips: list[Clip] = []
        for _ in range(most):
            try:
                received: list[Any] = self.socket.recv_multipart(flags=zmq.NOBLOCK, copy=self._shared)
            except zmq.Again:
                break
            sender, *frames = received if self._shared else [frame.buffer for frame in received]
            try:
                self._take(bytes(sender), frames, clips)
            except MessageError as error:
                self.refused += 1
                log.warning("a clip was refused: %s", error)
        return clips

    def release(self, clips: Sequence[Clip]) -> None:
        """The pixels of these clips are not needed any more."""
        back: dict[int, list[int]] = {}
        for clip in clips:
            back.setdefault(clip.slot // self._layout.slots, []).append(clip.slot)
        for number, slots in back.items():
            self._held.difference_update(slots)
            seat = self._seats[number]
            seat.spare += slots
            seat.used -= len(slots)
            self._grant(seat)

    @property
    def exhausted(self) -> bool:
        """Whoever sent the clips that are held here has no slot for another until some of these are released."""
        held = Counter(slot // self._layout.slots for slot in self._held)
        return all((seat := self._seats[number]).gone or seat.used == count for number, count in held.items())

    def close(self) -> None:
        self.socket.close(linger=0)

    def _take(self, sender: bytes, frames: list[Any], clips: list[Clip]) -> None:
        if self._shared:
            message: Placed | Clip | Claim = decode_placed(frames)
        else:
            message = decode_clip(frames, self._layout.shape, squeezed=self._squeezed)
        if isinstance(message, Claim):
            self._seat(sender, message)
            return
        slot = message.slot
        if self._lent.get(slot) != sender:
            raise MessageError(f"slot {slot} is not lent to {quoted(sender)}, which sent it")
        del self._lent[slot]
        self._held.add(slot)
        decoded_at = message.decoded_at if message.decoded_at != UNKNOWN else time.monotonic()
        pixels = self._slots[slot] if isinstance(message, Placed) else message.pixels
        clips.append(Clip(message.key, decoded_at, pixels, slot))

    def _seat(self, sender: bytes, claim: Claim) -> None:
        """Lend a seat's slots to its new decoder; those that are held follow as they are released."""
        before = self._seats.get(claim.seat)
        if before is not None and (before.owner, before.turn) == (sender, claim.turn):
            return  # it did not know that it was heard
        if claim.seat >= self._layout.seats or (before is not None and claim.turn <= before.turn):
            raise MessageError(
                f"{quoted(sender)} claims seat {claim.seat} of {self._layout.seats} in turn {claim.turn}"
            )
        slots = self._layout.of_seat(claim.seat)
        held = [slot for slot in slots if slot in self._held]
        for slot in slots:
            self._lent.pop(slot, None)
        spare = [slot for slot in reversed(slots) if slot not in self._held]
        seat = self._seats[claim.seat] = _Seat(sender, claim.turn, spare, len(held))
        self._grant(seat)

    def _share(self, seats: int) -> int:
        """Slots that each of so many decoders may have on their way."""
        return min(self._layout.slots, max(LEAST, -(-self._enough // seats)))

    def _grant(self, seat: _Seat) -> None:
        """Lend a decoder what its share has room for: less to each, the more there are."""
        share = self._share(sum(not each.gone for each in self._seats.values()) or 1)
        if seat.gone or (more := min(share - seat.used, len(seat.spare))) <= 0:
            return
        slots = [seat.spare.pop() for _ in range(more)]
        seat.used += more
        self._lent.update(dict.fromkeys(slots, seat.owner))
        try:
            self.socket.send_multipart([seat.owner, *encode(Grant(tuple(slots)))], flags=zmq.NOBLOCK)
        except zmq.ZMQError:  # the next one in its seat is granted them
            seat.gone = True


def _hwm(layout: Layout) -> int:
    """What is lent bounds the clips; the marks are for those who take more than they were lent."""
    return 2 * layout.slots + 8
