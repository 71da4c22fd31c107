"""Every role killed with SIGKILL, once."""

from __future__ import annotations

import os
import resource
import shutil
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
        try:
            command = child.cmdline()
        except psutil.Error:  # it is just ending
            continue
        for part in command:
            role, dash, number = part.partition("-")
            if dash and number.isdigit() and role in ("decoder", "inference", "collector"):
                found[role] = child.pid
    return found


WAYS = ["shared", "socket"]


def started_run(videos: Path, model: Path, run: Path, way: str = "shared") -> tuple[object, dict[str, int]]:
    """A slow run that has written its first results, and its children."""
    options = ["--backend", "null", "--null-delay", "0+15", "--clip-memory", way]
    process = started("run", videos, "--model", model, *options, "--output", run)
    deadline = time.monotonic() + 30
    while not (run / "results.jsonl").exists() or not (run / "results.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, roles(process.pid)


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_decoders_videos_are_handed_out_again(
    way: str, videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process, pids = started_run(videos, null_model, run, way)
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


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_decoder_changes_no_result(way: str, tmp_path: Path) -> None:
    """With a network that looks at its clips, and a decoder killed while its slots are in use."""
    videos = tmp_path / "videos"
    write_short_videos(videos, 12, frames=96, size=(96, 64))
    options = ["--model", "demo", "--per-clip", "--stride", 4, "--queue-memory", 16, "--max-batch", 8]
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert clipmux("run", videos, *options, "--output", undisturbed).returncode == 0
    process = started("run", videos, *options, "--clip-memory", way, "--output", run)
    results = run / "results.jsonl"
    while process.poll() is None and not (results.exists() and results.stat().st_size):
        time.sleep(0.02)
    os.kill(roles(process.pid)["decoder"], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert summary(run)["restarts"] == 1
    assert summary(run)["inference"]["clip_memory"].startswith(way)
    assert (run / "results.json").read_bytes() == (undisturbed / "results.json").read_bytes()


def test_nothing_is_left_when_all_are_killed_at_once(videos: Path, null_model: Path, tmp_path: Path) -> None:
    process, _ = started_run(videos, null_model, tmp_path / "run")
    everyone = [*psutil.Process(process.pid).children(), psutil.Process(process.pid)]
    mapped = [child for child in everyone if "clipmux-clips" in Path(f"/proc/{child.pid}/maps").read_text()]
    assert len(mapped) >= 2, "inference and a decoder at least have the clip memory"
    before = shared_bytes()
    for one in everyone:
        one.kill()
    process.communicate()
    psutil.wait_procs(everyone, timeout=5)
    shutil.rmtree(next((tmp_path / "t").iterdir()))  # nobody is left who could
    deadline = time.monotonic() + 5
    while shared_bytes() > before - (100 << 20) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shared_bytes() <= before - (100 << 20), "the memory of the clips is still taken"


def shared_bytes() -> int:
    """Shared memory of the whole machine."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return int(line.split()[1]) << 10


def test_shared_memory_that_cannot_be_had_is_said(null_model: Path, tmp_path: Path) -> None:
    """A limit on the size of files counts for memory without a name too."""
    videos = tmp_path / "videos"
    write_short_videos(videos, 2, frames=16, size=(96, 64))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, hard))
    try:
        options = ["--model", null_model, "--backend", "null"]
        refused = clipmux("run", videos, *options, "--output", tmp_path / "1", "--clip-memory", "shared")
        chosen = clipmux("run", videos, *options, "--output", tmp_path / "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.returncode == 2
    assert "cannot be had" in refused.stderr
    assert "--clip-memory socket" in refused.stderr
    assert chosen.returncode == 0, chosen.stderr
    assert summary(tmp_path / "2")["inference"]["clip_memory"].startswith("socket, since")
    assert "socket, since" in (tmp_path / "2" / "run.log").read_text()
