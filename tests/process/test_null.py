"""What the engine does with a device that only takes time."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
from command import clipmux, lines, started, summary

from clipmux.bench.videos import write_short_videos


def test_a_saturated_device_gets_full_batches(null_model: Path, tmp_path: Path) -> None:
    """500 videos of 21 clips each, on a device that takes 128 ms for 64 clips: far longer than decoding them."""
    videos = tmp_path / "videos"
    write_short_videos(videos, 500, frames=35, size=(96, 64))
    run = tmp_path / "run"
    options = ["--backend", "null", "--null-delay", "0+2", "--stride", 1, "--output", run]
    done = clipmux("run", videos, "--model", null_model, *options)
    assert done.returncode == 0, done.stderr
    figures = summary(run)
    assert figures["clips"] == 500 * 21
    assert figures["mean_batch"] >= 63
    assert figures["batch_fill"] >= 63 / 64


def test_memory_stays_flat_over_2000_videos(short_videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started("run", short_videos, "--model", null_model, "--backend", "null", "--output", run)
    early: dict[str, int] = {}
    late: dict[str, int] = {}
    while process.poll() is None:
        done = (run / "results.jsonl").read_bytes().count(b"\n") if (run / "results.jsonl").exists() else 0
        if done >= 200:
            sizes = memory(process.pid)
            early = early or sizes
            late = sizes if len(sizes) >= len(early) else late
        time.sleep(0.1)
    _, complained = process.communicate()
    assert process.returncode == 0, complained
    assert len(lines(run / "results.jsonl")) == 2000
    assert early.keys() == late.keys()
    assert len(early) >= 4
    for name, size in early.items():
        assert late[name] <= 1.1 * size, (name, size, late[name])


def memory(pid: int) -> dict[str, int]:
    """Resident bytes of a run's processes, by name."""
    supervisor = psutil.Process(pid)
    sizes = {}
    try:
        sizes["supervisor"] = supervisor.memory_info().rss
        for child in supervisor.children():
            name = next(part for part in child.cmdline() if part.startswith(("decoder-", "inference-", "collector-")))
            sizes[name] = child.memory_info().rss
    except (psutil.Error, StopIteration):
        return {}
    return sizes
