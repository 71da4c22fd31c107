"""Foreign ONNX networks as model folders: what is read from the file, what is put right, what is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command import clipmux, results
from media import moving, write_video
from torch import nn

from clipmux.build.import_onnx import Geometry, find_geometry, import_onnx
from clipmux.engine.device import softmax
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.without_telemetry import ov
from clipmux.workers.decode import decode
from clipmux.workers.exact import Exact
from clipmux.workers.sources import video_at
from clipmux.workers.windows import windows

CLASSES = 5
CLIP = (3, 8, 40, 56)
"""Not 16 frames, and not square."""
MEAN, STD = (0.45, 0.44, 0.43), (0.225, 0.226, 0.227)


class Net(nn.Module):
    """A small clip network; ``head`` says how it ends, ``last`` that channels come last."""

    def __init__(self, head: str = "logits", *, last: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 6, 3, stride=(1, 2, 2), padding=1)
        self.fc = nn.Linear(6, CLASSES)
        self.head, self.last = head, last

    def forward(self, x: torch.Tensor) -> Any:
        x = x.permute(0, 4, 1, 2, 3) if self.last else x
        x = torch.relu(self.conv(x))
        if self.head in ("convolutional", "means of probabilities"):  # the head of X3D, and one that is not
            x = nn.functional.adaptive_avg_pool3d(x, 1) if self.head == "convolutional" else x
            x = self.fc(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3).softmax(1)
            return nn.functional.adaptive_avg_pool3d(x, 1).view(x.shape[0], -1)
        pooled = x.mean((2, 3, 4))
        if self.head == "mixed":
            pooled = pooled - pooled.mean(0)
        x = self.fc(pooled) * 8
        if self.head == "by hand":
            powers = x.exp()
            return powers / powers.sum(1, keepdim=True)
        ends = {
            "softmax": lambda: x.softmax(1),
            "log": lambda: x.log_softmax(1),
            "sigmoid": x.sigmoid,
            "reshape": lambda: self.fc(pooled.view(1, 2, 3).view(1, -1)),
            "tokens": lambda: self.fc(pooled.view(2, 3).view(1, 6)),
            "maps": lambda: x[:, :, None, None],
            "two outputs": lambda: (x, pooled),
            "nan": lambda: x / 0,
        }
        return ends.get(self.head, lambda: x)()


class TwoPaths(nn.Module):
    """Two inputs, as SlowFast has them."""

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)


def to_onnx(
    path: Path, network: nn.Module, *shapes: tuple[int, ...], free: tuple[int, ...] = (0,), opset: int = 11
) -> Path:
    """Export for zeros of ``shapes``; the axes ``free`` vary."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    inputs = [f"x{number}" for number in range(len(shapes))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            tuple(torch.zeros(shape) for shape in shapes),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            dynamic_axes={name: {axis: f"axis{axis}" for axis in free} for name in inputs} if free else None,
        )
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join("abcde"))
    return path


def imported(network: Path, labels: Path, **options: Any) -> ModelFolder:
    settings: dict[str, Any] = {"mean": MEAN, "std": STD, **options}
    return import_onnx(network, labels, labels.parent / "model", **settings)


def answers(network: Path, clips: Any) -> Any:
    return ov.Core().compile_model(str(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([clips])[0]


def random_clips(count: int, shape: tuple[int, ...] = CLIP) -> Any:
    return np.random.default_rng(1).standard_normal((count, *shape), dtype=np.float32)


# What the file says


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("last", [False, True])
def test_file_without_need_for_change_is_copied(last: bool, opset: int, labels: Path, tmp_path: Path) -> None:
    shape = (*CLIP[1:], 3) if last else CLIP
    network = to_onnx(tmp_path / "x3d_xs.onnx", Net(last=last), (1, *shape), opset=opset)
    model = imported(network, labels)
    assert model == read_model(tmp_path / "model")
    assert model.network_path.read_bytes() == network.read_bytes()
    assert (model.name, model.labels, model.clip_shape) == ("x3d_xs", tuple("abcde"), (8, 40, 56, 3))
    assert (model.layout, model.target) == ("NDHWC" if last else "NCDHW", "onnx")
    assert (model.mean, model.std) == (MEAN, STD)
    assert (model.provenance["imported"], model.provenance["changes"]) == ("x3d_xs.onnx", [])
    assert str(tmp_path) not in (model.path / "model.json").read_text()


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((None, 3, 16, 182, 224), {}, Geometry("NCDHW", 16, 182, 224, None)),
        ((4, 32, 224, 226, 3), {}, Geometry("NDHWC", 32, 224, 226, 4)),
        ((None, 3, None, None, None), {"frames": 4, "size": 160}, Geometry("NCDHW", 4, 160, 160, None)),
        ((None, 3, 4, None, None), {"size": (160, 170)}, Geometry("NCDHW", 4, 160, 170, None)),
        ((None, None, 4, 10, 12), {"layout": "NCDHW"}, Geometry("NCDHW", 4, 10, 12, None)),
        ((None, 4, 10, 12, None), {}, Geometry("NDHWC", 4, 10, 12, None)),
        ((1, 3, 8, 16, 3), {"layout": "NDHWC"}, Geometry("NDHWC", 3, 8, 16, 1)),
        ((1, 3, 8, 16, 3), {"layout": "NCDHW"}, Geometry("NCDHW", 8, 16, 3, 1)),
        ((1, 3, 8, 16, 16), {"frames": 8, "size": 16}, Geometry("NCDHW", 8, 16, 16, 1)),
    ],
)
def test_geometry_is_read(shape: Any, options: Any, expected: Geometry) -> None:
    assert find_geometry(shape, **options) == expected


@pytest.mark.parametrize(
    ("shape", "options", "error", "said"),
    [
        ((1, 3, 112, 112), {}, ModelError, r"takes \[1, 3, 112, 112\]: a clip model takes five axes"),
        ((1, 10, 3, 16, 112, 112), {}, ModelError, "five axes"),
        ((None, 16, 3, 112, 112), {}, ModelError, r"takes \[\?, 16, 3, 112, 112\]: RGB clips need 3 channels"),
        ((None, 1, 16, 112, 112), {}, ModelError, "3 channels"),
        ((None, 3, 16, 16, 3), {}, UsageError, "may be NCDHW or NDHWC: say --layout"),
        ((None, 3, 16, 16, 16), {"layout": "NDHWC"}, UsageError, "is not NDHWC"),
        ((None, 3, 16, 16, 16), {"layout": "NTHWC"}, UsageError, "layout is 'NTHWC'"),
        ((None, 3, None, 16, 16), {}, UsageError, "leaves the frames free: say --frames"),
        ((None, 3, 8, None, 16), {}, UsageError, "leaves the rows free: say --size"),
        ((None, 3, 8, 16, 16), {"frames": 9}, UsageError, "whose frames are 8, not 9: leave --frames out"),
        ((None, 3, 8, 16, 20), {"size": 16}, UsageError, "whose columns are 20, not 16: leave --size out"),
        ((None, 3, None, 16, 20), {"frames": 0}, UsageError, "with 0 frames: they are 1 to 4096"),
    ],
)
def test_geometry_is_refused(shape: Any, options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        find_geometry(shape, **options)


def test_free_sizes_are_asked_for(labels: Path, tmp_path: Path) -> None:
    network = to_onnx(tmp_path / "free.onnx", Net(), (1, *CLIP), free=(0, 2, 3, 4))
    with pytest.raises(UsageError, match="--frames"):
        imported(network, labels, size=48)
    assert not (tmp_path / "model").exists()
    model = imported(network, labels, frames=12, size=(48, 64), name="mine")
    assert (model.name, model.clip_shape) == ("mine", (12, 48, 64, 3))


def test_weights_in_another_file_are_taken_in(labels: Path, tmp_path: Path) -> None:
    plain = to_onnx(tmp_path / "plain.onnx", Net(), (1, *CLIP))
    split = tmp_path / "split.onnx"
    onnx.save(onnx.load(plain), str(split), save_as_external_data=True, location="split.data", size_threshold=0)
    assert (tmp_path / "split.data").is_file()
    model = imported(split, labels)
    assert sorted(path.name for path in model.path.iterdir()) == ["model.json", "model.onnx"]
    assert model.provenance["changes"] == ["weights taken in from a file beside it"]
    clips = random_clips(2)
    assert np.array_equal(answers(model.network_path, clips), answers(plain, clips))


# What is put right


@pytest.mark.parametrize(
    ("head", "batch", "opset"),
    [("logits", 1, 11), ("logits", 4, 17), ("reshape", 1, 11), ("reshape", 1, 17), ("convolutional", 4, 13)],
)
def test_fixed_batch_is_freed(head: str, batch: int, opset: int, labels: Path, tmp_path: Path) -> None:
    network = to_onnx(tmp_path / "fixed.onnx", Net(head), (batch, *CLIP), free=(), opset=opset)
    model = imported(network, labels)
    assert model.provenance["changes"][0] == f"batch freed, it was {batch}"
    onnx.checker.check_model(onnx.load(model.network_path))
    clips = random_clips(7)
    wanted = np.concatenate([answers(network, np.stack([clip] * batch))[:1] for clip in clips])
    got = answers(model.network_path, clips)
    assert np.abs((softmax(got) if head == "convolutional" else got) - wanted).max() < 1e-5


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("free", [(), (0,)])
@pytest.mark.parametrize("head", ["softmax", "convolutional"])
def test_softmax_is_taken_out(head: str, free: tuple[int, ...], opset: int, labels: Path, tmp_path: Path) -> None:
    network = to_onnx(tmp_path / "soft.onnx", Net(head), (1, *CLIP), free=free, opset=opset)
    model = imported(network, labels)
    assert model.provenance["changes"][-1] == "softmax at the end taken out, it gave probabilities"
    changed = onnx.load(model.network_path)
    onnx.checker.check_model(changed)
    assert "Softmax" not in {node.op_type for node in changed.graph.node}
    clips = random_clips(4)
    logits = answers(model.network_path, clips)
    wanted = np.concatenate([answers(network, clip[None]) for clip in clips])
    assert logits.min() < 0  # not probabilities
    assert np.abs(softmax(logits) - wanted).max() < 1e-6


def test_log_softmax_stays(labels: Path, tmp_path: Path) -> None:
    """A softmax of it is the same as of the logits."""
    network = to_onnx(tmp_path / "log.onnx", Net("log"), (1, *CLIP))
    assert imported(network, labels).provenance["changes"] == []


# What is refused


@pytest.mark.parametrize(
    ("head", "free", "said"),
    [
        ("maps", (0,), r"gives \[\?,5,1,1\]: a clip model gives one row of logits per clip"),
        ("two outputs", (0,), "has 1 inputs and 2 outputs"),
        ("sigmoid", (0,), "ends in a Sigmoid"),
        ("sigmoid", (), "ends in a Sigmoid"),
        ("by hand", (0,), "gives probabilities, and not by a Softmax"),
        ("means of probabilities", (0,), "its softmax is not the last thing it does"),
        ("tokens", (), "cannot be run with 3 clips in a batch: export it with a free batch"),
        ("mixed", (0,), "clips of a batch change each other"),
        ("nan", (0,), "no numbers"),
    ],
)
def test_network_is_refused(head: str, free: tuple[int, ...], said: str, labels: Path, tmp_path: Path) -> None:
    network = to_onnx(tmp_path / "bad.onnx", Net(head), (1, *CLIP), free=free)
    with pytest.raises(ModelError, match=said):
        imported(network, labels)
    assert not (tmp_path / "model").exists()


def test_two_inputs_are_refused(labels: Path, tmp_path: Path) -> None:
    network = to_onnx(tmp_path / "two.onnx", TwoPaths(), (1, 3, 2, 8, 8), (1, 3, 8, 8, 8))
    with pytest.raises(ModelError, match=r"2 inputs and 1 outputs \(\[\?,3,2,8,8\], \[\?,3,8,8,8\]"):
        imported(network, labels)


def test_other_types_are_refused(labels: Path, tmp_path: Path) -> None:
    kinds = {"x": onnx.TensorProto.FLOAT16, "y": onnx.TensorProto.FLOAT}
    ends = [
        onnx.helper.make_tensor_value_info(*end) for end in (("x", kinds["x"], ["n", *CLIP]), ("y", kinds["y"], None))
    ]
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["wide"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["wide"], ["y"], axes=[2, 3, 4], keepdims=0),
    ]
    graph = onnx.helper.make_graph(nodes, "half", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, str(tmp_path / "half.onnx"))
    with pytest.raises(ModelError, match=r"takes .* of type f16: export it with float32"):
        imported(tmp_path / "half.onnx", labels)


def test_labels_must_be_as_many_as_classes(labels: Path, tmp_path: Path) -> None:
    labels.write_text("a\nb\nc\nd")
    network = to_onnx(tmp_path / "net.onnx", Net(), (1, *CLIP))
    with pytest.raises(ModelError, match=r"gives \[\?,5\], which does not fit 4 labels"):
        imported(network, labels)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x07garbage" * 50])
def test_other_files_are_refused(content: bytes, labels: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad.onnx"):
        imported(tmp_path / "bad.onnx", labels)
    with pytest.raises(ModelError, match="no file"):
        imported(tmp_path / "nowhere.onnx", labels)
    assert not (tmp_path / "model").exists()
    assert capfd.readouterr() == ("", "")


def test_mean_needs_std(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without std"):
        imported(tmp_path / "net.onnx", labels, std=None)


def test_onnx_is_needed_only_for_changes(labels: Path, tmp_path: Path) -> None:
    free = to_onnx(tmp_path / "free.onnx", Net(), (1, *CLIP))
    fixed = to_onnx(tmp_path / "fixed.onnx", Net(), (1, *CLIP), free=())
    program = """
import sys
from pathlib import Path
sys.modules["onnx"] = sys.modules["torch"] = None  # as if they were not installed
from clipmux.build.import_onnx import import_onnx
from clipmux.engine.errors import UsageError
labels, output, *networks = map(Path, sys.argv[1:])
for network in networks:
    try:
        print(import_onnx(network, labels, output / network.stem, mean="0.5").name)
    except UsageError as error:
        print(error)
"""
    command = [sys.executable, "-c", program, labels, tmp_path / "models", free, fixed]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "free"
    assert second == (f"importing '{fixed}', which has a fixed batch to free, needs onnx: pip install 'clipmux[torch]'")


# The whole pipeline


@pytest.mark.parametrize("last", [False, True])
def test_run_feeds_the_network_its_own_geometry(last: bool, labels: Path, tmp_path: Path) -> None:
    """Clips of 8 frames of 40×56, windows of 8, both layouts: as one process computes it by hand."""
    shape = (*CLIP[1:], 3) if last else CLIP
    model = imported(to_onnx(tmp_path / "net.onnx", Net("softmax", last=last), (1, *shape), free=()), labels)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, (width, height) in enumerate([(96, 64), (64, 96), (56, 40)]):
        write_video(videos / f"{number}.mp4", moving(19 + number, width, height))
    done = clipmux(
        "run", videos, "--model", model.path, "--output", tmp_path / "run", "--stride", "6", "--preprocess", "exact"
    )
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "run")
    assert len(found) == 3
    for path in sorted(videos.iterdir()):
        scores = []
        for window in windows(decode(video_at(path)), length=8, stride=6, keep=Exact(40, 56)):
            pixels = np.stack(window.frames)
            assert pixels.shape == (8, 40, 56, 3)
            clip = ((pixels / 255 - MEAN) / STD).astype(np.float32)
            scores.append(softmax(answers(model.network_path, (clip if last else clip.transpose(3, 0, 1, 2))[None]))[0])
        wanted = dict(zip("abcde", np.mean(scores, axis=0), strict=True))
        for item in found[path.stem]:
            assert abs(item["score"] - wanted[item["label"]]) < 1e-5
