"""The errors that a person may see: one sentence each, the bad value quoted, the remedy named.

Each carries the exit status that the command line gives it, so that a message and a status never disagree.
"""

from __future__ import annotations


class ClipmuxError(Exception):
    """The run itself failed (exit status 1)."""

    exit_status = 1


class UsageError(ClipmuxError):
    """What was asked for cannot be done as asked; nothing was started (exit status 2)."""

    exit_status = 2


class ModelError(UsageError):
    """A model folder, a checkpoint or a network that cannot be used as it is."""


class MessageError(ClipmuxError):
    """A message that does not follow the wire format; the receiver drops it and says so."""


class VideoError(ClipmuxError):
    """One video cannot be classified; all others go on.

    ``stage`` says how far it came: ``list``, ``open``, ``decode``, ``decoder crashed`` … and ``kind`` is a short
    machine-readable name of the fault (``NoVideoStream``, ``Truncated`` …).
    """

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.kind = kind
        self.message = message
