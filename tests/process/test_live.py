"""``clipmux live`` as a person uses it, on files that are played at a pace."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import psutil
import pytest
from command import clipmux
from devices import TWO, two_devices
from live_command import children, events_of, figures_of, listed, running, until
from media import moving, write_video
from ports import free_ports

from clipmux.bench.videos import write_short_videos


@pytest.fixture(scope="session")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two videos of four seconds at 25 frames a second: moving left, and right."""
    folder = tmp_path_factory.mktemp("cameras")
    return [
        video.path
        for video in write_short_videos(folder, 2, frames=100, size=(160, 120), rate=Fraction(25), distinct=2)
    ]


def test_files_play_to_their_end_and_their_events_are_told(cameras: list[Path], tmp_path: Path) -> None:
    output, log = tmp_path / "events.jsonl", tmp_path / "log"
    done = clipmux("live", *cameras, "--model", "demo", "--pace", 4, "--output", output, "--log", log)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    events = events_of(output.read_text())
    told = {(event["stream"], event["event"], event["label"], event["connection"]) for event in events}
    assert told >= {
        (f"{number}_{label}", event, label, 1)
        for number, label in (("00", "left"), ("01", "right"))
        for event in ("started", "ended")
    }
    for event in events:
        assert event["event"] == "started" or 0 <= event["start_s"] < event["end_s"] <= 4.05
    assert "00_left: live" in done.stderr
    assert "00_left: ended" in done.stderr


def test_events_go_to_standard_output_unless_a_file_is_named(cameras: list[Path]) -> None:
    done = clipmux("live", cameras[0], "--model", "demo", "--pace", 4)
    assert done.returncode == 0, done.stderr
    assert {event["event"] for event in events_of(done.stdout)} == {"started", "ended"}


def test_a_hangup_before_anything_is_watched_ends_nothing(tmp_path: Path) -> None:
    streams = tmp_path / "streams.toml"
    os.mkfifo(streams)
    with running("--streams", streams, "--model", "demo") as (process, said):
        with streams.open("w") as file:  # as soon as it is read
            process.send_signal(signal.SIGHUP)
            file.write("other = 1\n")
        assert process.wait(30) == 2
    assert "has 'other'" in said.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_open_events_and_everything_in_order(cameras: list[Path], number: int) -> None:
    with running(cameras[0], "--model", "demo", "--loop") as (process, _):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert events_of(rest)[-1]["event"] == "ended"


def test_streams_come_and_go_with_their_file_and_the_others_are_not_touched(
    cameras: list[Path], tmp_path: Path
) -> None:
    left, right = cameras
    streams = listed(tmp_path / "streams.toml", {"a": (left, ""), "b": (right, "")})
    with running("--streams", streams, "--model", "demo", "--loop") as (process, said):
        until(lambda: {"a: live", "b: live"} <= set(said.read_text().splitlines()))
        before = {child.pid for child in children(process, "camera")}
        listed(streams, {"a": (left, "enter = 0.7\nweight = 2\n"), "c": (right, "")})
        process.send_signal(signal.SIGHUP)
        until(lambda: "c: live" in said.read_text())
        after = {child.pid for child in children(process, "camera")}
        assert len(before & after) == 1
        assert len(after) == 2
        streams.write_text('[[stream]]\nname = "a"\n')
        process.send_signal(signal.SIGHUP)
        until(lambda: "the streams stay as they were" in said.read_text())
        assert "no url in stream 1" in said.read_text()
        assert {child.pid for child in children(process, "camera")} == after
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_camera_process_that_dies_or_hangs_is_replaced(cameras: list[Path], tmp_path: Path, number: int) -> None:
    with running(*cameras, "--model", "demo", "--loop", "--stall", 2) as (process, said):
        until(lambda: said.read_text().count(": live") == 2)
        first = children(process, "camera")
        victim = next(child for child in first if str(cameras[0]) not in " ".join(child.cmdline()))
        victim.send_signal(number)
        until(lambda: said.read_text().count(": live") == 3)
        after = {child.pid for child in children(process, "camera")}
        assert len(after & {child.pid for child in first}) == 1
        state = "reconnecting" if number == signal.SIGKILL else "stalled"
        assert f": {state} (" in said.read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_inference_is_replaced_and_every_stream_goes_on(cameras: list[Path]) -> None:
    with running(*cameras, "--model", "demo", "--loop") as (process, said):
        assert process.stdout is not None
        until(lambda: said.read_text().count(": live") == 2)
        process.stdout.readline()
        children(process, "inference")[0].kill()
        until(lambda: said.read_text().count(": live") == 4)
        until(lambda: json.loads(process.stdout.readline())["connection"] == 2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_the_watcher_is_replaced_and_goes_on_telling(cameras: list[Path]) -> None:
    with running(cameras[0], "--model", "demo", "--loop") as (process, said):
        assert process.stdout is not None
        until(lambda: said.read_text().count(": live") == 1)
        process.stdout.readline()
        children(process, "watcher")[0].kill()
        until(lambda: json.loads(process.stdout.readline())["event"] == "started")
        assert said.read_text().count(": live") == 1
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_a_watcher_that_is_replaced_is_told_what_has_ended(cameras: list[Path], tmp_path: Path) -> None:
    """It would wait for a stream that nobody speaks of any more, as long as clips can take."""
    short, log = write_video(tmp_path / "short.mp4", moving(25)), tmp_path / "log"
    with running(short, cameras[0], "--model", "demo", "--log", log) as (process, said):
        until(lambda: "short: ended" in said.read_text())
        children(process, "watcher")[0].kill()
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert "were not scored" not in log.read_text()


@two_devices
def test_streams_are_shared_out_among_devices_and_their_events_are_those_of_one(
    cameras: list[Path], tmp_path: Path
) -> None:
    told = {}
    for device in (TWO.split(",")[0], TWO):
        output, log = tmp_path / f"{device}.jsonl", tmp_path / f"{device}.log"
        words = ["live", *cameras, "--model", "demo", "--pace", 2, "--stride-s", 0.16, "--max-latency", 10]
        done = clipmux(*words, "--device", device, "--output", output, "--log", log)
        assert done.returncode == 0, done.stderr
        keys = ("stream", "event", "label", "start_s", "end_s", "connection")
        told[device] = sorted(tuple(str(event[key]) for key in keys) for event in events_of(output.read_text()))
    assert told[TWO] == told[TWO.split(",")[0]]
    clips = {each["device"]: each["clips"] for each in figures_of(log, "inference")}
    assert set(clips) == set(TWO.split(","))
    assert all(count > 10 for count in clips.values()), clips


@two_devices
def test_a_device_that_is_lost_for_good_leaves_the_streams_to_the_others(
    cameras: list[Path], null_model: Path, tmp_path: Path
) -> None:
    """One that is killed is started again; one that is killed again and again is not, and nothing ends."""
    log = tmp_path / "log"
    words = ["--model", null_model, "--backend", "null", "--device", TWO, "--loop", "--log", log]
    with running(*cameras, *words) as (process, said):
        until(lambda: said.read_text().count(": live") == 2)
        survivor = children(process, "inference")[0].pid
        killed = {survivor}
        until(lambda: kill_next(log, killed))
        until(lambda: len(children(process, "camera")) == 2)
        assert [it.pid for it in children(process, "inference")] == [survivor]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert sum(each["clips"] for each in figures_of(log, "inference")) > 0


def kill_next(log: Path, killed: set[int]) -> bool:
    """Kill an inference process as soon as it is ready, unless it is one of ``killed``; True once it is given up."""
    text = log.read_text()
    for name, number in re.findall(r"(inference-\d+) started as process (\d+)\n", text):
        if f"{name} is ready" in text and int(number) not in killed:
            killed.add(int(number))
            os.kill(int(number), signal.SIGKILL)
    return "restarts did not help: the others go on without it" in text


@pytest.mark.parametrize("device", ["cpu", pytest.param("two", marks=two_devices)])
def test_more_than_the_device_can_do_is_dropped_from_whom_it_is_fair_to_drop(
    device: str, cameras: list[Path], tmp_path: Path, null_model: Path
) -> None:
    """``null`` at 10 clips a second, and 12 a second from either stream, one with four times the weight."""
    delay = "0+100" if device == "cpu" else "0+200"  # of each
    streams = listed(tmp_path / "streams.toml", {"a": (cameras[0], "weight = 4"), "b": (cameras[1], "weight = 1")})
    log = tmp_path / "log"
    done = clipmux(
        "live", "--streams", streams, "--model", null_model, "--backend", "null", "--null-delay", delay,
        "--stride-s", 0.08, "--max-latency", 0.8, "--max-batch", 1, "--log", log,
        "--device", TWO if device == "two" else device,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    devices = figures_of(log, "inference")
    assert len(devices) == (2 if device == "two" else 1)
    drops = Counter({number: sum(each["drops"].get(number, 0) for each in devices) for number in ("0", "1")})
    # windows of 16 in 100 frames, every other one, and an end
    assert sum(each["clips"] for each in devices) + drops.total() == 2 * 44
    assert drops["1"] > 2 * drops["0"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a.mp4"], "no --model"),
        (["--model", "demo"], "no sources"),
        (["gopher://a/b", "--model", "demo"], "scheme 'gopher'"),
        (["rtsp:///cam", "--model", "demo"], "host"),
        (["none.mp4", "--model", "demo"], "there is no file 'none.mp4'"),
        (["{text}", "--model", "demo"], "cannot be read as a video"),
        (["{video}", "{video}", "--model", "demo"], "two streams are called"),
        (["{video}", "--model", "none"], "no model folder at 'none'"),
        (["--streams", "none.toml", "--model", "demo"], "'none.toml' cannot be read"),
        (["{video}", "--model", "demo", "--max-latency", "0"], "--max-latency is 0.0"),
        (["{video}", "--model", "demo", "--http", "8080"], "--http is '8080'"),
        (["{video}", "--model", "demo", "--camera-memory", "100"], "--camera-memory is 100: give 256"),
        (["{video}", "--model", "demo", "--log", "/none/log"], "--log '/none/log'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    cameras: list[Path], tmp_path: Path, args: list[str], said: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    done = clipmux("live", *(arg.format(text=tmp_path / "text.mp4", video=cameras[0]) for arg in args))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("clipmux: ")
    assert done.stderr.count("\n") == 1


def test_a_camera_whose_pictures_cannot_be_converted_is_tried_again(tmp_path: Path) -> None:
    """Another picture may come. One who connects is sent a video in YCgCo, and then nothing more."""
    video = write_video(tmp_path / "a.ts", moving(30), options={"x264-params": "colormatrix=YCgCo"})
    connected = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # closed
                while True:
                    connection, _ = server.accept()
                    connected.append(connection)
                    connection.sendall(video.read_bytes())
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with running(f"tcp://127.0.0.1:{server.getsockname()[1]}", "--model", "demo") as (process, said):
            until(lambda: len(connected) > 1)
            until(lambda: "cannot be converted to RGB" in said.read_text())
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        server.shutdown(socket.SHUT_RDWR)


def test_a_camera_whose_packets_hold_no_pictures_any_more_is_stalled(tmp_path: Path) -> None:
    """Its process gives signs of life with each packet, and is replaced all the same."""
    content = io.BytesIO()
    with (
        av.open(str(write_video(tmp_path / "a.ts", moving(50)))) as source,
        av.open(content, "w", format="mpegts") as output,
    ):
        video = source.streams.video[0]
        stream = output.add_stream_from_template(video)
        packets = [packet for packet in source.demux(video) if packet.size]
        for packet in packets:
            packet.stream = stream
            output.mux(packet)
        pictures = content.tell()
        for number in range(3000):
            # A slice with a picture parameter set that was never sent (ITU-T H.264, 7.3.3): 200.
            undecodable = av.Packet(b"\0\0\0\1\x41\xc0\x64" + b"\xff" * 300)
            undecodable.stream, undecodable.time_base = stream, Fraction(1, 25)
            undecodable.pts = undecodable.dts = 250 + number
            output.mux(undecodable)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:  # closed
                connection.sendall(content.getvalue()[:pictures])
                for at in range(pictures, len(content.getvalue()), 752):
                    connection.sendall(content.getvalue()[at : at + 752])
                    time.sleep(0.02)

        def accept() -> None:
            with contextlib.suppress(OSError):  # closed
                while True:
                    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with running(url, "--model", "demo", "--stall", 1) as (process, said):
            until(lambda: "had no new frame for 1 s" in said.read_text())
            assert ": stalled (" in said.read_text()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0
        server.shutdown(socket.SHUT_RDWR)


def test_a_colour_matrix_that_libswscale_refuses_has_a_thumbnail(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving(30), options={"x264-params": "colormatrix=bt2020c"})
    address = f"127.0.0.1:{free_ports(1)}"
    done = clipmux("live", video, "--model", "demo", "--http", address)
    assert done.returncode == 0, done.stderr
    assert "reconnecting" not in done.stderr


def test_credentials_are_nowhere_to_be_seen(tmp_path: Path) -> None:
    """Neither in what is said, nor in the log, nor in what any process shows of itself."""
    streams = listed(tmp_path / "streams.toml", {"door": ("rtsp://admin:hunter2@127.0.0.1:9/cam?token=hunter3", "")})
    log = tmp_path / "log"
    with running("--streams", streams, "--model", "demo", "--log", log) as (process, said):
        until(lambda: "door: reconnecting" in said.read_text())
        shown = " ".join(part for child in psutil.Process(process.pid).children() for part in child.cmdline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    until(lambda: "refused" in log.read_text())
    for text in (shown, said.read_text(), log.read_text()):
        assert "hunter" not in text
        assert "admin" not in text
