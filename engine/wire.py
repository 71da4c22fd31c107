"""Messages to frames and back: ``[msgpack header]`` or ``[msgpack header, tensor bytes]``.

A header is ``[VERSION, kind, body]``; a body is the message's fields in order. Everything is checked before a byte of
the tensor is touched: the number and size of frames, the version, the kind against what this receiver expects, every
field, and the tensor's length against the shape that the *receiver* knows from the model. Whatever is wrong raises
``MessageError``; nothing else is ever raised, and nothing is ever executed (no pickle).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, List, TypeVar, Union, cast, get_args  # noqa: UP035

import msgpack
import numpy as np
import numpy.typing as npt

from .errors import MessageError
from .messages import (
    THUMBNAIL_MOST,
    Claim,
    Clip,
    ClipKey,
    Control,
    Drops,
    Grant,
    LiveReport,
    Message,
    Part,
    Placed,
    Read,
    Report,
    Scores,
    Segment,
    StreamState,
    Thumbnail,
    VideoEnd,
    VideoFailed,
    quoted,
)
from .squeezed import unsqueeze

VERSION = 1
CLIP_HEADER_MOST = 1 << 10
"""Bytes of a clip's header at most; it holds ten numbers."""
HEADER_MOST = 1 << 26
"""Bytes of any header at most. The longest are per-clip results: every 16th frame of 25 a second, 64 MiB is
half an hour of video with the top 700 labels of each clip, and some 40 hours with the top 5.
"""

Buffer = Union[bytes, memoryview]  # noqa: UP007  (see messages.py)
Frames = List[Any]  # noqa: UP006
"""What to send: bytes, and for tensors the array itself, which must not be written to until it has left."""

Plain = TypeVar("Plain", bound=Message)

CONTROL: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Control)}
PLAIN: dict[str, type[Message]] = {
    **CONTROL,
    **{kind.__name__: kind for kind in (VideoEnd, VideoFailed, StreamState, Drops)},
}
"""Messages of one frame: their fields travel as they are."""


class TooLongError(MessageError):
    """A message is longer than any receiver takes.

    Args:
        kind: of the message.
        length: of its header, in bytes.
    """

    def __init__(self, kind: str, length: int) -> None:
        super().__init__(f"a {kind} message of {length} bytes is above the {HEADER_MOST} that are allowed")
        self.length = length


def encode(message: Message) -> Frames:
    """The frames of a message. Tensors are not copied.

    Raises:
        TooLongError: it is.
    """
    if isinstance(message, Clip):
        return [_pack("Clip", [_key_body(message.key), message.decoded_at, message.slot]), message.pixels]
    if isinstance(message, Placed):
        return [_pack("Placed", [_key_body(message.key), message.decoded_at, message.slot])]
    if isinstance(message, Scores):
        return [_pack("Scores", [[_key_body(key) for key in message.keys], message.ages]), message.scores]
    if isinstance(message, Thumbnail):
        return [_pack("Thumbnail", [message.stream, message.connection, message.at]), message.jpeg]
    if isinstance(message, Part):
        return [_pack("Part", [message.video, message.offset, message.size, message.fault]), message.content]
    return [_pack(type(message).__name__, list(vars(message).values()))]


def decode_clip(frames: Sequence[Buffer], shape: tuple[int, int, int, int], *, squeezed: bool = False) -> Clip | Claim:
    """What inference receives where pixels come through the socket. Whose slot it is, the receiver must see.

    The pixels of a clip are a view of the received frame, uint8 of ``shape`` ``[T, H, W, C]``; where they may come
    ``squeezed``, one that is smaller is a JPEG.
    """
    kind, body = _clip_header(frames, {"Clip", "Claim"})
    if kind == "Claim":
        return _claim(frames, body)
    _, tensor = _frames(frames, 2)
    key, decoded_at, slot = _fields(body, 3)
    if squeezed and len(tensor) < math.prod(shape):
        pixels = unsqueeze(tensor, shape)
    else:
        pixels = _tensor(tensor, np.uint8, shape)
    return _made(lambda: Clip(_key(key), decoded_at, pixels, slot))


def decode_placed(frames: Sequence[Buffer]) -> Placed | Claim:
    """What inference receives where pixels are in the clip memory. Whose slot it is, the receiver must see."""
    kind, body = _clip_header(frames, {"Placed", "Claim"})
    if kind == "Claim":
        return _claim(frames, body)
    _frames(frames, 1)
    key, decoded_at, slot = _fields(body, 3)
    return _made(lambda: Placed(_key(key), decoded_at, slot))


def decode_grant(frames: Sequence[Buffer], known: Container[int]) -> Grant:
    """What a decoder receives of inference; ``known`` are the slots of its seat."""
    (slots,) = _fields(_body(_frames(frames, 1)[0], {"Grant"})[1], 1)
    if not isinstance(slots, list):
        raise MessageError(f"slots are {quoted(slots)}, a list belongs there")
    grant = _made(lambda: Grant(tuple(slots)))
    if not all(slot in known for slot in grant.slots):
        raise MessageError(f"slots {quoted(slots)} are granted, some of which are not of this seat")
    return grant


def decode_read(frames: Sequence[Buffer]) -> Read:
    """What the file server receives."""
    (header,) = _frames(frames, 1)
    return _made(lambda: Read(*_fields(_body(header, {"Read"})[1], 3)))


def decode_part(frames: Sequence[Buffer], most: int) -> Part:
    """What a decoder receives of it: ``most`` bytes at most."""
    header, content = _frames(frames, 2)
    if len(content) > most:
        raise MessageError(f"a part of a file has {len(content)} bytes, {most} were asked for")
    video, offset, size, fault = _fields(_body(header, {"Part"})[1], 4)
    return _made(lambda: Part(video, offset, size, fault, bytes(content)))


def decode_report(frames: Sequence[Buffer], classes: int) -> Report:
    """What the collector receives; scores are float32 ``[N, classes]``."""
    kind, body = _body(_header(frames), {"Scores", "VideoEnd", "VideoFailed"})
    if kind == "Scores":
        return _scores(frames, body, classes)
    _frames(frames, 1)
    message = _plain(kind, body)
    assert isinstance(message, (VideoEnd, VideoFailed))  # noqa: S101  (the kinds allowed above)
    return message


def decode_live_report(frames: Sequence[Buffer], classes: int) -> LiveReport:
    """What the watcher receives; scores are float32 ``[N, classes]``."""
    kind, body = _body(_header(frames), {"Scores", "StreamState", "Thumbnail", "Drops"})
    if kind == "Scores":
        return _scores(frames, body, classes)
    if kind == "Thumbnail":
        _, jpeg = _frames(frames, 2)
        if len(jpeg) > THUMBNAIL_MOST:
            raise MessageError(f"a thumbnail has {len(jpeg)} bytes, at most {THUMBNAIL_MOST} are allowed")
        stream, connection, at = _fields(body, 3)
        return _made(lambda: Thumbnail(stream, connection, at, bytes(jpeg)))
    _frames(frames, 1)
    message = _plain(kind, body)
    assert isinstance(message, (StreamState, Drops))  # noqa: S101  (the kinds allowed above)
    return message


def decode_control(frames: Sequence[Buffer]) -> Control:
    """What passes between the supervisor and its children."""
    kind, body = _body(_header(frames), set(CONTROL))
    _frames(frames, 1)
    return cast(Control, _plain(kind, body))  # of the kinds allowed above


def _scores(frames: Sequence[Buffer], body: object, classes: int) -> Scores:
    _, tensor = _frames(frames, 2)
    keys, ages = _fields(body, 2)
    if not isinstance(keys, list) or not keys:
        raise MessageError(f"scores are for {quoted(keys)}, a list of clips belongs there")
    if not isinstance(ages, list):
        raise MessageError(f"clips are {quoted(ages)} old, a list of seconds belongs there")
    scores = _tensor(tensor, np.float32, (len(keys), classes))
    return _made(lambda: Scores(tuple(_key(key) for key in keys), scores, tuple(ages)))


def _clip_header(frames: Sequence[Buffer], allowed: set[str]) -> tuple[str, Any]:
    header = _header(frames)
    if len(header) > CLIP_HEADER_MOST:
        raise MessageError(f"a clip's header has {len(header)} bytes, at most {CLIP_HEADER_MOST} are allowed")
    return _body(header, allowed)


def _claim(frames: Sequence[Buffer], body: object) -> Claim:
    _frames(frames, 1)
    return _made(lambda: Claim(*_fields(body, 2)))


def _pack(kind: str, body: list[Any]) -> bytes:
    packed: bytes = msgpack.packb([VERSION, kind, body])
    if len(packed) > HEADER_MOST:
        raise TooLongError(kind, len(packed))
    return packed


def _key_body(key: ClipKey) -> list[Any]:
    return [key.video, key.attempt, key.index, key.segment.start, key.segment.stop, key.segment.seconds]


def _key(body: object) -> ClipKey:
    video, attempt, index, start, stop, seconds = _fields(body, 6)
    return ClipKey(video, attempt, index, Segment(start, stop, _seconds(seconds)))


def _seconds(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # msgpack has no tuples; Segment checks the rest


def _plain(kind: str, body: object) -> Message:
    made = PLAIN[kind]
    names = list(made.__dataclass_fields__)
    values = dict(zip(names, _fields(body, len(names))))  # noqa: B905  (so many there are)
    if "seconds" in values:
        values["seconds"] = _seconds(values["seconds"])
    return _made(lambda: made(**values))


def _made(make: Callable[[], Plain]) -> Plain:
    try:
        return make()
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"a message cannot be made of what was received: {error}") from None


def _frames(frames: Sequence[Buffer], count: int) -> Sequence[Buffer]:
    if len(frames) != count:
        raise MessageError(f"a message came in {len(frames)} frames, {count} belong to it")
    return frames


def _header(frames: Sequence[Buffer]) -> Buffer:
    if not frames:
        raise MessageError("a message came without a frame")
    return frames[0]


def _body(header: Buffer, allowed: set[str]) -> tuple[str, Any]:
    if len(header) > HEADER_MOST:
        raise MessageError(f"a header has {len(header)} bytes, at most {HEADER_MOST} are allowed")
    try:
        # msgpack itself refuses lengths that go beyond the header, and more than 1,024 levels of nesting
        content = msgpack.unpackb(header, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # the unpacker raises many kinds for foreign bytes, none of which may pass
        raise MessageError(f"a header is not msgpack: {type(error).__name__}") from None
    version, kind, body = _fields(content, 3)
    if version != VERSION or type(version) is not int:
        raise MessageError(f"a header has version {quoted(version)}, this side speaks {VERSION}")
    if not isinstance(kind, str) or kind not in allowed:
        raise MessageError(f"a message of kind {quoted(kind)} does not belong here")
    return kind, body


def _fields(body: object, count: int) -> list[Any]:
    if not isinstance(body, list) or len(body) != count:
        raise MessageError(f"{count} values belong into a part of a header that has {_short(body)}")
    return body


def _short(body: object) -> str:
    return f"{len(body)}" if isinstance(body, list) else f"a {type(body).__name__}"


def _tensor(frame: Buffer, dtype: type[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if len(frame) != needed:
        raise MessageError(f"a tensor has {len(frame)} bytes, {needed} make {np.dtype(dtype).name} {list(shape)}")
    return np.frombuffer(frame, dtype).reshape(shape)
