"""Every role killed with SIGKILL, once; stopped; and what else a run may meet: no disk, no folder, no memory."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from command import clipmux, lines, results, started, summary

from clipmux.bench.videos import write_short_videos
from clipmux.engine.children import BEGIN, INFERENCE, MODULES
from clipmux.engine.orphans import ORPHANED


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


def started_run(
    videos: Path, model: Path, run: Path, way: str = "shared", options: Sequence[object] = ()
) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A slow run that has written its first results, and its children."""
    slow = ["--backend", "null", "--null-delay", "0+15", "--clip-memory", way]
    process = started("run", videos, "--model", model, *slow, *options, "--output", run)
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["inference", "collector"])
def test_a_killed_inference_or_collector_is_replaced(
    role: str, way: str, videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process, pids = started_run(videos, null_model, run, way)
    os.kill(pids[role], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert len(lines(run / "results.jsonl")) == 60
    assert len(results(run)) == 60
    assert summary(run)["restarts"] == 1
    assert re.search(rf"{role}-\d+ was killed by SIGKILL", (run / "run.log").read_text())


def test_a_child_whose_supervisor_dies_before_it_says_everything_tidies_up(tmp_path: Path) -> None:
    folder = tmp_path / "clipmux-sockets"
    folder.mkdir()
    words = [sys.executable, "-c", BEGIN, MODULES[INFERENCE], "inference-1", str(folder), *filter(None, sys.path)]
    done = subprocess.run(words, input=b'{"name": "inference-1", "addr', capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (ORPHANED, b"")
    assert not list(tmp_path.glob("clipmux-*"))


def test_who_is_stopped_before_it_is_ready_is_started_once_more(videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--backend", "null", "--workers", 1, "--start-timeout", 5]
    process = started("run", videos, "--model", null_model, *options, "--output", run)
    deadline = time.monotonic() + 30
    while "inference" not in roles(process.pid):
        assert time.monotonic() < deadline
    os.kill(roles(process.pid)["inference"], signal.SIGSTOP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(lines(run / "results.jsonl")) == 60
    assert "was not ready after 5 s (--start-timeout)" in (run / "run.log").read_text()


def test_who_is_stopped_is_noticed_and_replaced(videos: Path, null_model: Path, tmp_path: Path) -> None:
    """One of each role, all at once."""
    run = tmp_path / "run"
    patience = [word for name in ("open", "decode", "device", "write") for word in (f"--{name}-timeout", 2)]
    process, pids = started_run(videos, null_model, run, options=patience)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(lines(run / "results.jsonl")) == 60
    log = (run / "run.log").read_text()
    for role, option in (("inference", "--device-timeout"), ("collector", "--write-timeout")):
        assert re.search(rf"{role}-\d+ .* for 2 s \({option}\)", log)


def test_a_video_that_always_stalls_its_decoder_has_failed(null_model: Path, tmp_path: Path) -> None:
    """Whatever decodes it is stopped: three decoders, and then no more."""
    (long,) = write_short_videos(tmp_path / "long", 1, frames=600, size=(96, 64))
    run = tmp_path / "run"
    slow = ["--null-delay", "0+400", "--max-batch", 1, "--queue-memory", 1]  # it is at it for 15 s
    options = ["--model", null_model, "--backend", "null", "--workers", 1, "--open-timeout", 1, "--decode-timeout", 1]
    process = started("run", long.path, *options, *slow, "--output", run)
    stopped = set()
    while process.poll() is None:
        pid = roles(process.pid).get("decoder")
        if pid and pid not in stopped and f"decoder-{3 + len(stopped)} is ready" in (run / "run.log").read_text():
            time.sleep(0.3)  # it has its video now
            stopped.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(0.02)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 3, said
    line = lines(run / "failures.jsonl")[long.path.stem]
    assert (line["error"], line["attempt"]) == ("Timeout", 3)
    assert "stalled its decoder 3 times" in line["message"]
    assert str(long.path) in line["message"]


@pytest.mark.parametrize("stopped", [False, True])
def test_children_end_with_their_supervisor(stopped: bool, videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, _ = started_run(videos, null_model, run)
    children = psutil.Process(process.pid).children()
    if stopped:
        for child in children:
            child.suspend()
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 2
    while (left := [child for child in children if lives(child)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def test_who_kills_a_supervisor_in_its_first_moments_finds_nothing_left(
    videos: Path, null_model: Path, tmp_path: Path
) -> None:
    """Children are just opening their sockets when these are removed; at some moment of these, one fails by that."""
    for moment in range(12):
        run = tmp_path / f"run {moment}"
        process = started("run", videos, "--model", null_model, "--backend", "null", "--workers", 2, "--output", run)
        log = run / "run.log"
        deadline = time.monotonic() + 30
        while not (log.exists() and "decoder-4 started" in log.read_text()):
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.001)
        time.sleep(moment * 0.025)
        children = psutil.Process(process.pid).children()
        process.kill()
        process.communicate()
        while any(lives(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not list(Path(os.environ["TMPDIR"]).iterdir()), f"killed after {moment * 25} ms"


def lives(process: psutil.Process) -> bool:
    """It has not ended; whoever inherits it may take a while to notice that it has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


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
    run = tmp_path / "run"
    process, _ = started_run(videos, null_model, run)
    everyone = [*psutil.Process(process.pid).children(), psutil.Process(process.pid)]
    memories = set().union(*(clip_memories(one.pid) for one in everyone))
    assert len(memories) == 1, "inference and decoders have one clip memory"
    for one in everyone:
        one.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while any(lives(one) for one in everyone) and time.monotonic() < deadline:
        time.sleep(0.02)
    for sockets in (tmp_path / "t").iterdir():  # perhaps nobody was left who could
        shutil.rmtree(sockets)
    assert not any(memories & clip_memories(pid) for pid in psutil.pids()), "the memory of the clips is still taken"
    done = clipmux("run", videos, "--model", null_model, "--backend", "null", "--output", run, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(lines(run / "results.jsonl")) == 60


def clip_memories(pid: int) -> set[str]:
    """The clip memories that a process has mapped, by the number that the kernel gave each."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended
        return set()
    return {line.split()[4] for line in maps.splitlines() if "memfd:clipmux-clips" in line}


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


def test_a_run_folder_that_is_taken_away_ends_the_run(videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, _ = started_run(videos, null_model, run)
    shutil.rmtree(run)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    (sentence,) = [line for line in said.splitlines() if line.startswith("clipmux: ")]
    assert "results.jsonl' cannot be written" in sentence
    assert "was moved or removed" in sentence
    assert "Traceback" not in said
    assert not run.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "clipmux", folder]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        if os.environ.get("CI") and os.getuid() == 0:
            pytest.fail(f"a small disk cannot be mounted: {mounted.stderr!r}")
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    videos: Path, null_model: Path, small_disk: Path, tmp_path: Path
) -> None:
    run = small_disk / "run"
    asked = ["run", videos, "--model", null_model, "--backend", "null", "--top-k", 10, "--output", run]
    full = clipmux(*asked)
    assert full.returncode == 1, full.stderr
    (sentence,) = [line for line in full.stderr.splitlines() if line.startswith("clipmux: ")]
    assert "No space left" in sentence
    assert "make room" in sentence
    assert "Traceback" not in full.stderr
    assert (run / "results.jsonl").read_bytes().endswith(b"}\n"), "half a line was left"
    kept = lines(run / "results.jsonl")
    assert 0 < len(kept) < 60
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    done = clipmux(*asked, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(lines(run / "results.jsonl")) == 60
    assert not list(run.glob("*.part"))
