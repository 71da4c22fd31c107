"""What processes say to each other: small dataclasses that check themselves.

A field that does not hold what it should raises ``MessageError`` when the message is made, on either side of the wire.
Times are ``time.monotonic()`` seconds, which all processes of one host share.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from .errors import MessageError

STATES = CONNECTING, LIVE, STALLED, RECONNECTING, ENDED = "connecting", "live", "stalled", "reconnecting", "ended"
"""What a stream can be."""

THUMBNAIL_MOST = 1 << 16

LARGEST = 2**53
"""Whole numbers above this do not survive every JSON reader; none of ours comes near."""


def quoted(value: object) -> str:
    """A value for an error message; one from the wire may be 64 MiB long, or nested deeper than ``repr`` can go."""
    return reprlib.repr(value)


def _whole(name: str, value: object, low: int = 0) -> None:
    if type(value) is not int or not low <= value <= LARGEST:
        raise MessageError(f"{name} is {quoted(value)}, a whole number from {low} on belongs there")


def _real(name: str, value: object) -> None:
    if type(value) is not float or not abs(value) < LARGEST:  # NaN compares false
        raise MessageError(f"{name} is {quoted(value)}, a finite float belongs there")


def _text(name: str, value: object, most: int = 1 << 16) -> None:
    if type(value) is not str or len(value) > most:
        raise MessageError(f"{name} is not a text of at most {most} characters")


def _pair(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != 2:
        raise MessageError(f"{name} is {quoted(value)}, two floats or nothing belong there")
    _real(name, value[0])
    _real(name, value[1])


@dataclass(frozen=True)
class Segment:
    """The part of a video that a clip covers.

    ``start`` and ``stop`` are frame numbers as the reference counts them: from 1, ``stop`` one past the last frame.
    ``seconds`` are the presentation time of the first frame and the end of the last one, as the file has them; None
    where there are no times (a folder of frames).
    """

    start: int
    stop: int
    seconds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _whole("start", self.start)
        _whole("stop", self.stop)
        _pair("seconds", self.seconds)


@dataclass(frozen=True)
class ClipKey:
    """Which clip of which hand-out of which video."""

    video: int
    attempt: int
    index: int
    segment: Segment

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("attempt", self.attempt, 1)
        _whole("index", self.index)
        if not isinstance(self.segment, Segment):
            raise MessageError(f"segment is {quoted(self.segment)}, not a segment")


@dataclass(frozen=True)
class Clip:
    """Decoder to inference: one clip, uint8 ``[T, H, W, C]``, and when its last frame had been decoded.

    ``slot`` is the one that was lent to its decoder for it.
    """

    key: ClipKey
    decoded_at: float
    pixels: npt.NDArray[np.uint8] = field(compare=False)
    slot: int

    def __post_init__(self) -> None:
        _real("decoded_at", self.decoded_at)
        _whole("slot", self.slot)


@dataclass(frozen=True)
class Placed:
    """Decoder to inference: one clip, whose pixels are in ``slot`` of the clip memory."""

    key: ClipKey
    decoded_at: float
    slot: int

    def __post_init__(self) -> None:
        _real("decoded_at", self.decoded_at)
        _whole("slot", self.slot)


@dataclass(frozen=True)
class Claim:
    """Decoder to inference, once: it is the one in this seat from now on.

    ``turn`` grows with every process that is started, so that a late claim of a dead one is known for what it is.
    """

    seat: int
    turn: int

    def __post_init__(self) -> None:
        _whole("seat", self.seat)
        _whole("turn", self.turn, 1)


@dataclass(frozen=True)
class Grant:
    """Inference to decoder: it may fill these slots."""

    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        for slot in self.slots:
            _whole("slot", slot)


@dataclass(frozen=True)
class Scores:
    """Inference to collector: a batch's clip scores, float32 ``[N, classes]``, row ``i`` for ``keys[i]``.

    ``ages[i]`` is how long ago, in seconds, the last frame of clip ``i`` had been decoded: no time, since inference may
    be on a machine with another clock. In a live key, ``video`` is the stream and ``attempt`` the connection.
    """

    keys: tuple[ClipKey, ...]
    scores: npt.NDArray[np.float32] = field(compare=False)
    ages: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.keys) != len(self.scores):
            raise MessageError(f"{len(self.keys)} clips have scores of shape {list(self.scores.shape)}")
        if len(self.ages) != len(self.keys):
            raise MessageError(f"{len(self.keys)} clips have {len(self.ages)} ages")
        for age in self.ages:
            _real("age", age)


@dataclass(frozen=True)
class VideoEnd:
    """Decoder to collector: the video is decoded, ``clips`` clips of it were *sent*."""

    video: int
    attempt: int
    video_id: str
    path: str
    clips: int
    frames: int
    seconds: tuple[float, float] | None

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("attempt", self.attempt, 1)
        _text("video_id", self.video_id)
        _text("path", self.path)
        _whole("clips", self.clips, 1)
        _whole("frames", self.frames, 1)
        _pair("seconds", self.seconds)


@dataclass(frozen=True)
class VideoFailed:
    """Decoder or supervisor to collector: the video cannot be classified, and why."""

    video: int
    attempt: int
    video_id: str
    path: str
    stage: str
    kind: str
    message: str

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("attempt", self.attempt, 1)
        for name in ("video_id", "path", "stage", "kind", "message"):
            _text(name, getattr(self, name))


@dataclass(frozen=True)
class StreamState:
    """Camera or supervisor to watcher, at every change and about once a second: how a stream is.

    Args:
        stream: its number, never used again for another.
        connection: which (re)connect it is, from 1.
        state: one of ``STATES``.
        detail: one sentence for a person, or nothing.
        at: when this was so.
        figures: ``frames``, ``clips``, ``dropped``, ``width``, ``height``, ``fps``, ``wall_offset`` (Unix time at PTS 0
            of this connection), as far as they are known.
    """

    stream: int
    connection: int
    state: str
    detail: str
    at: float
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _whole("stream", self.stream)
        _whole("connection", self.connection, 1)
        if self.state not in STATES:
            raise MessageError(f"state is {quoted(self.state)}, one of {', '.join(STATES)} belongs there")
        _text("detail", self.detail)
        _real("at", self.at)
        _plain("figures", self.figures)


@dataclass(frozen=True)
class Thumbnail:
    """Camera to watcher, about once a second: what a stream looks like, a JPEG of at most ``THUMBNAIL_MOST`` bytes."""

    stream: int
    connection: int
    at: float
    jpeg: bytes

    def __post_init__(self) -> None:
        _whole("stream", self.stream)
        _whole("connection", self.connection, 1)
        _real("at", self.at)
        if type(self.jpeg) is not bytes or not 0 < len(self.jpeg) <= THUMBNAIL_MOST:
            raise MessageError(f"jpeg is not 1 to {THUMBNAIL_MOST} bytes")


@dataclass(frozen=True)
class Drops:
    """Inference to watcher, about once a second where there are any.

    Args:
        process: the name of the inference process, of which a machine with several devices has several.
        counts: ``[stream, clips dropped so far]`` of each stream that lost any.
    """

    process: str
    counts: list[list[int]]

    def __post_init__(self) -> None:
        _text("process", self.process)
        if not isinstance(self.counts, list):
            raise MessageError(f"counts are {quoted(self.counts)}, a list belongs there")
        for pair in self.counts:
            if not isinstance(pair, list) or len(pair) != 2:
                raise MessageError(f"counts hold {quoted(pair)}, a stream and its dropped clips belong there")
            _whole("stream", pair[0])
            _whole("dropped", pair[1])


@dataclass(frozen=True)
class Hello:
    """Child to supervisor: ready for work. ``about`` is what it chose, for the log and the summary."""

    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _plain("about", self.about)


@dataclass(frozen=True)
class Failed:
    """Child to supervisor: it cannot go on; ``usage`` if that is the fault of what was asked for."""

    message: str
    usage: bool = False

    def __post_init__(self) -> None:
        _text("message", self.message)
        if type(self.usage) is not bool:
            raise MessageError(f"usage is {quoted(self.usage)}, true or false belongs there")


@dataclass(frozen=True)
class Next:
    """Decoder to supervisor: everything of the last video is sent; it asks for another."""


@dataclass(frozen=True)
class Assign:
    """Supervisor to decoder: decode this video (``Video.to_dict()``) as this attempt."""

    video: int
    attempt: int
    source: dict[str, Any]

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("attempt", self.attempt, 1)
        _plain("source", self.source)


@dataclass(frozen=True)
class Opened:
    """Decoder to supervisor: the first frame of this video is decoded."""

    video: int

    def __post_init__(self) -> None:
        _whole("video", self.video)


@dataclass(frozen=True)
class Beat:
    """Child to supervisor, twice a second while busy: it makes progress. ``counts`` are totals so far."""

    counts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _plain("counts", self.counts)
        for name in ("frames", "clips"):  # which are added up, whoever says them
            _whole(name, self.counts.get(name, 0))


@dataclass(frozen=True)
class Expect:
    """Supervisor to inference: whether more clips are on their way, so that it need not wait to fill a batch."""

    more: bool

    def __post_init__(self) -> None:
        if type(self.more) is not bool:
            raise MessageError(f"more is {quoted(self.more)}, true or false belongs there")


@dataclass(frozen=True)
class Done:
    """Collector to supervisor: the video has its outcome, and it is written. ``line`` is ``Prediction.to_json()``."""

    video: int
    line: dict[str, Any]

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _plain("line", self.line)


@dataclass(frozen=True)
class Streams:
    """Supervisor to watcher, at the start and whenever they change: all streams there are, without credentials."""

    streams: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if not isinstance(self.streams, list):
            raise MessageError(f"streams are {quoted(self.streams)}, a list belongs there")
        for stream in self.streams:
            _plain("a stream", stream)


@dataclass(frozen=True)
class Totals:
    """Supervisor to watcher, about once a second: figures of all streams together."""

    figures: dict[str, Any]

    def __post_init__(self) -> None:
        _plain("figures", self.figures)


@dataclass(frozen=True)
class Happened:
    """Watcher to supervisor: an event has begun or ended. ``line`` is the event as it is written."""

    line: dict[str, Any]

    def __post_init__(self) -> None:
        _plain("line", self.line)


@dataclass(frozen=True)
class Join:
    """Decoder host to supervisor, once: so many decoders of this host would help."""

    host: str
    decoders: int

    def __post_init__(self) -> None:
        _text("host", self.host, 256)
        _whole("decoders", self.decoders, 1)


@dataclass(frozen=True)
class Offer:
    """Inference host to supervisor, once: it would have the devices.

    Args:
        host: what its people call it.
        clips: ``HOST:PORT`` where the first device takes clips, the others at the ports after that; nothing where that
            is in the folder of the engine's sockets.
        key: its public key, where it listens.
    """

    host: str
    clips: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        _text("host", self.host, 256)
        _text("clips", self.clips, 256)
        _text("key", self.key, 64)


@dataclass(frozen=True)
class Begin:
    """Supervisor to a host elsewhere: start a process of this name, told this."""

    name: str
    content: dict[str, Any]

    def __post_init__(self) -> None:
        _text("name", self.name, 64)
        _plain("content", self.content)


@dataclass(frozen=True)
class End:
    """Supervisor to a host elsewhere: kill the process of this name."""

    name: str

    def __post_init__(self) -> None:
        _text("name", self.name, 64)


@dataclass(frozen=True)
class Ended:
    """A host elsewhere to the supervisor: a process has ended without being asked to.

    ``how`` is the end of a sentence about it. ``at_fault``: what it was decoding may have brought it down.
    """

    name: str
    how: str
    at_fault: bool

    def __post_init__(self) -> None:
        _text("name", self.name, 64)
        _text("how", self.how, 4096)
        if type(self.at_fault) is not bool:
            raise MessageError(f"at_fault is {quoted(self.at_fault)}, true or false belongs there")


@dataclass(frozen=True)
class Read:
    """Decoder elsewhere to file server: some bytes of a video's file that it was handed."""

    video: int
    offset: int
    count: int

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("offset", self.offset)
        _whole("count", self.count)


@dataclass(frozen=True)
class Part:
    """File server to decoder elsewhere: the bytes, as many as there are; or why there are none.

    Args:
        video: as it was asked for.
        offset: likewise.
        size: of the whole file.
        fault: the end of a sentence about the file, or nothing.
        content: the bytes.
    """

    video: int
    offset: int
    size: int
    fault: str
    content: bytes

    def __post_init__(self) -> None:
        _whole("video", self.video)
        _whole("offset", self.offset)
        _whole("size", self.size)
        _text("fault", self.fault, 256)
        if type(self.content) is not bytes:
            raise MessageError(f"content is {quoted(self.content)}, bytes belong there")


@dataclass(frozen=True)
class Stop:
    """Supervisor to child: finish what is at hand and end."""


@dataclass(frozen=True)
class Goodbye:
    """Child to supervisor: it is about to end; ``figures`` are its part of the summary."""

    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _plain("figures", self.figures)


def _plain(name: str, value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise MessageError(f"{name} is not a mapping with text keys")


# Union, not |: inference in a vendor's container runs an older Python (engine/inference_host.py).
ForChildren = Union[Assign, Expect, Streams, Totals, Stop]  # noqa: UP007
OfChildren = Union[Hello, Failed, Next, Opened, Beat, Done, Happened, Goodbye]  # noqa: UP007
Hosting = Union[Join, Offer, Begin, End, Ended]  # noqa: UP007
Control = Union[ForChildren, OfChildren, Hosting]  # noqa: UP007
"""What passes between the supervisor and its children, and the hosts of those that are elsewhere."""

Report = Union[Scores, VideoEnd, VideoFailed]  # noqa: UP007
"""What the collector receives."""

LiveReport = Union[Scores, StreamState, Thumbnail, Drops]  # noqa: UP007
"""What the watcher receives."""

Message = Union[Control, Report, LiveReport, Clip, Placed, Claim, Grant, Read, Part]  # noqa: UP007
