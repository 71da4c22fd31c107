"""``clipmux live`` while what it needs is not there for a while."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from live_command import children, listed, running, until
from media import moving, write_video

import clipmux.build
from clipmux.engine.children import CAMERA, INFERENCE, WATCHER
from clipmux.engine.config import EngineConfig
from clipmux.engine.live import LiveSupervisor
from clipmux.engine.model import read_model
from clipmux.engine.streams import LiveConfig, StreamConfig


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.mp4", moving(100))


@pytest.fixture
def silent() -> Iterator[str]:
    """A camera that is connected to, and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_a_camera_that_cannot_be_started_is_tried_again(tmp_path: Path, video: Path) -> None:
    streams = listed(tmp_path / "streams.toml", {"a": (video, ""), "b": (video, "")})
    with running("--streams", streams, "--loop", "--model", "demo", "--log", tmp_path / "log") as (process, said):
        until(lambda: said.read_text().count(": live") >= 2)
        before = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, (16, before[1]))  # fewer than it has
        children(process, "camera")[0].kill()
        until(lambda: "cannot be started" in (tmp_path / "log").read_text())
        assert process.poll() is None
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE, before)
        until(lambda: len(children(process, "camera")) == 2)
        process.terminate()
        assert process.wait(20) == 0


def test_a_model_folder_that_is_away_ends_no_network_camera(tmp_path: Path, video: Path, silent: str) -> None:
    model = shutil.copytree(Path(clipmux.build.__file__).parent / "demo", tmp_path / "model")
    streams = listed(tmp_path / "streams.toml", {"door": (silent, ""), "file": (video, "")})
    with running("--streams", streams, "--loop", "--model", model, "--log", tmp_path / "log") as (process, said):
        until(lambda: "file: live" in said.read_text())
        model.rename(tmp_path / "away")
        for camera in children(process, "camera"):
            camera.kill()
        until(lambda: "no model folder" in (tmp_path / "log").read_text())
        (tmp_path / "away").rename(model)
        until(
            lambda: len(children(process, "camera")) == 1
        )  # the file's has ended, as all files do that cannot be played
        assert "door: ended" not in said.read_text()
        process.terminate()
        assert process.wait(20) == 0


def test_what_sinks_are_told_is_told_to_nobody_else(tmp_path: Path) -> None:
    """A webhook's URL may have a password in it; a camera and inference, which may be elsewhere, need none."""
    model = read_model("demo")
    live = LiveConfig(str(model.path), webhook="http://user:hunter2@127.0.0.1:9/").of_model(model)
    streams = [StreamConfig("a", "a.mp4")]
    supervisor = LiveSupervisor(EngineConfig(str(model.path)), live, model, streams, log_file=tmp_path / "log")
    supervisor._open()
    told = {role: str(supervisor._told(role)) for role in (CAMERA, INFERENCE, WATCHER)}
    supervisor.kill()
    assert ["hunter2" in told[role] for role in (CAMERA, INFERENCE, WATCHER)] == [False, False, True]
