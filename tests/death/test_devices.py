"""Several devices: the same answers, each does its part, and the loss of one costs nothing but time."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from command import assert_same, clipmux, lines, results, started, summary
from devices import CORES, TWO, two_devices

from clipmux.bench.videos import write_short_videos

pytestmark = two_devices


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 60, frames=48, size=(96, 64))
    return folder


def inference_of(pid: int) -> dict[str, int]:
    """The inference processes of a run: pid by name."""
    found = {}
    for child in psutil.Process(pid).children():
        try:
            found |= {part: child.pid for part in child.cmdline() if re.fullmatch(r"inference-\d+", part)}
        except psutil.Error:  # it is just ending
            continue
    return found


def test_two_devices_give_what_one_gives(videos: Path, tmp_path: Path) -> None:
    for device, run in ((f"cpu:{CORES[0]}", tmp_path / "one"), (TWO, tmp_path / "two")):
        done = clipmux("run", videos, "--model", "demo", "--device", device, "--output", run)
        assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "two")) == 60
    assert_same(results(tmp_path / "two"), results(tmp_path / "one"), within=1e-6)
    devices = summary(tmp_path / "two")["devices"]
    assert list(devices) == TWO.split(",")
    assert sum(device["clips"] for device in devices.values()) == 180
    assert all(device["clips"] > 20 for device in devices.values()), devices


@pytest.mark.parametrize("way", ["shared", "socket"])
def test_a_killed_device_is_replaced(way: str, videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    slow = ["--backend", "null", "--null-delay", "0+30", "--clip-memory", way]
    process = started("run", videos, "--model", null_model, "--device", TWO, *slow, "--output", run)
    wait_for_results(run)
    victim = max(inference_of(process.pid).items())[1]
    os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(lines(run / "results.jsonl")) == len(results(run)) == 60
    assert summary(run)["restarts"] == 1
    assert len(summary(run)["devices"]) == 2


def test_a_lost_device_leaves_its_videos_to_the_others(videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["run", videos, "--model", null_model, "--device", TWO, "--backend", "null", "--output", run]
    process = started(*words, "--null-delay", "0+100", "--max-batch", 4)
    wait_for_results(run)
    survivor = min(inference_of(process.pid))
    killed: set[str] = set()
    deadline = time.monotonic() + 60
    while "5 restarts did not help: the others go on without it" not in (run / "run.log").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, killed
        for name, pid in inference_of(process.pid).items():
            if name not in {survivor, *killed}:
                killed.add(name)
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    assert len(killed) == 6
    before = len(lines(run / "results.jsonl"))
    while len(lines(run / "results.jsonl")) < before + 3:
        assert time.monotonic() < deadline, "the other device does not go on"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert clipmux(*words, "--resume").returncode == 0
    assert len(lines(run / "results.jsonl")) == len(results(run)) == 60


def wait_for_results(run: Path) -> None:
    deadline = time.monotonic() + 30
    while not (run / "results.jsonl").exists() or not (run / "results.jsonl").stat().st_size:
        assert time.monotonic() < deadline, "no result after 30 s"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cpu:0,cpu:0", "name each device or core once"),
        ("cpu:0-1,cpu:1", "name each device or core once"),
        ("cpu,cpu:1", "name each device or core once"),
        ("cpu:0,mlu:0", "give devices of one kind"),
        ("cpu:0,", "there is no device ''"),
        ("cpu:1-0", "not among the cores"),
        ("cpu:0,cpu:4095", "'cpu:4095' is not among the cores that may be used here"),
    ],
)
def test_devices_that_cannot_be(device: str, said: str, videos: Path, null_model: Path, tmp_path: Path) -> None:
    options = ["--backend", "null"] if "4095" in device or "1-0" in device else []
    done = clipmux("run", videos, "--model", null_model, *options, "--device", device, "--output", tmp_path / "run")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
