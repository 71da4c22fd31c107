"""``clipmux ray run`` and ``classify`` on one machine; tests/ray_cluster.py has three nodes (``make ray``)."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import assert_same, clipmux, lines, results, started, summary

from clipmux.bench.videos import write_short_videos
from clipmux.engine.sockets import STALE_FROM_S

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (pip install 'clipmux[ray]')")

PIPELINE = """
import json, logging, sys, tempfile
from clipmux.engine.ray import classify
import ray
scratch = tempfile.TemporaryDirectory(dir="/tmp", prefix="cmr-", ignore_cleanup_errors=True)
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
ray.init(num_cpus=2, object_store_memory=80 << 20, _temp_dir=scratch.name, **quiet)
files = ray.data.read_binary_files(sys.argv[1], include_paths=True)
paths = files.drop_columns(["bytes"]).union(ray.data.from_items([{"path": "/nowhere.mp4"}]))
for dataset in (files, paths):
    print(json.dumps(classify(dataset, model="demo", workers=1, num_cpus=1).take_all()))
ray.shutdown()
scratch.cleanup()
"""


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_it_says_how_to_get_it(tmp_path: Path) -> None:
    (video,) = write_short_videos(tmp_path / "videos", 1, frames=16, size=(96, 64))
    done = clipmux("ray", "run", video.path, "--model", "demo", "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "pip install 'clipmux[ray]'" in done.stderr


@needs_ray
def test_mistakes_on_ray(tmp_path: Path) -> None:
    (video,) = write_short_videos(tmp_path / "videos", 1, frames=16, size=(96, 64))
    words = ["ray", "run", video.path, "--model", "demo", "--output", tmp_path / "run"]
    for more, said in (
        (["--address", "127.0.0.1:9"], "there is no Ray cluster at '127.0.0.1:9'"),
        (["--segments"], "--segments was given"),
        (["--metrics", "127.0.0.1:0"], "--metrics or --trace was given"),
    ):
        done = clipmux(*words, *more)
        assert done.returncode == 2, done.stderr
        assert said in " ".join(done.stderr.split())
        assert not (tmp_path / "run").exists()


@needs_ray
def test_a_run_on_ray_gives_what_a_local_one_gives(tmp_path: Path) -> None:
    write_short_videos(tmp_path / "videos", 12, frames=48, size=(96, 64))
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    for command, run in ((("run",), "local"), (("ray", "run"), "run")):
        done = clipmux(*command, tmp_path / "videos", "--model", "demo", "--workers", 1, "--output", tmp_path / run)
        assert done.returncode == 3, done.stderr
    assert_same(results(tmp_path / "run"), results(tmp_path / "local"), within=0.0)
    assert lines(tmp_path / "run" / "results.jsonl") == lines(tmp_path / "local" / "results.jsonl")
    assert lines(tmp_path / "run" / "failures.jsonl") == lines(tmp_path / "local" / "failures.jsonl")
    assert summary(tmp_path / "run")["cpu_s"]["decoder"] > 0


@needs_ray
def test_a_run_on_ray_stops_in_order_when_it_is_told_to(tmp_path: Path) -> None:
    write_short_videos(tmp_path / "videos", 32, frames=160, size=(96, 64))
    words = ("ray", "run", tmp_path / "videos", "--model", "demo", "--workers", 1, "--output", tmp_path / "run")
    process = started(*words)
    journal = tmp_path / "run" / "results.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "give the same command with --resume" in " ".join(said.split())
    assert 0 < len(lines(journal)) < 32


@needs_ray
def test_predictions_in_a_ray_data_pipeline(tmp_path: Path) -> None:
    write_short_videos(tmp_path / "videos", 5, frames=48, size=(96, 64))
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(tmp_path / "videos")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Ray kills actors with everything that they have started: nobody is left to tidy up, but for the next engine.
    time.sleep(STALE_FROM_S)
    local = tmp_path / "local"
    assert clipmux("run", tmp_path / "videos", "--model", "demo", "--output", local).returncode == 0
    by_bytes, by_path = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert len(by_bytes) == 5
    assert len(by_path) == 6
    best = {name: entries[0] for name, entries in results(local).items()}
    for row in [*by_bytes, *by_path]:
        if row["path"] == "/nowhere.mp4":
            assert (row["label"], json.loads(row["prediction"])["error"]) == ("", "MissingFile")
            continue
        expected = best[Path(row["path"]).stem]
        assert (row["label"], row["score"]) == (expected["label"], expected["score"])
        assert json.loads(row["prediction"])["path"] == row["path"]
