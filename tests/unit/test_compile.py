"""Compiled model folders: what is written, what is refused, and that nothing is left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clipmux.build.calibration import CalibrationSet
from clipmux.build.compile import PRECISIONS, compile_model, needs_calibration
from clipmux.engine.backends import open_backend
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder, read_model, write_model

LABELS = ("fall", "jump", "sit")
CLIP = (4, 16, 16, 3)


def write_network(path: Path, *, extra: str = "") -> None:
    """Convolution, relu, (an operator,) global pool, linear; opset 11."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3, 3)) / 9,
        "b": rng.standard_normal(8) / 10,
        "fc": rng.standard_normal((3, 8)),
        "fc_b": rng.standard_normal(3),
    }
    nodes = [
        helper.make_node("Conv", ["clip", "w", "b"], ["c"], pads=[1] * 6, strides=[1, 2, 2], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node(extra or "Identity", ["r"], ["e"], name="extra"),
        helper.make_node("GlobalAveragePool", ["e"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "fc_b"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, ["n", 3, *CLIP[:3]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    write_network(path / "model.onnx")
    write_model(
        ModelFolder(
            path=path,
            name="small",
            network="model.onnx",
            labels=LABELS,
            frames=CLIP[0],
            height=CLIP[1],
            width=CLIP[2],
            mean=(0.4, 0.5, 0.6),
            std=(0.2, 0.3, 0.4),
            provenance={"checkpoint": "small.pth"},
        )
    )
    return path


@pytest.fixture
def calibration() -> CalibrationSet:
    rng = np.random.default_rng(1)
    drawn = [{"video": f"{number}.mp4", "start": 16 * number} for number in range(12)]
    return CalibrationSet(rng.integers(0, 256, (12, *CLIP), dtype=np.uint8), drawn, [("bad.mp4", "it is empty")], 9)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        (target, precision)
        for target in ("openvino", "torch")
        for precision in PRECISIONS[target]
        if precision != "int8"
    ],
)
def test_compiled_folder_says_target_precision_and_origin(
    target: str, precision: str, folder: Path, tmp_path: Path, calibration: CalibrationSet
) -> None:
    source = read_model(folder)
    model = compile_model(folder, tmp_path / "out", target=target, precision=precision, calibration=calibration)
    assert model == read_model(tmp_path / "out")
    assert (model.target, model.precision, model.network) == (target, precision, "model.onnx")
    assert (model.labels, model.clip_shape, model.mean) == (source.labels, source.clip_shape, source.mean)
    assert files(model.path) == ["model.json", "model.onnx"]
    assert model.provenance["checkpoint"] == "small.pth"
    assert model.provenance["compiled_from_sha256"] == source.sha256
    assert model.provenance["compiled_with"].keys() >= {"clipmux", target}
    assert "calibration" not in model.provenance  # clips that were not looked at are not named


def test_int8_is_openvinos_own_format_calibrated_on_what_is_listed(
    folder: Path, tmp_path: Path, calibration: CalibrationSet, capfd: pytest.CaptureFixture[str]
) -> None:
    model = compile_model(folder, tmp_path / "out", target="openvino", precision="int8", calibration=calibration)
    assert capfd.readouterr() == ("", "")
    assert files(model.path) == ["model.bin", "model.json", "model.xml"]
    assert model.network == "model.xml"
    text = model.network_path.read_text()
    assert 'element_type="i8"' in text
    assert model.compiled["files"]["model.bin"] in text  # so that the network's hash covers the weights
    assert model.provenance["calibration"] == calibration.drawn
    assert model.provenance["calibration_seed"] == 9
    assert model.provenance["calibration_skipped"] == ["bad.mp4"]
    assert model.provenance["compiled_with"].keys() == {"clipmux", "openvino", "nncf"}
    for path in model.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_other_calibration_gives_another_network(folder: Path, tmp_path: Path, calibration: CalibrationSet) -> None:
    dark = CalibrationSet(calibration.clips // 4, calibration.drawn)
    models = [
        compile_model(folder, tmp_path / f"out{number}", target="openvino", precision="int8", calibration=clips)
        for number, clips in enumerate((calibration, dark))
    ]
    assert models[0].sha256 != models[1].sha256


def test_quantising_needs_calibration() -> None:
    wanting = {precision for known in PRECISIONS.values() for precision in known if needs_calibration(precision)}
    assert wanting == {"int8", *(f"qint{bits}_mixed_float{rest}" for bits in (8, 16) for rest in (16, 32))}


@pytest.mark.parametrize(
    ("target", "precision", "options", "quoted"),
    [
        ("tensorrt", "float32", {}, "'tensorrt': choose one of openvino, torch, magicmind"),
        ("openvino", "int4", {}, "'int4': choose one of float32, bfloat16, float16, int8"),
        ("torch", "int8", {}, "torch has no precision 'int8'"),
        ("openvino", "force_float16", {}, "openvino has no precision 'force_float16'"),
        ("openvino", "int8", {}, "int8 needs real videos .*--calibrate"),
        ("openvino", "float32", {"arch": "mtp_372"}, "openvino has no option 'arch': it has preset"),
        ("openvino", "float32", {"preset": "best"}, "'best': choose one of performance, mixed"),
        ("torch", "float32", {"preset": "mixed"}, "torch has no option 'preset': it has none"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    target: str, precision: str, options: dict[str, Any], quoted: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=quoted):
        compile_model(folder, tmp_path / "out", target=target, precision=precision, options=options)
    assert not (tmp_path / "out").exists()


def test_a_compiled_model_is_not_compiled_again(folder: Path, tmp_path: Path) -> None:
    compile_model(folder, tmp_path / "out", target="torch", precision="float32")
    with pytest.raises(ModelError, match="is compiled for torch already"):
        compile_model(tmp_path / "out", tmp_path / "twice", target="openvino", precision="float32")
    with pytest.raises(UsageError, match="is the model to compile"):
        compile_model(folder, folder, target="torch", precision="float32", force=True)


def test_unknown_operator_is_named_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    write_network(folder / "model.onnx", extra="Selu")
    with pytest.raises(ModelError, match=r"operator 'Selu', .*use --backend openvino"):
        compile_model(folder, tmp_path / "new" / "out", target="torch", precision="float16")
    assert not (tmp_path / "new").exists()


def test_a_network_that_is_none_is_refused_by_both(folder: Path, tmp_path: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no network")
    for target in ("openvino", "torch"):
        with pytest.raises(ModelError, match=r"model\.onnx'.*: export the model again"):
            compile_model(folder, tmp_path / "out", target=target, precision="float32")
    assert not (tmp_path / "out").exists()


def test_force_replaces_a_model_and_leaves_nothing_of_it(
    folder: Path, tmp_path: Path, calibration: CalibrationSet
) -> None:
    out = tmp_path / "out"
    compile_model(folder, out, target="openvino", precision="int8", calibration=calibration)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds a model"):
        compile_model(folder, out, target="openvino", precision="float32")
    assert read_model(out).precision == "int8"
    compile_model(folder, out, target="openvino", precision="float32", force=True)
    assert files(out) == ["model.json", "model.onnx", "notes.txt"]
    with pytest.raises(UsageError, match="needs real videos"):
        compile_model(folder, out, target="openvino", precision="int8", force=True)
    assert read_model(out).precision == "float32"


def test_weights_beside_the_network_must_be_its_own(folder: Path, tmp_path: Path, calibration: CalibrationSet) -> None:
    model = compile_model(folder, tmp_path / "out", target="openvino", precision="int8", calibration=calibration)
    weights = model.path / "model.bin"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.bin' is not the file that was compiled"):
        open_backend("openvino", model, device="cpu", max_batch=8, null_delay_ms=(0, 0))
    weights.unlink()
    with pytest.raises(ModelError, match=r"lacks 'model\.bin'"):
        open_backend("openvino", model, device="cpu", max_batch=8, null_delay_ms=(0, 0))


def test_network_of_a_version_that_does_not_load_is_refused(
    folder: Path, tmp_path: Path, calibration: CalibrationSet
) -> None:
    model = compile_model(folder, tmp_path / "out", target="openvino", precision="int8", calibration=calibration)
    text = model.network_path.read_text()
    model.network_path.write_text(text.replace('version="opset1"', 'version="opset99"'))
    with pytest.raises(ModelError, match=r"model\.xml'.*: compile the model again"):
        open_backend("openvino", model, device="cpu", max_batch=8, null_delay_ms=(0, 0))


@pytest.mark.parametrize(
    ("missing", "target", "precision", "remedy"),
    [
        ("nncf", "openvino", "int8", r"pip install 'clipmux\[quantize\]'"),
        ("torch", "torch", "float32", r"pip install 'clipmux\[torch\]'"),
        ("onnx", "torch", "float32", r"pip install 'clipmux\[torch\]'"),
    ],
)
def test_missing_package_is_named_with_its_remedy(
    missing: str, target: str, precision: str, remedy: str, folder: Path, tmp_path: Path
) -> None:
    """In a process of its own, in which nothing finds the package."""
    program = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {missing!r} else real(name, package)
from pathlib import Path
import numpy as np
from clipmux.build.calibration import CalibrationSet
from clipmux.build.compile import compile_model
from clipmux.engine.errors import UsageError
try:
    compile_model(Path({str(folder)!r}), Path({str(tmp_path / "out")!r}), target={target!r}, precision={precision!r},
                  calibration=CalibrationSet(np.zeros((2, 4, 16, 16, 3), np.uint8), []))
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert missing in done.stdout
    assert re.search(remedy, done.stdout), done.stdout
    assert not (tmp_path / "out").exists()


def test_compiling_loads_no_telemetry(folder: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
from clipmux.build.calibration import CalibrationSet
from clipmux.build.compile import compile_model
compile_model(Path({str(folder)!r}), Path({str(tmp_path / "out")!r}), target="openvino", precision="int8",
              calibration=CalibrationSet(np.zeros((2, 4, 16, 16, 3), np.uint8), []))
assert "nncf" in sys.modules
print([name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
