"""The networks against the reference's own: names, shapes and arithmetic, on weights that anyone can rebuild."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipmux.build.architectures import FAMILIES, Architecture, build
from clipmux.build.resnet import factorised_planes
from clipmux.engine.errors import ModelError


def known_weights(network: Any) -> dict[str, Any]:
    """The golden data's recipe: weights drawn by each key's own name."""
    weights = {}
    for key, value in network.state_dict().items():
        g = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            drawn = np.zeros(shape)
        elif key.endswith("running_var"):
            drawn = g.uniform(0.5, 1.5, shape)
        elif key.endswith("running_mean"):
            drawn = 0.1 * g.standard_normal(shape)
        elif len(shape) >= 2:
            drawn = g.standard_normal(shape) * np.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith("weight"):
            drawn = g.uniform(0.2, 0.6, shape)
        else:
            drawn = 0.1 * g.standard_normal(shape)
        weights[key] = torch.from_numpy(np.asarray(drawn)).to(value.dtype)
    return weights


def golden_architecture(entry: dict[str, Any]) -> Architecture:
    options = dict(entry["options"])
    options["max_pool"] = not options.pop("no_max_pool", False)
    options["shortcut"] = options.pop("shortcut_type", "B")
    return Architecture(entry["family"], entry["depth"], classes=10, **options)


@pytest.fixture(scope="module")
def golden_clips() -> Any:
    clips = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 3, 16, 112, 112))
    return torch.from_numpy(clips.astype(np.float32))


GOLDEN = [
    *(("resnet", depth, "") for depth in (10, 18, 34, 50)),
    ("resnet", 18, "shortcut_type"),
    ("resnet", 18, "widen_factor"),
    ("resnet", 18, "conv1_t_size"),
    ("resnet", 18, "conv1_t_stride"),
    ("resnet", 10, "no_max_pool"),
    *(("resnet2p1d", depth, "") for depth in (10, 18, 34, 50)),
    *(("resnet", depth, "") for depth in (101, 152, 200)),
    ("wideresnet", 50, "k"),
]


@pytest.mark.parametrize(("family", "depth", "option"), GOLDEN)
def test_network_equals_the_reference(
    family: str, depth: int, option: str, golden_clips: Any, shared_data: Path
) -> None:
    entries = json.loads((shared_data / "architectures.json").read_text())
    assert len(entries) == len(GOLDEN)
    (entry,) = (e for e in entries if (e["family"], e["depth"], "".join(e["options"])) == (family, depth, option))
    with torch.device("meta"):  # shapes without memory: the weights come from the recipe
        network = build(golden_architecture(entry)).eval()
    with torch.inference_mode():
        assert sum(p.numel() for p in network.parameters()) == entry["parameters"]
        assert len(network.state_dict()) == entry["keys"]
        network.load_state_dict(known_weights(network), assign=True)
        logits = network(golden_clips).numpy()
    golden = np.asarray(entry["logits"])
    assert np.abs(logits - golden).max() / np.abs(golden).max() <= 1e-4


def test_pool_is_the_mean_over_time_and_space() -> None:
    """Also where a clip is neither square nor 112, nor 16 frames long."""
    network = build(Architecture("resnet", 10, classes=5, widen_factor=0.25)).eval()
    seen = []
    network.layer4.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        features = network.features(torch.randn(2, 3, 24, 96, 128, generator=torch.Generator().manual_seed(0)))
    assert seen[0].shape == (2, 128, 2, 3, 4)
    torch.testing.assert_close(features, seen[0].mean((2, 3, 4)))


def test_shortcut_a_passes_the_input_and_adds_zero_planes() -> None:
    network = build(Architecture("resnet", 10, classes=5, shortcut="A"))
    x = torch.randn(1, 64, 4, 6, 6)
    out = network.layer2[0].downsample(x)
    assert out.shape == (1, 128, 2, 3, 3)
    assert torch.equal(out[:, :64], x[:, :, ::2, ::2, ::2])
    assert not out[:, 64:].any()


def test_network_can_be_trained() -> None:
    network = build(Architecture("resnet2p1d", 10, classes=4, widen_factor=0.125))
    network(torch.randn(2, 3, 16, 32, 32)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_factorised_planes_keep_the_number_of_weights() -> None:
    between = factorised_planes(64, 64, (3, 3, 3))
    assert between == 144
    assert between * (64 * 9 + 64 * 3) == 64 * 64 * 27


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"family": "densenet"}, "densenet"),
        ({"depth": 20}, "20"),
        ({"family": "wideresnet", "depth": 18}, "18"),
        ({"classes": 0}, "0"),
        ({"widen_factor": 0.01}, "0.01"),
        ({"widen_factor": float("nan")}, "nan"),
        ({"widen_factor": float("inf")}, "inf"),
        ({"k": 2}, "2"),
        ({"k": 0, "family": "wideresnet", "depth": 50}, "0"),
        ({"shortcut": "C"}, "C"),
        ({"conv1_t_size": 0}, "0"),
        ({"conv1_t_stride": 0}, "0"),
    ],
)
def test_impossible_architecture_is_refused(change: dict[str, Any], quoted: str) -> None:
    with pytest.raises(ModelError, match=quoted):
        dataclasses.replace(Architecture("resnet", 18, classes=10), **change)


def test_name_is_what_checkpoints_say() -> None:
    assert Architecture("resnet2p1d", 18, classes=10).name == "resnet2p1d-18"
    assert set(FAMILIES) == {"resnet", "resnet2p1d", "wideresnet"}
