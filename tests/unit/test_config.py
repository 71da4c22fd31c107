"""What an engine is told: wrong values are refused by the name of their option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine import config as module
from clipmux.engine.config import AHEAD, MOST_THREADS, EngineConfig, parse_workers, usable_cores
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stride": 0}, "--stride is 0"),
        ({"stride": -16}, "--stride is -16"),
        ({"top_k": 0}, "--top-k is 0"),
        ({"workers": -1}, "--workers is 'none'"),
        ({"workers": -2, "far_decoders": 1}, "--workers is -2"),
        ({"workers": 1025}, "--workers is 1025"),
        ({"max_batch": 0}, "--max-batch is 0"),
        ({"max_batch": 65}, "--max-batch is 65"),
        ({"null_delay_ms": (-1.0, 0.0)}, "--null-delay is (-1.0, 0.0)"),
        ({"null_delay_ms": (0.0, -0.5)}, "--null-delay is (0.0, -0.5)"),
        ({"max_delay_s": -0.1}, "--max-delay is -0.1"),
        ({"max_delay_s": float("nan")}, "--max-delay is nan"),
        ({"decode_timeout_s": 0.0}, "--decode-timeout is 0.0"),
        ({"queue_bytes": 1000}, "--queue-memory is 1000"),
        ({"bind": "127.0.0.1:7600", "far_decoders": 0}, "--decoders is 0: give 1 to 4096"),
        ({"decoder_bytes": 10**20}, "--decoder-memory is 95367431640625: give 256 to 16777216 MiB"),
        ({"stride": "8"}, "stride is '8': it must be of type int"),
        ({"stride": True}, "stride is True"),
        ({"workers": None}, "workers is None"),
        ({"device": None}, "device is None"),
        ({"per_clip": 1}, "per_clip is 1: it must be of type bool"),
        ({"max_delay_s": "1"}, "max_delay_s is '1'"),
        ({"null_delay_ms": (0.0,)}, "null_delay_ms is (0.0,)"),
        ({"null_delay_ms": ("a", "b")}, "null_delay_ms is ('a', 'b')"),
        ({"guards": None}, "guards is None"),
        ({"backend": "tensorrt"}, "no backend 'tensorrt'"),
        ({"device": "tpu:0"}, "no device 'tpu:0'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        EngineConfig(model="demo", **wrong)
    assert said in str(refusal.value)
    assert refusal.value.exit_status == 2


def test_a_config_survives_the_way_to_a_child() -> None:
    config = EngineConfig(model="demo", stride=8, workers=3, backend="null", null_delay_ms=(0.4, 0.25))
    assert EngineConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


MODEL = ModelFolder(Path("model"), "r3d", "model.onnx", ("a",))


def test_no_workers_mean_one_per_core_at_most() -> None:
    assert EngineConfig(model="demo").decoders == usable_cores() >= 1
    assert EngineConfig(model="demo", workers=3).decoders == 3


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, 5),
        ({"backend": "torch"}, 5),
        ({"workers": 7}, 7),
        ({"backend": "null"}, 32),
        ({"device": "mlu:0"}, 32),
        ({"device": "cuda:0"}, 32),
    ],
)
def test_a_run_begins_with_few_decoders_where_they_share_the_cores(
    options: dict[str, Any], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 32)
    assert EngineConfig(model="demo", **options).first_decoders(MODEL) == first


@pytest.mark.parametrize(
    ("options", "videos", "threads"),
    [
        ({"backend": "null"}, 1, MOST_THREADS),
        ({"backend": "null"}, 10, 3),
        ({"backend": "null"}, 33, 1),
        ({"backend": "null"}, 0, MOST_THREADS),
        ({"backend": "null", "workers": 2}, 1, 1),
        ({}, 1, 1),
    ],
)
def test_codecs_have_threads_where_cores_have_no_video(
    options: dict[str, Any], videos: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 32)
    assert EngineConfig(model="demo", **options).for_videos(videos, MODEL).decode_threads == threads


@pytest.mark.parametrize(("text", "workers"), [("auto", 0), ("0", 0), ("12", 12)])
def test_workers_are_a_number_or_auto(text: str, workers: int) -> None:
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "²", "1" * 10])
def test_other_workers_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--workers is '{text}': give 1 to 1024, or auto"):
        parse_workers(text)


def test_a_number_of_workers_that_no_int_can_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--workers is '9{40}': give"):
        parse_workers("9" * 5000)


def test_clips_get_no_more_memory_than_keeps_the_device_busy() -> None:
    layout = EngineConfig(model="demo", workers=4).clip_layout(MODEL)
    assert layout.seats * layout.slots == AHEAD * 8
    layout = EngineConfig(model="demo", workers=4, backend="null").clip_layout(MODEL)
    assert layout.seats * layout.slots == AHEAD * 64
    layout = EngineConfig(model="demo", workers=4, backend="null", queue_bytes=100 << 20).clip_layout(MODEL)
    assert layout.bytes <= 100 << 20
    assert layout.seats * layout.slots >= 2 * 64 + 2 * 4


@pytest.mark.parametrize("workers", [1, 7, 64, 1024])
@pytest.mark.parametrize("mebibytes", [1, 256, 4096])
def test_queues_stay_within_their_memory(workers: int, mebibytes: int) -> None:
    config = EngineConfig(model="demo", workers=workers, queue_bytes=mebibytes << 20)
    layout = config.clip_layout(MODEL)
    least = 2 * 8 + 2 * workers + workers  # two batches and two clips per decoder, rounded up for each
    assert layout.slots >= 2
    assert layout.seats * layout.slots <= least or layout.bytes <= 1.001 * config.queue_bytes
