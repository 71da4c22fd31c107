"""Every role killed with SIGKILL, once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from command import clipmux, lines, started, summary

from clipmux.bench.videos import write_short_videos


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 60, frames=48, size=(96, 64))
    return folder


def roles(pid: int) -> dict[str, int]:
    """The run's children: pid by role (one of each)."""
    found = {}
    for child in psutil.Process(pid).children():
        for part in child.cmdline():
            role, dash, number = part.partition("-")
            if dash and number.isdigit() and role in ("decoder", "inference", "collector"):
                found[role] = child.pid
    return found


def started_run(videos: Path, model: Path, run: Path) -> tuple[object, dict[str, int]]:
    """A slow run that has written its first results, and its children."""
    process = started("run", videos, "--model", model, "--backend", "null", "--null-delay", "0+15", "--output", run)
    deadline = time.monotonic() + 30
    while not (run / "results.jsonl").exists() or not (run / "results.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, roles(process.pid)


def test_a_killed_decoders_videos_are_handed_out_again(videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, pids = started_run(videos, null_model, run)
    os.kill(pids["decoder"], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(lines(run / "results.jsonl")) == 60
    assert summary(run)["restarts"] == 1
    assert "SIGKILL" in (run / "run.log").read_text()


@pytest.mark.parametrize("role", ["inference", "collector"])
def test_a_killed_inference_or_collector_is_named_and_the_run_can_go_on(
    role: str, videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process, pids = started_run(videos, null_model, run)
    os.kill(pids[role], signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"the {role} process was killed by SIGKILL" in said
    assert "--resume" in said
    assert "Traceback" not in said
    done = clipmux("run", videos, "--model", null_model, "--backend", "null", "--output", run, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(lines(run / "results.jsonl")) == 60


def test_children_end_with_their_supervisor(videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, _ = started_run(videos, null_model, run)
    children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=2)
    assert not alive, alive
