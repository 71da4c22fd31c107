"""The memory that clips travel in to an inference process of the same host: an anonymous file, cut into seats, a seat
into slots of one clip each.

The file has no name in any file system, so nothing of it can remain, whichever processes are killed: the kernel frees
it with the last process that has it. The supervisor makes it and passes its descriptor on by inheritance. Each decoder
maps its own seat and nothing else; inference maps everything, but read-only.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ClipmuxError

SHARE = 2
"""Clips may take one part in so many of the memory that is free, and of what a control group allows."""

FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""Mapped whole at the start: what a process is said to use does not creep up as slots are first touched."""

Slot = npt.NDArray[np.uint8]
"""Room for one clip: uint8 ``[T, H, W, C]``."""


@dataclass(frozen=True)
class Layout:
    """How the memory is cut. Slots are numbered through all seats; seat ``s`` has those from ``s · slots`` on.

    Args:
        seats: decoders that can be at work at a time.
        slots: clips of one seat.
        shape: ``[T, H, W, C]`` of a clip.
    """

    seats: int
    slots: int
    shape: tuple[int, int, int, int]

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next: whole pages, so that a seat can be mapped by itself."""
        return -(-math.prod(self.shape) // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def bytes(self) -> int:
        return self.seats * self.slots * self.stride

    def of_seat(self, seat: int) -> range:
        """The numbers of a seat's slots."""
        return range(seat * self.slots, (seat + 1) * self.slots)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Layout:
        frames, height, width, channels = content["shape"]
        return cls(content["seats"], content["slots"], (frames, height, width, channels))


class ClipMemory:
    """The supervisor's end: makes the memory and holds its descriptor.

    All of it is taken at once: a process that first touched it later, with no memory left, would die of SIGBUS.

    Raises:
        ClipmuxError: it cannot be had; says why.
    """

    def __init__(self, layout: Layout) -> None:
        from .doctor_machine import available_memory  # which itself knows what a run is told

        self.layout = layout
        if not hasattr(os, "memfd_create"):
            raise ClipmuxError("this system has no memory without a name (memfd_create)")
        spare = available_memory()
        if layout.bytes * SHARE > spare:
            raise ClipmuxError(
                f"{layout.bytes >> 20} MiB of shared memory would be more than half of the {spare >> 20} MiB there are"
            )
        try:
            self.fd = os.memfd_create("clipmux-clips", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise ClipmuxError(f"shared memory cannot be made ({error.strerror})") from None
        try:
            os.posix_fallocate(self.fd, 0, layout.bytes)
            # Nobody can cut it short any more, so that a page which is mapped is there.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError as error:
            os.close(self.fd)
            raise ClipmuxError(f"{layout.bytes >> 20} MiB of shared memory cannot be had ({error.strerror})") from None

    def close(self) -> None:
        os.close(self.fd)


def map_seat(fd: int, layout: Layout, seat: int) -> dict[int, Slot]:
    """A decoder's slots by number, to write into. Takes over the descriptor."""
    size = layout.slots * layout.stride
    return _mapped(fd, layout, layout.of_seat(seat), mmap.mmap(fd, size, flags=FLAGS, offset=seat * size))


def map_all(fd: int, layout: Layout) -> dict[int, Slot]:
    """All slots by number, to read only. Takes over the descriptor."""
    memory = mmap.mmap(fd, layout.bytes, flags=FLAGS, prot=mmap.PROT_READ)
    return _mapped(fd, layout, range(layout.seats * layout.slots), memory)


def _mapped(fd: int, layout: Layout, numbers: range, memory: mmap.mmap) -> dict[int, Slot]:
    os.close(fd)
    count = math.prod(layout.shape)
    return {
        number: np.frombuffer(memory, np.uint8, count, place * layout.stride).reshape(layout.shape)
        for place, number in enumerate(numbers)
    }
