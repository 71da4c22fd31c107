"""Networks without training: the same for a seed, with numbers of ordinary size at any depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from typer.testing import CliRunner

from clipmux.build.architectures import Architecture
from clipmux.build.shapes import LABELS, Scene
from clipmux.build.untrained import make_untrained, parse_architecture, untrained_network
from clipmux.engine.backends import open_backend
from clipmux.engine.cli import app
from clipmux.engine.errors import ClipmuxError


def other_clips() -> npt.NDArray[np.uint8]:
    """Ten that no network of these tests was fitted to."""
    return np.stack([Scene(label, 100 + number, 48, 48).clip(frames=8) for number, label in enumerate(LABELS)])


def test_a_folder_like_any_other(tmp_path: Path) -> None:
    command = f"build untrained resnet-18 --output {tmp_path}/model --classes 12 --widen-factor 0.0625"
    said = CliRunner().invoke(app, [*command.split(), "--frames", "8", "--size", "48"])
    assert said.exit_code == 0, said.output
    assert said.output == f"resnet-18-untrained, 12 classes: {tmp_path / 'model'}\n"
    options = {"classes": 12, "widen_factor": 0.0625, "frames": 8, "size": 48}
    model = make_untrained("resnet-18", tmp_path / "again", **options)
    assert model.sha256 == make_untrained("resnet-18", tmp_path / "model", force=True, **options).sha256
    assert model.sha256 != make_untrained("resnet-18", tmp_path / "other", seed=1, **options).sha256
    assert (model.clip_shape, model.labels[11], model.provenance["seed"]) == ((8, 48, 48, 3), "class 11", 0)
    assert model.provenance["architecture"]["depth"] == 18
    backend = open_backend("openvino", model, device="cpu", max_batch=10, null_delay_ms=(0, 0))
    logits = backend.open_runner().infer(other_clips())
    assert np.abs(logits).max() < 50
    assert len(set(logits.argmax(axis=1))) >= 3


@pytest.mark.parametrize(("family", "depth"), [("resnet", 50), ("resnet2p1d", 34), ("wideresnet", 101)])
def test_numbers_keep_their_size_through_any_depth(family: str, depth: int) -> None:
    before = torch.random.get_rng_state()
    network = untrained_network(Architecture(family, depth, classes=7, widen_factor=0.0625), frames=8, size=48)
    assert torch.equal(torch.random.get_rng_state(), before)  # a caller's own draws go on as they would have
    clips = torch.from_numpy(other_clips().transpose(0, 4, 1, 2, 3)) / 128 - 1
    with torch.inference_mode():
        features, logits = network.features(clips), network(clips)
    assert 0.01 < float(features.mean()) < 10
    assert float(features.std(0).mean()) > 0.01
    assert 0.1 < float(logits.std()) < 100


@pytest.mark.parametrize("name", ["resnet50", "r3d-50", "resnet-", "-50", "resnet-7", "wideresnet-18", "resnet-٥٠"])
def test_unknown_architectures_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ClipmuxError, match=r"there is no architecture|has no depth") as refused:
        parse_architecture(name, classes=5)
    assert name in str(refused.value) or name.partition("-")[2] in str(refused.value)
    with pytest.raises(ClipmuxError, match="size is 0"):
        make_untrained("resnet-10", tmp_path / "model", size=0)
    with pytest.raises(ClipmuxError, match="seed is -1"):
        make_untrained("resnet-10", tmp_path / "model", seed=-1)
    assert not (tmp_path / "model").exists()
