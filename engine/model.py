"""The model folder: a network and ``model.json``, which says how to feed it and what its outputs are called.

``model.json`` holds everything a run needs beside the weights: labels, clip geometry, normalisation, layout, precision
and where the network came from. It is read and checked before any process starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .documents import LISTS_LONGEST, check_text, parse_json, read_json, read_text
from .errors import ModelError

FORMAT = 1
"""The version of ``model.json`` that this code reads and writes."""

DEMO = "demo"
"""The name that stands for the small model bundled with the package."""

LAYOUTS = ("NCDHW", "NDHWC")

ANY_TARGET = "onnx"
PRECISIONS: dict[str, tuple[str, ...]] = {
    ANY_TARGET: ("float32",),
    "openvino": ("float32", "bfloat16", "float16", "int8"),
    "torch": ("float32", "bfloat16", "float16"),
    "magicmind": (
        "force_float32",
        "force_float16",
        "qint8_mixed_float16",
        "qint8_mixed_float32",
        "qint16_mixed_float16",
        "qint16_mixed_float32",
    ),
}
"""What a network is for, whoever reads float32 ONNX (OpenVINO, torch) or the one backend it was compiled for, and at
which precisions, in that target's own words."""


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder.

    Args:
        path: the folder.
        name: what the network is, for people (``resnet-50``).
        network: file name of the network inside the folder (``model.onnx``).
        labels: one name per class, in the order of the network's outputs.
        frames: frames per clip (T).
        height: rows of a clip (H).
        width: columns of a clip (W).
        layout: axis order of the network's float32 input, ``NCDHW`` or ``NDHWC`` (D is time).
        mean: per RGB channel, of pixels scaled to 0…1.
        std: per RGB channel, of pixels scaled to 0…1.
        target: ``onnx`` for any backend that reads such a file, or the one backend it was compiled for.
        precision: ``float32`` unless the network was compiled to something smaller.
        sha256: of the network file, so that a run folder can tell whether it was made with this model.
        compiled: what only the target's own backend understands (fixed batch, input form …); kept as it is.
        provenance: where the network came from; free-form, kept as it is.
        frame_rate: frames per second at which clips are sampled from live streams; None if nobody said.
    """

    path: Path
    name: str
    network: str
    labels: tuple[str, ...]
    frames: int = 16
    height: int = 112
    width: int = 112
    layout: str = "NCDHW"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    target: str = ANY_TARGET
    precision: str = "float32"
    sha256: str = ""
    compiled: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    frame_rate: float | None = None

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of one uint8 RGB clip, ``[T, H, W, C]``."""
        return (self.frames, self.height, self.width, 3)

    @property
    def clip_bytes(self) -> int:
        """Bytes of one uint8 clip."""
        return self.frames * self.height * self.width * 3

    @property
    def network_path(self) -> Path:
        return self.path / self.network

    def to_json(self) -> dict[str, Any]:
        """What ``model.json`` holds."""
        return {
            "format": FORMAT,
            "name": self.name,
            "network": self.network,
            "sha256": self.sha256,
            "classes": len(self.labels),
            "labels": list(self.labels),
            "clip": {"frames": self.frames, "height": self.height, "width": self.width},
            "layout": self.layout,
            "mean": list(self.mean),
            "std": list(self.std),
            "target": self.target,
            "precision": self.precision,
            "compiled": self.compiled,
            "provenance": self.provenance,
            **({} if self.frame_rate is None else {"frame_rate": self.frame_rate}),
        }


def demo_folder() -> Path:
    """The folder of the small model bundled with the package."""
    return Path(__file__).resolve().parent.parent / "build" / "demo"


def read_model(folder: str | os.PathLike[str]) -> ModelFolder:
    """Read and check a model folder; ``demo`` stands for the bundled one.

    Raises:
        ModelError: the folder, ``model.json`` or the network is missing, or contradicts itself.
    """
    path = Path(folder)
    if str(folder) == DEMO and not (path / "model.json").is_file():
        path = demo_folder()
    if not path.is_dir():
        raise ModelError(f"no model folder at '{path}': make one with 'clipmux build export CHECKPOINT'")
    described = path / "model.json"
    try:
        content = read_json(described)
        check_text(content)  # a label that cannot be written would only be found with the first result
    except FileNotFoundError:
        raise ModelError(f"'{path}' has no model.json: make one with 'clipmux build export CHECKPOINT'") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"'{described}' is not readable as JSON ({error}): export the model again") from None
    model = _from_json(path, content)
    if not os.path.isfile(model.network_path):  # noqa: PTH113  (False, too, for a name that no file can have)
        raise ModelError(f"'{path}' has no network '{model.network}', which its model.json names: export it again")
    return model


def write_model(model: ModelFolder) -> ModelFolder:
    """Write ``model.json`` beside a network that is already in the folder, and return it with its ``sha256`` filled in.

    Raises:
        ModelError: what would be written could not be read back.
    """
    model = dataclasses.replace(model, sha256=file_sha256(model.network_path))
    content = model.to_json()
    _from_json(model.path, content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (model.path / "model.json").write_text(text, encoding="utf-8")
    return model


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels in class order: a text file with one a line, or a JSON with ``labels`` (the reference's annotations).

    Raises:
        ModelError: the file cannot be read, holds no labels, or names one twice.
    """
    try:
        # A byte-order mark is not part of the first label; annotations hold labels too.
        text = read_text(path, longest=LISTS_LONGEST, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read labels from '{path}' ({error}): give a text file with one label a line"
        ) from None
    if path.suffix == ".json":
        try:
            content = parse_json(text)
            check_text(content)
        except ValueError as error:
            raise ModelError(f"'{path}' is not JSON ({error}): give a text file with one label a line") from None
        labels = content.get("labels") if isinstance(content, dict) else content
    else:
        labels = [line.strip() for line in text.splitlines() if line.strip()]
    return _labels(labels, str(path))


def _labels(labels: object, where: str) -> tuple[str, ...]:
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise ModelError(f"'{where}' has no list of labels: give one name per class")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ModelError(f"'{where}' names the label '{twice}' twice: every class needs a name of its own")
    return tuple(labels)


def _from_json(path: Path, content: object) -> ModelFolder:
    where = str(path / "model.json")

    def need(value: bool, what: str) -> None:
        if not value:
            raise ModelError(f"'{where}' {what}: export the model again")

    def triple(values: object, key: str) -> tuple[float, float, float]:
        if isinstance(values, list) and len(values) == 3 and all(usable(value) for value in values):
            return (float(values[0]), float(values[1]), float(values[2]))
        raise ModelError(f"'{where}' has {key} {values!r} where three numbers (R, G, B) belong: export the model again")

    def usable(value: Any) -> bool:
        """Of pixels scaled to 0…1 no mean or deviation comes near the bound; NaN compares false."""
        return type(value) in (int, float) and abs(value) < 1e6

    need(isinstance(content, dict), "is not a JSON object")
    assert isinstance(content, dict)  # noqa: S101  (said again for the type checker)
    need(content.get("format") == FORMAT, f"has format {content.get('format')!r}, this version reads {FORMAT}")
    needed = {"name", "network", "classes", "labels", "clip", "layout", "mean", "std"}
    missing = sorted(needed - content.keys())
    need(not missing, f"lacks '{missing[0]}'" if missing else "")
    labels = _labels(content["labels"], where)
    need(content["classes"] == len(labels), f"says {content['classes']!r} classes and lists {len(labels)} labels")
    network = content["network"]
    need(
        isinstance(network, str) and network == os.path.basename(network) and network not in ("", ".", ".."),  # noqa: PTH119
        f"names the network {network!r}, which is not a file in this folder",
    )
    clip = content["clip"] if isinstance(content["clip"], dict) else {}
    geometry = [clip.get(key) for key in ("frames", "height", "width")]
    need(
        all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 4096 for n in geometry),
        f"has clip {content['clip']!r} where frames, height and width (1 to 4096) belong",
    )
    need(content["layout"] in LAYOUTS, f"has layout {content['layout']!r}, one of {', '.join(LAYOUTS)} belongs there")
    std = triple(content["std"], "std")
    need(min(std) > 0, f"has std {content['std']!r}, which must be above 0")
    target, precision = content.get("target", ANY_TARGET), content.get("precision", "float32")
    need(target in list(PRECISIONS), f"has target {target!r}, one of {', '.join(PRECISIONS)} belongs there")
    known = list(dict.fromkeys(itertools.chain(*PRECISIONS.values())))
    need(precision in known, f"has precision {precision!r}, one of {', '.join(known)} belongs there")
    rate = content.get("frame_rate")
    need(
        rate is None or (type(rate) in (int, float) and 0 < rate <= 1000),
        f"has frame_rate {rate!r} where a number above 0 belongs",
    )
    free = {key: content.get(key, {}) for key in ("compiled", "provenance")}
    for key, value in free.items():
        need(isinstance(value, dict), f"has {key} {value!r} where an object belongs")
    return ModelFolder(
        path=path,
        name=str(content["name"]),
        network=network,
        labels=labels,
        frames=clip["frames"],
        height=clip["height"],
        width=clip["width"],
        layout=content["layout"],
        mean=triple(content["mean"], "mean"),
        std=std,
        target=target,
        precision=precision,
        sha256=str(content.get("sha256", "")),
        compiled=free["compiled"],
        provenance=free["provenance"],
        frame_rate=None if rate is None else float(rate),
    )
