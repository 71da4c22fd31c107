"""``System`` and ``Device`` [V].

A device is active for the thread that activated it [I], also after ``System`` ended [V].
"""

from __future__ import annotations

from types import TracebackType

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import Code
from ..cc._pywrap_runtime.status import failure
from . import faults, machine
from .queue import Queue


class System:
    """The machine, as a context manager."""

    def __enter__(self) -> System:  # noqa: PYI034  (Self is newer than the oldest Python)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def device_count(self) -> int:
        return machine.device_count()


class Device:
    """One device, by its number."""

    def __init__(self) -> None:
        self._id = 0

    @property
    def id(self) -> int:
        return self._id

    @id.setter  # noqa: A003  (the API's name)
    def id(self, number: int) -> None:
        need("Device.id", number, int)
        self._id = number

    def active(self) -> Status:
        """Make this the device of the calling thread."""
        if faults.strikes("active"):
            return failure("the device does not answer", Code.UNAVAILABLE)
        if not 0 <= self._id < machine.device_count():
            return failure(f"no device {self._id}: the machine has {machine.device_count()}", Code.UNAVAILABLE)
        machine.make_current(self._id)
        return Status.OK()

    def create_queue(self) -> Queue | None:
        """A queue on this device, or None where it is not active in this thread."""
        if machine.current_device() != self._id:
            return machine.complain("create_queue", f"device {self._id} is not active in this thread")
        if faults.strikes("create_queue"):
            return machine.complain("create_queue", "a fault was asked for")
        return Queue._on(self._id)
