"""What is said of baselines before and after they run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from clipmux.bench.baselines import Difference, check_baselines, difference
from clipmux.bench.baselines.norms import with_norms
from clipmux.bench.baselines.start import float32_network
from clipmux.bench.baselines.way import Clock, Task, cpu_seconds
from clipmux.engine.backends.onnx_in_torch import OnnxInTorch
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder, read_model
from clipmux.workers.sources import Video

DEMO = read_model("demo")
INT8 = dataclasses.replace(
    DEMO, target="openvino", precision="int8", provenance={"compiled_from_sha256": DEMO.sha256}, sha256="cd" * 32
)


def test_difference() -> None:
    ours = {"a": [("cat", 0.75), ("dog", 0.25)], "b": [("dog", 0.5), ("cat", 0.5)], "c": [("cat", 1.0)]}
    theirs = {"a": [("cat", 0.5), ("cow", 0.5)], "b": [("cat", 0.5), ("dog", 0.5)], "d": [("cat", 1.0)]}
    assert difference(ours, theirs) == Difference(missing=2, labels=1, score=0.25)
    assert difference(ours, ours) == Difference(missing=0, labels=0, score=0.0)


@pytest.mark.parametrize(
    ("names", "model", "said"),
    [
        (["speedy"], DEMO, "there is no baseline 'speedy': choose from reference, dataloader, ray"),
        (["reference"], INT8, "give --float32"),
        (["dataloader"], dataclasses.replace(DEMO, target="magicmind"), "was compiled for magicmind"),
    ],
)
def test_what_cannot_run_is_said_before(names: list[str], model: ModelFolder, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        check_baselines(names, model)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "model", "device", "said"),
    [
        ("reference", DEMO, "mlu:0", "runs on cpu and one of cuda:0, cuda:1 …, not on 'mlu:0': leave it out"),
        ("dataloader", DEMO, "cuda:0,cuda:1", "not on 'cuda:0,cuda:1'"),
        ("ray", DEMO, "cuda:0", "the baseline 'ray' runs on cpu only, not on 'cuda:0'"),
        ("dataloader", INT8, "cuda:0", "feeds torch, but"),
        ("dataloader", dataclasses.replace(DEMO, target="torch"), "cpu:0-1", "feeds OpenVINO, but"),
    ],
)
def test_so_is_a_device_that_it_does_not_know(name: str, model: ModelFolder, device: str, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        check_baselines([name], model, DEMO, device=device)
    assert said in str(refusal.value)


@pytest.mark.parametrize("device", ["cuda:7", "cpu:0"])
def test_two_baselines_know_gpus_and_cores(device: str) -> None:
    check_baselines(["reference", "dataloader"], DEMO, device=device)


def test_the_reference_runs_what_a_compiled_network_was_made_from() -> None:
    assert float32_network(DEMO) is DEMO
    assert float32_network(INT8, DEMO) is DEMO
    check_baselines(["reference", "dataloader"], INT8, DEMO)
    with pytest.raises(UsageError, match="was not compiled from"):
        float32_network(INT8, dataclasses.replace(DEMO, sha256="ef" * 32))
    with pytest.raises(UsageError, match="give the folder before that"):
        float32_network(INT8, INT8)


def test_norms_taken_apart_answer_the_same(tmp_path: Path) -> None:
    path = tmp_path / "norms.onnx"
    assert with_norms(DEMO.network_path, path) == 12  # of a ResNet-10: the stem, four blocks of two, three shortcuts
    clips = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *DEMO.clip_shape[:3]), np.float32))
    answers = []
    for file in (DEMO.network_path, path):
        network = OnnxInTorch(file, device=torch.device("cpu"), dtype=torch.float32)
        with torch.no_grad():
            answers.append(network(clips))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-4)
    operators = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert operators.count("BatchNormalization") == 12


def test_a_task_survives_json() -> None:
    task = Task((Video("a", Path("videos/a.mp4"), "file"),), "model", 16, 2, "exact", "cuda:0", "/tmp/scratch")
    assert Task.from_json(task.to_json()) == task


def test_cpu_seconds_count_processes_below_and_those_that_ended() -> None:
    clock = Clock()
    clock.start()
    burn = "import time\nwhile time.process_time() < 0.6: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    wall, cpu = clock.stop()
    assert wall >= 0.5
    assert cpu >= 0.5
    with subprocess.Popen(
        [sys.executable, "-c", burn + "\nprint(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.5 <= cpu_seconds(process.pid) < 5
        process.kill()
    assert cpu_seconds(process.pid) == 0


def test_a_clock_that_was_not_started() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        Clock().stop()
