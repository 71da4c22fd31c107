"""From when to when a label holds: ``clipmux run --segments``, and the same from the same file played live."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from command import clipmux, lines
from live_command import figures_of
from media import moving, write_frames, write_video

from clipmux.bench.videos import Scene
from clipmux.engine import Engine, StreamConfig, UsageError

LABELS = ("left", "clockwise", "still")
RATE, SCENE_S = 30, 4
RULE = ("--enter", 0.5, "--leave", 0.4, "--min-duration", 1.5, "--smooth", 2)


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds each of moving shapes that the demo model knows, at another rate than the grid's."""
    scenes = [Scene(label, 2_000_000 + number, 120, 160, float(RATE)) for number, label in enumerate(LABELS)]
    pictures = [scene.frame(index) for scene in scenes for index in range(RATE * SCENE_S)]
    return write_video(tmp_path_factory.mktemp("untrimmed") / "untrimmed.mp4", pictures, rate=RATE)


def spans(segments: list[dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    return [(it["label"], it["start_s"], it["end_s"], pytest.approx(it["peak"], abs=1e-5)) for it in segments]


def test_segments_of_a_run_are_the_events_of_the_same_file_played_live(untrimmed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = clipmux("run", untrimmed, "--model", "demo", "--output", run, "--segments", *RULE)
    assert done.returncode == 0, done.stderr
    found = lines(run / "segments.jsonl")["untrimmed"]
    assert set(found) == {"video_id", "path", "segments", "left_out"}
    for number, label in enumerate(LABELS):
        (segment,) = (it for it in found["segments"] if it["label"] == label and it["end_s"] - it["start_s"] > 2)
        assert number * SCENE_S - 0.7 < segment["start_s"] < segment["end_s"] < (number + 1) * SCENE_S + 1.4
    streams = tmp_path / "streams.toml"
    rule = "enter = 0.5\nleave = 0.4\nmin_duration_s = 1.5\nsmooth = 2\n"
    streams.write_text(f'[defaults]\n{rule}[[stream]]\nname = "untrimmed"\nurl = "{untrimmed}"\n')
    output = tmp_path / "events.jsonl"
    options = ["--pace", 4, "--max-latency", 30, "--output", output]
    done = clipmux("live", "--model", "demo", "--streams", streams, *options)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in output.read_text().splitlines()]
    ended = sorted((event for event in events if event["event"] == "ended"), key=lambda event: event["start_s"])
    assert spans(ended) == spans(found["segments"])
    assert len(events) == 2 * len(ended)


def test_before_a_gap_the_last_clip_is_filled_up_in_a_run_and_live(tmp_path: Path) -> None:
    pts = [*range(20), *range(100, 107), *range(300, 320)]
    video = write_video(tmp_path / "gaps.mkv", moving(len(pts)), pts=pts)
    run = tmp_path / "run"
    done = clipmux("run", video, "--model", "demo", "--output", run, "--segments", "--per-clip")
    assert done.returncode == 0, done.stderr
    clips = lines(run / "results.jsonl")["gaps"]["per_clip"]
    assert [clip["segment"] for clip in clips] == [[1, 17], [17, 21], [21, 28], [28, 44], [44, 48]]
    assert [clip["seconds"][0] for clip in clips] == pytest.approx([0, 0.64, 4, 12, 12.64])
    log = tmp_path / "log"
    done = clipmux("live", video, "--model", "demo", "--pace", 4, "--max-latency", 30, "--log", log)
    assert done.returncode == 0, done.stderr
    assert sum(figures["clips"] for figures in figures_of(log, "inference")) == len(clips)


def test_segments_survive_a_resumed_run_and_frames_without_times_are_refused(untrimmed: Path, tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "frames", [np.full((120, 160, 3), number, np.uint8) for number in range(20)])
    run = tmp_path / "run"
    command = ["run", untrimmed, frames, "--model", "demo", "--output", run, "--segments", *RULE]
    assert clipmux(*command).returncode == 3
    assert "have no times" in lines(run / "failures.jsonl")["frames"]["message"]
    whole = lines(run / "segments.jsonl")
    assert set(whole) == {"untrimmed"}
    with (run / "segments.jsonl").open("a") as file:  # its result was never written
        file.write(json.dumps({**whole["untrimmed"], "video_id": "lost"}) + '\n{"torn')
    (run / "results.jsonl").write_text("")
    assert clipmux(*command, "--resume").returncode == 3
    assert lines(run / "segments.jsonl") == whole
    done = clipmux(*command, "--resume", "--smooth", 3)
    assert done.returncode == 2
    assert "segments" in done.stderr


def test_a_program_awaits_events(untrimmed: Path) -> None:
    stream = StreamConfig("door", str(untrimmed), enter=0.5, leave=0.4, min_duration_s=1.5, smooth=2)

    async def all_of_them() -> list[dict[str, Any]]:
        return [event async for event in Engine("demo").watch([stream], pace=4.0, max_latency_s=30.0)]

    events = asyncio.run(all_of_them())
    assert {event["label"] for event in events} >= set(LABELS)
    assert {event["stream"] for event in events} == {"door"}
    assert not psutil.Process().children()


def test_breaking_off_or_cancelling_leaves_no_process(untrimmed: Path) -> None:
    engine = Engine("demo")
    rule = {"enter": 0.5, "leave": 0.4, "min_duration_s": 0.0, "smooth": 1}
    stream = StreamConfig("door", str(untrimmed), **rule)

    async def first() -> dict[str, Any]:
        async with contextlib.aclosing(engine.watch([stream], loop=True)) as events:
            return await anext(events)

    async def cancelled() -> None:
        async def watching() -> None:
            async for _ in engine.watch([stream], loop=True):
                begun.set()

        begun = asyncio.Event()
        task = asyncio.create_task(watching())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.Process().children()

    assert asyncio.run(first())["event"] == "started"
    assert not psutil.Process().children()
    asyncio.run(cancelled())


def test_wrong_sources_reach_whoever_awaits(tmp_path: Path) -> None:
    async def watching(source: object) -> None:
        async for _ in Engine("demo").watch([source]):  # type: ignore[list-item]
            pass

    for source, mention in (("gopher://10.0.0.7/", "gopher"), (tmp_path / "absent.mp4", "there is no file")):
        with pytest.raises(UsageError, match=mention):
            asyncio.run(watching(source))
    assert not psutil.Process().children()
