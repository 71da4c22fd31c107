"""A run that is looked at: scraped, traced, with its log as JSON, while processes of it are stopped and killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from command import CLIPMUX, clipmux, lines
from prometheus_client.parser import text_string_to_metric_families
from trace_rules import check_trace, named, read_trace_file

from clipmux.bench.videos import write_short_videos

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana.json"
DEADLINE_S = 60.0


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 60, frames=48, size=(96, 64))
    (folder / "=broken.mp4").write_text("no video\n")
    return folder


class Watched:
    """A run that goes on, and what it shows."""

    def __init__(self, *args: object, command: str = "run") -> None:
        self.process = subprocess.Popen(
            [CLIPMUX, command, *map(str, args), "--metrics", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"(http://\S+)/metrics", line):
                self.address = urlsplit(found[1]).netloc
                return
        pytest.fail(f"it ended with {self.process.wait()} and showed nothing")

    def get(self, page: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        try:
            connection.request("GET", page)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def health(self) -> tuple[int, list[str]]:
        status, body = self.get("/healthz")
        return status, json.loads(body)["stuck"]

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }

    def told(self, name: str, **labels: str) -> float:
        return self.samples().get((name, tuple(sorted(labels.items()))), 0.0)

    def child(self, role: str) -> psutil.Process:
        def found() -> list[psutil.Process]:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if any(part.startswith(f"{role}-") for part in cmdline(child))]

        eventually(lambda: bool(found()))
        return found()[0]

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, said


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it is just ending
        return []


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def watched(*args: object, command: str = "run") -> Iterator[Watched]:
    run = Watched(*args, command=command)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.communicate()
        eventually(lambda: not list(Path(os.environ["TMPDIR"]).iterdir()))  # its orphans have tidied up


def slow(model: Path, output: Path, *options: object, ms: int = 20) -> list[object]:
    """A run of 180 clips that takes so many milliseconds for each."""
    return ["--model", model, "--backend", "null", "--null-delay", f"0+{ms}", "--output", output, *options]


def test_a_run_shows_metrics_a_trace_and_a_log_that_fit_together(
    videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run, trace = tmp_path / "run", tmp_path / "run" / "trace.json"
    options = ["--workers", 2, "--log-format", "json", "--trace", trace]
    seen: dict[Any, float] = {}
    with watched(videos, *slow(null_model, run, *options)) as shown:
        eventually(lambda: shown.told("clipmux_videos_total", outcome="classified") >= 5)
        assert shown.health() == (200, [])
        shown.child("decoder").kill()
        names = set()
        while shown.process.poll() is None:
            try:
                samples = shown.samples()
            except OSError:  # it has just ended
                break
            names |= {name for name, _ in samples}
            for key, value in samples.items():
                if key[0].endswith(("_total", "_bucket", "_count")):
                    assert value >= seen.get(key, 0.0), f"{key} fell"
                    seen[key] = value
            time.sleep(0.3)
        status, said = shown.end()
    assert status == 3, said
    assert seen["clipmux_process_deaths_total", (("role", "decoder"),)] == 1
    assert seen["clipmux_clips_scored_total", ()] > 60
    assert seen["clipmux_batch_clips_count", ()] > 0
    assert {"decode", "preprocess", "send"} <= {dict(key[1]).get("stage") for key in seen}
    _check_dashboard(names)
    _check_log(run / "run.log")
    events = read_trace_file(trace)
    assert json.loads(trace.read_bytes()) == events
    _check_spans(events, run)


def _check_dashboard(names: set[str]) -> None:
    """Every metric that the dashboard asks for was there to be scraped."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    wanted = {name for expression in asked for name in re.findall(r"\bclipmux_\w+", expression)}
    assert len(asked) >= 10
    assert wanted - names == set()


def _check_log(path: Path) -> None:
    """Every line of every process is JSON and says when, who and how bad; the broken video's says which."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in found:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert {"level", "process", "message"} <= line.keys()
    failed = [line for line in found if line.get("video") == "=broken"]
    assert failed
    assert {line["attempt"] for line in failed} <= {1, 2}
    assert any("SIGKILL" in line["message"] for line in found)


def _check_spans(events: list[dict[str, Any]], run: Path) -> None:
    check_trace(events)
    spans = named(events)
    assert {"video", "decode", "preprocess", "send"} <= spans["decoder"]
    assert {"infer", "copy", "send"} <= spans["inference"]
    assert {"collect", "write"} <= spans["collector"]
    clips = sum(event["args"]["clips"] for event in events if event["name"] == "infer")
    assert clips >= sum(line["clips"] for line in lines(run / "results.jsonl").values())
    ended = [event["name"] for event in events if event["ph"] == "e"]
    assert sorted(ended) == sorted([*lines(run / "results.jsonl"), *lines(run / "failures.jsonl")])
    assert any("SIGKILL" in event["name"] for event in events if event["ph"] == "i")


@pytest.mark.parametrize("role", ["inference", "collector", "decoder"])
def test_a_stage_that_is_stopped_turns_health_red_by_name(
    role: str, videos: Path, null_model: Path, tmp_path: Path
) -> None:
    options = ["--workers", 1, "--stuck-after", 1.5, "--max-batch", 4]
    with watched(videos, *slow(null_model, tmp_path / "run", *options, ms=100)) as shown:
        eventually(lambda: shown.told("clipmux_videos_total", outcome="classified") >= 1)
        assert shown.health() == (200, [])
        child = shown.child(role)
        child.send_signal(signal.SIGSTOP)
        eventually(lambda: shown.health()[0] == 503)
        assert shown.health() == (503, [role])
        child.send_signal(signal.SIGCONT)
        eventually(lambda: shown.health() == (200, []))


def test_live_streams_show_what_they_drop_and_a_camera_that_dies_is_no_ill_health(tmp_path: Path) -> None:
    """Two streams, faster than the device: clips are dropped, and told by stream, whatever becomes of the cameras."""
    folder, log = tmp_path / "cameras", tmp_path / "log"
    videos = [video.path for video in write_short_videos(folder, 2, frames=100, size=(96, 64))]
    options = ["--model", "demo", "--backend", "null", "--null-delay", "0+400", "--loop", "--pace", 4]
    with watched(*videos, *options, "--log", log, "--log-format", "json", command="live") as shown:
        name = videos[0].stem
        late = {"stream": name, "place": "inference"}
        eventually(lambda: shown.told("clipmux_stream_dropped_clips_total", **late) >= 2)
        assert shown.told("clipmux_stream_state", stream=name, state="live") == 1
        assert shown.health() == (200, [])
        frames, dropped = (
            shown.told("clipmux_stream_frames_total", stream=name),
            shown.told("clipmux_stream_dropped_clips_total", **late),
        )
        for child in psutil.Process(shown.process.pid).children():
            if any(part.startswith("camera-") for part in cmdline(child)):
                child.kill()
        eventually(lambda: shown.told("clipmux_process_deaths_total", role="camera") >= 2)
        assert shown.health() == (200, [])
        eventually(lambda: shown.told("clipmux_stream_frames_total", stream=name) > frames)
        assert shown.told("clipmux_stream_dropped_clips_total", **late) >= dropped
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(DEADLINE_S) == 0
    assert {json.loads(line)["process"] for line in log.read_text().splitlines()} >= {"supervisor"}


def test_a_killed_supervisor_leaves_a_trace_that_can_be_read(videos: Path, null_model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with watched(videos, *slow(null_model, tmp_path / "run", "--trace", trace, "--max-batch", 4)) as shown:
        eventually(lambda: shown.told("clipmux_videos_total", outcome="classified") >= 5)
        children = psutil.Process(shown.process.pid).children()
        shown.process.kill()
        psutil.wait_procs(children, timeout=5)
    assert trace.read_bytes()[-2:] == b",\n"
    events = read_trace_file(trace)
    check_trace(events)
    assert "video" in named(events)["decoder"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metrics", "0.0.0.0:9108"], "--metrics-allow-remote"),
        (["--trace", "no/such/folder/trace.json"], "--trace is 'no/such/folder/trace.json'"),
    ],
)
def test_wrong_usage_starts_nothing(
    options: list[str], said: str, videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = clipmux("run", videos, "--model", null_model, "--backend", "null", "--output", run, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not run.exists()


def test_results_of_a_run_that_goes_on_and_of_one_that_has_ended(
    videos: Path, null_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with watched(videos, *slow(null_model, run, "--max-batch", 4)) as shown:
        eventually(lambda: shown.told("clipmux_videos_total", outcome="classified") >= 3)
        early = clipmux("results", run)
        assert early.returncode == 0, early.stderr
        assert shown.end()[0] == 3
    rows = [json.loads(line) for line in early.stdout.splitlines()]
    assert 3 <= len(rows) < 61
    done = clipmux("results", run, "--format", "csv", "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 61
    assert table[-1].startswith("'=broken,"), "the one that failed comes last, and is no formula"
    assert clipmux("results", tmp_path).returncode == 2
