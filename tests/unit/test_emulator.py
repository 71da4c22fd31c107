"""The MagicMind emulator, by programs written as public ones are: build, calibrate, serialise, deserialise, run."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from old_python import old_python
from torch import nn

EMULATOR = Path(__file__).resolve().parent.parent / "emulator"
SHAPE = (3, 4, 16, 16)
CLASSES = 10
MEAN, STD = (110.8, 103.3, 96.3), (70.6, 69.2, 69.8)
LIMITS = {"0": {"min": [1, *SHAPE], "max": [8, *SHAPE]}}


@pytest.fixture(scope="module")
def mm() -> Iterator[Any]:
    """The emulated ``magicmind.python.runtime``, importable for these tests only."""
    sys.path.insert(0, str(EMULATOR))
    try:
        importlib.import_module("magicmind.python.runtime.parser")  # which programs import beside it
        yield importlib.import_module("magicmind.python.runtime")
    finally:
        sys.path.remove(str(EMULATOR))
        for name in [name for name in sys.modules if name.partition(".")[0] == "magicmind"]:
            del sys.modules[name]


@pytest.fixture
def device(mm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A device, active in this thread; after the test none is, and no environment is left."""
    for name in ("DEVICES", "ARCH", "CLUSTERS", "REMOTES", "FAIL"):
        monkeypatch.delenv(f"MAGICMIND_EMULATOR_{name}", raising=False)
    monkeypatch.delenv("MLU_VISIBLE_DEVICES", raising=False)
    machine = importlib.import_module("magicmind.python.runtime.machine")
    monkeypatch.setattr(machine, "_current", threading.local())
    chosen = mm.Device()
    chosen.id = 0
    assert chosen.active().ok()
    return chosen


class Net(nn.Module):
    """A residual clip network that ends as the 3D-ResNet sample's does: its pool is 2-D, over [t, h*w]."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(8)
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        self.left = nn.Conv3d(8, 16, 3, padding=1)
        self.right = nn.Conv3d(8, 16, 1)
        self.mean = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, CLASSES)
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.stem(x)) * self.gain))
        x = torch.relu(self.left(x) + self.right(x))
        x = x.view((x.shape[0], x.shape[1], x.shape[2], x.shape[3] * x.shape[4]))
        x = self.mean(x).unsqueeze(-1)
        return self.fc(x.view(x.size(0), -1))


def make(net: Callable[[], nn.Module] = Net) -> nn.Module:
    torch.manual_seed(0)
    network = net().eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif "running_mean" in name or name.endswith("bias"):
            tensor.normal_(0, 0.1)
    return network


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """One whose answers differ from clip to clip: its last layer is normalised over many."""
    network: Any = make()
    logits = torch.from_numpy(expected(network, clips(64, seed=100)))
    spread = logits.std(0)
    network.fc.weight.div_(spread[:, None])
    network.fc.bias.sub_(logits.mean(0)).div_(spread)
    return network


def to_onnx(network: nn.Module, path: Path, *, free: bool = True, shape: tuple[int, ...] = SHAPE) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            str(path),
            dynamo=False,
            opset_version=11,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_axes={"clip": {0: "n"}, "logits": {0: "n"}} if free else None,
        )
    return str(path)


def to_script(network: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, torch.randn(5, *SHAPE), check_trace=False), str(path))
    return str(path)


@pytest.fixture(scope="module")
def onnx_path(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return to_onnx(net, tmp_path_factory.mktemp("onnx") / "net.onnx")


@pytest.fixture(scope="module")
def script_path(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    return to_script(net, tmp_path_factory.mktemp("script") / "net.pt")


def pixels(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Smooth uint8 clips [n, T, H, W, C], each of colours of its own."""
    random = np.random.default_rng(seed)
    colour, contrast = random.uniform(40, 215, (count, 1, 1, 1, 3)), random.uniform(0, 40, (count, 1, 1, 1, 1))
    coarse = colour + contrast * random.uniform(-1, 1, (count, 2, 4, 4, 3))
    return coarse.repeat(2, 1).repeat(4, 2).repeat(4, 3).astype(np.uint8)


def clips(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """The same, normalised, float32 [n, C, T, H, W]."""
    normalised = (pixels(count, seed).astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(normalised.transpose(0, 4, 1, 2, 3))


def expected(network: nn.Module, inputs: np.ndarray[Any, Any]) -> Any:
    with torch.inference_mode():
        return network(torch.from_numpy(inputs)).numpy()


def parsed(mm: Any, path: str) -> Any:
    """A network as the sample makes it: parsed, its shape set, its batch set again from what it says."""
    parser_class = importlib.import_module("magicmind.python.runtime.parser").Parser
    kind = mm.ModelKind.kPytorch if path.endswith(".pt") else mm.ModelKind.kOnnx
    parser = parser_class(kind)
    network = mm.Network()
    if kind is mm.ModelKind.kPytorch:
        assert parser.set_model_param("pytorch-input-dtypes", [mm.DataType.FLOAT32]).ok()
    assert parser.parse(network, path).ok()
    assert network.get_input_count() == network.get_output_count() == 1
    tensor = network.get_input(0)
    assert tensor.set_dimension(mm.Dims([2, *SHAPE])).ok()
    dims = tensor.get_dimension().GetDims()
    dims[0] = 1
    assert tensor.get_dimension().GetDims()[0] == 2  # the list was one of our own
    assert tensor.set_dimension(mm.Dims(dims)).ok()
    return network


def configured(mm: Any, precision: str = "force_float32", **more: Any) -> Any:
    """A configuration as the sample makes it, text by text, and ``more`` at the end."""
    config = mm.BuilderConfig()
    config.mlu_archs = ["mtp_372"]
    texts: list[dict[str, Any]] = [{"precision_config": {"precision_mode": precision}}]
    if precision.startswith("qint"):
        texts.append({"precision_config": {"weight_quant_granularity": "per_tensor"}})
        texts.append({"precision_config": {"activation_quant_algo": "symmetric"}})
    texts.append({"archs": [{"mtp_372": [2, 6, 8]}]})
    texts.append({"graph_shape_mutable": True})
    texts.append({"dim_range": LIMITS})
    texts.append({"computation_preference": "auto"})
    texts.append({"opt_config": {"type64to32_conversion": True}})
    texts.append({"opt_config": {"conv_scale_fold": True}})
    for text in [*texts, more]:
        status = config.parse_from_string(json.dumps(text))
        assert status.ok(), status
    return config


def samples_of(mm: Any, batches: list[Any], **overrides: Any) -> Any:
    """Calibration samples, one batch after another."""

    class Samples(mm.CalibDataInterface):
        def __init__(self) -> None:
            super().__init__()
            self.at = -1
            self.resets = 0

        def get_shape(self) -> Any:
            return mm.Dims(batches[self.at].shape)

        def get_data_type(self) -> Any:
            return mm.DataType.FLOAT32

        def get_sample(self) -> Any:
            return batches[self.at]

        def next(self) -> Any:
            self.at += 1
            return mm.Status.OK() if self.at < len(batches) else mm.Status(mm.Code.OUT_OF_RANGE, "end of samples")

        def reset(self) -> Any:
            self.at = -1
            self.resets += 1
            return mm.Status.OK()

    for name, function in overrides.items():
        setattr(Samples, name, function)
    return Samples()


def calibrated(mm: Any, network: Any, config: Any, batches: list[Any], algorithm: str = "LINEAR") -> Any:
    calibrator = mm.Calibrator([samples_of(mm, batches)])
    assert calibrator.set_quantization_algorithm(mm.QuantizationAlgorithm[f"{algorithm}_ALGORITHM"]).ok()
    with mm.System() as system:
        assert system.device_count() == 1
        device = mm.Device()
        device.id = 0
        assert device.active().ok()
    return calibrator.calibrate(network, config)  # after the System block, as in the sample


class Runner:
    """A model on a device: an engine, a context, a queue and inputs."""

    def __init__(self, mm: Any, model: Any) -> None:
        self.mm, self.model = mm, model
        with mm.System() as system:
            assert system.device_count() >= 1
            self.device = mm.Device()
            self.device.id = 0
            assert self.device.active().ok()
            config = mm.Model.EngineConfig()
            config.device_type = "MLU"
            self.engine = model.create_i_engine(config)
            assert self.engine is not None
            self.context = self.engine.create_i_context()
            self.queue = self.device.create_queue()
            self.inputs = self.context.create_inputs()

    def start(self, array: Any, outputs: list[Any]) -> Any:
        status = self.inputs[0].from_numpy(array)
        assert status.ok(), status
        self.inputs[0].to(self.device)
        return self.context.enqueue(self.inputs, outputs, self.queue)

    def __call__(self, array: Any) -> Any:
        outputs: list[Any] = []
        status = self.start(array, outputs)
        assert status.ok(), status
        assert self.queue.sync().ok()
        assert len(outputs) == self.model.get_output_num()
        return outputs[0].asnumpy()


def built(mm: Any, path: str, precision: str = "force_float32", **more: Any) -> Any:
    """A model through a file, calibrated where it has to be."""
    network, config = parsed(mm, path), configured(mm, precision, **more)
    if precision.startswith("qint"):
        assert calibrated(mm, network, config, [clips(128, 1), clips(128, 2)]).ok()
    model = mm.Builder().build_model("magicmind_model_name", network, config)
    assert isinstance(model, mm.Model)
    file = Path(path).with_suffix(".model")
    assert model.serialize_to_file(str(file)).ok()
    again = mm.Model()
    assert again.deserialize_from_file(str(file)).ok()
    return again


# Programs as they are written


def test_names_that_public_programs_import(mm: Any) -> None:
    cc = importlib.import_module("magicmind.python.cc._pywrap_runtime")
    enums = importlib.import_module("magicmind.python.cc._pywrap_runtime.enums")
    types = importlib.import_module("magicmind.python.common.types")
    assert importlib.import_module("magicmind.python.runtime.model").Model is mm.Model
    assert mm.parser.Parser is importlib.import_module("magicmind.python.runtime.parser").Parser
    assert enums.DataType is mm.DataType
    assert cc.ITensor is mm.ITensor
    names = [*(f"FLOAT{n}" for n in (16, 32, 64)), *(f"INT{n}" for n in (8, 16, 32, 64))]
    names += ["UINT8", "UINT16", "UINT32", "BOOL", "QINT8", "QINT16"]
    assert {kind.name for kind in mm.DataType} == set(names)
    for kind in {*mm.DataType} - {mm.DataType.QINT8, mm.DataType.QINT16}:
        assert types.get_datatype_by_numpy(np.dtype(types.get_numpy_dtype_by_datatype(kind))) is kind
    assert {kind.name for kind in mm.ModelKind} == {"kPytorch", "kOnnx", "kCaffe", "kTensorflow"}
    assert mm.QuantizationAlgorithm.EQNM_ALGORITHM is not mm.QuantizationAlgorithm.LINEAR_ALGORITHM


@pytest.mark.parametrize("form", ["script_path", "onnx_path"])
@pytest.mark.parametrize(
    ("precision", "most"),
    [("force_float32", 1e-5), ("force_float16", 5e-3), ("qint8_mixed_float16", 0.1), ("qint16_mixed_float32", 1e-3)],
)
def test_build_and_run_as_the_sample_does(
    mm: Any, device: Any, net: nn.Module, form: str, precision: str, most: float, request: pytest.FixtureRequest
) -> None:
    model = built(mm, request.getfixturevalue(form), precision)
    assert [dims.GetDims() for dims in model.get_input_dimensions()] == [[-1, *SHAPE]]
    assert [dims.GetDims() for dims in model.get_output_dimensions()] == [[-1, CLASSES]]
    assert model.get_input_data_types() == model.get_output_data_types() == [mm.DataType.FLOAT32]
    assert len(model.get_input_names()) == len(model.get_output_names()) == model.get_input_num() == 1
    run = Runner(mm, model)
    for count in (5, 1, 8):
        inputs = clips(count, seed=3)
        answer, right = run(inputs), expected(net, inputs)
        assert answer.dtype == np.float32
        assert answer.flags.c_contiguous
        difference = np.abs(answer - right).max() / np.abs(right).max()
        assert difference <= most
        assert precision == "force_float32" or difference > 0  # it is not float32 under another name


def test_quantised_answers_agree_in_their_first_class(mm: Any, device: Any, net: nn.Module, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path, "qint8_mixed_float16"))
    inputs = clips(64, seed=5)
    answers = np.concatenate([run(inputs[at : at + 8]) for at in range(0, 64, 8)])
    right = expected(net, inputs)
    assert (answers.argmax(1) == right.argmax(1)).mean() >= 0.9
    assert len(set(right.argmax(1))) > 2


def test_exported_model_folder_runs(mm: Any, device: Any, tmp_path: Path) -> None:
    """What our own exporter writes, at its real clip size, against torch."""
    from clipmux.build.architectures import Architecture, build
    from clipmux.build.export import export_checkpoint

    torch.manual_seed(0)
    network = build(Architecture("resnet", 10, classes=CLASSES, widen_factor=0.125))
    torch.save({"arch": "resnet-10", "state_dict": network.state_dict()}, tmp_path / "r3d10.pth")
    (tmp_path / "labels.txt").write_text("\n".join(f"class {index}" for index in range(CLASSES)))
    folder = export_checkpoint(tmp_path / "r3d10.pth", tmp_path / "labels.txt", tmp_path / "model")
    shape = (3, 16, 112, 112)
    network_of = parsed_like(mm, str(folder.network_path), shape)
    limits = {"0": {"min": [1, *shape], "max": [64, *shape]}}
    config = mm.BuilderConfig()
    assert config.parse_from_string(json.dumps({"graph_shape_mutable": True, "dim_range": limits})).ok()
    run = Runner(mm, mm.Builder().build_model("r3d10", network_of, config))
    inputs = np.random.default_rng(0).standard_normal((3, *shape), dtype=np.float32)
    assert np.abs(run(inputs) - expected(network.eval(), inputs)).max() < 1e-4


def parsed_like(mm: Any, path: str, shape: tuple[int, ...]) -> Any:
    network = mm.Network()
    assert mm.parser.Parser(mm.ModelKind.kOnnx).parse(network, path).ok()
    assert network.get_input(0).set_dimension(mm.Dims((1, *shape))).ok()
    return network


def test_pixels_normalised_on_the_device_equal_normalised_floats(
    mm: Any, device: Any, net: nn.Module, onnx_path: str
) -> None:
    more = {
        "convert_input_layout": {"0": {"src": "NCDHW", "dst": "NDHWC"}},
        "insert_bn_before_firstnode": {"0": {"mean": list(MEAN), "var": [value**2 for value in STD]}},
    }
    model = built(mm, onnx_path, **more)
    assert model.get_input_data_type(0) is mm.DataType.UINT8
    assert model.get_input_dimension(0).GetDims() == [-1, 4, 16, 16, 3]
    run = Runner(mm, model)
    answer, right = run(pixels(4, seed=7)), expected(net, clips(4, seed=7))
    assert np.abs(answer - right).max() < 1e-3
    assert np.abs(run(pixels(4, seed=7).astype(np.float32)) - right).max() < 1e-3  # cast to what the input is
    more["insert_bn_before_firstnode"] = {"0": {"mean": list(MEAN), "var": list(STD)}}
    wrong = Runner(mm, built(mm, onnx_path, **more))
    assert np.abs(wrong(pixels(4, seed=7)) - right).max() > 0.1  # std is not var


def test_quantised_pixels(mm: Any, device: Any, net: nn.Module, script_path: str) -> None:
    """Calibration samples are normalised floats in the network's layout, whatever the build makes of its input."""
    model = built(
        mm,
        script_path,
        "qint8_mixed_float16",
        convert_input_layout={"0": {"src": "NCDHW", "dst": "NDHWC"}},
        insert_bn_before_firstnode={"0": {"mean": list(MEAN), "var": [value**2 for value in STD]}},
    )
    answer, right = Runner(mm, model)(pixels(8, seed=9)), expected(net, clips(8, seed=9))
    assert np.abs(answer - right).max() / np.abs(right).max() < 0.1


def test_half_precision_overflows_as_half_does(mm: Any, device: Any, tmp_path: Path) -> None:
    path = to_onnx(make(lambda: Net(gain=1e6)), tmp_path / "loud.onnx")
    assert np.isfinite(Runner(mm, built(mm, path))(clips(1))).all()
    assert not np.isfinite(Runner(mm, built(mm, path, "force_float16"))(clips(1))).all()


OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pools": lambda x: nn.functional.avg_pool3d(nn.functional.max_pool3d(x, (1, 3, 3), 2, (0, 1, 1)), 2, 2, 1),
    "uneven pads": lambda x: nn.functional.max_pool3d(nn.functional.pad(x, (0, 1, 2, 0, 1, 1), value=0.5), 2),
    "reflect": lambda x: nn.functional.pad(x[:, 0], (2, 1, 0, 3), mode="reflect"),
    "2-D": lambda x: nn.functional.conv2d(x[:, :, 1], torch.ones(3, 1, 3, 3), None, 2, 2, 2, 3),
    "grouped": lambda x: nn.functional.conv3d(x, torch.ones(6, 1, 1, 3, 3), torch.arange(6.0), 1, (0, 1, 1), 1, 3),
    "swish": lambda x: x * torch.sigmoid(x) + torch.tanh(x) / 2 - torch.exp(-x.abs()),
    "clips": lambda x: torch.clamp(x, -0.5, 0.5) + nn.functional.relu6(x) + nn.functional.hardswish(x),
    "softmax": lambda x: torch.softmax(x.mean((3, 4)), dim=2) * x.sum((3, 4)),
    "slices": lambda x: torch.cat([x[:, 1:, ::2], x[:, :2, -2:]], dim=2)[..., 2:-3],
    "matrices": lambda x: torch.matmul(x[:, 0], x[:, 1].transpose(2, 3)).permute(2, 0, 1, 3).permute(1, 2, 0, 3),
    "shapes": lambda x: x.flatten(2).unsqueeze(1).squeeze(1).view(x.size(0), -1, 8, x.size(4)).expand(-1, -1, -1, 16),
    "splits": lambda x: torch.stack(list(torch.split(x, 2, dim=2)), dim=1).amax(1) + torch.chunk(x, 2, dim=2)[1],
    "powers": lambda x: (x**2 + 1).sqrt().floor().neg(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operators_mean_what_torch_means(mm: Any, device: Any, tmp_path: Path, operation: str) -> None:
    class Operation(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return OPERATIONS[operation](x)

    run = Runner(mm, built(mm, to_onnx(Operation(), tmp_path / "operation.onnx")))
    for count in (1, 4):
        inputs = clips(count, count)
        right = expected(Operation(), inputs)
        assert np.allclose(run(inputs), right, rtol=1e-5, atol=1e-5)
        assert run.model.get_output_dimensions()[0].GetDims() == [-1, *right.shape[1:]]


def test_types_and_layouts_of_ends(mm: Any, device: Any, tmp_path: Path) -> None:
    """Input and output types are what was set, and an output's layout is converted."""
    convolution = make(lambda: nn.Sequential(nn.Conv3d(3, 2, 1)))
    path = to_onnx(convolution, tmp_path / "conv.onnx")
    network, config = parsed(mm, path), configured(mm, convert_output_layout={"0": {"src": "NCDHW", "dst": "NDHWC"}})
    assert network.get_input(0).set_data_type(mm.DataType.UINT8).ok()
    assert network.get_output(0).set_data_type(mm.DataType.FLOAT16).ok()
    run = Runner(mm, mm.Builder().build_model("conv", network, config))
    assert run.model.get_output_dimensions()[0].GetDims() == [-1, 4, 16, 16, 2]
    inputs = pixels(2).transpose(0, 4, 1, 2, 3)  # not contiguous
    answer = run(inputs)
    assert answer.dtype == np.float16
    right = expected(convolution, inputs.astype(np.float32)).transpose(0, 2, 3, 4, 1)
    assert np.abs(answer - right).max() / np.abs(right).max() < 1e-3


# Calibrating


def test_algorithms_and_granularities_differ(mm: Any, device: Any, net: nn.Module, onnx_path: str) -> None:
    """A few far values stretch the linear grid; EQNM clips them. Finer grids are nearer to float."""
    outlier = clips(32, 1)
    outlier[0, 0, 0, 0, 0] = 50.0
    inputs = clips(8, seed=3)
    right = expected(net, inputs)

    def error(algorithm: str, **config: str) -> float:
        network, built_by = parsed(mm, onnx_path), configured(mm, "qint8_mixed_float32", precision_config=config)
        assert calibrated(mm, network, built_by, [outlier, clips(32, 2)], algorithm).ok()
        run = Runner(mm, mm.Builder().build_model("quantised", network, built_by))
        return float(np.square(run(inputs) - right).mean())

    linear, eqnm = error("LINEAR"), error("EQNM")
    assert 0 < eqnm < linear / 1.5
    assert len({linear, error("LINEAR", weight_quant_granularity="per_axis")}) == 2
    assert len({linear, error("LINEAR", activation_quant_algo="asymmetric")}) == 2


def test_every_sample_counts(mm: Any, device: Any, onnx_path: str) -> None:
    """Ranges come from all samples, and each pass begins with a reset."""
    quiet, loud = clips(2, 1) * 0.01, clips(2, 2)
    ranges = []
    for batches in ([quiet], [quiet, loud], [loud, quiet]):
        network, config = parsed(mm, onnx_path), configured(mm, "qint8_mixed_float32")
        assert calibrated(mm, network, config, batches).ok()
        ranges.append(network._content.ranges["clip"])
    assert ranges[1] == ranges[2] == (loud.min(), loud.max())
    assert ranges[0] == (quiet.min(), quiet.max())
    samples = samples_of(mm, [quiet])
    calibrator = mm.Calibrator([samples])
    assert calibrator.set_quantization_algorithm(mm.QuantizationAlgorithm.EQNM_ALGORITHM).ok()
    assert calibrator.calibrate(parsed(mm, onnx_path), configured(mm, "qint8_mixed_float32")).ok()
    assert samples.resets == 2


def test_quantised_build_needs_ranges(mm: Any, device: Any, net: nn.Module, onnx_path: str, capfd: Any) -> None:
    network, config = parsed(mm, onnx_path), configured(mm, "qint8_mixed_float16")
    assert mm.Builder().build_model("uncalibrated", network, config) is None
    assert "calibration" in capfd.readouterr().err
    assert config.parse_from_string('{"custom_ranges": {"": {"max": [1], "min": [-1]}}}').ok()
    model = mm.Builder().build_model("fake", network, config)
    assert np.isfinite(Runner(mm, model)(clips(2))).all()


def test_calibration_that_cannot_be_done(mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(mm, "qint8_mixed_float16")

    def status(batches: list[Any], **overrides: Any) -> Any:
        return mm.Calibrator([samples_of(mm, batches, **overrides)]).calibrate(parsed(mm, onnx_path), config)

    assert status([clips(2)]).ok()
    assert not status([]).ok()
    assert not status([clips(2)[:, :, :2]]).ok()
    assert not status([pixels(2)]).ok()  # uint8 where FLOAT32 was said
    assert not status([clips(2) * np.nan]).ok()
    failed = status([clips(2)], next=lambda _: mm.Status(mm.Code.INTERNAL, "no disk"))
    assert "no disk" in str(failed)
    with pytest.raises(TypeError, match="reset"):
        status([clips(2)], reset=lambda _: None)
    with pytest.raises(ZeroDivisionError):
        status([clips(2)], get_sample=lambda _: 1 // 0)
    assert not mm.Calibrator([]).calibrate(parsed(mm, onnx_path), config).ok()
    assert not mm.Calibrator([samples_of(mm, [clips(2)])]).calibrate(mm.Network(), config).ok()
    with pytest.raises(TypeError, match="super"):
        mm.Calibrator([type("Forgot", (mm.CalibDataInterface,), {"__init__": lambda _: None})()])
    asymmetric = configured(mm, "qint8_mixed_float16", precision_config={"activation_quant_algo": "asymmetric"})
    assert calibrated(mm, parsed(mm, onnx_path), asymmetric, [clips(2)]).ok()
    assert not calibrated(mm, parsed(mm, onnx_path), asymmetric, [clips(2)], "EQNM").ok()


def test_calibration_needs_a_device_here_or_elsewhere(
    mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remote(address: str) -> Any:
        config = mm.RemoteConfig()
        config.address = address
        return config

    found: list[bool] = []
    calibrator = mm.Calibrator([samples_of(mm, [clips(2)])])
    network, config = parsed(mm, onnx_path), configured(mm, "qint8_mixed_float16")
    in_thread(lambda: found.append(calibrator.calibrate(network, config).ok()))  # active in this thread, not in that
    monkeypatch.setenv("MAGICMIND_EMULATOR_DEVICES", "0")
    found.append(calibrator.calibrate(network, config).ok())
    found.extend(calibrator.set_remote(remote(address)).ok() for address in ("10.0.0.9:8008", "mlu", "mlu:0", ""))
    found.append(calibrator.calibrate(network, config).ok())
    assert found == [True] + [False] * 6
    assert calibrator.set_remote(remote("127.0.0.1:8008")).ok()
    assert calibrator.calibrate(network, config).ok()
    monkeypatch.setenv("MAGICMIND_EMULATOR_REMOTES", "10.0.0.9:8008")
    assert calibrator.set_remote(remote("10.0.0.9:8008")).ok()


def in_thread(function: Callable[[], None]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


# Parsing and building


def test_files_that_are_not_taken(mm: Any, device: Any, net: nn.Module, onnx_path: str, tmp_path: Path) -> None:
    class Global(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.adaptive_avg_pool3d(x, 1).flatten(1)

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.atan(x)

    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "text.pt").write_text("not a network")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *SHAPE]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "new", ends[:1], ends[1:])
    new = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    onnx.save(new, str(tmp_path / "new.onnx"))

    def parse(path: Any, dtypes: int = 1) -> Any:
        path = str(path)
        parser = mm.parser.Parser(mm.ModelKind.kPytorch if path.endswith(".pt") else mm.ModelKind.kOnnx)
        if path.endswith(".pt") and dtypes:
            assert parser.set_model_param("pytorch-input-dtypes", [mm.DataType.FLOAT32] * dtypes).ok()
        network = mm.Network()
        status = parser.parse(network, path)
        assert status.ok() == (network.get_input_count() == 1)
        return status

    script = to_script(net, tmp_path / "net.pt")
    assert parse(onnx_path).ok()
    assert parse(script).ok()
    assert "pytorch-input-dtypes" in str(parse(script, dtypes=0))
    assert not parse(script, dtypes=2).ok()
    assert "3-D" in str(parse(to_onnx(Global(), tmp_path / "global.onnx")))
    assert "adaptive_avg_pool3d" in str(parse(to_script(Global(), tmp_path / "global.pt")))
    assert "Atan" in str(parse(to_onnx(Odd(), tmp_path / "odd.onnx")))
    assert "opset" in str(parse(tmp_path / "new.onnx"))
    for name in ("text.onnx", "text.pt", "missing.onnx", "missing.pt"):
        assert not parse(tmp_path / name).ok()
    parser = mm.parser.Parser(mm.ModelKind.kOnnx)
    assert not parser.set_model_param("pytorch-input-dtypes", [mm.DataType.FLOAT32]).ok()
    assert not mm.parser.Parser(mm.ModelKind.kCaffe).parse(mm.Network(), "a.caffemodel", "a.prototxt").ok()
    network = mm.Network()
    assert parser.parse(network, onnx_path).ok()
    assert not parser.parse(network, onnx_path).ok()  # it is not empty any more


def test_shapes_that_cannot_be_built(mm: Any, device: Any, onnx_path: str, script_path: str, capfd: Any) -> None:
    def build(path: str, dims: list[int] | None, **config: Any) -> Any:
        network = parsed(mm, path) if dims else mm.Network()
        if dims:
            assert network.get_input(0).set_dimension(mm.Dims(dims)).ok()
        else:
            kind = mm.ModelKind.kPytorch if path == script_path else mm.ModelKind.kOnnx
            parser = mm.parser.Parser(kind)
            parser.set_model_param("pytorch-input-dtypes", [mm.DataType.FLOAT32])
            assert parser.parse(network, path).ok()
        made = mm.BuilderConfig()
        assert made.parse_from_string(json.dumps(config)).ok()
        return mm.Builder().build_model("model", network, made)

    mutable = {"graph_shape_mutable": True, "dim_range": LIMITS}
    assert build(onnx_path, [1, *SHAPE], **mutable) is not None
    assert build(onnx_path, [2, *SHAPE]) is not None
    assert build(onnx_path, None) is None
    assert "set_dimension" in capfd.readouterr().err
    assert build(script_path, None, **mutable) is None
    assert build(onnx_path, [9, *SHAPE], **mutable) is None
    assert "dim_range" in capfd.readouterr().err
    assert build(onnx_path, [1, 3, 4, 16, 17], **mutable) is None
    assert build(onnx_path, [1, 4, 4, 16, 16]) is None
    assert build(script_path, [1, 4, 4, 16, 16]) is None
    other_rank = {"0": {"min": [1, 3], "max": [2, 3]}}
    assert build(onnx_path, [1, *SHAPE], graph_shape_mutable=True, dim_range=other_rank) is None
    assert build(onnx_path, [1, *SHAPE], dim_range={"1": LIMITS["0"]}) is None
    assert build(onnx_path, [1, *SHAPE], convert_input_layout={"0": {"src": "NCHW", "dst": "NHWC"}}) is None
    assert build(onnx_path, [1, *SHAPE], insert_bn_before_firstnode={"0": {"mean": [1], "var": [1]}}) is None
    tensor = parsed(mm, onnx_path).get_input(0)
    for dims in ([1, 3], [0, *SHAPE], [-2, *SHAPE], []):
        assert not tensor.set_dimension(mm.Dims(dims)).ok()
    assert mm.Builder().build_model("empty", mm.Network(), mm.BuilderConfig()) is None


def test_normalisation_goes_before_a_convolution_only(mm: Any, device: Any, tmp_path: Path) -> None:
    path = to_onnx(make(lambda: nn.Sequential(nn.ReLU(), nn.Conv3d(3, 2, 1))), tmp_path / "relu.onnx")
    config = configured(mm, insert_bn_before_firstnode={"0": {"mean": [0, 0, 0], "var": [1, 1, 1]}})
    assert mm.Builder().build_model("relu", parsed(mm, path), config) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"arch": ["mtp_372"]}',
        '{"archs": ["mtp_999"]}',
        '{"archs": [{"mtp_372": [0]}]}',
        '{"archs": "mtp_372"}',
        '{"precision_config": {"precision_mode": "float32"}}',
        '{"precision_config": {"granularity": "per_axis"}}',
        '{"graph_shape_mutable": "true"}',
        '{"dim_range": {"0": {"min": [2], "max": [1]}}}',
        '{"dim_range": {"clip": {"min": [1], "max": [1]}}}',
        '{"dim_range": {"0": {"min": [1]}}}',
        '{"convert_input_layout": {"0": {"src": "NCHW", "dst": "NDHWC"}}}',
        '{"convert_input_layout": {"0": {"src": "NCHW", "dst": "NCHW"}}}',
        '{"insert_bn_before_firstnode": {"0": {"mean": [1, 2], "var": [1]}}}',
        '{"insert_bn_before_firstnode": {"0": {"mean": [1], "std": [1]}}}',
        '{"insert_bn_before_firstnode": {"0": {"mean": [1], "var": [0]}}}',
        '{"computation_preference": "slow"}',
        '{"opt_config": {"type64to32_conversion": 1}}',
        '{"custom_ranges": {"": {"max": 1, "min": -1}}}',
    ],
)
def test_configuration_that_is_refused(mm: Any, text: str) -> None:
    config = mm.BuilderConfig()
    assert not config.parse_from_string(text).ok()
    assert config._content == {}


def test_configurations_merge(mm: Any, tmp_path: Path) -> None:
    config = mm.BuilderConfig()
    assert config.parse_from_string('{"precision_config": {"precision_mode": "force_float16"}}').ok()
    assert config.parse_from_string('{"precision_config": {"weight_quant_granularity": "per_axis"}}').ok()
    (tmp_path / "last.json").write_text(
        '{"precision_config": {"precision_mode": "force_float32"}, "archs": ["tp_322"]}'
    )
    assert config.parse_from_file(str(tmp_path / "last.json")).ok()
    assert config._content["precision_config"] == {
        "precision_mode": "force_float32",
        "weight_quant_granularity": "per_axis",
    }
    assert not config.parse_from_file(str(tmp_path / "missing.json")).ok()
    config.mlu_archs = ["mtp_372"]
    config.mlu_archs.append("mtp_220")  # a copy, as bindings give
    assert config.mlu_archs == ["mtp_372"]


# Running


def test_shapes_that_a_call_refuses(mm: Any, device: Any, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path))
    outputs: list[Any] = []
    assert run.inputs[0].shape == (-1, *SHAPE)
    assert not run.context.enqueue(run.inputs, outputs, run.queue).ok()  # no content
    assert not run.inputs[0].from_numpy(clips(2)[0]).ok()
    for wrong in (clips(9), clips(2)[:, :, :3], np.zeros((0, *SHAPE), np.float32), pixels(2)):
        status = run.start(wrong, outputs)
        assert not status.ok()
        assert status  # truthy all the same: samples assert it bare
        assert outputs == []
    assert run.start(clips(8), outputs).ok()
    assert run.queue.sync().ok()
    assert not run.context.enqueue([], [], run.queue).ok()
    assert isinstance(run.context.create_outputs([]), mm.Status)


def test_fixed_shapes(mm: Any, device: Any, net: nn.Module, onnx_path: str, tmp_path: Path) -> None:
    network, config = parsed(mm, onnx_path), configured(mm, graph_shape_mutable=False)
    assert network.get_input(0).set_dimension(mm.Dims([4, *SHAPE])).ok()
    run = Runner(mm, mm.Builder().build_model("fixed", network, config))
    assert run.model.get_input_dimension(0).GetDims() == [4, *SHAPE]
    assert run.model.get_output_dimensions()[0].GetDims() == [4, CLASSES]
    assert np.allclose(run(clips(4)), expected(net, clips(4)), atol=1e-5)
    for count in (3, 5):
        assert not run.start(clips(count), []).ok()


def test_outputs_count_after_sync_and_are_overwritten(mm: Any, device: Any, net: nn.Module, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path))
    outputs: list[Any] = []
    assert run.start(clips(3, 1), outputs).ok()
    assert outputs[0].shape == (3, CLASSES)
    time.sleep(0.2)  # long done on the device, and still not ours
    assert np.isnan(outputs[0].asnumpy()).all()
    assert run.queue.sync().ok()
    first = outputs[0].asnumpy()
    assert np.allclose(first, expected(net, clips(3, 1)), atol=1e-5)
    tensor = outputs[0]
    assert run.start(clips(2, 2), outputs).ok()
    assert outputs == [tensor]  # overwritten, not appended to
    assert np.isnan(outputs[0].asnumpy()).all()
    assert run.queue.sync().ok()
    assert np.allclose(outputs[0].asnumpy(), expected(net, clips(2, 2)), atol=1e-5)
    assert first.shape == (3, CLASSES)  # what asnumpy gave stays
    given = run.context.create_outputs(run.inputs)
    assert [tensor.shape for tensor in given] == [(2, CLASSES)]
    assert run.context.enqueue(run.inputs, given, run.queue).ok()
    assert run.queue.sync().ok()
    assert np.allclose(given[0].asnumpy(), expected(net, clips(2, 2)), atol=1e-5)


def test_input_belongs_to_the_device_until_sync(mm: Any, device: Any, net: nn.Module, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path))
    array, outputs = clips(2), list[Any]()
    assert run.inputs[0].from_numpy(array).ok()
    array[:] = 0  # the copy was made
    assert run.context.enqueue(run.inputs, outputs, run.queue).ok()
    assert run.queue.sync().ok()
    assert np.allclose(outputs[0].asnumpy(), expected(net, clips(2)), atol=1e-5)
    assert run.start(clips(2), []).ok()
    assert run.inputs[0].from_numpy(clips(2, 1)).ok()
    assert "between enqueue and sync" in str(run.queue.sync())
    assert run.start(clips(2), outputs).ok()
    assert run.queue.sync().ok()


def test_two_queues_in_two_threads(
    mm: Any, device: Any, net: nn.Module, onnx_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runners share a model and work at the same time; each has its own order."""
    model = built(mm, onnx_path)
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "compute:*:delay=0.3")
    together = threading.Barrier(2)

    def work(seed: int) -> None:
        run = Runner(mm, model)
        together.wait(10)
        for turn in range(4):
            inputs = clips(1 + turn, seed + turn)
            answers[seed, turn] = (run(inputs), expected(net, inputs))

    answers: dict[tuple[int, int], Any] = {}
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (10, 20)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    took = time.perf_counter() - began
    assert len(answers) == 8
    assert all(np.allclose(answer, right, atol=1e-5) for answer, right in answers.values())
    assert took < 2  # one after the other would be 2.4


def test_enqueue_does_not_wait(mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runner(mm, built(mm, onnx_path))
    run(clips(2))
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "compute:*:delay=0.3")
    began = time.perf_counter()
    assert run.start(clips(2), []).ok()
    assert run.context.enqueue(run.inputs, [], run.queue).ok()  # the same inputs may be read twice
    enqueued = time.perf_counter() - began
    assert run.queue.sync().ok()
    assert enqueued < 0.2
    assert time.perf_counter() - began >= 0.6


def test_a_device_is_active_for_its_thread(mm: Any, device: Any, onnx_path: str, monkeypatch: Any) -> None:
    model = built(mm, onnx_path)
    run = Runner(mm, model)

    def elsewhere() -> None:
        other = mm.Device()
        assert other.create_queue() is None
        assert model.create_i_engine() is None
        assert run.engine.create_i_context() is None
        assert isinstance(run.context.create_inputs(), mm.Status)
        assert not run.inputs[0].to(run.device).ok()
        assert not run.start(clips(1), []).ok()
        assert other.active().ok()
        assert run.start(clips(1), []).ok()

    in_thread(elsewhere)
    assert run.queue.sync().ok()
    assert run.model.create_i_engine() is not None  # without a configuration, too


def test_devices_of_the_machine(mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    second = mm.Device()
    second.id = 1
    assert not second.active().ok()
    assert second.create_queue() is None
    monkeypatch.setenv("MAGICMIND_EMULATOR_DEVICES", "4")
    assert mm.System().device_count() == 4
    run = Runner(mm, built(mm, onnx_path))
    assert second.active().ok()
    assert device.create_queue() is None
    assert not run.start(clips(1), []).ok()
    queue = second.create_queue()
    assert device.active().ok()
    assert not run.context.enqueue(run.inputs, [], queue).ok()
    monkeypatch.setenv("MLU_VISIBLE_DEVICES", "1,3,9")
    assert mm.System().device_count() == 2


def test_models_of_other_machines(mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(mm, onnx_path)
    monkeypatch.setenv("MAGICMIND_EMULATOR_CLUSTERS", "1")
    assert model.create_i_engine() is None
    monkeypatch.setenv("MAGICMIND_EMULATOR_CLUSTERS", "4")
    assert model.create_i_engine() is not None
    monkeypatch.setenv("MAGICMIND_EMULATOR_ARCH", "mtp_592")
    assert model.create_i_engine() is None
    config = mm.BuilderConfig()
    assert mm.Builder().build_model("any", parsed(mm, onnx_path), config).create_i_engine() is not None
    config.mlu_archs = ["mtp_999"]
    assert mm.Builder().build_model("none", parsed(mm, onnx_path), config) is None


def test_files_that_hold_no_model(mm: Any, device: Any, onnx_path: str, tmp_path: Path) -> None:
    good = tmp_path / "good.model"
    model = mm.Builder().build_model("model", parsed(mm, onnx_path), configured(mm))
    assert model.serialize_to_file(str(good)).ok()
    assert not model.serialize_to_file(str(tmp_path / "nowhere" / "model")).ok()
    (tmp_path / "cut").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path / "cut", tmp_path / "empty", tmp_path / "missing", Path(onnx_path), tmp_path):
        other = mm.Model()
        assert not other.deserialize_from_file(str(path)).ok()
        assert other.create_i_engine() is None
        assert other.get_input_num() == 0
        assert not other.serialize_to_file(str(tmp_path / "again")).ok()


def test_what_belongs_to_a_deleted_model_fails(mm: Any, device: Any, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path))
    run.model = None
    assert not run.start(clips(1), []).ok()
    assert run.engine.create_i_context() is None


def test_objects_die_in_the_order_of_the_samples(mm: Any, device: Any, onnx_path: str) -> None:
    run = Runner(mm, built(mm, onnx_path))
    run(clips(1))
    threads = threading.active_count()
    for name in ("inputs", "context", "engine", "model", "queue", "device"):
        delattr(run, name)
    deadline = time.monotonic() + 5
    while threading.active_count() >= threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads - 1  # the queue's thread ended with it


def test_wrong_arguments_raise(mm: Any, device: Any, onnx_path: str, tmp_path: Path) -> None:
    run = Runner(mm, built(mm, onnx_path))
    network, parser = parsed(mm, onnx_path), mm.parser.Parser(mm.ModelKind.kOnnx)
    calls: list[Callable[[], Any]] = [
        lambda: mm.Dims(4),
        lambda: mm.Dims([1.5]),
        lambda: mm.Dims([1]).GetDimValue("0"),
        lambda: mm.Status("OUT_OF_RANGE", "end"),
        lambda: mm.parser.Parser("onnx"),
        lambda: parser.parse(network, Path(onnx_path)),
        lambda: parser.parse(None, onnx_path),
        lambda: mm.parser.Parser(mm.ModelKind.kPytorch).set_model_param("pytorch-input-dtypes", ["FLOAT32"]),
        lambda: network.get_input(0).set_dimension([1, 3]),
        lambda: network.get_input(0).set_data_type(np.uint8),
        lambda: mm.BuilderConfig().parse_from_string({}),
        lambda: setattr(mm.BuilderConfig(), "mlu_archs", "mtp_372"),
        lambda: mm.Builder().build_model(network, mm.BuilderConfig()),
        lambda: run.model.serialize_to_file(tmp_path / "model"),
        lambda: mm.Model().deserialize_from_file(tmp_path / "model"),
        lambda: run.model.create_i_engine("MLU"),
        lambda: setattr(run.device, "id", "mlu:0"),
        lambda: setattr(run.device, "id", True),
        lambda: run.inputs[0].from_numpy([[1.0]]),
        lambda: run.inputs[0].from_numpy(torch.zeros(1, *SHAPE)),
        lambda: run.inputs[0].to(0),
        lambda: run.inputs[0].resize([1.0]),
        lambda: run.context.enqueue(tuple(run.inputs), [], run.queue),
        lambda: run.context.enqueue(run.inputs, (), run.queue),
        lambda: run.context.enqueue(run.inputs, [np.zeros(1)], run.queue),
        lambda: run.context.enqueue(run.inputs, [], None),
        lambda: mm.Calibrator(samples_of(mm, [])),
        lambda: mm.Calibrator([None]),
        lambda: mm.Calibrator([]).set_quantization_algorithm("linear"),
        lambda: mm.Calibrator([]).set_remote("127.0.0.1:8008"),
        mm.Queue,
        mm.Engine,
        mm.Context,
        mm.Tensor,
        lambda: mm.Profiler(mm.ProfilerOptions(), tmp_path),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(TypeError):
            print(number, call())
    for call in (lambda: network.get_input(1), lambda: mm.Dims([1]).GetDimValue(1)):
        with pytest.raises(IndexError):
            call()


def test_small_objects(mm: Any, tmp_path: Path) -> None:
    assert mm.Status().ok()
    assert mm.Status.OK().ok()
    ended = mm.Status(mm.Code.OUT_OF_RANGE, "Data end reached")
    assert not ended.ok()
    assert ended
    assert "Data end reached" in str(ended)
    dims = mm.Dims((np.int64(2), 3))
    assert (dims.GetDims(), dims.GetDimValue(1), dims.GetElementCount()) == ([2, 3], 3, 6)
    assert mm.Dims([-1, 3]).GetElementCount() == -1
    profiler = mm.Profiler(
        mm.ProfilerOptions(mm.HostTracerLevel.kCritical, mm.DeviceTracerLevel.kOn), str(tmp_path / "profile")
    )
    assert not profiler.step_end().ok()
    assert profiler.start().ok()
    for step in range(2):
        assert profiler.step_begin(step).ok()
        assert profiler.step_end().ok()
    assert profiler.stop().ok()
    assert len(json.loads((tmp_path / "profile" / "profile.json").read_text())["steps"]) == 2


# Older Pythons


def test_a_runtime_image_has_an_older_python_and_no_torch(mm: Any, device: Any, onnx_path: str, tmp_path: Path) -> None:
    program = """
import os, sys
import numpy as np
import magicmind.python.runtime as mm

assert not hasattr(mm, "Builder")
model = mm.Model()
assert model.deserialize_from_file(sys.argv[1]).ok()
assert mm.System().device_count() == 1
device = mm.Device()
assert device.active().ok()
python = os.environ.pop("MAGICMIND_EMULATOR_PYTHON")
assert model.create_i_engine() is None
os.environ["MAGICMIND_EMULATOR_PYTHON"] = python + " that is not there"
assert model.create_i_engine() is None
os.environ["MAGICMIND_EMULATOR_PYTHON"] = python
context = model.create_i_engine().create_i_context()
queue = device.create_queue()
answers = {}
for name, clips in np.load(sys.argv[2]).items():
    inputs, outputs = context.create_inputs(), []
    assert inputs[0].from_numpy(clips).ok()
    assert inputs[0].to(device).ok()
    assert context.enqueue(inputs, outputs, queue).ok()
    assert queue.sync().ok()
    answers[name] = outputs[0].asnumpy()
assert inputs[0].from_numpy(clips[..., :1]).ok()
assert not context.enqueue(inputs, [], queue).ok()
np.savez(sys.argv[3], **answers)
"""
    python = old_python()
    run = Runner(mm, built(mm, onnx_path, "force_float16"))
    given = {f"clips {count}": clips(count, seed=count) for count in (2, 1, 5)}
    np.savez(tmp_path / "given.npz", **given)
    files = (Path(onnx_path).with_suffix(".model"), tmp_path / "given.npz", tmp_path / "answers.npz")
    done = subprocess.run(
        [python, "-c", program, *files],
        env={**os.environ, "PYTHONPATH": str(EMULATOR), "MAGICMIND_EMULATOR_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2
    assert "MAGICMIND_EMULATOR_PYTHON has to name" in said[0]
    assert "that is not there" in said[1]
    answers = np.load(tmp_path / "answers.npz")
    assert set(answers) == set(given)
    for name, inputs in given.items():
        np.testing.assert_array_equal(answers[name], run(inputs))


# Faults


def test_faults_strike_when_asked(mm: Any, device: Any, onnx_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runner(mm, built(mm, onnx_path))

    def attempts(plan: str) -> list[str]:
        monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", plan)
        seen = []
        for _ in range(3):
            if not run.start(clips(1), []).ok():
                seen.append("enqueue")
            elif not run.queue.sync().ok():
                seen.append("sync")
            else:
                seen.append("ok")
        return seen

    assert attempts("enqueue:2") == ["ok", "enqueue", "ok"]
    assert attempts("enqueue:2+") == ["ok", "enqueue", "enqueue"]
    assert attempts("enqueue:1,compute:1") == ["enqueue", "sync", "ok"]
    assert attempts("compute:*") == ["sync"] * 3
    for point, call in {
        "active": device.active,
        "from_numpy": lambda: run.inputs[0].from_numpy(clips(1)),
        "create_inputs": run.context.create_inputs,
        "create_queue": device.create_queue,
        "create_i_engine": run.model.create_i_engine,
        "create_i_context": run.engine.create_i_context,
        "parse": lambda: mm.parser.Parser(mm.ModelKind.kOnnx).parse(mm.Network(), onnx_path),
        "build_model": lambda: mm.Builder().build_model("m", parsed(mm, onnx_path), configured(mm)),
    }.items():
        monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", f"{point}:1")
        result = call()
        assert result is None or not result.ok(), point
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "sink:1")
    with pytest.raises(ValueError, match="sink"):
        run.queue.sync()


def test_a_hanging_sync_hangs(onnx_path: str) -> None:
    """In a program of its own, as whoever tests it has to kill it."""
    program = """
import sys
import magicmind.python.runtime as mm
from magicmind.python.runtime.parser import Parser

dev = mm.Device()
dev.id = 0
assert dev.active().ok()
queue = dev.create_queue()
assert queue.sync().ok()
print("first", flush=True)
queue.sync()
print("second", flush=True)
"""
    environment = {"PYTHONPATH": str(EMULATOR), "MAGICMIND_EMULATOR_FAIL": "sync:2:hang"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert isinstance(process.stdout, io.TextIOBase)
        assert process.stdout.readline() == "first\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        assert process.stdout.read() == ""
