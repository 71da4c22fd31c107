"""Real sockets: bounds hold, foreign traffic does no harm, and an inference process fed with garbage goes on."""

from __future__ import annotations

import json
import os
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
from clipmux.engine.clips import Way
from clipmux.engine.config import EngineConfig
from clipmux.engine.device import softmax
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
    Addresses,
    Context,
    Socket,
    dealer,
    dealer_clips,
    make_addresses,
    pull_clips,
    pull_reports,
    push_clips,
    push_reports,
    remove_sockets,
    router,
)
from clipmux.engine.wire import VERSION, decode_clip, decode_control, decode_grant, decode_report, encode

SHAPE = (4, 8, 8, 3)
CLIP_BYTES = int(np.prod(SHAPE))
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
    return Clip(ClipKey(0, 1, index, Segment(1, 1 + shape[0])), time.monotonic(), pixels)


def received(socket: Socket, timeout_s: float = 10) -> list[bytes]:
    assert socket.poll(round(timeout_s * 1000)), f"nothing came within {timeout_s} s"
    return socket.recv_multipart()


def test_an_array_sent_without_a_copy_arrives_equal(context: Context, addresses: Addresses) -> None:
    shape = (16, 112, 112, 3)
    bytes_most = int(np.prod(shape))
    with (
        pull_clips(context, addresses.clips, hwm=4, message_bytes=bytes_most) as pull,
        push_clips(context, addresses.clips, hwm=4) as push,
    ):
        for index in range(10):
            sent = clip(index, shape)
            push.send_multipart(encode(sent), copy=False)
            assert pull.poll(10_000)
            frames = pull.recv_multipart(copy=False)
            arrived = decode_clip([frame.buffer for frame in frames], shape)
            assert arrived == sent
            assert np.array_equal(arrived.pixels, sent.pixels)
            assert np.shares_memory(arrived.pixels, np.frombuffer(frames[1].buffer, np.uint8))


def test_a_full_queue_blocks_its_sender_and_loses_nothing(context: Context, addresses: Addresses) -> None:
    shape = (16, 112, 112, 3)  # above what the kernel holds for a socket, so that only our own bounds count
    bytes_most = int(np.prod(shape))
    with (
        pull_clips(context, addresses.clips, hwm=2, message_bytes=bytes_most) as pull,
        push_clips(context, addresses.clips, hwm=3) as push,
    ):
        sent = 0
        while push.poll(1000, zmq.POLLOUT):
            push.send_multipart(encode(clip(sent, shape)), copy=False)
            sent += 1
            assert sent <= 2 + 3 + 1, "more than both ends may hold and the one under way"
        assert sent >= 2 + 3
        with pytest.raises(zmq.Again):
            push.send_multipart(encode(clip(sent, shape)), flags=zmq.NOBLOCK)
        arrived = [decode_clip(received(pull), shape).key.index for _ in range(sent)]
        assert arrived == list(range(sent))
        assert push.poll(5000, zmq.POLLOUT), "room was made, and the sender does not hear of it"


def test_a_sender_without_a_receiver_waits(context: Context, addresses: Addresses) -> None:
    with push_clips(context, addresses.clips, hwm=3) as push:
        assert not push.poll(200, zmq.POLLOUT)
        with pull_clips(context, addresses.clips, hwm=3, message_bytes=CLIP_BYTES) as pull:
            assert push.poll(5000, zmq.POLLOUT)
            push.send_multipart(encode(clip(0)))
            assert decode_clip(received(pull), SHAPE).key == clip(0).key


def test_a_message_above_the_bound_is_not_delivered_and_the_receiver_lives(
    context: Context, addresses: Addresses
) -> None:
    with (
        pull_clips(context, addresses.clips, hwm=64, message_bytes=CLIP_BYTES) as pull,
        push_clips(context, addresses.clips, hwm=64) as foreign,
        push_clips(context, addresses.clips, hwm=64) as decoder,
    ):
        assert foreign.poll(5000, zmq.POLLOUT)
        foreign.send(bytes(CLIP_BYTES + 1))
        for index in range(20):
            assert decoder.poll(5000, zmq.POLLOUT)
            decoder.send_multipart(encode(clip(index)))
        assert [decode_clip(received(pull), SHAPE).key.index for _ in range(20)] == list(range(20))
        assert not pull.poll(300)
        assert foreign.poll(5000, zmq.POLLOUT), "it was cut off, and does not connect again"
        foreign.send(b"short")
        assert received(pull) == [b"short"]


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
    way = Way(addresses.clips, SHAPE, hwm=64)
    if memory is not None:
        way = replace(way, layout=memory.layout, fd=memory.fd)
    setting = Setting("inference-1", addresses, {"config": config.to_json(), "clips": way.to_json()})
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
        [msgpack.packb([VERSION + 1, "Clip", [key, 1.0]]), pixels],
        [msgpack.packb([VERSION, "Clip", [key, float("nan")]]), pixels],
        [msgpack.packb([VERSION, "Clip", [["0", *key[1:]], 1.0]]), pixels],
        [msgpack.packb([VERSION, "Clip", [[b"\xff" * 500, *key[1:]], 1.0]]), pixels],
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
        push_clips(context, addresses.clips, hwm=64) as push,
        push_clips(context, addresses.clips, hwm=64) as oversized,
    ):
        said(control, Hello)
        assert oversized.poll(5000, zmq.POLLOUT)
        oversized.send_multipart([b"", bytes(1 << 20)])
        sent = 0
        for place in range(good + bad):
            frames = random.choice(spoilt(sent)) if place not in places else encode(clip(sent))
            sent += place in places
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
        dealer_clips(context, addresses.clips, "decoder-2", hwm=64) as first,
        dealer_clips(context, addresses.clips, "decoder-3", hwm=64) as second,
        dealer_clips(context, addresses.clips, "decoder-4", hwm=64) as heir,
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
