"""What an engine is told: wrong values are refused by the name of their option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.config import EngineConfig, usable_cores
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stride": 0}, "--stride is 0"),
        ({"stride": -16}, "--stride is -16"),
        ({"top_k": 0}, "--top-k is 0"),
        ({"workers": -1}, "--workers is -1"),
        ({"workers": 1025}, "--workers is 1025"),
        ({"max_batch": 0}, "--max-batch is 0"),
        ({"max_batch": 65}, "--max-batch is 65"),
        ({"null_delay_ms": (-1.0, 0.0)}, "--null-delay is (-1.0, 0.0)"),
        ({"null_delay_ms": (0.0, -0.5)}, "--null-delay is (0.0, -0.5)"),
        ({"max_delay_s": -0.1}, "--max-delay is -0.1"),
        ({"max_delay_s": float("nan")}, "--max-delay is nan"),
        ({"decode_timeout_s": 0.0}, "--decode-timeout is 0.0"),
        ({"queue_bytes": 1000}, "--queue-memory is 1000"),
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


def test_no_workers_mean_one_per_core() -> None:
    assert EngineConfig(model="demo").decoders == usable_cores() >= 1
    assert EngineConfig(model="demo", workers=3).decoders == 3


@pytest.mark.parametrize("workers", [1, 7, 64, 1024])
@pytest.mark.parametrize("mebibytes", [1, 256, 4096])
def test_queues_stay_within_their_memory(workers: int, mebibytes: int) -> None:
    model = ModelFolder(Path("model"), "r3d", "model.onnx", ("a",))
    config = EngineConfig(model="demo", workers=workers, queue_bytes=mebibytes << 20)
    hwm = config.queue_hwm(model)
    assert hwm >= 2
    assert hwm == 2 or 2 * workers * hwm * model.clip_bytes <= config.queue_bytes
