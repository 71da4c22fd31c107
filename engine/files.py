"""Videos' bytes through the connection, for decoder hosts that do not have the files: ``clipmux decode --fetch``.

A decoder asks for a part at a time, over a socket of its own; a thread of the supervisor's process reads it. Only files
of videos that decoders elsewhere have at the moment are read to anyone.
"""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

from .errors import MessageError
from .messages import Part, Read, quoted
from .sockets import Context, Socket, dealer_files, router_files
from .wire import decode_part, decode_read, encode

log = logging.getLogger(__name__)

PART_BYTES = 1 << 20
LOOK_MS = 100
CLOSE_S = 2.0
"""How long a read that is under way is waited for at the end; a disk may never answer it."""


class FileServer:
    """Reads files to decoders elsewhere, from a thread of its own, until it is closed.

    Args:
        context: of the process.
        address: where it is asked.

    Raises:
        UsageError: that cannot be bound.
    """

    def __init__(self, context: Context, address: str) -> None:
        self._socket: Socket = router_files(context, address)
        self._open: dict[int, Path] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="files", daemon=True)
        self._thread.start()

    def lend(self, video: int, path: Path) -> None:
        """This file may be read."""
        self._open[video] = path

    def take_back(self, video: int) -> None:
        """It may not any more."""
        self._open.pop(video, None)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(CLOSE_S)

    def _serve(self) -> None:
        while not self._ended.is_set():
            if self._socket.poll(LOOK_MS):
                sender, *frames = self._socket.recv_multipart()
                try:
                    self._socket.send_multipart([sender, *encode(self._part(decode_read(frames)))])
                except MessageError as error:
                    log.warning("%s asked for something else than a part of a file: %s", quoted(sender), error)
        self._socket.close(linger=0)

    def _part(self, asked: Read) -> Part:
        path = self._open.get(asked.video)
        if path is None:
            return Part(asked.video, asked.offset, 0, "is not lent to anyone", b"")
        try:
            if not path.is_file():  # opening a pipe would wait for who writes into it
                path.stat()
                return Part(asked.video, asked.offset, 0, "is not a regular file", b"")
            with path.open("rb") as file:
                size = file.seek(0, io.SEEK_END)
                file.seek(asked.offset)
                return Part(asked.video, asked.offset, size, "", file.read(min(asked.count, PART_BYTES)))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Part(asked.video, asked.offset, 0, f"cannot be read ({why})"[:256], b"")


class FileReader:
    """A decoder's end; a file at a time.

    Args:
        context: of the process.
        address: of the file server.
    """

    def __init__(self, context: Context, address: str) -> None:
        self._socket = dealer_files(context, address, part_bytes=PART_BYTES)

    def part(self, video: int, offset: int) -> Part:
        """Bytes from ``offset`` on. It is waited for: should the connection be lost, this process ends.

        Raises:
            OSError: the file cannot be read there, or not any more.
        """
        self._socket.send_multipart(encode(Read(video, offset, PART_BYTES)))
        while True:
            part = decode_part(self._socket.recv_multipart(), PART_BYTES)
            if (part.video, part.offset) == (video, offset):  # else it answers one that was given up
                break
        if part.fault:
            raise OSError(f"the file {part.fault} on the server")
        return part

    def open(self, video: int) -> FetchedFile:
        """
        Raises:
            OSError: the file cannot be read there.
        """
        return FetchedFile(self, video)


class FetchedFile(io.RawIOBase):
    """A file elsewhere, to read and to seek in; a part of it is here.

    Args:
        reader: who fetches parts.
        video: the number of the video whose file it is.

    Attributes:
        size: bytes.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, reader: FileReader, video: int) -> None:
        self._reader, self._video, self._at = reader, video, 0
        self._part = reader.part(video, 0)
        self.size = self._part.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        """``count`` bytes, fewer only at the end; -1: all that are left."""
        wanted = self.size - self._at if count is None or count < 0 else min(count, self.size - self._at)
        pieces = []
        while wanted > 0:
            start = self._at - self._part.offset
            if not 0 <= start < len(self._part.content):
                self._part = self._reader.part(self._video, self._at)
                start = 0
            piece = self._part.content[start : start + wanted]
            if not piece:
                raise OSError("the file has become shorter on the server")
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)
