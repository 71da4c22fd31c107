"""From when to when a label holds: ``clipmux run --segments``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import clipmux, lines
from media import write_frames, write_video

from clipmux.bench.videos import Scene

LABELS = ("left", "clockwise", "still")
RATE, SCENE_S = 30, 4
RULE = ("--enter", 0.5, "--leave", 0.4, "--min-duration", 1.5, "--smooth", 2)


@pytest.fixture(scope="module")
def untrimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds each of moving shapes that the demo model knows, at another rate than the grid's."""
    scenes = [Scene(label, 2_000_000 + number, 120, 160, float(RATE)) for number, label in enumerate(LABELS)]
    pictures = [scene.frame(index) for scene in scenes for index in range(RATE * SCENE_S)]
    return write_video(tmp_path_factory.mktemp("untrimmed") / "untrimmed.mp4", pictures, rate=RATE)


def test_segments_are_from_when_to_when_a_label_holds(untrimmed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = clipmux("run", untrimmed, "--model", "demo", "--output", run, "--segments", *RULE)
    assert done.returncode == 0, done.stderr
    found = lines(run / "segments.jsonl")["untrimmed"]
    assert set(found) == {"video_id", "path", "segments", "left_out"}
    for number, label in enumerate(LABELS):
        (segment,) = (it for it in found["segments"] if it["label"] == label and it["end_s"] - it["start_s"] > 2)
        assert number * SCENE_S - 0.7 < segment["start_s"] < segment["end_s"] < (number + 1) * SCENE_S + 1.4


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
