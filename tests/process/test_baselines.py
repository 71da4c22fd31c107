"""Baselines answer as clipmux does, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cases import GPUS

from clipmux.bench.baselines import check_baselines, difference, run_baseline, start
from clipmux.bench.videos import write_shape_videos
from clipmux.engine import Engine
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import read_model
from clipmux.workers.sources import Video, list_videos

NO_RAY = importlib.util.find_spec("ray") is None
WITH_RAY = pytest.mark.skipif(NO_RAY, reason="Ray is not installed (clipmux[ray])")
WAYS = [
    ("reference", "cpu"),
    ("dataloader", "cpu"),
    pytest.param("ray", "cpu", marks=WITH_RAY),
    *((name, gpu) for name in ("reference", "dataloader") for gpu in GPUS),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Video]:
    """Three short videos, of one, two and three clips or so, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_shape_videos(folder, count=3, seconds=(0.5, 1.5))
    (folder / "broken.mp4").write_bytes(b"no video")
    return list(list_videos([str(folder)], stdin=None).videos)


@pytest.fixture(scope="module")
def ours(videos: list[Video]) -> dict[str, list[tuple[str, float]]]:
    with Engine("demo", workers=1, preprocess="exact") as engine:
        found = [prediction for prediction in engine.classify(videos) if prediction.error is None]
    return {prediction.video_id: [(item.label, item.score) for item in prediction.labels] for prediction in found}


@pytest.mark.parametrize(("name", "device"), WAYS)
def test_a_baseline_gives_our_predictions(
    name: str, device: str, videos: list[Video], ours: dict[str, list[tuple[str, float]]]
) -> None:
    model = read_model("demo")
    check_baselines([name], model, device=device)
    baseline = run_baseline(name, videos, model, cores=2, preprocess="exact", device=device)
    assert baseline.videos == len(ours) == 3
    assert 3 <= baseline.clips <= 9
    assert min(baseline.start_s, baseline.wall_s, baseline.cpu_s) > 0
    apart = difference(ours, baseline.predictions)
    assert (apart.missing, apart.labels) == (0, 0)
    assert apart.score <= 1e-4


def test_a_network_that_is_none_is_refused_in_one_sentence(videos: list[Video], null_model: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.onnx"):
        run_baseline("reference", videos, read_model(null_model), cores=1)


def test_a_baseline_that_hangs_is_ended(videos: list[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "PATIENCE_S", 0.5)
    with pytest.raises(ClipmuxError, match="'reference' ended without an answer"):
        run_baseline("reference", videos, read_model("demo"), cores=1)


def test_a_killed_benchmark_takes_its_baseline_along(videos: list[Video]) -> None:
    program = (
        "import sys; from pathlib import Path; from clipmux.bench.baselines import run_baseline; "
        "from clipmux.engine.model import read_model; from clipmux.workers.sources import video_at; "
        "run_baseline('dataloader', [video_at(Path(sys.argv[1]))] * 1000, read_model('demo'), cores=2)"
    )
    benchmark = subprocess.Popen([sys.executable, "-c", program, str(videos[0].path)])
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(children) < 4 and time.monotonic() < deadline:  # the baseline, two workers, multiprocessing's tracker
        children = psutil.Process(benchmark.pid).children(recursive=True)
        time.sleep(0.05)
    assert len(children) >= 4
    os.kill(benchmark.pid, signal.SIGKILL)
    benchmark.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
