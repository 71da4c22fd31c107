"""Real sockets: bounds hold, foreign traffic does no harm, and an inference process fed with garbage goes on."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import msgpack
import numpy as np
import pytest
import zmq

from clipmux.engine.child import Setting
from clipmux.engine.children import BEGIN, INFERENCE, MODULES
from clipmux.engine.clip_memory import ClipMemory, Layout
from clipmux.engine.clips import ClipReceiver, ClipSender, Way
from clipmux.engine.config import EngineConfig
from clipmux.engine.device import softmax
from clipmux.engine.errors import UsageError
from clipmux.engine.messages import (
    Beat,
    Claim,
    Clip,
    ClipKey,
    Control,
    Goodbye,
    Hello,
    Placed,
    Scores,
    Segment,
    Stop,
)
from clipmux.engine.model import ModelFolder, write_model
from clipmux.engine.sockets import (
    PATH_MOST,
    SHORT_PLACE,
    Addresses,
    Context,
    Socket,
    addresses_in,
    dealer,
    dealer_clips,
    make_addresses,
    pull_reports,
    push_reports,
    remove_sockets,
    remove_stale,
    router,
    router_clips,
)
from clipmux.engine.wire import VERSION, decode_clip, decode_control, decode_grant, decode_report, encode

SHAPE = (4, 8, 8, 3)
CLIP_BYTES = int(np.prod(SHAPE))
WHOLE = (16, 112, 112, 3)
LABELS = ("one", "two", "three")


@pytest.fixture
def context() -> Iterator[Context]:
    """A context that must be able to terminate: a socket left open, or one that lingers for ever, fails the test."""
    context = zmq.Context()
    yield context
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    ending.join(timeout=10)
    if ending.is_alive():
        pytest.fail("the context did not terminate within 10 s: a socket was left open")


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    addresses = make_addresses()
    yield addresses
    remove_sockets(addresses)


def clip(index: int, shape: tuple[int, int, int, int] = SHAPE) -> Clip:
    pixels = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
    return Clip(ClipKey(0, 1, index, Segment(1, 1 + shape[0])), time.monotonic(), pixels, index)


def received(socket: Socket, timeout_s: float = 10) -> list[bytes]:
    assert socket.poll(round(timeout_s * 1000)), f"nothing came within {timeout_s} s"
    return socket.recv_multipart()


@pytest.fixture(params=["socket", "shared"])
def memory(request: pytest.FixtureRequest) -> Iterator[ClipMemory | None]:
    """Memory for two seats of three whole clips, or none: then pixels travel through the socket."""
    if request.param == "socket":
        yield None
        return
    made = ClipMemory(Layout(seats=2, slots=3, shape=WHOLE))
    yield made
    made.close()


def way(addresses: Addresses, memory: ClipMemory | None = None, *, seat: int = -1, device: int = 0) -> Way:
    """What the supervisor tells of the way to inference; each child gets descriptors of its own."""
    fd = os.dup(memory.fd) if memory else -1
    return Way(addresses.clips[device], Layout(seats=2, slots=3, shape=WHOLE), fd, seat, turn=2 + seat)


def put(sender: ClipSender, each: Clip, timeout_ms: int = 5000) -> None:
    place = sender.place(timeout_ms)
    assert place is not None, "there is no room for a clip"
    np.copyto(place, each.pixels)
    sender.send(each.key, each.decoded_at, place)


def take(receiver: ClipReceiver, count: int, timeout_s: float = 10) -> list[Clip]:
    """The next clips that arrive, so many."""
    clips: list[Clip] = []
    deadline = time.monotonic() + timeout_s
    while len(clips) < count:
        assert time.monotonic() < deadline, f"{len(clips)} of {count} clips came within {timeout_s} s"
        receiver.socket.poll(100)
        clips += receiver.receive(count - len(clips))
    return clips


def hear_claims(receiver: ClipReceiver, count: int) -> None:
    for _ in range(count):
        assert receiver.socket.poll(5000), "nobody claims a seat"
        assert receiver.receive(1) == []


def test_pixels_arrive_equal_and_what_is_lent_bounds_what_is_on_its_way(
    context: Context, addresses: Addresses, memory: ClipMemory | None
) -> None:
    receiver = ClipReceiver(context, way(addresses, memory), enough=6)
    sender = ClipSender(context, [way(addresses, memory, seat=0)], "decoder-2")
    neighbour = ClipSender(context, [way(addresses, memory, seat=1)], "decoder-3")
    assert receiver.room == 6
    assert sender.place(50) is None, "a place that nobody granted"
    hear_claims(receiver, 2)
    sent = [clip(index, WHOLE) for index in range(8)]
    for each in sent[:3]:
        put(sender, each)
    assert sender.place(200) is None, "more clips are on their way than it was lent slots"
    put(neighbour, sent[7])
    arrived = take(receiver, 4)
    assert sender.place(200) is None, "a slot is lent while its clip is held"
    for number, each in enumerate(sent[3:6]):
        receiver.release([one for one in arrived if one.key == sent[number].key])
        put(sender, each)  # into a place of one that was released
    arrived = [one for one in arrived if one.key == sent[7].key] + take(receiver, 3)
    for one, each in zip(arrived, [sent[7], *sent[3:6]], strict=True):
        assert (one.key, one.decoded_at) == (each.key, each.decoded_at)
        assert np.array_equal(one.pixels, each.pixels)
    for end in (sender, neighbour, receiver):
        end.close()


def test_exhausted_are_those_whose_clips_are_all_here(
    context: Context, addresses: Addresses, memory: ClipMemory | None
) -> None:
    """Who is lent nothing more sends nothing more; one who has sent nothing yet is not waited for."""
    receiver = ClipReceiver(context, way(addresses, memory), enough=6)
    sender = ClipSender(context, [way(addresses, memory, seat=0)], "decoder-2")
    neighbour = ClipSender(context, [way(addresses, memory, seat=1)], "decoder-3")
    hear_claims(receiver, 2)
    for index in range(3):
        put(sender, clip(index, WHOLE))
        arrived = take(receiver, 1)
        assert receiver.exhausted == (index == 2)
    put(neighbour, clip(3, WHOLE))
    take(receiver, 1)
    assert not receiver.exhausted
    receiver.release(arrived)
    assert not receiver.exhausted
    for end in (sender, neighbour, receiver):
        end.close()


def hear_grants(sender: ClipSender, *free: int) -> None:
    """Wait until the sender has so many slots of each device."""
    until = time.monotonic() + 5
    while [len(end.free) for end in sender._ends] != list(free):
        assert time.monotonic() < until, [len(end.free) for end in sender._ends]
        sender.place(10)


def test_of_two_devices_the_one_with_fewer_clips_on_their_way_gets_the_next(context: Context) -> None:
    addresses = make_addresses(devices=2)
    first, second = (ClipReceiver(context, way(addresses, device=device), enough=6) for device in (0, 1))
    sender = ClipSender(context, [way(addresses, seat=0, device=device) for device in (0, 1)], "decoder-2")
    hear_claims(first, 1)
    hear_claims(second, 1)
    hear_grants(sender, 3, 3)
    for index in range(6):
        put(sender, clip(index, WHOLE))
    slow, quick = take(first, 3), take(second, 3)
    assert sender.place(50) is None
    for index in range(6, 10):  # the second device is done sooner each time
        second.release(quick)
        hear_grants(sender, 0, 3)
        put(sender, clip(index, WHOLE))
        quick = take(second, 1)
    first.release(slow)
    hear_grants(sender, 3, 2)
    for index in range(10, 12):
        put(sender, clip(index, WHOLE))
    assert [one.key.index for one in take(first, 2)] == [10, 11]
    for end in (sender, first, second):
        end.close()
    remove_sockets(addresses)


def test_a_seat_is_claimed_again_of_who_takes_the_place_of_one_that_died(
    context: Context, addresses: Addresses
) -> None:
    sender = ClipSender(context, [way(addresses, seat=0)], "decoder-2")
    assert sender.place(200) is None, "nobody is there"
    died = ClipReceiver(context, way(addresses), enough=6)
    assert died.socket.poll(5000), "it is told, and dies before it listens"
    died.close()
    heir = ClipReceiver(context, way(addresses), enough=6)
    until = time.monotonic() + 20
    while (place := sender.place(50)) is None:
        assert time.monotonic() < until, "it is not told of the seat"
        assert heir.receive(8) == []
    sender.send(clip(0).key, 1.0, place)
    assert [one.key for one in take(heir, 1)] == [clip(0).key]
    assert heir.refused == 0
    sender.close()
    heir.close()


def test_a_message_above_the_bound_is_not_delivered_and_the_receiver_lives(
    context: Context, addresses: Addresses
) -> None:
    with (
        router_clips(context, addresses.clips[0], hwm=64, message_bytes=CLIP_BYTES) as inference,
        dealer_clips(context, addresses.clips[0], "foreign", hwm=64) as foreign,
        dealer_clips(context, addresses.clips[0], "decoder", hwm=64) as decoder,
    ):
        assert foreign.poll(5000, zmq.POLLOUT)
        foreign.send(bytes(CLIP_BYTES + 1))
        for index in range(20):
            assert decoder.poll(5000, zmq.POLLOUT)
            decoder.send_multipart(encode(clip(index)))
        assert [index_of(received(inference)) for _ in range(20)] == list(range(20))
        assert not inference.poll(300)
        assert foreign.poll(5000, zmq.POLLOUT), "it was cut off, and does not connect again"
        foreign.send(b"short")
        assert received(inference) == [b"foreign", b"short"]


def index_of(frames: list[bytes]) -> int:
    arrived = decode_clip(frames[1:], SHAPE)
    assert isinstance(arrived, Clip)
    return arrived.key.index


def test_what_was_sent_before_a_close_still_arrives(context: Context, addresses: Addresses) -> None:
    with push_reports(context, addresses.reports) as push:
        for number in range(31):
            push.send(bytes([number]))
    with pull_reports(context, addresses.reports) as pull:
        assert [received(pull) for _ in range(31)] == [[bytes([number])] for number in range(31)]


def test_a_peer_that_never_comes_holds_nobody_up_for_long(context: Context, addresses: Addresses) -> None:
    with push_reports(context, addresses.reports) as push:
        push.send(b"to nobody")  # and the context terminates in spite of it


def test_the_folder_is_for_its_user_alone_and_goes(context: Context) -> None:
    addresses = make_addresses()
    folder = addresses.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pull_reports(context, addresses.reports):
        assert [entry.name for entry in folder.iterdir()] == ["reports"]
    remove_sockets(addresses)
    assert not folder.exists()
    remove_sockets(addresses)  # twice does no harm


def test_a_long_temporary_folder_is_not_used(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    addresses = make_addresses()
    folder = addresses.folder
    try:
        assert len(os.fsencode(addresses.control)) <= PATH_MOST + len("ipc://")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not list(long.iterdir())
        router(context, addresses.control).close()
    finally:
        remove_sockets(addresses)


def test_an_absent_child_is_noticed_and_a_present_one_is_told(context: Context, addresses: Addresses) -> None:
    with router(context, addresses.control) as control, dealer(context, addresses.control, "decoder-1") as child:
        with pytest.raises(zmq.ZMQError) as refusal:
            control.send_multipart([b"decoder-2", *encode(Stop())])
        assert refusal.value.errno == zmq.EHOSTUNREACH
        child.send_multipart(encode(Hello()))
        name, *frames = received(control)
        assert (name, decode_control(frames)) == (b"decoder-1", Hello())
        control.send_multipart([name, *encode(Stop())])
        assert decode_control(received(child)) == Stop()


@pytest.mark.parametrize("name", [b"d" * 100, "视".encode() * 24, b"\xff"], ids=["long", "wide", "no UTF-8"])
def test_sockets_are_elsewhere_where_paths_are_not_for_them(
    name: bytes, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir=SHORT_PLACE) as short:
        place = Path(short) / os.fsdecode(name)
        place.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        addresses = make_addresses()
        assert addresses.folder.parent == SHORT_PLACE
        router(context, addresses.control).close()
        remove_sockets(addresses)
    with pytest.raises(UsageError, match="give a shorter path"):
        addresses_in(place / "engine-of-mine", devices=1)


def test_no_place_for_sockets_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UsageError, match="let TMPDIR name one"):
        make_addresses()


@pytest.mark.parametrize("deep", ["", "d" * 100], ids=["short", "long"])
def test_what_killed_engines_left_is_removed_and_nothing_else(
    deep: str, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / deep).mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / deep))
    dead, alive, young = (make_addresses() for _ in range(3))
    others = [tmp_path / "clipmux-notes", tmp_path / "clipmux-0123456789ab.old"]
    for folder in others:
        folder.mkdir()
    with router(context, alive.control):
        with socket.socket(socket.AF_UNIX) as left_behind:  # its file stays, as of a killed process
            left_behind.bind(str(dead.folder / "control"))
        for folder in (dead.folder, alive.folder, *others):
            os.utime(folder, (1, 1))
        remove_stale()
        assert not dead.folder.exists()
        assert all(folder.exists() for folder in (alive.folder, young.folder, *others))
    for addresses in (alive, young):
        remove_sockets(addresses)


# -- a real inference process -----------------------------------------------------------------------------------------


@contextmanager
def inference_process(
    addresses: Addresses, folder: Path, memory: ClipMemory | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """An inference process as the supervisor starts it, with fixed scores for clips of 4 × 8 × 8."""
    frames, height, width, _ = SHAPE
    model = ModelFolder(folder / "model", "tiny", "none.onnx", LABELS, frames=frames, height=height, width=width)
    model.path.mkdir()
    model.network_path.write_bytes(b"the null backend does not read it")
    write_model(model)
    config = EngineConfig(model=str(model.path), backend="null", max_batch=8)
    layout, fd = (memory.layout, memory.fd) if memory else (Layout(seats=2, slots=64, shape=SHAPE), -1)
    ways = [Way(addresses.clips[0], layout, fd).to_json()]
    setting = Setting("inference-1", addresses, {"config": config.to_json(), "clips": ways, "device": 0})
    command = [sys.executable, "-c", BEGIN, MODULES[INFERENCE], setting.name, *filter(None, sys.path)]
    pipe = subprocess.PIPE
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, pass_fds=() if memory is None else (memory.fd,)
        ) as process,
    ):
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(setting.to_json()).encode() + b"\n")
            process.stdin.flush()  # and stays open: its end would tell the child that its supervisor is gone
            yield process
        finally:
            process.kill()


def spoilt(index: int) -> list[list[bytes]]:
    """Messages that are nearly, or not at all, a clip; none of them can be taken for one."""
    good = clip(index)
    header, pixels = encode(good)[0], good.pixels.tobytes()
    key = msgpack.unpackb(header)[2][0]
    return [
        [b""],
        [header],
        [pixels],
        [pixels, header],
        [header, pixels, b""],
        [header, b""],
        [header, pixels[1:]],
        [header, pixels + b"\0"],
        [header[:-1], pixels],
        [header + b"\0", pixels],
        [b"", b""],
        [b"\xc1" * 900, pixels],
        [b"\x91" * 1020, pixels],
        [b"\xdd\xff\xff\xff\xff", pixels],
        [b"\x93" + b"\x91" * 1000 + b"\xc0\xa4Clip\x90", pixels],
        [msgpack.packb([VERSION + 1, "Clip", [key, 1.0, 0]]), pixels],
        [msgpack.packb([VERSION, "Clip", [key, float("nan"), 0]]), pixels],
        [msgpack.packb([VERSION, "Clip", [key, 1.0, -1]]), pixels],
        [msgpack.packb([VERSION, "Clip", [key, 1.0, 64]]), pixels],
        [msgpack.packb([VERSION, "Clip", [["0", *key[1:]], 1.0, 0]]), pixels],
        [msgpack.packb([VERSION, "Clip", [[b"\xff" * 500, *key[1:]], 1.0, 0]]), pixels],
        [*encode(Stop()), pixels],
        encode(Stop()),
        [bytes(1)] * 200,
    ]


def said(control: Socket, kind: type[Control]) -> Control:
    """The child's next message of this kind; beats between are passed over."""
    while not isinstance(message := decode_control(received(control)[1:]), kind):
        assert isinstance(message, Beat), message
    return message


def test_garbage_does_not_stop_an_inference_process(context: Context, addresses: Addresses, tmp_path: Path) -> None:
    good, bad = 50, 2000
    random = Random(0)  # noqa: S311  (the same every time)
    places = {*random.sample(range(good + bad - 1), good - 1), good + bad - 1}  # a good one is last
    with (
        router(context, addresses.control) as control,
        pull_reports(context, addresses.reports) as reports,
        inference_process(addresses, tmp_path) as process,
        dealer_clips(context, addresses.clips[0], "decoder-2", hwm=64) as push,
        dealer_clips(context, addresses.clips[0], "decoder-3", hwm=64) as oversized,
    ):
        said(control, Hello)
        assert oversized.poll(5000, zmq.POLLOUT)
        oversized.send_multipart([b"", bytes(1 << 20)])
        push.send_multipart(encode(Claim(0, 2)))
        slots = list(decode_grant(received(push), range(64)).slots)
        sent = 0
        for place in range(good + bad):
            frames = random.choice(spoilt(sent))
            if place in places:
                while push.poll(0 if slots else 10_000):
                    slots += decode_grant(push.recv_multipart(), range(64)).slots
                frames = encode(replace(clip(sent), slot=slots.pop()))
                sent += 1
            assert push.poll(10_000, zmq.POLLOUT), f"message {place} waits, the process has status {process.poll()}"
            push.send_multipart(frames)
        scored: list[int] = []
        while len(scored) < good:
            report = decode_report(received(reports), len(LABELS))
            assert isinstance(report, Scores)
            expected = softmax(-np.arange(len(LABELS), dtype=np.float32) / 8)
            assert np.array_equal(report.scores, np.tile(expected, (len(report.keys), 1)))
            scored += [key.index for key in report.keys]
        assert scored == list(range(good))
        control.send_multipart([b"inference-1", *encode(Stop())])
        goodbye = said(control, Goodbye)
        assert isinstance(goodbye, Goodbye)
        assert (goodbye.figures["clips"], goodbye.figures["refused"]) == (good, bad)
        assert process.wait(timeout=10) == 0
        assert not reports.poll(100)


def test_slots_that_are_not_the_senders_are_refused(context: Context, addresses: Addresses, tmp_path: Path) -> None:
    layout = Layout(seats=2, slots=4, shape=SHAPE)
    memory = ClipMemory(layout)
    key = clip(0).key

    def grant(decoder: Socket) -> tuple[int, ...]:
        return decode_grant(received(decoder), range(8)).slots

    with (
        router(context, addresses.control) as control,
        pull_reports(context, addresses.reports) as reports,
        inference_process(addresses, tmp_path, memory),
        dealer_clips(context, addresses.clips[0], "decoder-2", hwm=64) as first,
        dealer_clips(context, addresses.clips[0], "decoder-3", hwm=64) as second,
        dealer_clips(context, addresses.clips[0], "decoder-4", hwm=64) as heir,
    ):
        memory.close()
        said(control, Hello)
        first.send_multipart(encode(Claim(0, 2)))
        assert grant(first) == (0, 1, 2, 3)
        second.send_multipart(encode(Placed(key, 1.0, 4)))  # nobody has claimed its seat
        second.send_multipart(encode(Claim(1, 3)))
        assert grant(second) == (4, 5, 6, 7)
        for refused in (
            encode(Placed(key, 1.0, 0)),  # the other's
            encode(Placed(key, 1.0, 8)),  # there is none
            encode(Claim(2, 9)),  # no such seat
            encode(Claim(0, 2)),  # the other's seat, in no later turn
            encode(clip(0)),
            *spoilt(0),
        ):
            second.send_multipart(refused)
        second.send_multipart(encode(Placed(key, 1.0, 4)))
        second.send_multipart(encode(Placed(key, 1.0, 4)))  # again, while it is held
        report = decode_report(received(reports), len(LABELS))
        assert isinstance(report, Scores)
        assert report.keys == (key,)
        assert grant(second) == (4,)
        heir.send_multipart(encode(Claim(0, 4)))
        assert grant(heir) == (0, 1, 2, 3)
        first.send_multipart(encode(Placed(key, 1.0, 0)))  # what a dead decoder's socket still delivers
        first.send_multipart(encode(Claim(0, 2)))
        second.send_multipart(encode(Placed(key, 1.0, 7)))
        assert grant(second) == (7,)
        assert not reports.poll(100) or isinstance(decode_report(reports.recv_multipart(), len(LABELS)), Scores)
        control.send_multipart([b"inference-1", *encode(Stop())])
        goodbye = said(control, Goodbye)
        assert isinstance(goodbye, Goodbye)
        assert (goodbye.figures["clips"], goodbye.figures["refused"]) == (2, 1 + 5 + len(spoilt(0)) + 1 + 2)
        assert not heir.poll(100)
