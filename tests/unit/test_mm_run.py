"""mm_run: what it prints, in both forms, and how it is called; a small program stands in for it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from command import clipmux
from emulated import magicmind
from rich.console import Console

from clipmux.bench import mm_run
from clipmux.bench.inference import Until, inference
from clipmux.bench.mm_run import Report, check_mm_run, find_mm_run, parse_report, run_mm_run
from clipmux.build.compile import compile_model
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import ModelFolder, read_model

SHORT = """\
[trace] running the model
MLU Compute Latency (ms)
  min: 31.5
  max: 33.25
  mean: 32.0
  median: 31.75
  percentile: (90%) 32.5 (95%) 32.75 (99%) 33.0
Throughput (qps):             976.556
"""

LONG = """\
==== Host
Latency(host clock, ms): min: 2.5 max: 9.5 mean: 3.25 median: 3.0 percentile: (90%) 4.0 (95%) 5.0 (99%) 8.0
==== H2D Summary
min: 0.25 max: 0.5 mean: 0.3 median: 0.28
percentile: (90%) 0.4 (95%) 0.45 (99%) 0.49
MLU Compute Latency (ms): min: 2 max: 3 mean: 2.25 median: 2.2 percentile: (90%) 2.5 (95%) 2.75 (99%) 2.9
==== D2H Summary
min: 0.01 max: 0.05 mean: 2e-2 median: 0.02
==== Total Latency Summary(H2D + Compute + D2H)
min: 2.3 max: 3.5 mean: 2.57 median: 2.5
==== Memory Summary
min: 7 max: 7
Throughput (qps):             28916.2 with total batch sizes: 86796 and 4819.36 iterations/second
"""


def test_the_short_form() -> None:
    report = parse_report(SHORT)
    assert report.qps == 976.556
    assert report.total_clips is None
    assert report.iterations_per_s is None
    assert report.latencies_ms == {
        "compute": {"min": 31.5, "max": 33.25, "mean": 32.0, "median": 31.75, "p90": 32.5, "p95": 32.75, "p99": 33.0}
    }


def test_the_long_form() -> None:
    report = parse_report(LONG)
    assert (report.qps, report.total_clips, report.iterations_per_s) == (28916.2, 86796, 4819.36)
    assert set(report.latencies_ms) == {"host_clock", "host_to_device", "compute", "device_to_host", "total"}
    assert report.latencies_ms["host_clock"]["p99"] == 8.0
    assert report.latencies_ms["host_to_device"]["p95"] == 0.45
    assert report.latencies_ms["compute"]["mean"] == 2.25
    assert report.latencies_ms["device_to_host"] == {"min": 0.01, "max": 0.05, "mean": 0.02, "median": 0.02}
    assert report.latencies_ms["total"]["median"] == 2.5


@pytest.mark.parametrize("text", ["", "no device\nbye\n", "Throughput (qps): fast\n"])
def test_no_throughput_is_an_error(text: str) -> None:
    with pytest.raises(ClipmuxError, match=r"no 'Throughput \(qps\)'"):
        parse_report(text)


@pytest.fixture
def model() -> ModelFolder:
    return dataclasses.replace(read_model("demo"), target="magicmind", precision="force_float16")


def stand_in(folder: Path, body: str) -> Path:
    program = folder / "mm_run"
    program.write_text(f"#!{sys.executable}\nimport json, sys, time\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_it_is_called_with_the_model_and_the_batch(model: ModelFolder, tmp_path: Path) -> None:
    called = tmp_path / "called.json"
    program = stand_in(tmp_path, f"json.dump(sys.argv[1:], open({str(called)!r}, 'w'))\nprint({LONG!r})")
    assert run_mm_run(program, model, device="mlu:3", batch=32, iterations=50) == parse_report(LONG)
    assert json.loads(called.read_text(encoding="utf-8")) == [
        *("--magicmind_model", str(model.network_path.resolve())),
        *("--batch_size", "32", "--iterations", "50", "--devices", "3"),
    ]


def test_a_report_after_much_else(model: ModelFolder, tmp_path: Path) -> None:
    """What is kept has a bound, and is the end."""
    program = stand_in(tmp_path, f"print('x' * {3 * mm_run.KEPT})\nprint({SHORT!r})")
    assert run_mm_run(program, model, device="mlu:0", batch=1).qps == 976.556


def test_failures_are_one_sentence(model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = stand_in(tmp_path, "print('no MLU here', file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(ClipmuxError, match=r"failed with exit status 3: no MLU here"):
        run_mm_run(failing, model, device="mlu:0", batch=1)
    with pytest.raises(ClipmuxError, match="cannot be started"):
        run_mm_run(tmp_path, model, device="mlu:0", batch=1)
    monkeypatch.setattr(mm_run, "PATIENCE_S", 0.2)
    slow = stand_in(tmp_path, "time.sleep(60)")
    with pytest.raises(ClipmuxError, match=r"took longer than 0 s: give fewer --iterations"):
        run_mm_run(slow, model, device="mlu:0", batch=1)


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MM_RUN_PATH", raising=False)
    with pytest.raises(UsageError, match="no program 'mm_run': mm_run comes with MagicMind"):
        find_mm_run("mm_run")
    program = stand_in(tmp_path, "")
    assert find_mm_run(str(program)) == program
    monkeypatch.setenv("MM_RUN_PATH", str(tmp_path))
    assert find_mm_run("mm_run") == program
    program.chmod(0o644)
    with pytest.raises(UsageError, match="no program"):
        find_mm_run(str(program))


def test_only_compiled_models_on_mlus(model: ModelFolder) -> None:
    check_mm_run(model, "mlu:0")
    with pytest.raises(UsageError, match="is for onnx"):
        check_mm_run(read_model("demo"), "mlu:0")
    with pytest.raises(UsageError, match="--device is 'cpu'"):
        check_mm_run(model, "cpu")


def test_a_report_may_say_little() -> None:
    assert parse_report("Throughput (qps): 1e3") == Report(1000.0)


def test_side_by_side_with_ours(tmp_path: Path) -> None:
    """A model compiled for the emulator: our figures, mm_run's, and the ratio of the two, pair by pair."""
    program = stand_in(tmp_path, f"print({LONG!r})")
    with magicmind():
        options = {"max_batch": 4}
        compiled = compile_model(
            "demo", tmp_path / "m", target="magicmind", precision="force_float32", calibration=None, options=options
        )
        measurement = inference(
            [str(compiled.path)],
            device="mlu:0",
            batches=[2],
            until=Until(calls=2),
            repeats=2,
            console=Console(quiet=True),
            mm_run=str(program),
        )
    by_backend = {figure.at["backend"]: figure for figure in measurement.figures if figure.name == "qps"}
    assert by_backend["mm_run"].runs == (28916.2, 28916.2)
    [ratio] = [ratio for ratio in measurement.ratios if ratio.name == "over_mm_run"]
    assert ratio.runs == tuple(ours / 28916.2 for ours in by_backend["magicmind"].runs)
    theirs = {figure.name: figure.median for figure in measurement.figures if figure.at["backend"] == "mm_run"}
    assert (theirs["latency_p50"], theirs["latency_p99"], theirs["host_to_device"]) == (3.0, 8.0, 0.3)


def test_a_model_for_something_else_is_refused_before_measuring(tmp_path: Path) -> None:
    done = clipmux("bench", "inference", "demo", "--mm-run", stand_in(tmp_path, ""))
    assert done.returncode == 2
    assert "leave --mm-run out" in done.stderr
