"""``clipmux plan``, ``clipmux bench simulate`` and ``clipmux bench cluster``: what they print and write, never how
fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import clipmux


def plan(*options: object) -> dict[str, Any]:
    done = clipmux("plan", *options, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def needs(content: dict[str, Any]) -> dict[str, int]:
    return {need["name"]: need["count"] for need in content["needs"]}


def test_a_plan_on_devices(tmp_path: Path) -> None:
    options = ("--streams", 1000, "--fps", 25, "--size", "340x256", "--device", "mlu370-x8", "--clips-per-s", 500)
    content = plan(*options)
    assert content["load"] == {"clips_per_s": 1562.5, "frames_per_s": 25_000, "videos_per_s": 0}
    assert needs(content)["devices"] == 5  # 3.125, each used to 0.7
    printed = clipmux("plan", *options).stdout
    for word in ("devices", "decoder cores", "given, --clips-per-s", "docs/scaling.md", "1,000 streams"):
        assert word in printed


def test_a_plan_on_cpus_lasts_as_long_as_it_is_given() -> None:
    one = plan("--videos", 30_000)
    assert needs(one)["hosts"] == 1
    quick = plan("--videos", 30_000, "--within", one["seconds"] / 3600 / 10)
    assert needs(quick)["hosts"] == 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["plan"], "give one of --videos N and --streams N"),
        (["plan", "--videos", 1, "--streams", 1], "give one of --videos N and --streams N"),
        (["plan", "--videos", 5, "--device", "mlu370-x8"], "nothing public says how many clips/s 'mlu370-x8' infers"),
        (["plan", "--videos", 5, "--size", "big"], "--size is 'big'"),
        (["plan", "--videos", 5, "--precision", "int4"], "--precision is 'int4'"),
        (["plan", "--videos", 5, "--fps", 0], "--fps is 0"),
        (["plan", "--videos", 5, "--use", 2], "--use at most 1"),
        (["plan", "--videos", 5, "--costs", "missing.json"], "'missing.json' cannot be read"),
        (["bench", "cluster"], "give --streams or --videos"),
        (["bench", "cluster", "--streams", "0"], "--streams is '0'"),
        (["bench", "cluster", "--streams", "many"], "--streams is 'many'"),
        (["bench", "cluster", "--streams", "1", "--pace", "1"], "--pace is '1'"),
        (["bench", "simulate", "--workers", "0"], "--workers has 0"),
        (["bench", "simulate", "--device", "cpu:0,cpu:1"], "--device is 'cpu:0,cpu:1'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_reckoned_is_one_sentence(options: list[object], says: str) -> None:
    done = clipmux(*options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_cluster_of_both_loads() -> None:
    options = ("--hosts", 4, "--inference-hosts", 1, "--devices", 2, "--streams", "8,64", "--videos", "100,1000")
    done = clipmux("bench", "cluster", *options, "--warm-up", 2, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(done.stdout)
    assert list(content["loads"]) == ["8 streams", "64 streams", "videos"]
    assert content["loads"]["64 streams"]["dropped_per_s"] == 0
    took = content["videos_take_s"]
    assert took["1000"] == pytest.approx(10 * took["100"])
    printed = clipmux("bench", "cluster", *options, "--warm-up", 2).stdout
    assert "saturate as the load grows" in printed
    assert "1,000 videos take" in printed
    assert printed == clipmux("bench", "cluster", *options, "--warm-up", 2).stdout


def test_a_simulated_run_scores_what_a_real_one_does(tmp_path: Path, null_model: Path) -> None:
    """And a plan takes its costs."""
    file = tmp_path / "out.json"
    options = ("--model", null_model, "--backend", "null", "--null-delay", "0.4+0.25", "--max-batch", 8)
    done = clipmux(
        "bench", "simulate", *options, "--videos", 6, "--frames", 40, "--workers", "1,2", "--repeats", 1, "--json", file
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(file.read_text())
    figures = {(entry["name"], entry["at"]["workers"]): entry["median"] for entry in content["figures"]}
    for workers in (1, 2):
        assert figures["clips", workers] == figures["simulated_clips", workers] == 18
        assert figures["videos", workers] == figures["simulated_videos", workers] == 6
        assert 0 < figures["simulated_batch_fill", workers] <= 1
    ratios = {(entry["name"], entry["at"]["workers"]) for entry in content["ratios"]}
    compared = ("clips_per_s", "batch_fill", "latency_p50")
    assert ratios == {(f"simulated_to_real_{name}", workers) for name in compared for workers in (1, 2)}
    costs = plan("--videos", 10, "--costs", file)["costs"]
    assert costs["send_s"] == {"seconds": figures["send_s", 2], "from": "measured, out.json"}
