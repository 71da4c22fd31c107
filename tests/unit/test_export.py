"""From checkpoints, real and broken, to model folders that answer as the network does."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipmux.build.architectures import Architecture, build
from clipmux.build.checkpoint import read_checkpoint
from clipmux.build.export import NORMALISATIONS, export_checkpoint
from clipmux.build.recognise import Overrides, roundest_factor
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import read_model
from clipmux.engine.without_telemetry import ov

SMALL = Architecture("resnet", 10, classes=5, widen_factor=0.0625)
LABELS = ("fall", "jump", "sit", "walk", "wave")

ARCHITECTURES = [
    SMALL,
    dataclasses.replace(SMALL, depth=18, shortcut="A", conv1_t_size=3),
    dataclasses.replace(SMALL, depth=50),
    dataclasses.replace(SMALL, family="resnet2p1d"),
    dataclasses.replace(SMALL, depth=34, widen_factor=0.1),
    dataclasses.replace(SMALL, depth=50, shortcut="A"),
    dataclasses.replace(SMALL, family="resnet2p1d", depth=50, conv1_t_size=5),
]

Change = Callable[[dict[str, Any]], None]


def weights(architecture: Architecture) -> dict[str, Any]:
    """Seeded weights; the batch norms shift and scale, so that leaving one out would show."""
    torch.manual_seed(0)
    state_dict = build(architecture).state_dict()
    for key, value in state_dict.items():
        if "running_var" in key or (value.dim() == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1:
            value.normal_(0, 0.1)
    return state_dict


def save(path: Path, architecture: Architecture = SMALL, **fields: Any) -> Path:
    content = {"epoch": 3, "arch": architecture.name, "state_dict": weights(architecture), "optimizer": {}, **fields}
    torch.save(content, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "small.pth")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS))
    return path


def answers(network: Path, clips: Any) -> Any:
    return ov.Core().compile_model(str(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([clips])[0]


# Exporting


def test_exported_network_gives_the_references_logits(shared_data: Path, tmp_path: Path) -> None:
    golden = shared_data / "mini_kinetics"
    model = export_checkpoint(golden / "r3d10w025.pth", shared_data / "kinetics700_labels.txt", tmp_path / "model")
    assert (model.name, len(model.labels), model.provenance["epoch"]) == ("resnet-10", 700, 1)
    assert model.provenance["architecture"]["widen_factor"] == 0.25
    with np.load(golden / "expected" / "clips.npz") as expected:
        videos = [name.removesuffix("/logits") for name in expected.files if name.endswith("/logits")]
        assert len(videos) == 6
        pixels = np.stack([expected[f"{video}/last_clip_uint8"] for video in videos])
        wanted = np.stack([expected[f"{video}/logits"][-1] for video in videos])
    clips = ((pixels / 255 - model.mean) / model.std).astype(np.float32).transpose(0, 4, 1, 2, 3)
    assert np.abs(answers(model.network_path, clips) - wanted).max() <= 1e-4


@pytest.mark.parametrize(
    ("architecture", "overrides"),
    [
        *((architecture, None) for architecture in ARCHITECTURES[:4]),
        (dataclasses.replace(SMALL, max_pool=False), Overrides(no_max_pool=True)),
        (dataclasses.replace(SMALL, conv1_t_stride=2), Overrides(conv1_t_stride=2)),
    ],
)
def test_any_batch_is_answered_as_torch_does(
    architecture: Architecture, overrides: Overrides | None, labels: Path, tmp_path: Path
) -> None:
    path = save(tmp_path / "weights.pth", architecture)
    model = export_checkpoint(path, labels, tmp_path / "model", frames=8, size=48, overrides=overrides)
    network = build(architecture).eval()
    network.load_state_dict(weights(architecture))
    clips = torch.randn(5, 3, 8, 48, 48)
    with torch.inference_mode():
        expected = network(clips).numpy()
    seen = answers(model.network_path, clips.numpy())
    assert seen.shape == (5, 5)
    assert np.abs(seen - expected).max() <= 1e-4 * np.abs(expected).max()


def test_network_is_of_plain_operations_with_a_free_batch(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    model = export_checkpoint(checkpoint, labels, tmp_path / "model", frames=12, size=64)
    network = onnx.load(str(model.network_path))
    onnx.checker.check_model(network)
    assert [(entry.domain, entry.version) for entry in network.opset_import] == [("", 11)]
    kinds = {node.op_type for node in network.graph.node} - {"Constant"}
    assert kinds == {"Conv", "Relu", "MaxPool", "Add", "Reshape", "GlobalAveragePool", "Flatten", "Gemm"}
    (reshaped,) = (node for node in network.graph.node if node.op_type == "Reshape")
    constants = {node.output[0]: node.attribute[0].t for node in network.graph.node if node.op_type == "Constant"}
    assert onnx.numpy_helper.to_array(constants[reshaped.input[1]]).tolist() == [-1, 32, 1, 4]
    (clip,), (logits,) = network.graph.input, network.graph.output
    assert (clip.name, logits.name) == ("clip", "logits")
    assert [dim.dim_param or dim.dim_value for dim in clip.type.tensor_type.shape.dim] == ["n", 3, 12, 64, 64]
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["n", 5]


@pytest.mark.parametrize("depth", [18, 50])
def test_padding_of_a_shortcut_is_a_constant(depth: int, labels: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", dataclasses.replace(SMALL, depth=depth, shortcut="A"))
    network = onnx.load(str(export_checkpoint(path, labels, tmp_path / "model", frames=8, size=48).network_path))
    onnx.checker.check_model(network)
    kinds = {node.op_type for node in network.graph.node}
    pads = [node for node in network.graph.node if node.op_type == "Pad"]
    assert len(pads) == (3 if depth == 18 else 4)
    assert not kinds & {"Constant", "ConstantOfShape", "Concat", "Slice", "Transpose", "Cast"}
    constants = {tensor.name for tensor in network.graph.initializer}
    assert all({*node.input[1:]} - {""} <= constants for node in pads)


def test_folder_says_all_and_nothing_of_this_machine(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    model = export_checkpoint(checkpoint, labels, tmp_path / "new" / "model", frames=8, size=32)
    assert model == read_model(tmp_path / "new" / "model")
    assert sorted(path.name for path in model.path.iterdir()) == ["model.json", "model.onnx"]
    assert (model.name, model.labels, model.clip_shape) == ("resnet-10", LABELS, (8, 32, 32, 3))
    assert (model.layout, model.target, model.precision) == ("NCDHW", "onnx", "float32")
    assert (model.mean, model.std) == NORMALISATIONS["kinetics"]
    assert model.provenance["checkpoint"] == "small.pth"
    assert model.provenance["checkpoint_sha256"] == read_checkpoint(checkpoint).sha256
    assert model.provenance["architecture"] == dataclasses.asdict(SMALL)
    for path in model.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_nothing_is_printed_or_warned(
    checkpoint: Path, labels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_checkpoint(checkpoint, labels, tmp_path / "model", frames=8, size=32)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("activitynet", None, NORMALISATIONS["activitynet"]),
        ("0.5", None, NORMALISATIONS["0.5"]),
        ("kinetics", (1, 1, 1), (NORMALISATIONS["kinetics"][0], (1.0, 1.0, 1.0))),
        ("0.1,0.2,0.3", "0.4, 0.5, 0.6", ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
    ],
)
def test_normalisation_by_name_or_number(mean: Any, std: Any, expected: Any, checkpoint: Path, labels: Path) -> None:
    model = export_checkpoint(checkpoint, labels, labels.parent / "model", mean=mean, std=std, frames=8, size=32)
    assert (model.mean, model.std) == expected


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"mean": "imagenet"}, "'imagenet': give one of kinetics"),
        ({"mean": (0.5, 0.5, 0.5)}, "without std"),
        ({"mean": (0.5, 0.5), "std": "0.5"}, r"\(0.5, 0.5\)"),
        ({"mean": (0.5, 0.5, float("nan")), "std": "0.5"}, "nan"),
        ({"mean": "114.7,110,103", "std": "0.5"}, "divide"),
        ({"std": (0.5, 0, 0.5)}, "above 0"),
        ({"std": "a,b,c"}, "a,b,c"),
        ({"frames": 0}, "frames is 0"),
        ({"size": 5000}, "size is 5000"),
    ],
)
def test_bad_option_is_refused(
    options: dict[str, Any], quoted: str, checkpoint: Path, labels: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=quoted):
        export_checkpoint(checkpoint, labels, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_labels_must_be_as_many_as_classes(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    labels.write_text("\n".join(LABELS[:4]))
    with pytest.raises(ModelError, match=r"5 classes and .* 4 labels"):
        export_checkpoint(checkpoint, labels, tmp_path / "model")
    with pytest.raises(ModelError, match="nowhere"):
        export_checkpoint(checkpoint, tmp_path / "nowhere.txt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_taken_output_is_left_alone(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a file"):
        export_checkpoint(checkpoint, labels, labels, force=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        export_checkpoint(checkpoint, labels, other, force=True)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_only_force_replaces_a_model(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()  # an empty folder is free
    first = export_checkpoint(checkpoint, labels, output, frames=8, size=32)
    with pytest.raises(UsageError, match="force"):
        export_checkpoint(checkpoint, labels, output, frames=16, size=32)
    assert read_model(output) == first
    second = export_checkpoint(checkpoint, labels, output, frames=16, size=32, force=True)
    assert second.frames == read_model(output).frames == 16
    assert sorted(path.name for path in output.iterdir()) == ["model.json", "model.onnx"]


def test_network_that_answers_nan_leaves_nothing_behind(checkpoint: Path, labels: Path, tmp_path: Path) -> None:
    """A negative variance is finite and fits, and its root is not a number: only running the network shows it."""
    broken = weights(SMALL)
    broken["layer2.0.bn1.running_var"][0] = -1
    path = save(tmp_path / "broken.pth", state_dict=broken)
    with pytest.raises(ModelError, match="differs from torch by nan"):
        export_checkpoint(path, labels, tmp_path / "deep" / "model", frames=8, size=32)
    assert not (tmp_path / "deep").exists()
    good = export_checkpoint(checkpoint, labels, tmp_path / "model", frames=8, size=32)
    with pytest.raises(ModelError, match="differs from torch by nan"):
        export_checkpoint(path, labels, tmp_path / "model", frames=8, size=32, force=True)
    assert read_model(tmp_path / "model") == good
    assert sorted(path.name for path in good.path.iterdir()) == ["model.json", "model.onnx"]


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_without_torch_the_remedy_is_named(package: str) -> None:
    program = f"""
import sys
from pathlib import Path
sys.modules[{package!r}] = None  # as if it were not installed
from clipmux.build.export import export_checkpoint
from clipmux.engine.errors import UsageError
try:
    export_checkpoint(Path("c"), Path("l"), Path("o"))
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"reading a checkpoint needs {package}: pip install 'clipmux[torch]'\n"


# Recognising


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("arch", ["", "yes"])
def test_weights_tell_their_architecture(architecture: Architecture, arch: str, tmp_path: Path) -> None:
    path = save(tmp_path / "weights.pth", architecture, arch=architecture.name if arch else None)
    read = read_checkpoint(path)
    assert read.architecture == architecture
    assert (read.arch, read.epoch) == (architecture.name if arch else "", 3)


@pytest.mark.parametrize("k", [1, 2])
def test_wide_factor_is_told_from_planes(k: int, tmp_path: Path) -> None:
    wide = Architecture("wideresnet", 50, classes=2, k=k)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in build(wide).state_dict().items()}
    # One number expanded to a whole tensor: hundreds of MB of weights in a file of a few KB.
    small = {key: torch.tensor(0.5).expand(shape) for key, shape in shapes.items()}
    torch.save(small, tmp_path / "wide.pth")
    assert read_checkpoint(tmp_path / "wide.pth").architecture == wide


@given(st.floats(1 / 64, 8))
def test_widen_factor_gives_the_same_planes(factor: float) -> None:
    planes = [int(base * factor) for base in (64, 128, 256, 512)]
    assert [int(base * roundest_factor(planes)) for base in (64, 128, 256, 512)] == planes


@pytest.mark.parametrize(
    ("factor", "planes"),
    [(0.3, [19, 38, 76, 153]), (0.0625, [4, 8, 16, 32]), (0.25, [16, 32, 64, 128]), (2.0, [128, 256, 512, 1024])],
)
def test_widen_factor_is_a_round_number(factor: float, planes: list[int]) -> None:
    assert roundest_factor(planes) == factor


def test_forms_of_a_checkpoint_are_equal(tmp_path: Path) -> None:
    plain = weights(SMALL)
    forms: dict[str, Any] = {
        "bare": plain,
        "parallel": {"arch": "resnet-10", "state_dict": {f"module.{key}": value for key, value in plain.items()}},
        "double": {key: value.double() for key, value in plain.items()},
        "parameters": {key: torch.nn.Parameter(value, requires_grad=False) for key, value in plain.items()},
        "no counters": {key: value for key, value in plain.items() if "num_batches" not in key},
        "name of my own": {"arch": "my best net", "epoch": "last", "state_dict": plain},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / f"{name}.pth")
    torch.save(plain, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in (*forms, "old"):
        read = read_checkpoint(tmp_path / f"{name}.pth")
        assert read.architecture == SMALL
        assert read.epoch is None
        assert read.state_dict.keys() == plain.keys()
        assert all(torch.equal(read.state_dict[key], plain[key]) for key in plain if "num_batches" not in key)


def test_overrides_say_what_weights_cannot(checkpoint: Path) -> None:
    overrides = Overrides(conv1_t_stride=2, no_max_pool=True)
    expected = dataclasses.replace(SMALL, conv1_t_stride=2, max_pool=False)
    assert read_checkpoint(checkpoint, overrides=overrides).architecture == expected


@pytest.mark.parametrize(
    ("overrides", "quoted"),
    [
        (
            Overrides(family="resnet2p1d"),
            r"lacks 'conv1_s.weight' \[23, 3, 1, 7, 7\], which a resnet2p1d-10 of 5 classes",
        ),
        (Overrides(depth=18), r"lacks 'layer1.1.conv1.weight' \[4, 4, 3, 3, 3\]"),
        (Overrides(widen_factor=0.5), r"'conv1.weight' \[4, 3, 7, 7, 7\] where a resnet-10.*has \[32, 3, 7, 7, 7\]"),
        (Overrides(conv1_t_size=3), r"'conv1.weight' \[4, 3, 7, 7, 7\] where a resnet-10.*has \[4, 3, 3, 7, 7\]"),
        (Overrides(shortcut="A"), r"has 'layer2.0.downsample.0.weight' \[8, 4, 1, 1, 1\], which .* lacks"),
        (Overrides(family="densenet"), "densenet"),
        (Overrides(depth=0), "no depth 0"),
        (Overrides(conv1_t_stride=0), "conv1_t_stride is 0"),
    ],
)
def test_overrides_that_do_not_fit_are_refused(overrides: Overrides, quoted: str, checkpoint: Path) -> None:
    with pytest.raises(ModelError, match=quoted):
        read_checkpoint(checkpoint, overrides=overrides)


def test_name_and_weights_must_agree_unless_a_person_decides(tmp_path: Path) -> None:
    path = save(tmp_path / "renamed.pth", arch="resnext-101")
    with pytest.raises(ModelError, match=r"'resnext-101' and has the weights of resnet-10"):
        read_checkpoint(path)
    assert read_checkpoint(path, overrides=Overrides(family="resnet")).architecture == SMALL


# Refusing


def without(key: str) -> Change:
    return lambda state_dict: state_dict.pop(key)


def put(key: str, value: Any) -> Change:
    return lambda state_dict: state_dict.update({key: value})


def poison(key: str, value: float) -> Change:
    return lambda state_dict: state_dict[key].view(-1)[-1:].fill_(value)


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        (without("conv1.weight"), "no weights 'conv1.weight'"),
        (without("fc.weight"), "no weights 'fc.weight'"),
        (without("fc.bias"), r"lacks 'fc.bias' \[5\]"),
        (without("layer3.0.bn2.running_mean"), r"lacks 'layer3.0.bn2.running_mean' \[16\]"),
        (put("head.weight", torch.zeros(2, 2)), r"has 'head.weight' \[2, 2\]"),
        (put("layer4.1.conv1.weight", torch.zeros(1)), r"\(1, 1, 1, 2\) basic blocks"),
        (put("conv1.weight", torch.zeros(4, 3, 7, 7)), r"'conv1.weight' \[4, 3, 7, 7\] where"),
        (put("conv1.weight", torch.zeros(4, 1, 7, 7, 7)), r"'conv1.weight' \[4, 1, 7, 7, 7\] where"),
        (put("conv1.weight", torch.tensor(1.0)), "no weights 'conv1.weight'"),
        (put("layer1.0.conv2.weight", torch.zeros(0, 4, 3, 3, 3)), r"has 'layer1.0.conv2.weight' \[0, 4, 3, 3, 3\]"),
        (put("fc.weight", torch.zeros(0, 32)), "0 classes"),
        (put("fc.bias", torch.zeros(5, dtype=torch.int8)), "'fc.bias' as torch.int8"),
        (put("fc.bias", torch.zeros(5, device="meta")), "'fc.bias'.*on meta: .*plain float tensors"),
        (put("fc.weight", torch.zeros(5, 32).to_sparse()), "torch.sparse_coo"),
        (put("note", "mine"), "'note', of type str"),
        (put(3, torch.zeros(1)), "has 3, of type Tensor"),
        (poison("layer2.0.conv1.weight", float("nan")), "'layer2.0.conv1.weight'"),
        (poison("fc.bias", float("-inf")), "'fc.bias'"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Change, quoted: str, tmp_path: Path) -> None:
    state_dict = weights(SMALL)
    change(state_dict)
    path = save(tmp_path / "changed.pth", state_dict=state_dict)
    with pytest.raises(ModelError, match=quoted) as raised:
        read_checkpoint(path)
    assert str(path) in str(raised.value) or "0 classes" in quoted
    assert "\n" not in str(raised.value)


def test_overflow_of_float64_is_named(tmp_path: Path) -> None:
    state_dict = {key: value.double() for key, value in weights(SMALL).items()}
    state_dict["fc.bias"][0] = 1e300
    with pytest.raises(ModelError, match=r"infinity in 'fc[.]bias'"):
        read_checkpoint(save(tmp_path / "big.pth", state_dict=state_dict))


@pytest.mark.parametrize(
    ("content", "quoted"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({}, "no weights"),
        ({"state_dict": {}}, "no weights"),
        ({"state_dict": [1]}, "no weights"),
        ({"epoch": 1}, "'epoch', of type int"),
    ],
)
def test_something_else_than_weights_is_named(content: Any, quoted: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "else.pth")
    with pytest.raises(ModelError, match=quoted):
        read_checkpoint(tmp_path / "else.pth")


def test_files_that_are_no_checkpoint_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint.read_bytes()
    files = {
        "empty": b"",
        "text": b"Kinetics-700\nabseiling\n",
        "html": b"<!DOCTYPE html><title>404</title>",
        "truncated zip": whole[: len(whole) // 2],
        "barely truncated zip": whole[:-10],
        "another zip": b"PK\x05\x06" + bytes(18),
        "damaged zip": whole[:200] + bytes(200) + whole[400:],
        "truncated pickle": pickle.dumps({"state_dict": {}})[:-3],
        "pickle": pickle.dumps([1]),
        "zeros": bytes(1000),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelError) as raised:
            read_checkpoint(path)
        assert str(path) in str(raised.value)
        assert str(raised.value).isprintable()
    with pytest.raises(ModelError, match=r"cannot read the checkpoint '.*missing.pth' \(No such file"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(ModelError, match="is a folder"):
        read_checkpoint(tmp_path)


class Attack:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_code_in_a_checkpoint_is_named_and_never_run(form: str, labels: Path, tmp_path: Path) -> None:
    target, path = tmp_path / "attacked", tmp_path / "attack.pth"
    content = {"state_dict": weights(SMALL), "epoch": Attack(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Attack(target)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    expected = "not a readable checkpoint" if form == "pickle" else r"'posix[.]mkdir', which is code"
    with pytest.raises(ModelError, match=expected):
        export_checkpoint(path, labels, tmp_path / "model")
    assert not target.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())  # noqa: S301
    assert target.exists()  # it would have run
