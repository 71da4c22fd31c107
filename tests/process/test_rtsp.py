"""``clipmux live`` on cameras that fail: servers killed, wires cut and garbled, other pictures, times that jump."""

from __future__ import annotations

import random
import signal
import socket
import struct
import time
import urllib.request
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from cameras import Camera, Wire, free_port, long_video, needs_rtsp_server, transport_stream
from live_command import children, listed, running, until

from clipmux.bench.videos import available_encodings, write_short_videos


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_video(tmp_path_factory.mktemp("h264"))


@pytest.fixture(scope="session")
def other_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another codec, and larger pictures."""
    return long_video(tmp_path_factory.mktemp("hevc"), kind="hevc-mp4", size=(320, 240), seconds=60)


def said_of(said: Path, name: str) -> list[str]:
    return [line for line in said.read_text().splitlines() if line.startswith(f"{name}: ")]


def clips_scored(at: str) -> int:
    """So far, as its metrics say."""
    with urllib.request.urlopen(f"http://{at}/metrics", timeout=10) as answer:
        (line,) = (
            line for line in answer.read().decode().splitlines() if line.startswith("clipmux_clips_scored_total ")
        )
    return int(float(line.split()[1]))


def test_a_camera_comes_back_by_itself_and_the_others_do_not_notice(
    video: Path, other_video: Path, tmp_path: Path
) -> None:
    needs_rtsp_server()
    with Camera(video) as camera, Camera(video) as steady:
        streams = listed(tmp_path / "streams.toml", {"door": (camera.url, ""), "yard": (steady.url, "")})
        with running("--streams", streams, "--model", "demo") as (process, said):
            until(lambda: {"door: live", "yard: live"} <= set(said.read_text().splitlines()))
            first = {child.pid for child in children(process, "camera")}
            for number, (path, codec) in enumerate([(video, "h264"), (other_video, "h265")], start=2):
                camera.kill()
                until(lambda count=number: said.read_text().count("door: reconnecting") == count - 1)
                camera.start(path, codec)
                until(lambda count=number: said.read_text().count("door: live") == count)
            time.sleep(2)
            assert said.read_text().count("yard: live") == 1
            assert "yard: reconnecting" not in said.read_text()
            assert {child.pid for child in children(process, "camera")} == first  # nobody had to be replaced
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=30)
            assert process.returncode == 0
    assert '"stream": "yard"' in told


def test_a_wire_that_is_cut_or_garbled_is_survived(video: Path, tmp_path: Path) -> None:
    needs_rtsp_server()
    with Camera(video) as camera, Wire(camera.port) as wire:
        streams = listed(tmp_path / "streams.toml", {"door": (f"rtsp://127.0.0.1:{wire.port}/cam", "")})
        with running("--streams", streams, "--model", "demo", "--stall", 2) as (process, said):
            until(lambda: "door: live" in said.read_text())
            wire.still = True
            until(lambda: "door: stalled (had no new frame for 2 s)" in said.read_text())
            wire.still = False
            until(lambda: said.read_text().count("door: live") == 2)
            wire.garble = 500
            time.sleep(3)
            wire.garble = 0
            time.sleep(3)  # what was garbled may still be on its way
            until(lambda: said_of(said, "door")[-1] == "door: live")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0


def test_foreign_packets_among_those_of_a_camera_over_udp_are_survived(video: Path, tmp_path: Path) -> None:
    """Noise, headers of RTP before noise, and what could be the camera's own packets, out of order and garbled."""
    needs_rtsp_server()
    with Camera(video) as camera:
        streams = listed(tmp_path / "streams.toml", {"door": (camera.url, "")})
        at = f"127.0.0.1:{free_port()}"
        words = ["--streams", streams, "--model", "demo", "--rtsp-transport", "udp", "--metrics", at]
        with running(*words) as (process, said), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            until(lambda: "door: live" in said.read_text())
            (pid,) = (child.pid for child in children(process, "camera"))
            ports = until(lambda: [it.laddr.port for it in psutil.Process(pid).net_connections(kind="udp4")])
            sent = 0
            chance = random.Random(1)  # noqa: S311
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                for port in ports:
                    noise = chance.randbytes(chance.randrange(1, 1400))
                    rtp = struct.pack(">BBHII", 0x80, 96, chance.randrange(1 << 16), chance.randrange(1 << 32), 1)
                    for packet in (noise, rtp + noise, rtp + b"\x65" + noise):
                        sent += stranger.sendto(packet, ("127.0.0.1", port)) > 0
                time.sleep(0.005)
            assert sent > 500
            clips = clips_scored(at)
            until(lambda: said_of(said, "door")[-1] == "door: live" and clips_scored(at) > clips + 5)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0


def test_times_that_jump_back_begin_a_new_connection(tmp_path: Path) -> None:
    encoding = next(one for one in available_encodings() if one.name == "mpeg2-ts")
    (video,) = write_short_videos(
        tmp_path / "ts", 1, frames=75, size=(160, 120), rate=Fraction(25), encoding=encoding, distinct=1
    )
    with transport_stream(video.path) as port:
        output = tmp_path / "events.jsonl"
        with running(f"tcp://127.0.0.1:{port}", "--model", "demo", "--output", output) as (process, said):
            until(lambda: output.exists() and '"connection": 3' in output.read_text())
            assert "reconnecting" not in said.read_text()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert process.returncode == 0
