"""``Status``, which mutators return [V]; no public code catches an exception.

A ``Status`` is truthy as an object even when it is not OK: samples assert it bare.
"""

from __future__ import annotations

from .arguments import need
from .enums import Code


class Status:
    """OK, or a code and a message."""

    def __init__(self, code: Code = Code.OK, msg: str = "") -> None:
        need("Status", code, Code)
        need("Status", msg, str)
        self._code = code
        self._message = msg

    @staticmethod
    def OK() -> Status:  # noqa: N802
        return Status()

    def ok(self) -> bool:
        return self._code is Code.OK

    def __str__(self) -> str:
        return "OK" if self.ok() else f"{self._code.name}: {self._message}"

    __repr__ = __str__


def failure(message: str, code: Code = Code.INTERNAL) -> Status:
    """What a call of the emulator returns when it refuses."""
    return Status(code, message)


def is_code(status: Status, code: Code) -> bool:
    """Whether a ``Status`` has a code; the API has no public getter for it [–]."""
    return status._code is code  # the emulator's own look inside
