"""The model folder: what is written is read back, and a contradiction is quoted before anything starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import ModelError
from clipmux.engine.model import ModelFolder, read_labels, read_model, write_model

NETWORK = b"some network"


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    """A model folder on disk, nothing in it left at its default."""
    (tmp_path / "net.onnx").write_bytes(NETWORK)
    return write_model(
        ModelFolder(
            path=tmp_path,
            name="resnet-50",
            network="net.onnx",
            labels=("archery", "跳水", "brush painting"),
            frames=8,
            height=64,
            width=96,
            layout="NDHWC",
            mean=(0.4345, 0.4051, 0.3775),
            std=(0.2768, 0.2713, 0.2737),
            target="magicmind",
            precision="float16",
            provenance={"checkpoint": "r3d50_K_200ep.pth", "epoch": 200},
        )
    )


def changed(model: ModelFolder, change: Callable[[dict[str, Any]], object]) -> None:
    """Change ``model.json`` as an editor would."""
    file = model.path / "model.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_what_is_written_is_read_back(model: ModelFolder) -> None:
    assert read_model(model.path) == read_model(str(model.path)) == model
    assert model.sha256 == hashlib.sha256(NETWORK).hexdigest()
    assert (model.clip_shape, model.clip_bytes) == ((8, 64, 96, 3), 8 * 64 * 96 * 3)
    assert "跳水" in (model.path / "model.json").read_text(encoding="utf-8")  # for people to read


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "format None"),
        ({"classes": 4}, "4 classes and lists 3 labels"),
        ({"labels": ["a", "b", "a"]}, "'a' twice"),
        ({"labels": []}, "no list of labels"),
        ({"labels": ["a", 7, "c"]}, "no list of labels"),
        ({"labels": ["a", "", "c"]}, "no list of labels"),
        ({"network": "../net.onnx"}, "'../net.onnx'"),
        ({"network": "/net.onnx"}, "'/net.onnx'"),
        ({"network": ".."}, "'..'"),
        ({"network": ""}, "''"),
        ({"network": 7}, "network 7"),
        ({"network": "other.onnx"}, "no network 'other.onnx'"),
        ({"network": "nul\0byte"}, "nul"),
        ({"clip": [8, 64, 96]}, "[8, 64, 96]"),
        ({"clip": {"frames": 8, "height": 64}}, "{'frames': 8, 'height': 64}"),
        ({"clip": {"frames": 0, "height": 64, "width": 96}}, "'frames': 0"),
        ({"clip": {"frames": True, "height": 64, "width": 96}}, "'frames': True"),
        ({"clip": {"frames": 8, "height": 64.5, "width": 96}}, "'height': 64.5"),
        ({"clip": {"frames": 8, "height": 64, "width": 4097}}, "'width': 4097"),
        ({"layout": "NTHWC"}, "'NTHWC'"),
        ({"layout": []}, "layout []"),
        ({"mean": [0.5, 0.5]}, "mean [0.5, 0.5]"),
        ({"mean": "0.5"}, "mean '0.5'"),
        ({"mean": [0.5, None, 0.5]}, "mean [0.5, None, 0.5]"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean [0.5, nan, 0.5]"),
        ({"mean": [10**400, 0, 0]}, "mean [1000"),
        ({"std": [1, True, 1]}, "std [1, True, 1]"),
        ({"std": [1, 0, 1]}, "std [1, 0, 1]"),
        ({"std": [1, -1, 1]}, "std [1, -1, 1]"),
        ({"std": [1, float("nan"), 1]}, "std [1, nan, 1]"),
        ({"std": [1, 1, float("inf")]}, "std [1, 1, inf]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_contradiction_is_quoted(model: ModelFolder, change: dict[str, Any], quoted: str) -> None:
    changed(model, lambda content: content.update(change))
    with pytest.raises(ModelError) as refusal:
        read_model(model.path)
    assert quoted in str(refusal.value)
    assert "export" in str(refusal.value) or "name" in str(refusal.value)  # the remedy
    assert refusal.value.exit_status == 2


def test_a_network_lies_in_its_folder_and_nowhere_else(model: ModelFolder) -> None:
    outside = model.path / "outside"
    outside.mkdir()
    (outside / "model.json").write_bytes((model.path / "model.json").read_bytes())
    for name in ("../net.onnx", str(model.network_path)):  # both are there
        changed(dataclasses.replace(model, path=outside), lambda content, name=name: content.update(network=name))
        with pytest.raises(ModelError, match=f"names the network '{name}', which is not a file in this folder"):
            read_model(outside)


@pytest.mark.parametrize("key", ["name", "network", "classes", "labels", "clip", "layout", "mean", "std"])
def test_what_is_missing_is_named(model: ModelFolder, key: str) -> None:
    changed(model, lambda content: content.pop(key))
    with pytest.raises(ModelError, match=f"lacks '{key}'"):
        read_model(model.path)


@pytest.mark.parametrize("key", ["target", "precision", "sha256", "provenance"])
def test_the_rest_may_be_missing(model: ModelFolder, key: str) -> None:
    changed(model, lambda content: content.pop(key))
    default = getattr(ModelFolder(model.path, "", "", ()), key)
    assert read_model(model.path) == dataclasses.replace(model, **{key: default})


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\ufeff{}"])
def test_a_model_json_that_is_not_one(model: ModelFolder, text: str) -> None:
    (model.path / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"model\.json' is not .*export the model again"):
        read_model(model.path)


def test_what_is_not_there_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model folder at '.*absent': make one with 'clipmux build export"):
        read_model(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"has no model\.json: make one with 'clipmux build export"):
        read_model(tmp_path)


def test_what_could_not_be_read_back_is_not_written(model: ModelFolder) -> None:
    before = (model.path / "model.json").read_bytes()
    with pytest.raises(ModelError, match="'a' twice"):
        write_model(dataclasses.replace(model, labels=("a", "a")))
    assert (model.path / "model.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "archery\nbrush painting\n跳水\n"),
        ("labels.txt", "\n  archery \r\nbrush painting\r\n\n跳水"),
        ("labels.txt", "\ufeffarchery\nbrush painting\n跳水\n"),
        ("labels.json", '["archery", "brush painting", "跳水"]'),
        ("annotations.json", '{"labels": ["archery", "brush painting", "跳水"], "database": {}}'),
    ],
)
def test_labels(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name) == ("archery", "brush painting", "跳水")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.txt", b"", "no list of labels"),
        ("labels.txt", b"a\nb\na\n", "'a' twice"),
        ("labels.txt", b"\xff\xfe", "cannot read labels"),
        ("labels.json", b"{", "is not JSON"),
        ("labels.json", b'{"classes": ["a"]}', "no list of labels"),
        ("labels.json", b'["a", 7]', "no list of labels"),
        ("labels.json", b"7", "no list of labels"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as refusal:
        read_labels(tmp_path / name)
    assert said in str(refusal.value)
    assert name in str(refusal.value)


def test_the_references_labels(shared_data: Path) -> None:
    labels = read_labels(shared_data / "kinetics700_labels.txt")
    assert len(labels) == 700
    assert read_labels(shared_data / "mini_kinetics" / "kinetics.json") == labels
