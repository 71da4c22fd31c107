"""The benchmarks, with tiny settings: what they write and how its parts belong together, never how fast it was."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from command import clipmux, started
from devices import TWO, two_devices
from rich.console import Console

from clipmux.bench import alone, inference, scenarios
from clipmux.bench.decoding import Differences
from clipmux.bench.inference import EAGER, Until, check_batches, in_parallel, noise_batch, open_way
from clipmux.bench.natural import Footage, parse_kinds
from clipmux.bench.scenarios import Load
from clipmux.bench.stages import Cost, _Process, around, ideal
from clipmux.bench.videos import write_short_videos
from clipmux.bench.watch import Growth
from clipmux.engine.backends import Runner
from clipmux.engine.backends.null import NullBackend
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import read_model
from clipmux.workers.sources import Video, list_videos


def bench(*args: object, json_file: Path) -> Measured:
    """Run a benchmark; what it wrote."""
    done = clipmux("bench", *args, "--repeats", 1, "--json", json_file)
    assert done.returncode == 0, done.stdout + done.stderr
    return Measured(json.loads(json_file.read_text()), done.stdout)


class Measured:
    """A result, asked by name and point."""

    def __init__(self, content: dict[str, Any], printed: str) -> None:
        self.content = content
        self.printed = printed

    def __call__(self, name: str, **at: object) -> float:
        found = [
            entry
            for entry in (*self.content["figures"], *self.content["ratios"])
            if entry["name"] == name and at.items() <= entry["at"].items()
        ]
        assert len(found) == 1, (name, at, len(found))
        assert math.isfinite(found[0]["median"])
        return float(found[0]["median"])


def test_inference_of_two_backends_side_by_side(tmp_path: Path) -> None:
    options = ["--batch", "1,4", "--iterations", 3, "--backend", "openvino,torch-eager"]
    measured = bench("inference", "demo", *options, json_file=tmp_path / "out.json")
    assert measured.content["benchmark"] == "inference"
    assert measured.content["model"]["backend"] == "openvino"
    for backend in ("openvino", "torch-eager"):
        for batch in (1, 4):
            at = {"backend": backend, "batch": batch}
            assert measured("total_clips", **at) == 3 * batch
            assert measured("qps", **at) == pytest.approx(3 * batch / measured("wall_s", **at))
            assert 0 < measured("latency_p50", **at) <= measured("latency_p99", **at)
    ratio = measured("qps", backend="torch-eager", batch=4) / measured("qps", backend="openvino", batch=4)
    assert measured("speed_up", backend="torch-eager", batch=4) == pytest.approx(ratio)
    assert measured("speed_up", backend="openvino", batch=4) == 1
    assert f"Throughput (qps):             {measured('qps', backend='torch-eager', batch=4):.6g}" in measured.printed


@pytest.mark.parametrize("scenario", ["offline", "server", "single-stream"])
def test_scenarios_answer_every_query(scenario: str, null_model: Path, tmp_path: Path) -> None:
    options = ["--backend", "null", "--scenario", scenario, "--duration", 0.2, "--qps", 200, "--max-delay", 0.01]
    measured = bench("inference", null_model, *options, json_file=tmp_path / "out.json")
    assert measured("qps", scenario=scenario) > 0
    assert measured("latency_p50") <= measured("latency_p90") <= measured("latency_p99")
    assert 1 <= measured("mean_batch") <= 64
    if scenario == "server":
        assert measured("scheduled_qps") == 200
        assert 0 <= measured("within_bound") <= 1
    if scenario == "single-stream":
        assert measured("mean_batch") == 1


def test_decoding_alone_and_with_preprocessing(tmp_path: Path) -> None:
    options = ["--kinds", "h264-mp4:64x48,mpeg4-avi:48x64", "--frames", 5, "--duration", 0.001, "--preprocess", "exact"]
    measured = bench("decode", *options, json_file=tmp_path / "out.json")
    for codec, size in (("h264", "64x48"), ("mpeg4", "48x64")):
        speeds = {}
        for way in ("none", "exact"):
            at = {"codec": codec, "size": size, "preprocess": way}
            assert measured("frames", **at) % 5 == 0
            speeds[way] = measured("frames_per_core_s", **at)
            assert speeds[way] == pytest.approx(measured("frames", **at) / measured("cpu_s", **at))
        efficiency = measured("decode_efficiency", codec=codec, preprocess="exact")
        assert efficiency == pytest.approx(speeds["exact"] / speeds["none"])


def test_end_to_end_beside_its_stages_alone(tmp_path: Path) -> None:
    options = ["--videos", 6, "--frames", 40, "--kind", "h264-mp4:64x48", "--alone", 0.2]
    measured = bench("end-to-end", *options, "--baselines", "dataloader", json_file=tmp_path / "out.json")
    assert measured("clips") == 6 * 3
    assert measured("failed_videos") == 0
    assert measured("clips_per_s") == pytest.approx(18 / measured("steady"))
    assert measured("clips_per_s_with_start") == pytest.approx(18 / measured("wall"))
    assert measured("videos_per_s") == pytest.approx(6 / measured("steady"))
    assert measured("frames_per_s") == pytest.approx(6 * 40 / measured("steady"))
    assert measured("wall") >= measured("start") + measured("steady")
    both = measured("decode_alone_cpu_per_clip") + measured("inference_alone_cpu_per_clip")
    best = measured.content["machine"]["cores"] / both
    assert measured("ideal_clips_per_s") == pytest.approx(best)
    assert measured("pipeline_efficiency") == pytest.approx(measured("clips_per_s") / best)
    assert measured("cpu_efficiency") == pytest.approx(both / measured("cpu_per_clip"))
    parts = [measured(f"{part}_cpu_per_clip") for part in ("decoders", "inference", "rest")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(measured("cpu_per_clip"), rel=0.1, abs=0.1 / 18)  # the kernel counts in 10 ms
    told = measured("first_prediction") / measured("first_prediction_alone")
    assert measured("time_to_first_prediction") == pytest.approx(told)
    assert measured("peak_memory") > 100 << 20
    assert 0 < measured("device_busy") <= 1
    sizes = measured.content["histograms"]["batch_size"]
    assert sum(int(size) * count for size, count in sizes.items()) == 18
    assert sum(count for _, count in measured.content["histograms"]["latency_s"]) == 18
    speed_up = measured("clips_per_s") / measured("baseline_clips_per_s", baseline="dataloader")
    assert measured("speed_up", baseline="dataloader") == pytest.approx(speed_up)
    assert measured("other_labels", baseline="dataloader") == 0
    assert measured("score_difference", baseline="dataloader") <= 1e-4
    assert "peak memory is the PSS of all processes together" in measured.printed


def test_a_report_of_end_to_end(null_model: Path, short_videos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = ["--model", null_model, "--backend", "null", "--videos", 3, "--alone", 0.2, "--repeats", 1]
    done = clipmux("bench", "end-to-end", short_videos, *options, "--html", page)
    assert done.returncode == 0, done.stderr
    assert "latency CDF" in page.read_text()


def test_a_broken_first_video_neither_ends_a_benchmark_nor_is_a_prediction(null_model: Path, tmp_path: Path) -> None:
    write_short_videos(tmp_path / "videos", 2, frames=16, size=(64, 48))
    (tmp_path / "videos" / "0-broken.mp4").write_bytes(b"no video")
    options = ["--model", null_model, "--backend", "null", "--workers", 1, "--null-delay", "300+0", "--alone", 0.2]
    measured = bench("end-to-end", tmp_path / "videos", *options, json_file=tmp_path / "out.json")
    assert measured("failed_videos") == 1
    assert measured("first_prediction") >= measured("start") + 0.3  # not that of the failure
    assert measured.content["videos"] == {"size": "64x48"}


def test_the_least_that_a_first_prediction_takes_has_all_runners(
    null_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noted(NullBackend):
        def open_runner(self) -> Runner:
            runner, batches = super().open_runner(), []
            seen.append(batches)

            class Noting:
                def infer(self, clips: Any) -> Any:
                    batches.append(len(clips))
                    return runner.infer(clips)

            return Noting()  # type: ignore[return-value]

    seen: list[list[int]] = []
    backend = Noted(read_model(str(null_model)), max_batch=4, delay_ms=(0.0, 0.0))
    backend.runners = 2
    monkeypatch.setattr(alone, "_backend", lambda *_: backend)
    (video,) = write_short_videos(tmp_path, 1, frames=16 * 11, size=(64, 48))
    videos = [Video("broken", tmp_path / "none.mp4", "file"), Video("good", video.path, "file")]
    config = EngineConfig(model=str(null_model), backend="null")
    answer = alone._first(config, {"videos": [one.to_dict() for one in videos]}, lambda: None)
    assert answer["clips"] == 11
    assert seen == [[4, 3], [4]]


@two_devices
def test_end_to_end_on_two_devices(tmp_path: Path) -> None:
    options = ["--videos", 6, "--frames", 40, "--kind", "h264-mp4:64x48", "--alone", 0.2, "--device", TWO]
    measured = bench("end-to-end", *options, json_file=tmp_path / "out.json")
    assert measured("clips") == 6 * 3
    assert measured.content["model"]["device"] == TWO
    both = measured("decode_alone_cpu_per_clip") + measured("inference_alone_cpu_per_clip")
    best = min(measured.content["machine"]["cores"] / both, measured("inference_alone_clips_per_s"))
    assert measured("ideal_clips_per_s") == pytest.approx(best)
    assert 0 < measured("device_busy") <= 1


@two_devices
def test_streams_on_two_devices(tmp_path: Path, null_model: Path) -> None:
    """A number is given, so nothing is searched for; counts are half a second old, which must be little of the time."""
    file = tmp_path / "out.json"
    options = ["--model", null_model, "--backend", "null", "--null-delay", "1+1", "--device", TWO, "--bound-ms", 5000]
    done = clipmux("bench", "streams", *options, "--streams", 2, "--seconds", 20, "--alone", 0.2, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Measured(json.loads(file.read_text()), done.stdout)
    assert measured("dropped", streams=2) == 0
    assert measured("sustained_streams") == 2
    assert measured("scored", streams=2) == pytest.approx(2 * 20 / 0.64, abs=4)
    assert measured("stream_efficiency") == pytest.approx(2 / measured("ideal_streams"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_stopped_leaves_nothing_behind(null_model: Path, number: int) -> None:
    """What it would leave (processes, sockets, made videos) is looked for after every test of this folder."""
    options = ["--backend", "null", "--null-delay", "0+50", "--frames", 160, "--kind", "h264-mp4:64x48"]
    process = started("bench", "sweep", "--model", null_model, *options)
    while process.poll() is None and not has_inference(process.pid):
        time.sleep(0.05)
    process.send_signal(number)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert complained.strip().endswith("clipmux: interrupted")


def test_a_stage_that_is_interrupted_as_it_starts_is_gone(null_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Process, "_tell", interrupted)
    process = _Process({"stage": "inference", "config": EngineConfig(model=str(null_model)).to_json()})
    with pytest.raises(KeyboardInterrupt):
        process.__enter__()
    assert process._popen.returncode == -signal.SIGKILL
    assert process._timer.daemon
    process._timer.join(10)
    assert not process._timer.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_inference_that_is_stopped_ends_as_it_should(number: int) -> None:
    process = started("bench", "inference", "demo", "--batch", 8, "--duration", 60)
    assert process.stdout is not None
    process.stdout.readline()  # what it runs on is told before it begins
    time.sleep(1)
    process.send_signal(number)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert complained.strip().endswith("clipmux: interrupted")


def test_runners_that_are_interrupted_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work = threading.Event()

    class Slow:
        def infer(self, _: Any) -> None:
            at_work.set()
            time.sleep(0.05)

    def interrupt() -> float:
        at_work.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "process_time", interrupt)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        in_parallel([Slow(), Slow()], np.zeros(1, np.uint8), Until(seconds=60))  # type: ignore[list-item]
    assert threading.active_count() == before


def has_inference(pid: int) -> bool:
    return any("inference-1" in child.cmdline() for child in psutil.Process(pid).children())


def test_of_an_accelerator_the_ideal_is_the_slower_stage() -> None:
    decode, slow, fast = Cost(100, 2.0, 1.0), Cost(100, 0.1, 2.0, "cuda:0"), Cost(100, 0.1, 0.5, "cuda:0")
    assert ideal(decode, slow, cores=2) == 50
    assert ideal(decode, fast, cores=2) == 100
    assert ideal(decode, Cost(100, 2.0, 1.0, "cpu"), cores=2) == 50


def test_costs_before_and_after_a_run_are_one_cost(null_model: Path, short_videos: Path) -> None:
    config = EngineConfig(model=str(null_model), backend="null")
    videos = list_videos([str(short_videos)], stdin=None).videos[:3]  # of two clips each
    decode, inference, ran = around(config, videos, lambda: "ran", seconds=0.2, processes=2)
    assert ran == "ran"
    assert decode.clips == 6
    assert min(decode.cpu_s, decode.wall_s, inference.clips) > 0
    assert 0.2 <= inference.wall_s < 5
    assert Cost(3, 2.0, 1.0, "cpu") + Cost(1, 0.5, 0.25, "cpu") == Cost(4, 2.5, 1.25, "cpu")
    broken = dataclasses.replace(videos[0], path=null_model / "model.onnx")
    decode, _, _ = around(config, [broken, videos[0]], lambda: None, seconds=0.1, processes=1)
    assert decode.clips == 2
    with pytest.raises(ClipmuxError, match="not one of the videos gave a clip"):
        around(config, [broken], lambda: None, seconds=0.1, processes=1)


def test_of_some_cores_the_ideal_is_no_more_than_they_infer() -> None:
    decode = Cost(100, 2.0, 1.0)
    assert ideal(decode, Cost(100, 2.0, 2.5, "cpu:0"), cores=2) == 40
    assert ideal(decode, Cost(100, 2.0, 1.0, "cpu:0,cpu:1"), cores=2) == 50


def test_curves_follow_the_beats_of_all_children() -> None:
    growth = Growth()
    for second in range(5):  # told at odd times; the curves are straight all the same
        growth.note("decoder", "d-1", 10.2 + second, {"clips": 0.2 * 30 + 30 * second, "busy_s": {"decode": second}})
        growth.note("decoder", "d-2", 10.3 + second, {"clips": 0.3 * 10 + 10 * second})
        growth.note("inference", "i-3", 10.4 + second, {"clips": 0.4 * 20 + 20 * second, "busy_s": {"infer": 0.5}})
    series = growth.series(10.0)
    assert series["time_s"] == [0.5 * number for number in range(1, 9)]
    assert series["clips_per_s"] == pytest.approx([20] * 8)
    assert series["queue_depth"] == pytest.approx([20 * time for time in series["time_s"]], rel=0.05)
    assert series["busy"]["decode"][2:] == pytest.approx([1] * 6)
    assert series["busy"]["wait"] == [0] * 8


def test_a_run_that_was_over_at_once_has_no_curves() -> None:
    growth = Growth()
    growth.note("inference", "i-1", 10.4, {"clips": 5})
    assert growth.series(10.0) == {}


def test_memory_of_few_videos_and_of_many(null_model: Path, tmp_path: Path) -> None:
    options = ["--model", null_model, "--backend", "null", "--videos", "2,5", "--frames", 20]
    measured = bench("memory", *options, json_file=tmp_path / "out.json")
    few, many = measured("peak_memory", videos=2), measured("peak_memory", videos=5)
    assert measured("memory_growth", videos=5) == pytest.approx(many / few)
    assert (measured("clips", videos=2), measured("clips", videos=5)) == (4, 10)


def test_watched_runs_are_scraped_and_traced_beside_unwatched_ones(null_model: Path, tmp_path: Path) -> None:
    options = ["--model", null_model, "--backend", "null", "--null-delay", "0+200", "--videos", 6, "--frames", 32]
    kind = ["--kind", "h264-mp4:64x48", "--alone", 0.1]
    measured = bench("watchers", *options, *kind, json_file=tmp_path / "out.json")
    assert measured("scrapes", watchers="on") >= 1
    assert measured("trace", watchers="on") > 1000
    share = measured("clips_per_s", watchers="on") / measured("clips_per_s", watchers="off")
    assert measured("share_of_speed", watchers="on") == pytest.approx(share)
    efficiencies = [measured("pipeline_efficiency", watchers=way) for way in ("on", "off")]
    assert efficiencies[0] / efficiencies[1] == pytest.approx(share)


def test_a_sweep_has_every_point_of_its_grid(null_model: Path, tmp_path: Path) -> None:
    grid = ["--model", null_model, "--backend", "null", "--workers", "1,2", "--batch", "2"]
    measured = bench(
        "sweep", *grid, "--videos", 3, "--frames", 20, "--kind", "h264-mp4:64x48", json_file=tmp_path / "out.json"
    )
    for workers in (1, 2):
        at = {"workers": workers, "batch": 2}
        assert measured("clips", **at) == 3 * 2
        assert measured("clips_per_s", **at) == pytest.approx(6 / measured("steady", **at))
        assert measured("batch_fill", **at) == pytest.approx(measured("mean_batch", **at) / 2)


def test_it_also_runs_as_a_module(null_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clipmux.bench", "inference", null_model, "--backend", "null", "--iterations", "2"]
    done = subprocess.run(
        [*command, "--repeats", "1", "--json", tmp_path / "out.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["command"][:3] == ["python", "-m", "clipmux.bench"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["inference", "demo", "--repeats", 0], "--repeats is 0"),
        (["inference", "demo", "--backend", "tpu"], "there is no backend 'tpu'"),
        (["inference", "demo", "--batch", "1,x"], "--batch is '1,x'"),
        (["memory", "--videos", "50,20"], "--videos is 50,20"),
        (["decode", "--preprocess", "blurred"], "called 'blurred'"),
        (["sweep", "--workers", "0,1"], "--workers has 0"),
        (["end-to-end", "--null-delay", "1"], "--null-delay is '1'"),
        (["end-to-end", "nowhere.mp4", "--backend", "null"], "'nowhere.mp4'"),
        (["decode", "nowhere.mp4"], "there is no 'nowhere.mp4'"),
        (["decode", "https://example.org/a.mp4"], "there is no"),
        (["inference", "demo", "--scenario", "offline", "--max-batch", 0], "--max-batch is 0: give 1 to 64"),
        (["inference", "demo", "--scenario", "offline", "--max-batch", 65], "--max-batch is 65"),
        (["inference", "demo", "--scenario", "offline", "--max-delay", -1], "--max-delay is -1"),
        (["inference", "demo", "--json", "/proc/x.json"], "--json is '/proc/x.json', which cannot be written"),
        (["inference", "demo", "--html", "/proc/x.html"], "--html is '/proc/x.html', which cannot be written"),
        (["cluster", "--videos", 5, "--simulated", 0.001, "--warm-up", 0], "nothing was done in the 0.001 s"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(args: list[object], says: str) -> None:
    done = clipmux("bench", *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["decode", "streams"])
def test_a_file_that_is_no_video_is_one_sentence(command: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.mp4"
    file.write_bytes(b"no video")
    done = clipmux("bench", command, file)
    assert done.returncode == 1, done.stderr
    assert "cannot be read as a video" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_videos_of_a_frame_are_simulated() -> None:
    done = clipmux("bench", "cluster", "--videos", 5, "--seconds", 0.01, "--hosts", 2, "--simulated", 0.1)
    assert done.returncode == 0, done.stderr


def test_what_only_one_of_two_loads_needs_is_there() -> None:
    options = ["--hosts", 2, "--inference-hosts", 1, "--devices", 1, "--simulated", 0.5]
    done = clipmux("bench", "cluster", "--streams", 5, "--videos", 5, *options)
    assert done.returncode == 0, done.stderr
    assert "supervisor in use" in done.stdout


def test_models_of_one_name_go_by_their_folders(null_model: Path, short_videos: Path, tmp_path: Path) -> None:
    other = shutil.copytree(null_model, tmp_path / "other")
    options = ["--backend", "null", "--workers", 1, "--batch", 8, "--videos", 2, "--model", null_model]
    measured = bench("sweep", short_videos, *options, "--model", other, json_file=tmp_path / "out.json")
    for folder in (null_model, other):
        assert measured("clips", model=str(folder.resolve())) > 0
    fastest = next(line for line in measured.printed.splitlines() if line.startswith("fastest: "))
    assert any(f"fastest: {folder.resolve()} " in fastest for folder in (null_model, other))


def test_a_device_of_some_cores_is_measured_on_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    there = os.sched_getaffinity(0)
    one = min(there)
    found: list[set[int]] = []
    load = inference.noise_batch

    def noting(model: Any, count: int) -> Any:
        found.append(os.sched_getaffinity(0))
        return load(model, count)

    monkeypatch.setattr(inference, "noise_batch", noting)
    monkeypatch.setattr(scenarios, "noise_batch", noting)
    console = Console(file=io.StringIO())
    device = f"cpu:{one}"
    options: dict[str, Any] = {"device": device, "repeats": 1, "console": console}
    inference.inference(["demo"], batches=[1], until=Until(calls=1), **options)
    scenarios.scenario(["demo"], Load("offline", seconds=0.1), backend="auto", max_batch=1, max_delay_s=0.0, **options)
    assert found == [{one}, {one}]
    assert os.sched_getaffinity(0) == there
    with pytest.raises(UsageError, match="not among the cores"):
        inference.inference(["demo"], batches=[1], until=Until(calls=1), **{**options, "device": "cpu:9999"})
    assert os.sched_getaffinity(0) == there


def test_what_the_backend_prefers_is_not_bound_by_other_batches(null_model: Path) -> None:
    measured = inference.inference(
        [str(null_model)],
        backends=["null"],
        batches=[0, 1],
        until=Until(calls=1),
        repeats=1,
        console=Console(file=io.StringIO()),
    )
    assert {figure.at["batch"] for figure in measured.figures} == {64, 1}


def test_differences_are_counted_exactly() -> None:
    reference = np.full((20, 50, 3), 100, np.uint8)
    pixels = reference.copy()
    pixels[..., 0] += 2
    pixels[0, 0, 1] -= 50
    pixels[0, 0, 2] = 255
    differences = Differences()
    differences.add(pixels, reference)
    differences.add(reference, reference)
    found = differences.result()
    assert found.bias == pytest.approx((1.0, -50 / 2000, 155 / 2000))
    assert found.mean == pytest.approx((2000 + 50 + 155) / 6000)
    assert (found.p99_9, found.most) == (2.0, 155.0)


def test_footage_moves_and_is_the_same_for_a_seed() -> None:
    one, again, other = Footage(64, 48, seed=1), Footage(64, 48, seed=1), Footage(64, 48, seed=2)
    assert one.frame(3).shape == (48, 64, 3)
    assert np.array_equal(one.frame(3), again.frame(3))
    assert not np.array_equal(one.frame(3), one.frame(4))
    assert not np.array_equal(one.frame(3), other.frame(3))


@pytest.mark.parametrize("text", ["h264-mp4", "h264-mp4:0x9", "h264-mp4:axb", "", "h264-mp4:64x48,"])
def test_kinds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--kinds has"):
        parse_kinds(text)


def test_the_eager_network_answers_as_the_engine_does() -> None:
    model = read_model("demo")
    clips = noise_batch(model, 3)
    answers = []
    for backend in ("openvino", EAGER):
        way = open_way(model, backend, device="cpu", max_batch=4)
        answers.append(way.runners[0].infer(clips))
        way.close()
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_loads_that_cannot_be_are_refused() -> None:
    for wrong, says in (
        (lambda: check_batches([1, 65]), "--batch has 65"),
        (lambda: check_batches([]), "--batch is empty"),
        (lambda: Until(0, 0.0), "--duration 0"),
        (lambda: Until(warmup=-1), "--warmup is -1"),
        (lambda: Load("multi"), "--scenario is 'multi'"),
        (lambda: Load("server", qps=-1.0), "--qps is -1"),
        (lambda: Load("server", bound_ms=0.0), "--latency-bound-ms is 0"),
    ):
        with pytest.raises(UsageError, match=says):
            wrong()
