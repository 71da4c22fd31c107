"""Inference in processes that somebody else starts, as one file under an older Python: joined, lost, and wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import assert_same, clipmux, expected_results, lines, results, summary
from elsewhere import Start, children_of, finished, until
from emulated import EMULATOR, magicmind
from live_command import children, events_of
from old_python import old_python
from ports import free_ports

from clipmux.bench.videos import write_short_videos
from clipmux.build.compile import compile_model
from clipmux.engine.keys import make_keys, read_keys, trust

SLOW = ["--backend", "null", "--null-delay", "0+20", "--max-batch", 8]
VERY_SLOW = ["--backend", "null", "--null-delay", "0+500", "--max-batch", 2]
"""It is still at it when all else that a test does has been done."""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 40, frames=48, size=(96, 64))
    return folder


@pytest.fixture
def at(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/engine"


def log_of(run: Path) -> str:
    file = run / "run.log"
    return file.read_text() if file.exists() else ""


def test_the_demo_gives_what_it_gives_with_inference_of_its_own(
    videos: Path, at: str, start: Start, tmp_path: Path
) -> None:
    local, run = tmp_path / "local", tmp_path / "run"
    assert clipmux("run", videos, "--model", "demo", "--output", local).returncode == 0
    host = start("serve-inference", "--connect", at)
    engine = start("run", videos, "--model", "demo", "--inference-at", at, "--output", run)
    _, complained = engine.communicate(timeout=120)
    assert engine.returncode == 0, complained
    assert f"inference joins with: clipmux serve-inference --connect {at}" in complained
    _, said = host.communicate(timeout=30)
    assert (host.returncode, said.splitlines()[-1]) == (0, "the run is over"), said
    assert_same(results(run), results(local), within=0.0)
    assert not (tmp_path / "engine").exists()


def test_one_file_serves_run_after_run_under_an_older_python(
    videos: Path, null_model: Path, at: str, start: Start, tmp_path: Path
) -> None:
    """It has the model elsewhere, too, and is told to stay."""
    packed, there = tmp_path / "inference.pyz", tmp_path / "there"
    assert clipmux("serve-inference", "--pack", packed).returncode == 0
    there.symlink_to(null_model)
    words = [old_python(), packed, "--connect", at, "--model", there, "--stay"]
    host = subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, text=True)
    try:
        for name in ("first", "second"):
            run = tmp_path / name
            done = clipmux(
                "run", videos, "--model", null_model, "--backend", "null", "--inference-at", at, "--output", run
            )
            assert done.returncode == 0, done.stderr
            assert len(lines(run / "results.jsonl")) == 40
    finally:
        host.send_signal(signal.SIGTERM)
        _, said = host.communicate(timeout=30)
    assert host.returncode == 0, said
    assert said.count("the run is over") == 2
    assert said.splitlines()[-1] == "left"


def test_a_killed_process_and_then_a_killed_host_cost_nothing_but_time(
    videos: Path, null_model: Path, at: str, start: Start, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    engine = start("run", videos, "--model", null_model, *SLOW, "--inference-at", at, "--output", run)
    first = start("serve-inference", "--connect", at)
    until(finished(run, 3), "nothing comes")
    (victim,) = children_of(first.pid)
    os.kill(victim, signal.SIGKILL)
    until(finished(run, 8), "nothing comes after its process was killed")
    first.kill()
    until(lambda: "lost its connection" in log_of(run), "its end is not seen")
    second = start("serve-inference", "--connect", at)
    _, complained = engine.communicate(timeout=120)
    assert engine.returncode == 0, complained
    assert second.wait(30) == 0
    assert len(lines(run / "results.jsonl")) == 40
    assert len(results(run)) == 40
    assert "was killed by SIGKILL" in log_of(run)


def test_magicmind_under_an_older_python_gives_what_it_gives_here(
    golden: Path, golden_model: Path, at: str, start: Start, tmp_path: Path
) -> None:
    """The container has MagicMind's runtime and an older Python; the engine beside it has neither."""
    packed, folder, run = tmp_path / "inference.pyz", tmp_path / "model", tmp_path / "run"
    with magicmind():
        compile_model(golden_model, folder, target="magicmind", precision="force_float32", calibration=None, options={})
    assert clipmux("serve-inference", "--pack", packed).returncode == 0
    inputs = ["--annotations", golden / "kinetics.json", "--root", golden / "jpg"]
    words = ["run", *inputs, "--model", folder, "--device", "mlu:0", "--inference-at", at, "--output", run]
    engine = start(*words)
    container = {"PYTHONPATH": str(EMULATOR), "MAGICMIND_EMULATOR_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    host = subprocess.run(
        [old_python(), packed, "--connect", at],
        env={**os.environ, **container},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    _, complained = engine.communicate(timeout=60)
    assert engine.returncode == 0, (complained, host.stderr)
    assert (host.returncode, host.stderr.splitlines()[-1]) == (0, "the run is over")
    assert_same(results(run), expected_results(golden, "avg"), within=1e-5)
    assert summary(run)["inference"]["backend"] == "magicmind"


def test_over_tcp_both_sides_know_each_other_by_key(
    videos: Path, null_model: Path, keys: tuple[Path, Path], start: Start, tmp_path: Path
) -> None:
    """Two devices, of which each has a port; one of the decoders is killed."""
    run, port = tmp_path / "run", free_ports(6)
    at, listen = f"tcp://127.0.0.1:{port}", f"127.0.0.1:{port + 4}"
    devices = ["--device", "mlu:0,mlu:1", "--workers", 2, "--wire", "jpeg"]
    engine = start(
        *("run", videos, "--model", null_model, *SLOW, *devices),
        *("--inference-at", at, "--keys", keys[0], "--output", run),
    )
    host = start("serve-inference", "--connect", at, "--listen", listen, "--keys", keys[1])
    until(finished(run, 3), "nothing comes")
    children(engine, "decoder")[0].kill()
    _, complained = engine.communicate(timeout=120)
    assert engine.returncode == 0, complained
    assert host.wait(30) == 0
    assert len(lines(run / "results.jsonl")) == 40
    assert set(summary(run)["devices"]) == {"mlu:0", "mlu:1"}


def test_streams_go_on_when_inference_is_back(at: str, start: Start, tmp_path: Path) -> None:
    (video,) = (v.path for v in write_short_videos(tmp_path / "cameras", 1, frames=100, size=(160, 120)))
    events = tmp_path / "events.jsonl"
    log = tmp_path / "log"
    words = ["live", video, "--loop", "--model", "demo", "--inference-at", at, "--output", events, "--log", log]
    engine = start(*words)
    first = start("serve-inference", "--connect", at)
    until(lambda: events.exists() and "started" in events.read_text(), "no event")
    first.kill()
    until(lambda: "lost its connection" in log.read_text(), "its end is not seen")
    second = start("serve-inference", "--connect", at)
    until(lambda: log.read_text().count("joined with inference") == 2, "another does not join")
    before = len(events_of(events.read_text()))
    until(lambda: len(events_of(events.read_text())) > before, "no event after it is back")
    engine.send_signal(signal.SIGTERM)
    _, complained = engine.communicate(timeout=30)
    assert engine.returncode == 0, complained
    assert second.wait(30) == 0


def test_what_cannot_serve_is_said_on_both_sides(
    videos: Path, null_model: Path, keys: tuple[Path, Path], at: str, start: Start, tmp_path: Path
) -> None:
    """Another model; a second one; a decoder host; a key that the engine does not know."""
    run = tmp_path / "run"
    engine = start("run", videos, "--model", null_model, *SLOW, "--inference-at", at, "--output", run)
    host = start("serve-inference", "--connect", at, "--model", "demo")
    _, complained = engine.communicate(timeout=60)
    assert engine.returncode == 2
    assert "another model than the run's 'null'" in complained
    assert "Traceback" not in complained
    _, said = host.communicate(timeout=30)
    assert host.returncode == 1
    assert "has no use for this host: " in said

    engine = start("run", videos, "--model", null_model, *VERY_SLOW, "--inference-at", at, "--output", tmp_path / "two")
    host = start("serve-inference", "--connect", at)
    until(finished(tmp_path / "two", 1), "nothing comes")
    another = clipmux("serve-inference", "--connect", at)
    assert another.returncode == 1
    assert "inference has joined already" in another.stderr
    taken = clipmux("run", videos, "--model", null_model, "--inference-at", at, "--output", tmp_path / "three")
    assert taken.returncode == 2
    assert "an engine that runs" in taken.stderr
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(30) == 130
    assert host.wait(30) == 0

    port = free_ports(6)
    tcp = f"tcp://127.0.0.1:{port}"
    words = ["--inference-at", tcp, "--keys", keys[0], "--output", tmp_path / "four"]
    engine = start("run", videos, "--model", null_model, *SLOW, *words)
    decoders = clipmux("decode", "--connect", f"127.0.0.1:{port}", "--keys", keys[1])
    assert decoders.returncode == 1
    assert "it waits for inference (clipmux serve-inference)" in decoders.stderr
    stranger = make_keys(tmp_path / "stranger")
    trust(stranger.folder, "server", read_keys(keys[0]).public.decode())
    refused = clipmux("serve-inference", "--connect", tcp, "--listen", "127.0.0.1:1", "--keys", stranger.folder)
    assert refused.returncode == 1
    assert "does not trust this host" in refused.stderr
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(30) == 130


def test_the_mistakes_one_makes(videos: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    run = ["run", videos, "--model", "demo", "--output", tmp_path / "r"]
    folder = tmp_path / "folder"
    (folder / "of-mine").mkdir(parents=True)
    long = f"ipc:///{'x' * 120}"
    for words, said in (
        (["serve-inference"], "no --connect"),
        (["serve-inference", "--connect", "somewhere", "--keys", keys[1]], "'somewhere' is not an address"),
        (["serve-inference", "--connect", "ipc://near"], "give ipc:///FOLDER"),
        (["serve-inference", "--connect", "ipc:///x", "--listen", "127.0.0.1:1"], "leave it out"),
        (["serve-inference", "--connect", "tcp://127.0.0.1:1", "--keys", keys[1]], "no --listen"),
        (["serve-inference", "--connect", "tcp://127.0.0.1:1", "--keys", tmp_path / "none"], "there are no keys"),
        (["serve-inference", "--pack", tmp_path / "none" / "file"], "cannot be written"),
        ([*run, "--inference-at", "somewhere"], "--inference-at is 'somewhere'"),
        ([*run, "--inference-at", "tcp://somewhere"], "'tcp://somewhere' is not an address"),
        ([*run, "--inference-at", "tcp://127.0.0.1:1", "--keys", tmp_path / "none"], "there are no keys"),
        ([*run, "--inference-at", long], "is too long for sockets"),
        ([*run, "--inference-at", f"ipc://{folder}"], "is no folder of sockets"),
        ([*run, "--inference-at", f"ipc://{tmp_path}/none/engine"], f"'{tmp_path}/none' is no folder that may be"),
        ([*run, "--inference-at", "ipc:///x", "--bind", "127.0.0.1:1"], "give one of them"),
        ([*run, "--inference-at", "ipc:///x", "--clip-memory", "shared"], "the socket is the only way"),
    ):
        done = clipmux(*words)
        assert done.returncode == 2, (words, done.stderr)
        assert said in " ".join(done.stderr.split()), done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "of-mine").exists()
    assert not (tmp_path / "r").exists()
