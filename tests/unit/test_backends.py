"""One suite that every backend passes, at every precision it has on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cases import GPUS, Case, Compile, compiling, openvino_has
from emulated import magicmind
from onnx import TensorProto, helper

from clipmux.bench.videos import available_encodings, write_shape_videos
from clipmux.build.architectures import Architecture, build
from clipmux.build.calibration import CalibrationSet, draw_clips, normalised
from clipmux.build.compile import needs_calibration
from clipmux.build.export import NORMALISATIONS, export_checkpoint
from clipmux.engine.backends import choose, open_backend
from clipmux.engine.backends.base import HALF_AGREEMENT, QUANTISED_AGREEMENT, TOLERANCE, Backend
from clipmux.engine.backends.onnx_in_torch import OnnxInTorch
from clipmux.engine.device import softmax
from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder, demo_folder, read_model
from clipmux.engine.without_telemetry import ov

Clips = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

BATCHES = (1, 2, 7, 8, 9, 33, 64)
LABELS = tuple("abcdefg")
CLIP = (8, 32, 32, 3)


CASES = [
    *(Case("openvino", precision) for precision in ("float32", "bfloat16", "float16", "int8")),
    *(Case("torch", precision, at) for at in ("cpu", *GPUS) for precision in ("float32", "bfloat16", "float16")),
    *(
        Case("magicmind", precision, "mlu:0")
        for precision in ("force_float32", "force_float16", "qint8_mixed_float16", "qint8_mixed_float32")
    ),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def mlu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with one MLU."""
    for name in ("DEVICES", "ARCH", "CLUSTERS", "REMOTES", "FAIL"):
        monkeypatch.delenv(f"MAGICMIND_EMULATOR_{name}", raising=False)
    monkeypatch.delenv("MLU_VISIBLE_DEVICES", raising=False)
    with magicmind():
        yield


@pytest.fixture(scope="session")
def clips() -> Clips:
    """64 clips that look different: noise of many means, contrasts and grains."""
    rng = np.random.default_rng(2)
    mean, contrast = rng.uniform(40, 215, (64, 1, 1, 1, 3)), rng.uniform(5, 90, (64, 1, 1, 1, 1))
    fine = rng.standard_normal((64, *CLIP))
    coarse = rng.standard_normal((64, CLIP[0] // 4, 4, 4, 3)).repeat(4, 1).repeat(8, 2).repeat(8, 3)
    return np.clip(mean + contrast * np.where(rng.random((64, 1, 1, 1, 1)) < 0.5, fine, coarse), 0, 255).astype(
        np.uint8
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> ModelFolder:
    """A ResNet of random weights, whose last layer is set so that different clips get different labels."""
    folder = tmp_path_factory.mktemp("small")
    architecture = Architecture("resnet", 10, classes=len(LABELS), widen_factor=0.125)
    torch.manual_seed(0)
    network = build(architecture).eval().requires_grad_(False)
    state_dict = network.state_dict()
    for key, value in state_dict.items():
        if "running_var" in key or (value.dim() == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.dim() == 1:
            value.normal_(0, 0.1)
    mean, std = (np.float32(values) for values in NORMALISATIONS["kinetics"])
    inputs = torch.from_numpy(((clips / np.float32(255) - mean) / std).transpose(0, 4, 1, 2, 3).copy())
    logits = network(inputs)
    spread = 0.4 / logits.std(0)  # a random network tells clips apart by little, more would magnify its rounding
    state_dict["fc.weight"].mul_(spread[:, None])
    state_dict["fc.bias"].sub_(logits.mean(0)).mul_(spread)
    torch.save({"epoch": 1, "arch": architecture.name, "state_dict": state_dict}, folder / "small.pth")
    (folder / "labels.txt").write_text("\n".join(LABELS))
    model = export_checkpoint(
        folder / "small.pth", folder / "labels.txt", folder / "model", frames=CLIP[0], size=CLIP[1]
    )
    assert model.clip_shape == CLIP
    return model


@pytest.fixture(scope="session")
def reference(small: ModelFolder, clips: Clips) -> Floats:
    return reference_scores(small, clips)


def reference_scores(model: ModelFolder, clips: Clips) -> Floats:
    """Scores of the ONNX file in float32, normalised on the host: none of our backends' code."""
    compiled = ov.Core().compile_model(str(model.network_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batches = [normalised(clips[start : start + 8], model) for start in range(0, len(clips), 8)]
    return softmax(np.concatenate([compiled([batch])[0] for batch in batches]))


@pytest.fixture(scope="session")
def compiled(small: ModelFolder, clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """The small model for a case, compiled once."""
    return compiling(small, CalibrationSet(clips, []), tmp_path_factory.mktemp("compiled"))


@contextlib.contextmanager
def opened(model: ModelFolder, case: Case, max_batch: int = 64) -> Iterator[Backend]:
    name = choose("auto", case.device, model.target)
    assert name == case.backend
    backend = open_backend(name, model, device=case.device, max_batch=max_batch, null_delay_ms=(0, 0))
    try:
        yield backend
    finally:
        backend.close()


@contextlib.contextmanager
def answering(model: ModelFolder, case: Case) -> Iterator[Callable[[Clips], Floats]]:
    """Scores by one runner, used the way the engine does: opened here, working on a thread of its own."""
    with opened(model, case) as backend:
        runner = backend.open_runner()
        try:
            yield lambda clips: softmax(on_thread(lambda: runner.infer(clips)))
        finally:
            runner.close()


def on_thread(work: Callable[[], Any]) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def assert_close(scores: Floats, expected: Floats, precision: str) -> None:
    assert scores.shape == expected.shape
    assert scores.dtype == np.float32
    if needs_calibration(precision):
        # Few clips of a random network survive 8 bits unharmed; a trained one is held to agreement below.
        assert np.abs(scores - expected).mean() <= 0.05
    else:
        assert np.abs(scores - expected).max() <= TOLERANCE[precision]


# --- every backend ---------------------------------------------------------------------------------------------------


@every_case
def test_every_batch_size_is_answered_within_tolerance(
    case: Case, compiled: Compile, clips: Clips, reference: Floats
) -> None:
    assert len(np.unique(reference.argmax(-1))) >= 3, "clips must differ for this to say anything"
    with answering(compiled(case), case) as scores:
        for size in BATCHES:
            assert_close(scores(clips[:size]), reference[:size], case.precision)
        for size in reversed(BATCHES):  # and after larger ones
            assert_close(scores(clips[-size:]), reference[-size:], case.precision)


@every_case
def test_order_is_kept(case: Case, compiled: Compile, clips: Clips) -> None:
    order = np.random.default_rng(0).permutation(64)
    with answering(compiled(case), case) as scores:
        assert np.abs(scores(np.ascontiguousarray(clips[order])) - scores(clips)[order]).max() <= 1e-5


@every_case
def test_answer_does_not_depend_on_what_shares_the_batch(case: Case, compiled: Compile, clips: Clips) -> None:
    with answering(compiled(case), case) as scores:
        together = scores(clips[:9])
        alone = np.concatenate([scores(clips[n : n + 1]) for n in range(9)])
        # At half precision sums in another order round to a neighbour.
        assert np.abs(alone - together).max() <= (1e-5 if "float32" in case.precision else 5e-3)


@every_case
def test_answers_are_the_callers_own(case: Case, compiled: Compile, clips: Clips) -> None:
    with opened(compiled(case), case) as backend:
        runner = backend.open_runner()
        staging = clips[:8].copy()
        first = on_thread(lambda: runner.infer(staging))
        kept = first.copy()
        staging[...] = clips[8:16]
        second = on_thread(lambda: runner.infer(staging))
        assert np.array_equal(first, kept)
        assert not np.array_equal(first, second)
        assert np.array_equal(staging, clips[8:16])
        runner.close()


@every_case
def test_a_batch_in_the_memory_that_it_gives_is_answered_the_same(
    case: Case, compiled: Compile, clips: Clips, reference: Floats
) -> None:
    with opened(compiled(case), case) as backend:
        staging = backend.staging((64, *CLIP))
        assert (staging.shape, staging.dtype, staging.flags.c_contiguous) == (clips.shape, np.uint8, True)
        runner = backend.open_runner()
        for size in (64, 3):
            staging[:size] = clips[-size:]
            assert_close(
                softmax(on_thread(lambda n=size: runner.infer(staging[:n]))), reference[-size:], case.precision
            )
        runner.close()


@every_case
def test_runners_work_at_the_same_time_on_threads_of_their_own(
    case: Case, compiled: Compile, clips: Clips, reference: Floats
) -> None:
    with opened(compiled(case), case) as backend:
        runners = [backend.open_runner() for _ in range(backend.runners)]
        answers: list[list[Floats]] = [[] for _ in runners]

        def work(number: int) -> None:
            for turn in range(4):
                start = 8 * ((number + turn) % 8)
                answers[number].append(softmax(runners[number].infer(clips[start : start + 8])))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runners))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, scores in enumerate(answers):
            assert len(scores) == 4
            for turn, part in enumerate(scores):
                start = 8 * ((number + turn) % 8)
                assert_close(part, reference[start : start + 8], case.precision)
        for runner in runners:
            runner.close()


@every_case
def test_closed_and_opened_again_it_answers_the_same(case: Case, compiled: Compile, clips: Clips) -> None:
    answers = []
    for _ in range(2):
        with answering(compiled(case), case) as scores:
            answers.append(scores(clips[:8]))
    assert np.abs(answers[0] - answers[1]).max() <= 1e-6


@every_case
def test_says_what_suits_it(case: Case, compiled: Compile) -> None:
    for most in (64, 3):
        with opened(compiled(case), case, max_batch=most) as backend:
            assert backend.device == case.device
            assert 1 <= backend.preferred_batch <= backend.max_batch <= most
            assert backend.runners >= 1
            assert case.precision in backend.chosen


@every_case
def test_labels_that_contradict_the_network_are_refused(case: Case, compiled: Compile) -> None:
    model = compiled(case)
    wrong = dataclasses.replace(model, labels=LABELS[:-1])
    with pytest.raises(ModelError, match=r"6( labels|\])"), opened(wrong, case):
        pass


@every_case
def test_clips_that_contradict_the_network_are_refused(case: Case, compiled: Compile) -> None:
    wrong = dataclasses.replace(compiled(case), height=30)
    with pytest.raises(ModelError, match=r"model\.json"), opened(wrong, case):
        pass


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_precision_of_another_target_is_refused(name: str, small: ModelFolder) -> None:
    wrong = dataclasses.replace(small, precision="qint16_mixed_float32")
    with pytest.raises(ModelError, match=r"qint16_mixed_float32, which the .* backend does not know: compile it to"):
        open_backend(name, wrong, device="cpu", max_batch=8, null_delay_ms=(0, 0))


@pytest.mark.parametrize(
    ("backend", "device", "quoted"),
    [
        ("openvino", "cuda:0", "cuda:0"),
        ("torch", "cuda:99", "no device 'cuda:99', torch finds "),
        ("torch", "mlu:0", "torch_mlu, which is not installed"),
        ("torch", "tpu:0", "tpu:0"),
        ("torch", "cuda:x", "cuda:x"),
        ("magicmind", "mlu:99", "mlu:99"),
    ],
)
def test_absent_device_is_refused(backend: str, device: str, quoted: str, compiled: Compile) -> None:
    model = compiled(Case(backend, "force_float32" if backend == "magicmind" else "float32"))
    with pytest.raises(UsageError, match=quoted):
        open_backend(backend, model, device=device, max_batch=8, null_delay_ms=(0, 0))


def test_null_gives_a_score_per_clip_and_keeps_its_pace(null_model: Path) -> None:
    model = read_model(null_model)
    backend = open_backend("null", model, device="cpu", max_batch=64, null_delay_ms=(0, 0))
    runner = backend.open_runner()
    for size in BATCHES:
        assert on_thread(lambda n=size: runner.infer(np.zeros((n, *model.clip_shape), np.uint8))).shape == (size, 10)


def test_openvino_says_what_precision_it_really_uses(compiled: Compile) -> None:
    for precision in ("bfloat16", "float16"):
        case = Case("openvino", precision)
        used = precision if openvino_has(precision) else f"float32 ({precision} was asked for, which this CPU lacks)"
        with opened(compiled(case), case) as backend:
            assert backend.chosen.startswith(f"{used}, "), backend.chosen


def test_torch_rounds_to_half_precision_where_the_cpu_is_slow_at_it(compiled: Compile, clips: Clips) -> None:
    """bfloat16 keeps 8 bits: its answers are near float32's and never the same, on every CPU."""
    answers = {}
    for precision in ("float32", "bfloat16", "float16"):
        case = Case("torch", precision)
        with answering(compiled(case), case) as scores:
            answers[precision] = scores(clips[:8])
    assert 1e-4 < np.abs(answers["bfloat16"] - answers["float32"]).max() <= 2e-2
    assert 1e-5 < np.abs(answers["float16"] - answers["float32"]).max() <= 2e-3


def test_uncompiled_model_runs_on_every_backend_that_reads_onnx(
    small: ModelFolder, clips: Clips, reference: Floats
) -> None:
    for name in ("openvino", "torch"):
        backend = open_backend(name, small, device="cpu", max_batch=64, null_delay_ms=(0, 0))
        assert_close(softmax(backend.open_runner().infer(clips[:8])), reference[:8], "float32")


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_layout_with_channels_last_is_honoured(name: str, small: ModelFolder, clips: Clips, tmp_path: Path) -> None:
    network = onnx.load(str(small.network_path))
    network.graph.node.insert(0, helper.make_node("Transpose", ["raw"], ["clip"], perm=[0, 4, 1, 2, 3]))
    network.graph.input[0].CopyFrom(helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["n", *small.clip_shape]))
    onnx.save(network, str(tmp_path / "model.onnx"))
    model = dataclasses.replace(small, path=tmp_path, layout="NDHWC")
    backend = open_backend(name, model, device="cpu", max_batch=64, null_delay_ms=(0, 0))
    scores = softmax(backend.open_runner().infer(clips[:8]))
    assert_close(scores, reference_scores(small, clips[:8]), "float32")


# --- on a trained network --------------------------------------------------------------------------------------------


def write_demo_videos(folder: Path, seed: int) -> None:
    """Two of each class, small and in the codecs that are quick to write."""
    quick = [encoding for encoding in available_encodings() if encoding.codec in ("libx264", "mpeg4", "mjpeg")]
    write_shape_videos(folder, count=20, seed=seed, encodings=quick, sizes=[(160, 120)], seconds=(1.5, 3.0))


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Clips of the demonstration's videos, none of which the network was trained or calibrated on."""
    folder = tmp_path_factory.mktemp("held-out")
    write_demo_videos(folder, seed=101)
    return draw_clips([str(folder)], read_model(demo_folder()), clips=100, per_video=5).clips


@pytest.fixture(scope="session")
def compiled_demo(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_videos(folder / "videos", seed=102)
    source = read_model(demo_folder())
    return compiling(source, draw_clips([str(folder / "videos")], source, clips=40), folder)


@pytest.fixture(scope="session")
def demo_reference(held_out: Clips) -> Floats:
    return reference_scores(read_model(demo_folder()), held_out)


DEMO_CASES = [case for case in CASES if case.precision != "qint8_mixed_float32"]


@pytest.mark.parametrize("case", DEMO_CASES, ids=str)
def test_best_labels_agree_on_held_out_videos(
    case: Case, compiled_demo: Compile, held_out: Clips, demo_reference: Floats
) -> None:
    with answering(compiled_demo(case), case) as scores:
        parts = [scores(held_out[start : start + 8]) for start in range(0, len(held_out), 8)]
    given = np.concatenate(parts)
    agreement = float((given.argmax(-1) == demo_reference.argmax(-1)).mean())
    print(f"{case}: agreement {agreement:.1%}, largest difference {np.abs(given - demo_reference).max():.2g}")
    if needs_calibration(case.precision):
        assert agreement >= QUANTISED_AGREEMENT
    else:
        assert agreement >= (1.0 if "32" in case.precision else HALF_AGREEMENT)
        assert_close(given, demo_reference, case.precision)
    if case.precision == "bfloat16" and (case.backend != "openvino" or openvino_has("bfloat16")):
        assert np.abs(given - demo_reference).max() > 1e-3, "8 bits cannot be as near to float32 as that"


# --- operators of ONNX in torch --------------------------------------------------------------------------------------

X = (2, 4, 3, 6, 5)


def node(kind: str, *more: str, **attributes: Any) -> Any:
    return helper.make_node(kind, ["x", *more], ["y"], **attributes)


OPERATORS: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    (
        "grouped and dilated",
        11,
        [node("Conv", "w", group=2, dilations=[1, 2, 2], pads=[0, 2, 2, 0, 2, 2])],
        {"w": (6, 2, 1, 3, 3)},
    ),
    (
        "uneven padding",
        11,
        [node("Conv", "w", "b", pads=[0, 0, 1, 1, 2, 0], strides=[1, 2, 1])],
        {"w": (3, 4, 2, 3, 2), "b": (3,)},
    ),
    ("same upper", 11, [node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2, 2])], {"w": (3, 4, 3, 3, 3)}),
    ("same lower", 11, [node("Conv", "w", auto_pad="SAME_LOWER", strides=[1, 2, 2])], {"w": (3, 4, 2, 2, 2)}),
    (
        "batch norm",
        11,
        [node("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3)],
        {"s": (4,), "b": (4,), "m": (4,), "v": (4,)},
    ),
    ("max pool", 11, [node("MaxPool", kernel_shape=[3, 3, 3], strides=[2, 2, 2], pads=[1] * 6)], {}),
    ("max pool, uneven", 11, [node("MaxPool", kernel_shape=[1, 3, 3], strides=[1, 2, 2], pads=[0, 0, 1, 0, 1, 0])], {}),
    ("max pool, up", 11, [node("MaxPool", kernel_shape=[1, 2, 2], strides=[1, 2, 2], ceil_mode=1)], {}),
    ("average pool", 11, [node("AveragePool", kernel_shape=[1, 3, 3], pads=[0, 1, 1, 0, 1, 1])], {}),
    (
        "average pool, padding counts",
        11,
        [node("AveragePool", kernel_shape=[1, 3, 3], pads=[0, 1, 1, 0, 1, 1], count_include_pad=1)],
        {},
    ),
    ("average pool, uneven", 11, [node("AveragePool", kernel_shape=[1, 3, 3], pads=[0, 0, 1, 0, 1, 0])], {}),
    ("global average", 11, [node("GlobalAveragePool")], {}),
    ("global maximum", 11, [node("GlobalMaxPool")], {}),
    ("relu", 11, [node("Relu")], {}),
    ("leaky relu", 11, [node("LeakyRelu", alpha=0.2)], {}),
    ("sigmoid", 11, [node("Sigmoid")], {}),
    ("tanh", 11, [node("Tanh")], {}),
    ("hard sigmoid", 11, [node("HardSigmoid", alpha=0.3, beta=0.4)], {}),
    ("hard swish", 14, [node("HardSwish")], {}),
    ("clip by attributes", 10, [node("Clip", min=-0.5, max=0.7)], {}),
    ("clip by inputs", 11, [node("Clip", "low", "")], {"low": np.float32(-0.25)}),
    ("add", 11, [node("Add", "w")], {"w": (4, 1, 6, 1)}),
    ("sub", 11, [node("Sub", "w")], {"w": (5,)}),
    ("mul", 11, [node("Mul", "x")], {}),
    ("div", 11, [node("Div", "two")], {"two": np.float32(2)}),
    ("pow", 11, [node("Pow", "two")], {"two": np.float32(2)}),
    ("softmax, old", 11, [node("Softmax", axis=4)], {}),
    ("softmax over one axis", 13, [node("Softmax", axis=1)], {}),
    ("concat", 11, [node("Concat", "w", axis=1)], {"w": (2, 1, 3, 6, 5)}),
    ("pad by attribute", 10, [node("Pad", pads=[0, 1, 0, 0, 2, 0, 0, 1, 0, 0], value=3.0)], {}),
    ("pad by input", 11, [node("Pad", "p", "fill")], {"p": [0, 0, 1, 0, 0, 0, 0, 0, 2, 1], "fill": np.float32(1.5)}),
    ("reshape", 11, [node("Reshape", "s")], {"s": [0, -1, 6, 5]}),
    ("flatten", 11, [node("Flatten", axis=3)], {}),
    ("transpose", 11, [node("Transpose", perm=[0, 2, 1, 4, 3])], {}),
    (
        "squeeze by attribute",
        11,
        [helper.make_node("GlobalAveragePool", ["x"], ["g"]), helper.make_node("Squeeze", ["g"], ["y"], axes=[2, -1])],
        {},
    ),
    (
        "squeeze by input",
        13,
        [helper.make_node("GlobalAveragePool", ["x"], ["g"]), helper.make_node("Squeeze", ["g", "a"], ["y"])],
        {"a": [2, 3]},
    ),
    ("unsqueeze by attribute", 11, [node("Unsqueeze", axes=[0, 6])], {}),
    ("unsqueeze by input", 13, [node("Unsqueeze", "a")], {"a": [-1, 1]}),
    (
        "linear",
        11,
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0),
        ],
        {"w": (360, 7), "b": (7,)},
    ),
    (
        "linear, turned",
        11,
        [helper.make_node("Flatten", ["x"], ["f"], axis=4), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)],
        {"w": (7, 5)},
    ),
    ("matrix product", 11, [node("MatMul", "w")], {"w": (5, 3)}),
    ("mean, kept", 11, [node("ReduceMean", axes=[2, -1])], {}),
    ("mean by input", 18, [node("ReduceMean", "a", keepdims=0)], {"a": [2, 3, 4]}),
    ("mean of all", 11, [node("ReduceMean", keepdims=0)], {}),
    ("slice by attributes", 9, [node("Slice", starts=[1, -4], ends=[3, 1000], axes=[1, 3])], {}),
    (
        "slice by inputs",
        11,
        [node("Slice", "a", "b", "c", "d")],
        {"a": [0, -1], "b": [100, -100], "c": [3, 4], "d": [2, -1]},
    ),
    ("gather", 11, [node("Gather", "i", axis=2)], {"i": [[0, -1], [1, 1]]}),
    (
        "split",
        11,
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        {},
    ),
    ("dropout", 11, [node("Dropout", ratio=0.5)], {}),
    ("identity", 11, [node("Identity")], {}),
    (
        "a shape computed from a shape",
        11,
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Unsqueeze", ["n"], ["n1"], axes=[0]),
            helper.make_node("Constant", [], ["rest"], value=onnx.numpy_helper.from_array(np.array([4, -1]))),
            helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
            helper.make_node("Cast", ["to"], ["to64"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["x", "to64"], ["r"]),
            helper.make_node("ConstantOfShape", ["two"], ["c"], value=onnx.numpy_helper.from_array(np.float32([0.5]))),
            helper.make_node("Mul", ["r", "c"], ["y"]),
        ],
        {"zero": np.array(0), "two": [1]},
    ),
]


def write_operators(path: Path, opset: int, nodes: list[Any], constants: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    tensors = []
    for name, given in constants.items():
        if isinstance(given, tuple):
            value = rng.uniform(0.2, 1.0, given).astype(np.float32)
        else:
            value = np.asarray(given, np.float32 if isinstance(given, np.floating) else np.int64)
        tensors.append(onnx.numpy_helper.from_array(value, name))
    graph = helper.make_graph(
        nodes,
        "operators",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *X[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    path.write_bytes(model.SerializeToString())


def in_torch(path: Path, x: Floats, dtype: torch.dtype = torch.float32, **options: Any) -> Floats:
    network = OnnxInTorch(path, device=torch.device("cpu"), dtype=dtype, **options)
    with torch.inference_mode():
        answer = network(torch.from_numpy(x).to(dtype))
    return answer.float().numpy()


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"), [case[1:] for case in OPERATORS], ids=[case[0] for case in OPERATORS]
)
def test_operator_means_in_torch_what_it_means_in_openvino(
    opset: int, nodes: list[Any], constants: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "operators.onnx"
    write_operators(path, opset, nodes, constants)
    x = np.random.default_rng(4).standard_normal(X).astype(np.float32)
    expected = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    given = in_torch(path, x)
    assert given.shape == expected.shape
    assert np.allclose(given, expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(in_torch(path, x, channels_last=True), expected, rtol=1e-5, atol=1e-5)
    for half in (torch.bfloat16, torch.float16):
        assert np.allclose(in_torch(path, x, half), expected, rtol=0.05, atol=0.05)
        rounded = in_torch(path, x, rounded_to=half)
        assert np.allclose(rounded, expected, rtol=0.05, atol=0.05)
        assert np.array_equal(rounded, torch.from_numpy(rounded).to(half).float().numpy())


@pytest.mark.parametrize(
    ("nodes", "quoted"),
    [
        ([node("Selu")], "operator 'Selu', which the torch backend does not know: use --backend openvino"),
        ([node("Pad", "p", mode="reflect")], r"Pad '' in the mode 'reflect', .*: use --backend openvino"),
        ([node("Relu", domain="com.example")], "operator 'com.example.Relu'"),
        ([helper.make_node("Relu", ["nowhere"], ["y"])], "reads 'nowhere', which nothing gives"),
        ([helper.make_node("Relu", ["x"], ["z"])], "no operator that gives 'y'"),
    ],
)
def test_network_that_torch_cannot_run_is_refused_when_opened(nodes: list[Any], quoted: str, tmp_path: Path) -> None:
    path = tmp_path / "operators.onnx"
    write_operators(path, 11, nodes, {"p": [0] * 10})
    with pytest.raises(ModelError, match=quoted):
        OnnxInTorch(path, device=torch.device("cpu"), dtype=torch.float32)


def test_operator_that_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "operators.onnx"
    write_operators(path, 11, [node("Reshape", "s", name="odd")], {"s": [7, 7]})
    with pytest.raises(ModelError, match=r"fails in torch at Reshape 'odd' \(shape '\[7, 7\]' is invalid"):
        in_torch(path, np.zeros(X, np.float32))
