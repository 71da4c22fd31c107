"""``clipmux run`` with models compiled for MagicMind, on the emulator in tests/emulator; test_golden.py has more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import assert_same, expected_results, results, summary
from emulated import magicmind, on_mlu

from clipmux.build.calibration import draw_clips
from clipmux.build.compile import compile_model
from clipmux.engine.model import read_model


def compiled(golden_model: Path, folder: Path, **options: Any) -> Path:
    with magicmind():
        return compile_model(
            golden_model, folder, target="magicmind", precision="force_float32", calibration=None, options=options
        ).path


@pytest.fixture(scope="module")
def float32(golden_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(golden_model, tmp_path_factory.mktemp("float32") / "model")


def annotated(golden: Path, model: Path, output: Path) -> list[object]:
    inputs = ["--annotations", golden / "kinetics.json", "--root", golden / "jpg"]
    return ["run", *inputs, "--model", model, "--backend", "magicmind", "--device", "mlu:0", "--output", output]


def test_fixed_batch_gives_the_references_results(golden: Path, golden_model: Path, tmp_path: Path) -> None:
    model = compiled(golden_model, tmp_path / "model", fixed_batch=4)
    run = tmp_path / "run"
    done = on_mlu(*annotated(golden, model, run))
    assert done.returncode == 0, done.stderr
    assert_same(results(run), expected_results(golden, "avg"), within=1e-5)
    assert summary(run)["inference"]["preferred_batch"] == 4


def test_quantised_on_real_videos(golden: Path, golden_model: Path, tmp_path: Path) -> None:
    calibration = draw_clips([str(golden / "videos")], read_model(golden_model), clips=6)
    with magicmind():
        model = compile_model(
            golden_model,
            tmp_path / "model",
            target="magicmind",
            precision="qint8_mixed_float16",
            calibration=calibration,
        )
    assert model.provenance["calibration"] == calibration.drawn
    run = tmp_path / "run"
    folder = min((golden / "jpg").glob("*/*"))
    done = on_mlu("run", folder, "--model", model.path, "--device", "mlu:0", "--output", run)
    assert done.returncode == 0, done.stderr
    assert len(results(run)) == 1
    assert summary(run)["inference"]["chosen"].startswith("qint8_mixed_float16")


@pytest.mark.parametrize(
    ("point", "status", "said"),
    [
        ("deserialize_from_file:1", 2, "MagicMind's deserialize_from_file failed: "),
        ("create_i_engine:1", 2, "MagicMind's create_i_engine gave None"),
        ("create_queue:2", 1, "'mlu:0' cannot be used (MagicMind's create_queue gave None"),
        ("enqueue:3+", 1, "the magicmind backend failed on 'mlu:0': MagicMind's enqueue failed: "),
    ],
)
def test_a_device_that_fails_ends_the_run_with_a_sentence(
    golden: Path, float32: Path, tmp_path: Path, point: str, status: int, said: str
) -> None:
    run = annotated(golden, float32, tmp_path / "run")
    done = on_mlu(*run, "--max-batch", "1", MAGICMIND_EMULATOR_FAIL=point)
    assert done.returncode == status, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("clipmux: ")]
    assert len(sentences) == 1
    assert said in sentences[0]
    assert "Traceback" not in done.stderr


def test_devices_and_models_that_do_not_go_together(
    golden: Path, golden_model: Path, float32: Path, tmp_path: Path
) -> None:
    def refused(*args: object, **env: str) -> str:
        done = on_mlu("run", golden / "videos", "--output", tmp_path / "run", *args, **env)
        assert done.returncode == 2, done.stderr
        assert not (tmp_path / "run").exists()
        return done.stderr

    assert "no device 'mlu:7': it has 1" in refused("--model", float32, "--device", "mlu:7")
    assert "compiled for" in refused("--model", float32, "--device", "cpu")
    assert "is not compiled for MagicMind" in refused(
        "--model", golden_model, "--device", "mlu:0", "--backend", "magicmind"
    )
    assert "Neuware" in refused("--model", float32, "--device", "mlu:0", PYTHONPATH="")
    wrong = refused("--model", float32, "--device", "mlu:0", MAGICMIND_EMULATOR_ARCH="mtp_592")
    assert "it was built for mtp_372" in wrong


@pytest.mark.parametrize(
    ("action", "said"),
    [("", "MagicMind's sync failed: "), (":hang", r"a call of the device that did not return for 2 s")],
)
def test_a_device_that_fails_or_hangs_on_the_way_is_opened_anew(
    golden: Path, float32: Path, tmp_path: Path, action: str, said: str
) -> None:
    clips = sum(len(segments) for segments in expected_results(golden, "noavg").values())
    run = tmp_path / "run"
    point = f"compute:{clips * 3 // 4}{action}"  # in the first process: the second has less to do
    options = ["--max-batch", "1", "--device-timeout", "2"]
    done = on_mlu(*annotated(golden, float32, run), *options, MAGICMIND_EMULATOR_FAIL=point)
    assert done.returncode == 0, done.stderr
    assert_same(results(run), expected_results(golden, "avg"), within=1e-5)
    assert summary(run)["restarts"] == 1
    assert said in (run / "run.log").read_text()
