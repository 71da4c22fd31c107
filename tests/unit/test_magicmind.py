"""Models for MagicMind, compiled and run in this process on the emulator in tests/emulator."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from emulated import EMULATOR, magicmind
from torch import nn

from clipmux.build.calibration import CalibrationSet
from clipmux.build.compile import PRECISIONS, compile_model
from clipmux.build.compile_magicmind import check
from clipmux.build.magicmind_options import MagicMindOptions
from clipmux.build.onnx_edits import flatten_global_pools
from clipmux.engine.backends import choose, open_backend
from clipmux.engine.backends.base import Backend
from clipmux.engine.device import Device
from clipmux.engine.errors import ClipmuxError, ModelError, UsageError
from clipmux.engine.model import ModelFolder, read_model, write_model

CLIP = (4, 16, 16, 3)
LABELS = tuple(f"class {number}" for number in range(10))
MEAN, STD = (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with one MLU."""
    for name in ("DEVICES", "ARCH", "CLUSTERS", "REMOTES", "FAIL"):
        monkeypatch.delenv(f"MAGICMIND_EMULATOR_{name}", raising=False)
    monkeypatch.delenv("MLU_VISIBLE_DEVICES", raising=False)
    with magicmind():
        yield


class Net(nn.Module):
    """A small clip network that starts with a convolution and ends with a 2-D pool, as exported ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.middle = nn.Conv3d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.middle(torch.relu(self.stem(x))))
        x = nn.functional.adaptive_avg_pool2d(x.reshape(-1, 16, 4, 64), 1)
        return self.fc(x.reshape(-1, 16))


def pixels(count: int, seed: int = 0) -> Array:
    """Smooth uint8 clips, each of colours of its own."""
    random = np.random.default_rng(seed)
    colour, contrast = random.uniform(40, 215, (count, 1, 1, 1, 3)), random.uniform(0, 40, (count, 1, 1, 1, 1))
    coarse = colour + contrast * random.uniform(-1, 1, (count, 2, 4, 4, 3))
    return coarse.repeat(2, 1).repeat(4, 2).repeat(4, 3).astype(np.uint8)


def answers(net: nn.Module, clips: Array) -> Array:
    """What the network says in torch to clips that are normalised in the reference's steps."""
    normalised = (clips.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    with torch.inference_mode():
        logits: Array = net(torch.from_numpy(np.ascontiguousarray(normalised.transpose(0, 4, 1, 2, 3)))).numpy()
    return logits


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """One whose answers differ from clip to clip: its last layer is normalised over many."""
    torch.manual_seed(0)
    network: Any = Net().eval().requires_grad_(False)
    logits = torch.from_numpy(answers(network, pixels(64, seed=100)))
    network.fc.weight.div_(logits.std(0)[:, None])
    network.fc.bias.sub_(logits.mean(0)).div_(logits.std(0))
    return network


@pytest.fixture(scope="module")
def source(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the network as ONNX."""
    folder = tmp_path_factory.mktemp("source")
    return exported(net, folder)


def exported(net: nn.Module, folder: Path, layout: str = "NCDHW") -> Path:
    shape = (1, 3, *CLIP[:3]) if layout == "NCDHW" else (1, *CLIP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(shape),),
            str(folder / "model.onnx"),
            dynamo=False,
            opset_version=11,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_axes={"clip": {0: "n"}, "logits": {0: "n"}},
        )
    frames, height, width, _ = CLIP
    model = ModelFolder(folder, "small", "model.onnx", LABELS, frames, height, width, layout, MEAN, STD)
    return write_model(model).path


def clips_to_calibrate(count: int = 128) -> CalibrationSet:
    return CalibrationSet(pixels(count, 1), [{"video": "made", "start": number} for number in range(count)])


def compiled(source: Path, output: Path, precision: str = "force_float32", **options: Any) -> ModelFolder:
    calibration = clips_to_calibrate() if precision.startswith("qint") else None
    return compile_model(
        source, output, target="magicmind", precision=precision, calibration=calibration, options=options
    )


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Compiled with nothing said but the precision."""
    with magicmind():
        return compiled(source, tmp_path_factory.mktemp("plain") / "model")


def opened(model: ModelFolder, device: str = "mlu:0", max_batch: int = 64) -> Backend:
    assert choose("auto", device, model.target) == "magicmind"
    return open_backend("magicmind", model, device=device, max_batch=max_batch, null_delay_ms=(0, 0))


def inferred(model: ModelFolder, *batches: Array, max_batch: int = 64) -> list[Array]:
    """One runner's answers, each the size that was asked for."""
    backend = opened(model, max_batch=max_batch)
    runner = backend.open_runner()
    logits = [runner.infer(clips) for clips in batches]
    runner.close()
    backend.close()
    assert [array.shape for array in logits] == [(len(clips), len(LABELS)) for clips in batches]
    assert {array.dtype for array in logits} == {np.dtype(np.float32)}
    return logits


def difference(got: Array, expected: Array) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


# Compiled and run


@pytest.mark.parametrize(
    ("precision", "most"),
    [
        ("force_float32", 1e-5),
        ("force_float16", 5e-3),
        ("qint8_mixed_float16", 0.1),
        ("qint8_mixed_float32", 0.1),
        ("qint16_mixed_float16", 5e-3),
        ("qint16_mixed_float32", 1e-3),
    ],
)
def test_every_precision(net: nn.Module, source: Path, tmp_path: Path, precision: str, most: float) -> None:
    model = compiled(source, tmp_path / "model", precision)
    assert (model.target, model.precision, model.network) == ("magicmind", precision, "model.magicmind")
    assert model.labels == LABELS
    assert model.compiled["config"]["precision_config"]["precision_mode"] == precision
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.json", "model.magicmind"}
    assert ("calibration" in model.provenance) == precision.startswith("qint")
    batches = [pixels(count, seed=count) for count in (5, 1, 64, 2)]
    for logits, clips in zip(inferred(model, *batches), batches, strict=True):
        assert difference(logits, answers(net, clips)) <= most
    if precision != "force_float32":
        assert difference(logits, answers(net, clips)) > 0  # it is not float32 under another name


def test_every_precision_is_tested() -> None:
    (mark,) = [mark for mark in test_every_precision.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert tuple(precision for precision, _ in mark.args[1]) == PRECISIONS["magicmind"]


def test_pixels_and_float_input_answer_alike(source: Path, plain: ModelFolder, tmp_path: Path) -> None:
    floats = compiled(source, tmp_path / "model", float_input=True)
    assert (plain.compiled["input"], floats.compiled["input"]) == ("uint8 NDHWC", "float32 NCDHW")
    assert "insert_bn_before_firstnode" in plain.compiled["config"]
    assert "insert_bn_before_firstnode" not in floats.compiled["config"]
    clips = pixels(9)
    (first,), (second,) = inferred(plain, clips), inferred(floats, clips)
    assert difference(first, second) <= 1e-3


@pytest.mark.parametrize("float_input", [False, True])
def test_fixed_batch_is_filled_up_and_cut(net: nn.Module, source: Path, tmp_path: Path, float_input: bool) -> None:
    model = compiled(source, tmp_path / "model", fixed_batch=6, float_input=float_input)
    assert (model.compiled["max_batch"], model.compiled["fixed_batch"]) == (6, 6)
    assert opened(model).preferred_batch == 6
    batches = [pixels(count, seed=count) for count in (6, 2, 1, 6)]
    for logits, clips in zip(inferred(model, *batches), batches, strict=True):
        assert difference(logits, answers(net, clips)) <= 1e-5
    assert difference(inferred(model, batches[1], max_batch=2)[0], answers(net, batches[1])) <= 1e-5


def test_what_the_device_is_given(
    source: Path, plain: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Array] = []
    from magicmind.python.runtime import Tensor

    take = Tensor.from_numpy

    def watched(tensor: Any, array: Array) -> Any:
        given.append(array.copy())
        return take(tensor, array)

    monkeypatch.setattr(Tensor, "from_numpy", watched)
    batches = [pixels(4), pixels(2)]
    inferred(plain, *batches)
    inferred(compiled(source, tmp_path / "model", fixed_batch=4), *batches)
    inferred(compiled(source, tmp_path / "other", fixed_batch=4, float_input=True), *batches)
    assert [array.dtype for array in given] == [np.uint8] * 4 + [np.float32] * 2  # nothing is cast on the way
    assert [len(array) for array in given] == [4, 2, 4, 4, 4, 4]
    assert np.array_equal(given[3][:2], batches[1])
    assert not given[3][2:].any()  # zeros, not what was there before
    assert not given[5][2:].any()


def test_never_more_than_the_model_declares(source: Path, plain: ModelFolder, tmp_path: Path) -> None:
    small = compiled(source, tmp_path / "model", max_batch=3)
    for model, asked, most in ((plain, 64, 64), (plain, 10, 10), (plain, 1000, 64), (small, 64, 3), (small, 2, 2)):
        backend = opened(model, max_batch=asked)
        assert (backend.max_batch, backend.preferred_batch) == (most, most)
        runner = backend.open_runner()
        for count in (0, most + 1):
            with pytest.raises(ClipmuxError, match=f"a batch of {count} clips .* 1 to {most}"):
                runner.infer(pixels(count))
        assert len(runner.infer(pixels(most))) == most


def test_network_that_takes_channels_last(net: nn.Module, tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.permute(0, 4, 1, 2, 3))

    (tmp_path / "source").mkdir()
    source = exported(Last().eval(), tmp_path / "source", layout="NDHWC")
    with pytest.raises(UsageError, match="--float-input"):
        compiled(source, tmp_path / "model")
    model = compiled(source, tmp_path / "model", "force_float16", float_input=True)
    assert model.compiled["input"] == "float32 NDHWC"
    assert difference(inferred(model, pixels(3))[0], answers(net, pixels(3))) <= 5e-3


def test_torchscript_answers_as_onnx_does(net: nn.Module, source: Path, plain: ModelFolder, tmp_path: Path) -> None:
    script = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.randn(5, 3, *CLIP[:3]), check_trace=False), str(script))
    model = compiled(source, tmp_path / "model", pytorch_pt=script)
    assert model.provenance["pytorch_pt"] == "net.pt"
    assert len(model.provenance["pytorch_pt_sha256"]) == 64
    assert difference(inferred(model, pixels(4))[0], inferred(plain, pixels(4))[0]) <= 1e-5
    with pytest.raises(ModelError, match=r"leave out --pytorch-pt"):
        compiled(source, tmp_path / "other", pytorch_pt=source / "model.onnx")


# Calibration


def test_quantised_model_agrees_in_the_first_class(net: nn.Module, source: Path, tmp_path: Path) -> None:
    clips = pixels(256, seed=9)
    right = answers(net, clips).argmax(1)
    for options in (
        {},
        {"weight_granularity": "per_axis"},
        {"activation_algorithm": "asymmetric"},
        {"calibration_algorithm": "eqnm"},
        {"fixed_batch": 48},  # 128 clips are two batches and two thirds
    ):
        model = compiled(source, tmp_path / str(options), "qint8_mixed_float16", **options)
        parts = inferred(model, *np.split(clips, 8))
        assert (np.concatenate(parts).argmax(1) == right).mean() >= 0.97, options


def test_ranges_come_from_the_clips(source: Path, tmp_path: Path) -> None:
    def answer(name: str, clips: Array) -> Array:
        calibration = CalibrationSet(clips, [])
        model = compile_model(
            source,
            tmp_path / name,
            target="magicmind",
            precision="qint8_mixed_float32",
            calibration=calibration,
            options={},
        )
        return inferred(model, pixels(8, seed=3))[0]

    grey = np.full((4, *CLIP), 105, np.uint8)
    first, again, narrow = answer("a", pixels(16)), answer("b", pixels(16)), answer("c", grey)
    assert np.array_equal(first, again)
    assert difference(narrow, first) > 0.2  # what lies outside of a grey clip's ranges is cut off
    last = answer("d", np.concatenate([grey, pixels(16)]))
    assert difference(last, first) < 0.05  # later clips count too


def test_calibration_on_a_device_elsewhere(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_DEVICES", "0")
    with pytest.raises(UsageError, match=r"needs an MLU.* --remote HOST:PORT"):
        compiled(source, tmp_path / "model", "qint8_mixed_float16")
    with pytest.raises(ClipmuxError, match=r"set_remote failed: .*10\.0\.0\.9"):
        compiled(source, tmp_path / "model", "qint8_mixed_float16", remote="10.0.0.9:9009")
    monkeypatch.setenv("MAGICMIND_EMULATOR_REMOTES", "10.0.0.9:9009")
    compiled(source, tmp_path / "model", "qint8_mixed_float16", remote="10.0.0.9:9009")
    compiled(source, tmp_path / "other")  # a model that is not quantised needs no device at all


# What is asked for


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "mtp_373"}, "--arch is 'mtp_373': it is one of mtp_220, .*mtp_592"),
        ({"arch": ["mtp_372", "MTP_592"]}, "--arch is 'MTP_592'"),
        ({"cluster": [2, 0]}, "--cluster is 0"),
        ({"fixed_batch": 65}, "--fixed-batch is 65: it is 1 to 64"),
        ({"fixed_batch": 0}, "--fixed-batch is 0"),
        ({"max_batch": 65}, "--max-batch is 65: it is 1 to 64"),
        ({"fixed_batch": 4, "max_batch": 8}, "give one of them"),
        ({"weight_granularity": "per_channel"}, "--weight-granularity is 'per_channel': .*per_axis"),
        ({"activation_algorithm": "both"}, "--activation-algorithm is 'both'"),
        ({"calibration_algorithm": "kl"}, "--calibration-algorithm is 'kl': it is one of linear, eqnm"),
        ({"calibration_algorithm": "eqnm", "activation_algorithm": "asymmetric"}, "eqnm needs symmetric"),
        ({"remote": "mlu.example.org"}, "--remote is 'mlu.example.org': write HOST:PORT"),
        ({"remote": "mlu.example.org:0"}, "write HOST:PORT"),
        ({"remote": ":9009"}, "write HOST:PORT"),
        ({"pytorch_pt": "missing.pt"}, "there is no file 'missing.pt'"),
        ({"config": "missing.json"}, "'missing.json' is not readable"),
        ({"clusters": [2]}, "no option 'clusters': it has arch, cluster"),
    ],
)
def test_options_that_cannot_be(
    source: Path, tmp_path: Path, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "parse:*")  # nothing may be started
    with pytest.raises(UsageError, match=said):
        compiled(source, tmp_path / "model", "qint8_mixed_float16", **options)
    with pytest.raises(UsageError, match=said):
        check(read_model(source), precision="qint8_mixed_float16", options=options)
    assert not (tmp_path / "model").exists()


def test_options_of_quantisation_are_for_quantised_models() -> None:
    for name, value in (("weight_granularity", "per_axis"), ("calibration_algorithm", "eqnm"), ("remote", "a:1")):
        assert MagicMindOptions.of("qint8_mixed_float16", {name: value})
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is for quantised"):
            MagicMindOptions.of("force_float16", {name: value})
    assert MagicMindOptions.of("force_float16", {"remote": None}).remote is None


def test_configuration_holds_what_was_asked_for(source: Path) -> None:
    model = read_model(source)
    first = MagicMindOptions.of("qint8_mixed_float16", {"arch": ["mtp_372", "mtp_592"], "cluster": [2, 6]})
    settings = first.settings(model)
    assert settings["archs"] == [{"mtp_372": [2, 6]}, {"mtp_592": [2, 6]}]
    assert settings["dim_range"] == {"0": {"min": [1, 3, 4, 16, 16], "max": [64, 3, 4, 16, 16]}}
    normalisation = settings["insert_bn_before_firstnode"]["0"]
    assert normalisation["mean"] == pytest.approx([110.7975, 103.3005, 96.2625])
    assert normalisation["var"] == pytest.approx([70.584**2, 69.1815**2, 69.7935**2])
    fixed = MagicMindOptions.of("force_float16", {"fixed_batch": 8}).settings(model)
    assert "dim_range" not in fixed
    assert fixed["graph_shape_mutable"] is False
    assert fixed["archs"] == ["mtp_372"]


def test_configuration_file_has_the_last_word(source: Path, tmp_path: Path) -> None:
    def file(content: Any) -> Path:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        return path

    fast = {"computation_preference": "fast", "opt_config": {"conv_scale_fold": False}, "archs": ["mtp_372", "tp_322"]}
    model = compiled(source, tmp_path / "model", config=file(fast))
    config = model.compiled["config"]
    assert config["computation_preference"] == "fast"
    assert config["opt_config"] == {"conv_scale_fold": False, "type64to32_conversion": True}
    assert model.compiled["archs"] == ["mtp_372", "tp_322"]
    for content, said in (
        ({"dim_range": {"0": {"max": [128, 3, 4, 16, 16]}}}, "has dim_range .*: --max-batch and --fixed-batch"),
        ({"precision_config": {"precision_mode": "force_float16"}}, "'force_float16': --precision decides it"),
        ({"graph_shape_mutable": False}, "--fixed-batch"),
        ({"insert_bn_before_firstnode": {"1": {}}}, "--float-input"),
        ({"no_such_key": 1}, "parse_from_string failed: .*no_such_key"),
        ([], "is not a JSON object"),
        ({"precision_config": 1}, "an object belongs there"),
    ):
        with pytest.raises(UsageError, match=said):
            compiled(source, tmp_path / "other", config=file(content))
    asymmetric = file({"precision_config": {"activation_quant_algo": "asymmetric"}})
    with pytest.raises(UsageError, match="eqnm needs symmetric"):
        MagicMindOptions.of("qint8_mixed_float16", {"calibration_algorithm": "eqnm", "config": asymmetric})


def test_network_that_magicmind_does_not_take(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "source"
    shutil.copytree(source, other)
    (other / "model.onnx").write_bytes(b"no network")
    write_model(read_model(other))
    with pytest.raises(ModelError, match=r"model.onnx' cannot be read as ONNX \("):
        compiled(other, tmp_path / "model")
    network = onnx.load(str(source / "model.onnx"))
    next(node for node in network.graph.node if node.op_type == "Relu").op_type = "Unheard"
    onnx.save(network, str(other / "model.onnx"))
    write_model(read_model(other))
    with pytest.raises(ModelError, match=r"cannot read '.*model.onnx' \(MagicMind's parse failed: .*Unheard"):
        compiled(other, tmp_path / "model")

    (other / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    described = json.loads((other / "model.json").read_text())
    described.update(classes=3, labels=["a", "b", "c"])
    (other / "model.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match=r"gives float32 \[-1, 10\] where its model.json describes float32 \[-1, 3\]"):
        compiled(other, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Pooled(nn.Module):
    """Ends as imported networks do, by a 3-D pool over all of time and space in one of three forms."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.squeeze, self.excite = nn.Conv3d(8, 4, 1), nn.Conv3d(4, 8, 1)  # X3D pools inside its blocks too
        self.fc = nn.Linear(8, len(LABELS))
        self.form = form

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "global":
            return nn.functional.adaptive_avg_pool3d(x, 1)
        if self.form == "mean":
            return x.mean((2, -2, -1), keepdim=True)
        return nn.functional.avg_pool3d(x, (CLIP[0], 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(self.pool(x)))))
        if self.form == "mean":
            return self.fc(x.mean((2, 3, 4)))
        return self.fc(self.pool(x).flatten(1))


@pytest.mark.parametrize("form", ["global", "mean", "average"])
def test_pools_over_time_and_space_are_flattened_for_the_parser(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Pooled(form).eval().requires_grad_(False)
    (tmp_path / "source").mkdir()
    folder = exported(net, tmp_path / "source")
    network = onnx.load(str(folder / "model.onnx"))
    assert flatten_global_pools(network, (3, *CLIP[:3])) == 2
    assert [node.op_type for node in network.graph.node].count("GlobalAveragePool") == 2
    onnx.checker.check_model(network)
    assert flatten_global_pools(network, (3, *CLIP[:3])) == 0  # those it has now are 2-D
    model = compiled(folder, tmp_path / "model")
    assert sorted(path.name for path in model.path.iterdir()) == ["model.json", "model.magicmind"]
    clips = pixels(5)
    assert difference(inferred(model, clips)[0], answers(net, clips)) <= 1e-5


def test_pools_over_a_part_are_left_alone(tmp_path: Path) -> None:
    class Parts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.avg_pool3d(x, (CLIP[0], 8, 8))
            return x.mean((3, 4)).mean((1, 2), keepdim=True)

    network = onnx.load(str(exported(Parts(), tmp_path) / "model.onnx"))
    before = network.SerializeToString()
    assert flatten_global_pools(network, (3, *CLIP[:3])) == 0
    assert network.SerializeToString() == before


# Opening


def test_machine_without_magicmind(
    source: Path, plain: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "magicmind"]:
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(EMULATOR)])
    said = r"needs Cambricon's MagicMind runtime, which comes with Neuware \(pip cannot install it\)"
    with pytest.raises(UsageError, match=said):
        opened(plain)
    with pytest.raises(UsageError, match=said):
        compiled(source, tmp_path / "model")
    with pytest.raises(UsageError, match=said):
        check(read_model(source), precision="force_float16", options={})


def test_devices_that_are_not_there(plain: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no device 'cpu': use --device mlu:0"):
        open_backend("magicmind", plain, device="cpu", max_batch=1, null_delay_ms=(0, 0))
    with pytest.raises(UsageError, match="no device 'mlu:1': it has 1"):
        opened(plain, "mlu:1")
    monkeypatch.setenv("MAGICMIND_EMULATOR_DEVICES", "2")
    opened(plain, "mlu:1").close()
    monkeypatch.setenv("MLU_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match="no device 'mlu:0': cnmon"):
        opened(plain)


def test_models_that_do_not_load(
    source: Path, plain: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"is not compiled for MagicMind: .*clipmux build compile"):
        open_backend("magicmind", read_model(source), device="mlu:0", max_batch=8, null_delay_ms=(0, 0))
    broken = tmp_path / "broken"
    shutil.copytree(plain.path, broken)
    (broken / "model.magicmind").write_bytes(b"of another version")
    with pytest.raises(ModelError, match=r"does not load \(MagicMind's deserialize_from_file failed.*compile it again"):
        opened(read_model(broken))
    monkeypatch.setenv("MAGICMIND_EMULATOR_ARCH", "mtp_592")
    with pytest.raises(ModelError, match=r"does not run on 'mlu:0' \(MagicMind's create_i_engine gave None.*mtp_372"):
        opened(plain)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_batch", 65, "max_batch 65"),
        ("max_batch", None, "max_batch None"),
        ("fixed_batch", 8, "fixed_batch 8"),
        ("input", "uint8 NCDHW", "input 'uint8 NCDHW'"),
        ("input", "float32 NCDHW", r"takes uint8 \[-1, 4, 16, 16, 3\] where .* float32 \[-1, 3, 4, 16, 16\]"),
    ],
)
def test_model_json_that_contradicts_the_model(
    plain: ModelFolder, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    shutil.copytree(plain.path, tmp_path / "model")
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    described["compiled"][key] = value
    (tmp_path / "model" / "model.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match=said):
        opened(read_model(tmp_path / "model"))


def test_closed_and_opened_again(net: nn.Module, plain: ModelFolder) -> None:
    def queues() -> int:
        return sum(thread.name == "magicmind-queue" for thread in threading.enumerate())

    before = queues()
    for _ in range(3):
        device: Device[int] = Device(opened(plain), CLIP)
        assert queues() == before + 2
        assert difference(gathered(device, [pixels(3)])[0], softmax(answers(net, pixels(3)))) <= 1e-5
        device.close()
        deadline = time.monotonic() + 5
        while queues() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert queues() == before


# Running, with a thread to each runner


def softmax(logits: Array) -> Array:
    powers: Array = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def gathered(device: Device[int], batches: list[Array]) -> list[Array]:
    """The scores of batches, in their order."""
    done: dict[int, Array] = {}
    waiting = list(enumerate(batches))
    deadline = time.monotonic() + 30
    while len(done) < len(batches):
        while waiting and device.free:
            number, clips = waiting.pop(0)
            device.submit(list(clips), number)
        done.update({result.tag: result.scores for result in device.finished()})
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return [done[number] for number in range(len(batches))]


def test_computing_is_told_apart_from_copies(plain: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "compute:*:delay=0.2")
    backend = opened(plain)
    phases = backend.open_runner().phases(pixels(2))
    backend.close()
    assert phases.compute >= 0.2
    assert 0 < phases.host_to_device < phases.compute
    assert 0 < phases.device_to_host < phases.compute


def test_two_runners_work_at_the_same_time(net: nn.Module, plain: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "compute:*:delay=0.2")
    backend = opened(plain)
    assert backend.runners == 2
    device: Device[int] = Device(backend, CLIP)
    batches = [pixels(1 + number % 5, seed=number) for number in range(8)]
    start = time.monotonic()
    scores = gathered(device, batches)
    took = time.monotonic() - start
    device.close()
    for got, clips in zip(scores, batches, strict=True):
        assert difference(got, softmax(answers(net, clips))) <= 1e-5
    assert 0.8 <= took < 1.6  # which 8 batches of 0.2 s take one after another


COMPILING = {
    "parse": ModelError,
    "build_model": ModelError,
    "calibrate": ClipmuxError,
    "active": ClipmuxError,
    "serialize_to_file": ClipmuxError,
}
OPENING = {
    "deserialize_from_file": ModelError,
    "create_i_engine": ModelError,
    "active": ClipmuxError,
    "create_queue": ClipmuxError,
    "create_i_context": ClipmuxError,
    "create_inputs": ClipmuxError,
}


@pytest.mark.parametrize("point", COMPILING)
def test_faults_while_compiling(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", f"{point}:1")
    with pytest.raises(ClipmuxError, match=rf"MagicMind's {point} (failed: |gave None)") as raised:
        compiled(source, tmp_path / "model", "qint8_mixed_float16")
    assert type(raised.value) is COMPILING[point]
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()
    compiled(source, tmp_path / "model", "qint8_mixed_float16")  # the second time it works


@pytest.mark.parametrize("point", OPENING)
def test_faults_while_opening(plain: ModelFolder, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", f"{point}:1")
    with pytest.raises(ClipmuxError, match=rf"MagicMind's {point} (failed: |gave None)") as raised:
        opened(plain).open_runner()
    assert type(raised.value) is OPENING[point]
    assert "\n" not in str(raised.value)
    opened(plain).open_runner()


@pytest.mark.parametrize(
    ("point", "call"),
    [
        ("active", "active"),
        ("from_numpy", "from_numpy"),
        ("to", "to"),
        ("enqueue", "enqueue"),
        ("sync", "sync"),
        ("compute", "sync"),
    ],
)
def test_faults_while_running(plain: ModelFolder, monkeypatch: pytest.MonkeyPatch, point: str, call: str) -> None:
    device: Device[int] = Device(opened(plain), CLIP)
    gathered(device, [pixels(2), pixels(2)])
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", f"{point}:2")
    with pytest.raises(
        ClipmuxError, match=rf"^the magicmind backend failed on 'mlu:0': MagicMind's {call} failed: \w+: "
    ) as raised:
        gathered(device, [pixels(2), pixels(2)])
    assert "\n" not in str(raised.value)
    device.close()


def test_device_that_raises(plain: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(plain)
    runner = backend.open_runner()
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "enqueue:*:nonsense")
    with pytest.raises(ClipmuxError, match="MagicMind's enqueue raised ValueError: "):
        runner.infer(pixels(1))


def test_fault_points_are_all_tested() -> None:
    from magicmind.python.runtime.faults import POINTS

    (mark,) = [mark for mark in test_faults_while_running.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    tested = {*COMPILING, *OPENING, *(point for point, _ in mark.args[1])}
    assert tested == POINTS - {"create_outputs"}  # which is never called
