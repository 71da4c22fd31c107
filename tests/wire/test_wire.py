"""The wire format: every message survives it; whatever else arrives is refused with a sentence, never with a crash."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any, get_args

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.errors import MessageError
from clipmux.engine.messages import (
    LARGEST,
    STATES,
    THUMBNAIL_MOST,
    Assign,
    Beat,
    Begin,
    Claim,
    Clip,
    ClipKey,
    Control,
    Done,
    Drops,
    End,
    Ended,
    Expect,
    Failed,
    Goodbye,
    Grant,
    Happened,
    Hello,
    Join,
    LiveReport,
    Message,
    Next,
    Offer,
    Opened,
    Part,
    Placed,
    Read,
    Report,
    Scores,
    Segment,
    Stop,
    Streams,
    StreamState,
    Thumbnail,
    Totals,
    VideoEnd,
    VideoFailed,
)
from clipmux.engine.wire import (
    CLIP_HEADER_MOST,
    HEADER_MOST,
    VERSION,
    decode_clip,
    decode_control,
    decode_grant,
    decode_live_report,
    decode_part,
    decode_placed,
    decode_read,
    decode_report,
    encode,
)

SHAPE = (2, 3, 4, 3)
CLASSES = 3
KEY = [0, 1, 0, 1, 17, None]
PIXELS = bytes(72)
SEAT = range(4, 8)

whole = st.integers(0, LARGEST)
attempt = st.integers(1, LARGEST)
real = st.floats(-LARGEST, LARGEST, exclude_min=True, exclude_max=True)
text = st.text(max_size=20)
seconds = st.none() | st.tuples(real, real)
leaf = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(max_size=8)
tree = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=5)
mapping = st.dictionaries(text, tree, max_size=3)
keys = st.builds(ClipKey, whole, attempt, whole, st.builds(Segment, whole, whole, seconds))


def array_of(dtype: type[Any], *shape: int) -> st.SearchStrategy[np.ndarray]:
    """Any array of this shape, NaN and infinities included."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, dtype).reshape(shape))


def scores_of(some: list[ClipKey]) -> st.SearchStrategy[Scores]:
    times = st.lists(real, min_size=len(some), max_size=len(some)).map(tuple)
    return st.builds(Scores, st.just(tuple(some)), array_of(np.float32, len(some), CLASSES), times)


MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    Clip: st.builds(Clip, keys, real, array_of(np.uint8, *SHAPE), whole),
    Scores: st.lists(keys, min_size=1, max_size=4).flatmap(scores_of),
    VideoEnd: st.builds(VideoEnd, whole, attempt, text, text, attempt, attempt, seconds),
    VideoFailed: st.builds(VideoFailed, whole, attempt, text, text, text, text, text),
    Hello: st.builds(Hello, mapping),
    Failed: st.builds(Failed, text, st.booleans()),
    Next: st.builds(Next),
    Assign: st.builds(Assign, whole, attempt, mapping),
    Beat: st.builds(Beat, mapping),
    Opened: st.builds(Opened, whole),
    Expect: st.builds(Expect, st.booleans()),
    Done: st.builds(Done, whole, mapping),
    Stop: st.builds(Stop),
    Goodbye: st.builds(Goodbye, mapping),
    Placed: st.builds(Placed, keys, real, whole),
    Claim: st.builds(Claim, whole, attempt),
    Grant: st.builds(Grant, st.lists(st.sampled_from(SEAT)).map(tuple)),
    StreamState: st.builds(StreamState, whole, attempt, st.sampled_from(STATES), text, real, mapping),
    Thumbnail: st.builds(Thumbnail, whole, attempt, real, st.binary(min_size=1, max_size=99)),
    Drops: st.builds(Drops, st.text(max_size=9), st.lists(st.tuples(whole, whole).map(list), max_size=3)),
    Streams: st.builds(Streams, st.lists(mapping, max_size=3)),
    Totals: st.builds(Totals, mapping),
    Happened: st.builds(Happened, mapping),
    Join: st.builds(Join, text, attempt),
    Offer: st.builds(Offer, text, text, text),
    Read: st.builds(Read, whole, whole, whole),
    Part: st.builds(Part, whole, whole, whole, text, st.binary(max_size=99)),
    Begin: st.builds(Begin, text, mapping),
    End: st.builds(End, text),
    Ended: st.builds(Ended, text, text, st.booleans()),
}
KINDS = sorted(kind.__name__ for kind in MESSAGES)

RECEIVERS: list[tuple[Callable[[list[bytes]], Message], tuple[type, ...]]] = [
    (lambda frames: decode_clip(frames, SHAPE), (Clip, Claim)),
    (lambda frames: decode_report(frames, CLASSES), get_args(Report)),
    (lambda frames: decode_live_report(frames, CLASSES), get_args(LiveReport)),
    (decode_control, get_args(Control)),
    (decode_placed, (Placed, Claim)),
    (lambda frames: decode_grant(frames, SEAT), (Grant,)),
    (decode_read, (Read,)),
    (lambda frames: decode_part(frames, 1 << 10), (Part,)),
]


def receiver(kind: type) -> Callable[[list[bytes]], Message]:
    return next(decode for decode, kinds in RECEIVERS if kind in kinds)


def on_the_wire(message: Message) -> list[bytes]:
    return [frame if isinstance(frame, bytes) else frame.tobytes() for frame in encode(message)]


def tensor(message: Message) -> np.ndarray | None:
    return getattr(message, "pixels", getattr(message, "scores", None))


def assert_right_or_refused(frames: list[bytes]) -> None:
    """Every receiver makes a message of its own kinds of these frames, or says in a short sentence why not."""
    for decode, kinds in RECEIVERS:
        try:
            message = decode(frames)
        except MessageError as error:
            said = str(error)
            assert 0 < len(said) < 400, said  # it goes into a log, whatever came
        else:
            assert isinstance(message, kinds)
            array = tensor(message)
            assert array is None or array.nbytes == len(frames[1])


def assert_refused(frames: list[bytes]) -> None:
    for decode, _ in RECEIVERS:
        with pytest.raises(MessageError, match=r"."):
            decode(frames)
    assert_right_or_refused(frames)


def test_every_message_is_tested_here() -> None:
    assert set(MESSAGES) == {kind for part in get_args(Message) for kind in (get_args(part) or (part,))}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=40)
@given(drawn=st.data())
def test_a_message_arrives_as_it_was_sent(kind: type, drawn: st.DataObject) -> None:
    message = drawn.draw(MESSAGES[kind])
    frames = on_the_wire(message)
    arrived = receiver(kind)(frames)
    # repr tells 1 from True and 1.0, and lets NaN equal NaN; tensors are compared by their bytes for the same reason
    fields = [(name, value) for name, value in vars(message).items() if not isinstance(value, np.ndarray)]
    assert type(arrived) is kind
    assert repr([(name, getattr(arrived, name)) for name, _ in fields]) == repr(fields)
    sent, got = tensor(message), tensor(arrived)
    if sent is not None and got is not None:
        assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
        assert np.shares_memory(got, np.frombuffer(frames[1], np.uint8))  # a view: nothing was copied


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes(frames: list[bytes]) -> None:
    assert_right_or_refused(frames)


hostile_leaf = (
    leaf
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**32), st.integers(0, 999_999_999))
    | st.binary(max_size=5).map(lambda raw: raw.decode("utf-8", "surrogateescape"))  # a text that is not UTF-8
)
hostile = st.recursive(
    hostile_leaf,
    lambda inner: st.lists(inner) | st.dictionaries(text | st.binary(max_size=4) | whole, inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=200)
@given(content=hostile, kind=st.sampled_from(KINDS), rest=st.sampled_from([[], [PIXELS], [b""], [PIXELS, b""]]))
def test_any_msgpack(content: object, kind: str, rest: list[bytes]) -> None:
    for header in (content, [VERSION, kind, content], [VERSION, kind, [content]], [VERSION, kind, [content] * 2]):
        assert_right_or_refused([msgpack.packb(header, unicode_errors="surrogateescape"), *rest])


SAMPLES: list[Message] = [
    Clip(ClipKey(7, 1, 300, Segment(1, 17, (0.0, 0.5))), 12.5, np.zeros(SHAPE, np.uint8), 3),
    Scores(
        (ClipKey(7, 2, 0, Segment(1, 17)), ClipKey(8, 1, 1, Segment(17, 33))),
        np.zeros((2, CLASSES), np.float32),
        (12.5, 12.75),
    ),
    VideoEnd(7, 1, "über/abc", "/videos/über.mp4", 19, 300, (0.0, 10.0)),
    VideoFailed(7, 1, "abc", "/videos/abc.mp4", "decode", "Truncated", "it ends in the middle"),
    Hello({"chosen": "float32", "places": 3, "more": {"list": [1, 2.5, None, True]}}),
    Failed("the device is gone", usage=True),
    Next(),
    Assign(70_000, 1, {"video_id": "abc", "path": "/videos/abc.mp4", "frames": None}),
    Beat({"clips": 12}),
    Opened(70_000),
    Expect(more=False),
    Done(7, {"video_id": "abc", "result": [{"label": "archery", "score": 0.5}]}),
    Stop(),
    Goodbye({"busy_s": {"decode": 1.5}, "refused": 0}),
    Placed(ClipKey(7, 1, 300, Segment(1, 17, (0.0, 0.5))), 12.5, 3),
    Claim(0, 7),
    Grant((4, 7)),
    StreamState(3, 2, "stalled", "no frame for 5 s", 12.5, {"frames": 300, "fps": 29.97}),
    Thumbnail(3, 2, 12.5, b"\xff\xd8\xff\xd9"),
    Drops("inference-1", [[3, 17], [4, 0]]),
    Streams([{"number": 3, "name": "door", "labels": [], "weight": 1.0}]),
    Totals({"clips_per_s": 31.5}),
    Happened({"stream": "door", "event": "started", "end": None}),
    Join("decoder-1", 8),
    Offer("container", "10.0.0.9:7700", "k" * 40),
    Read(7, 1 << 40, 1 << 20),
    Part(7, 1 << 40, 1 << 41, "", b"bytes"),
    Begin("decoder-3", {"config": {"model": "/m"}}),
    End("decoder-3"),
    Ended("decoder-3", "was killed by SIGKILL", at_fault=True),
]
FOREIGN: list[Any] = [
    None, True, -1, 2**64 - 1, 1.5, float("nan"), float("inf"), "", "Clip", b"\xff", [], [[]] * 50, {}, {b"x": 1},
    KEY, [KEY], (), msgpack.ExtType(1, b"12"), msgpack.Timestamp(1, 1), "x" * 70_000, "\udcff",
]  # fmt: skip


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(sample) for sample in SAMPLES} == set(MESSAGES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_only_its_own_receiver_takes_a_message(sample: Message) -> None:
    for decode, kinds in RECEIVERS:
        if type(sample) in kinds:
            decode(on_the_wire(sample))
        else:
            with pytest.raises(MessageError, match=r"does not belong here|frames"):
                decode(on_the_wire(sample))


def damage_bytes(frames: list[bytes], random: Random) -> list[bytes]:
    """A few bytes changed, cut out, put in or appended, or a frame too many, too few or misplaced."""
    damaged = [bytearray(frame) for frame in frames]
    for _ in range(random.randint(1, 3)):
        frame = random.choice(damaged)
        at = random.randrange(len(frame) + 1)
        some = random.randbytes(random.randint(1, 4))
        match random.randrange(7):
            case 0 | 1:
                frame[at : at + len(some)] = some
            case 2:
                del frame[at:]
            case 3:
                del frame[at : at + len(some)]
            case 4:
                frame[at:at] = some
            case 5:
                damaged.insert(random.randrange(len(damaged) + 1), bytearray(some))
            case 6:
                damaged.reverse()
    return [bytes(frame) for frame in damaged]


def damage_values(frames: list[bytes], random: Random) -> list[bytes]:
    """A value somewhere in the header replaced by a foreign one, dropped or doubled."""
    header = place = msgpack.unpackb(frames[0])
    while True:
        at = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[at], list | dict) and place[at] and random.random() < 0.8:
            place = place[at]
            continue
        if isinstance(place, list) and random.random() < 0.2:
            place[at : at + 1] = random.choice([[], [place[at]] * 2])
        else:
            place[at] = random.choice(FOREIGN)
        return [msgpack.packb(header, unicode_errors="surrogatepass"), *frames[1:]]


@pytest.mark.parametrize("damage", [damage_bytes, damage_values])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_damaged_messages(sample: Message, damage: Callable[[list[bytes], Random], list[bytes]]) -> None:
    random = Random(type(sample).__name__)  # noqa: S311  (the same every time)
    frames = on_the_wire(sample)
    for _ in range(400):
        assert_right_or_refused(damage(frames, random))


def clip(
    version: object = VERSION, key: object = KEY, decoded_at: object = 1.0, slot: object = 0, pixels: bytes = PIXELS
) -> list[bytes]:
    return [msgpack.packb([version, "Clip", [key, decoded_at, slot]]), pixels]


def test_the_clip_that_the_next_test_spoils_is_right() -> None:
    right = decode_clip(clip(), SHAPE)
    assert isinstance(right, Clip)
    assert (right.key, right.slot) == (ClipKey(0, 1, 0, Segment(1, 17)), 0)


@pytest.mark.parametrize(
    "frames",
    {
        "no frame": [],
        "header only": clip()[:1],
        "a frame too many": [*clip(), b""],
        "a byte too few": clip(pixels=PIXELS[1:]),
        "a byte too many": clip(pixels=PIXELS + b"\0"),
        "no pixels": clip(pixels=b""),
        "version 0": clip(version=0),
        "next version": clip(version=VERSION + 1),
        "version true": clip(version=True),
        "version 1.0": clip(version=1.0),
        "long version": clip(version="1" * 900),
        "unknown kind": [msgpack.packb([VERSION, "Pickle", [KEY, 1.0]]), PIXELS],
        "kind is a list": [msgpack.packb([VERSION, ["Clip"], [KEY, 1.0]]), PIXELS],
        "NaN": clip(decoded_at=float("nan")),
        "infinity": clip(decoded_at=float("-inf")),
        "time is whole": clip(decoded_at=1),
        "no key": clip(key=None),
        "short key": clip(key=KEY[:5]),
        "attempt 0": clip(key=[0, 0, 0, 1, 17, None]),
        "video below 0": clip(key=[-1, 1, 0, 1, 17, None]),
        "video true": clip(key=[True, 1, 0, 1, 17, None]),
        "video is 2^64 - 1": clip(key=[2**64 - 1, 1, 0, 1, 17, None]),
        "one second": clip(key=[0, 1, 0, 1, 17, [1.0]]),
        "seconds are whole": clip(key=[0, 1, 0, 1, 17, [1, 2]]),
        "an extension": clip(key=[0, 1, 0, 1, 17, msgpack.ExtType(1, b"12")]),
        "a timestamp": clip(key=[0, 1, 0, 1, 17, msgpack.Timestamp(1)]),
        "long header": [clip()[0] + b" " * CLIP_HEADER_MOST, PIXELS],
        "text that is not UTF-8": [b"\x93\x01\xa5Hello\x91\x81\xa1x\xa2\xff\xfe"],
        "key that is not text": [b"\x93\x01\xa5Hello\x91\x81\x01\x01"],
        "slot below 0": [msgpack.packb([VERSION, "Placed", [KEY, 1.0, -1]])],
        "slot true": [msgpack.packb([VERSION, "Placed", [KEY, 1.0, True]])],
        "a slot and pixels": [msgpack.packb([VERSION, "Placed", [KEY, 1.0, 0]]), PIXELS],
        "placed without a time": [msgpack.packb([VERSION, "Placed", [KEY, 0]])],
        "long placed": [msgpack.packb([VERSION, "Placed", [KEY, 1.0, 0]]) + b" " * CLIP_HEADER_MOST],
        "claim without a turn": [msgpack.packb([VERSION, "Claim", [0]])],
        "grant of another seat": [msgpack.packb([VERSION, "Grant", [[4, 8]]])],
        "grant of a list": [msgpack.packb([VERSION, "Grant", [[[4]]]])],
        "grant of a number": [msgpack.packb([VERSION, "Grant", [4]])],
        "scores of no clip": [msgpack.packb([VERSION, "Scores", [[], []]]), b""],
        "scores of too many": [msgpack.packb([VERSION, "Scores", [[KEY] * 3, [1.0] * 3]]), bytes(2 * CLASSES * 4)],
        "scores without times": [msgpack.packb([VERSION, "Scores", [[KEY] * 2, []]]), bytes(2 * CLASSES * 4)],
        "scores with one time": [msgpack.packb([VERSION, "Scores", [[KEY] * 2, [1.0]]]), bytes(2 * CLASSES * 4)],
        "scores at whole times": [msgpack.packb([VERSION, "Scores", [[KEY], [1]]]), bytes(CLASSES * 4)],
        "scores at a time": [msgpack.packb([VERSION, "Scores", [[KEY], 1.0]]), bytes(CLASSES * 4)],
        "unknown state": [msgpack.packb([VERSION, "StreamState", [0, 1, "fine", "", 1.0, {}]])],
        "connection 0": [msgpack.packb([VERSION, "StreamState", [0, 0, "live", "", 1.0, {}]])],
        "empty thumbnail": [msgpack.packb([VERSION, "Thumbnail", [0, 1, 1.0]]), b""],
        "large thumbnail": [msgpack.packb([VERSION, "Thumbnail", [0, 1, 1.0]]), bytes(THUMBNAIL_MOST + 1)],
        "drops of a number": [msgpack.packb([VERSION, "Drops", ["x", 3]])],
        "drops without a count": [msgpack.packb([VERSION, "Drops", ["x", [[3]]]])],
        "drops below 0": [msgpack.packb([VERSION, "Drops", ["x", [[3, -1]]]])],
        "streams of a number": [msgpack.packb([VERSION, "Streams", [3]])],
        "a stream of numbers": [msgpack.packb([VERSION, "Streams", [[3]]])],
        "video without frames": [msgpack.packb([VERSION, "VideoEnd", [0, 1, "a", "a", 1, 0, None]])],
        "text of 1 MiB": [msgpack.packb([VERSION, "Failed", ["x" * (1 << 20), False]])],
        "number as text": [msgpack.packb([VERSION, "Failed", [7, False]])],
        "deep body": [b"\x93\x01\xa4Beat" + b"\x91" * 100_000 + b"\xc0"],
        "deep version": [b"\x93" + b"\x91" * 1000 + b"\xc0\xa4Beat\x91\x80"],
        "deep kind": [b"\x93\x01" + b"\x91" * 1000 + b"\xc0\x91\x80"],
        "deep field": [b"\x93\x01\xa6Assign\x93" + b"\x91" * 1000 + b"\xc0\x01\x80"],
        "deep mapping": [b"\x93\x01\xa6Assign\x93" + b"\x81\xa1x" * 1000 + b"\xc0\x01\x80"],
        "deep keys": [b"\x93\x01\xa6Scores\x92" + b"\x81\xa1x" * 1000 + b"\xc0\x90", b""],
        "wide field": [msgpack.packb([VERSION, "Assign", [[0] * 100_000, 1, {}]])],
        "list of 4 G": [b"\x93\x01\xa4Beat\xdd\xff\xff\xff\xff"],
        "mapping of 4 G": [b"\x93\x01\xa4Beat\x91\xdf\xff\xff\xff\xff"],
        "text of 4 GB": [b"\x93\x01\xa4Beat\x91\xdb\xff\xff\xff\xff"],
        "reserved byte": [b"\xc1"],
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_refused(frames: tuple[str, list[bytes]]) -> None:
    assert_refused(frames[1])


def test_headers_above_the_bound_are_neither_read_nor_made() -> None:
    with pytest.raises(MessageError, match=str(HEADER_MOST)):
        decode_control([bytes(HEADER_MOST + 1)])
    with pytest.raises(MessageError, match=f"at most {CLIP_HEADER_MOST}"):
        decode_clip([bytes(CLIP_HEADER_MOST + 1), PIXELS], SHAPE)
    with pytest.raises(MessageError, match=str(HEADER_MOST)):
        encode(Hello({"x": "x" * HEADER_MOST}))


@pytest.mark.parametrize(
    "opening", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"], ids=["list", "map", "text", "bytes", "ext"]
)
@pytest.mark.parametrize("depth", [1, 60])
def test_a_length_is_not_believed(opening: bytes, depth: int) -> None:
    """A header of 1 KiB that announces 4 GiB, or just as much as it has room for, at every depth."""
    for claim in (2**32 - 1, 1000):
        header = (b"\x93\x01\xa4Clip" + (opening + struct.pack(">I", claim)) * depth).ljust(CLIP_HEADER_MOST, b"\xc0")
        tracemalloc.start()
        try:
            with pytest.raises(MessageError):
                decode_clip([header, PIXELS], SHAPE)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
