"""The whole program against what the reference itself printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import assert_same, clipmux, lines, results, summary

from clipmux.engine.backends import open_backend
from clipmux.engine.device import softmax
from clipmux.engine.model import read_model
from clipmux.workers.decode import decode
from clipmux.workers.preprocess import Exact
from clipmux.workers.sources import video_at
from clipmux.workers.windows import windows


def expected(golden: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "expected" / f"{name}.json").read_text())["results"]
    return content


def annotated(golden: Path) -> list[object]:
    return ["--annotations", golden / "kinetics.json", "--root", golden / "jpg"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("avg", []),
        ("noavg", ["--per-clip"]),
        ("stride8", ["--stride", "8"]),
        ("avg", ["--workers", "1", "--max-batch", "3"]),
        ("noavg", ["--per-clip", "--workers", "5", "--max-batch", "1"]),
    ],
)
def test_frames_give_the_references_results(
    golden: Path, golden_model: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    run = tmp_path / "run"
    done = clipmux("run", *annotated(golden), "--model", golden_model, "--output", run, *options)
    assert done.returncode == 0, done.stderr
    assert_same(results(run), expected(golden, name), within=1e-5)
    assert "missing_000000_000010" in done.stderr  # in the annotations, not on disk: skipped, and said so
    assert summary(run)["skipped"] == 1


def test_workers_batches_and_order_change_nothing(golden: Path, golden_model: Path, tmp_path: Path) -> None:
    folders = sorted((golden / "jpg").glob("*/*"))
    orders = [folders, folders[::-1]]
    runs = []
    for number, (inputs, options) in enumerate(
        zip(orders, (["--workers", "1"], ["--workers", "4", "--max-batch", "5"]), strict=True)
    ):
        run = tmp_path / str(number)
        clipmux("run", *inputs, "--per-clip", "--model", golden_model, "--output", run, *options)
        runs.append(results(run))
    assert list(runs[0]) == list(runs[1])[::-1]
    assert_same(runs[0], dict(reversed(runs[1].items())), within=1e-6)


def test_videos_equal_the_exact_path_in_one_process(golden: Path, golden_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = clipmux("run", golden / "videos", "--model", golden_model, "--output", run, "--top-k", "700")
    assert done.returncode == 0, done.stderr
    model = read_model(golden_model)
    backend = open_backend("openvino", model, device="cpu", max_batch=64, null_delay_ms=(0, 0))
    runner = backend.open_runner()
    found = results(run)
    assert len(found) == 6
    for path in sorted((golden / "videos").glob("*/*.mp4")):
        exact = Exact(model.height, model.width)
        clips = [
            runner.infer(np.stack(window.frames)[None])
            for window in windows(decode(video_at(path)), length=16, stride=16, keep=exact)
        ]
        mean = softmax(np.concatenate(clips)).astype(np.float64).mean(axis=0)
        scores = {item["label"]: item["score"] for item in found[path.stem]}
        assert max(abs(scores[label] - mean[i]) for i, label in enumerate(model.labels)) <= 1e-5


def test_eval_prints_the_references_lines(golden: Path, tmp_path: Path) -> None:
    annotations, result = golden / "eval_annotations.json", golden / "expected" / "avg.json"
    done = clipmux("eval", annotations, result, "-k", "1", "-k", "5")
    assert done.stdout.splitlines() == [
        "load ground truth",
        "number of ground truth: 7",
        "load result",
        "number of result: 6",
        "calculate top-1 accuracy",
        "top-1 accuracy: 0.2857142857142857",
        "calculate top-5 accuracy",
        "top-5 accuracy: 0.5714285714285714",
    ]
    done = clipmux("eval", annotations, result, "-k", "1", "-k", "5", "--ignore")
    assert done.stdout.splitlines()[5::2] == [
        "top-1 accuracy: 0.3333333333333333",
        "top-5 accuracy: 0.6666666666666666",
    ]


def test_segments_carry_frames_and_seconds(golden: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    video = golden / "videos" / "news anchoring" / "na_000000_000004.mp4"
    clipmux("run", video, "--model", null_model, "--backend", "null", "--per-clip", "--output", run)
    line = lines(run / "results.jsonl")["na_000000_000004"]
    times = [frame.seconds for frame in decode(video_at(video))]
    assert line["frames"] == len(times) == 120
    assert [clip["segment"] for clip in line["per_clip"]] == [
        [start + 1, min(start + 17, 121)] for start in range(0, 120, 16)
    ]
    assert [clip["seconds"][0] for clip in line["per_clip"]] == times[::16]
    assert line["seconds"][0] == times[0]
    assert line["per_clip"][0]["seconds"][1] == pytest.approx(times[16])
