"""``clipmux run`` on good input, bad input and wrong usage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from command import clipmux, lines, results, started, summary
from PIL import Image

from clipmux.bench.videos import write_short_videos
from clipmux.engine.model import ModelFolder, write_model


def null(model: Path, output: Path, *options: object) -> list[object]:
    return ["--model", model, "--backend", "null", "--output", output, *options]


@pytest.fixture
def few_videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 5, frames=40, size=(96, 64))
    return folder


def test_run_folder_is_complete(few_videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = clipmux("run", few_videos, *null(null_model, run))
    assert done.returncode == 0, done.stderr
    names = {entry.name for entry in run.iterdir()}
    assert names == {"results.jsonl", "results.json", "failures.jsonl", "summary.json", "run.json", "run.log"}
    assert list(results(run)) == sorted(path.stem for path in few_videos.iterdir())
    figures = summary(run)
    assert (figures["videos"], figures["failed"], figures["clips"], figures["frames"]) == (5, 0, 15, 200)
    assert {item["process"] for item in figures["peak_rss_bytes"]} == {
        "supervisor",
        "decoder",
        "inference",
        "collector",
    }
    assert figures["latency_ms"]["p50"] > 0
    assert (run / "failures.jsonl").read_text() == ""


def test_a_run_folder_is_shown_as_it_is_called(few_videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "exp[v2]:on:[" / "b]"
    done = clipmux("run", few_videos, *null(null_model, run))
    assert done.returncode == 0, done.stderr
    assert f"results are in {run}\n" in done.stderr
    again = clipmux("run", few_videos, *null(null_model, run, "--resume"))
    assert f"are done in '{run}' already" in again.stderr


def test_paths_on_standard_input_globs_and_frame_folders(few_videos: Path, null_model: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(1, 20):
        Image.fromarray(np.full((120, 160, 3), number, np.uint8)).save(frames / f"image_{number:05}.jpg")
    first, second, *_ = sorted(few_videos.iterdir())
    done = clipmux("run", "-", *null(null_model, tmp_path / "a"), stdin=f"{first}\n{frames}\n")
    assert done.returncode == 0, done.stderr
    assert list(results(tmp_path / "a")) == [first.stem, "frames"]
    done = clipmux("run", f"{few_videos}/*[12]_*", second, frames, *null(null_model, tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert set(results(tmp_path / "b")) == {"frames", *(p.stem for p in few_videos.glob("*[12]_*"))}


def test_a_result_that_no_message_can_hold_fails_its_video_and_no_other(null_model: Path, tmp_path: Path) -> None:
    """The best label alone takes 1 MiB, so that 65 clips are above the 64 MiB of a message."""
    model = json.loads((null_model / "model.json").read_text())
    model["labels"] = ["x" * (1 << 20) + label for label in model["labels"]]
    long_labels = shutil.copytree(null_model, tmp_path / "model")
    (long_labels / "model.json").write_text(json.dumps(model))
    for name, frames in (("long", 100), ("short", 20)):
        write_short_videos(tmp_path / name, 1, frames=frames, size=(96, 64))
    run = tmp_path / "run"
    options = null(long_labels, run, "--stride", 1, "--per-clip", "--top-k", 1, "--workers", 1)
    videos = [next((tmp_path / name).iterdir()).rename(tmp_path / f"{name}.mp4") for name in ("long", "short")]
    for resume in ([], ["--resume"]):
        done = clipmux("run", *videos, *options, *resume)
        assert done.returncode == 3, done.stderr
        assert set(lines(run / "results.jsonl")) == {"short"}
        failure = lines(run / "failures.jsonl")["long"]
        assert (failure["stage"], failure["error"]) == ("write", "ResultTooLong")
        assert "are allowed: give a smaller --top-k, or leave out --per-clip" in failure["message"]


@pytest.mark.parametrize("options", [[], ["--per-clip", "--segments"]])
def test_scores_that_are_no_numbers_fail_their_video_and_no_other(options: list[str], tmp_path: Path) -> None:
    model = fragile_model(tmp_path / "model")
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(12):
        grey_video(videos / f"good{number:02}.mp4", [60 + number] * 32)
    grey_video(videos / "bad.mp4", [255] * 32)
    grey_video(videos / "partly.mp4", [60] * 48 + [255] * 16)
    run = tmp_path / "run"
    for resume in ([], ["--resume"]):
        done = clipmux("run", videos, "--model", model, "--output", run, *options, *resume)
        assert done.returncode == 3, done.stderr
        assert len(lines(run / "results.jsonl")) == 12
        failures = lines(run / "failures.jsonl")
        for name, clips in (("bad", "2 of its 2"), ("partly", "1 of its 4")):
            assert (failures[name]["stage"], failures[name]["error"]) == ("score", "NotFinite")
            assert f"no numbers for {clips} clips: check" in failures[name]["message"]
        assert len(failures) == 2
    written = {path.name: path.read_text() for path in run.iterdir()}
    assert ("segments.jsonl" in written) == bool(options)
    assert not any("NaN" in text for text in written.values())
    assert "Traceback" not in written["run.log"]
    assert "RuntimeWarning" not in written["run.log"]


def test_a_network_that_gives_no_numbers_for_the_empty_clip_is_refused_at_once(
    few_videos: Path, tmp_path: Path
) -> None:
    model = fragile_model(tmp_path / "model", bound=-2)
    done = clipmux("run", few_videos, "--model", model, "--output", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert "it gave scores that are no numbers, check the model's weights" in done.stderr
    assert "restarts" not in done.stderr


def fragile_model(folder: Path, *, bound: float = 0.9) -> Path:
    """A model folder whose network gives NaN for a clip that is brighter than a bound, −1…1."""
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3, 4], keepdims=0),
        onnx.helper.make_node("Sub", ["bound", "mean"], ["left"]),
        onnx.helper.make_node("Sqrt", ["left"], ["y"]),
    ]
    clips = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 16, 112, 112])
    scores = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])
    value = onnx.numpy_helper.from_array(np.array([bound], np.float32), "bound")
    graph = onnx.helper.make_graph(nodes, "fragile", [clips], [scores], [value])
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir()
    onnx.save(network, folder / "model.onnx")
    return write_model(ModelFolder(path=folder, name="fragile", network="model.onnx", labels=("a", "b", "c"))).path


def grey_video(path: Path, values: list[int]) -> None:
    """One frame of this grey after another."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for value in values:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def bad_inputs(folder: Path, good: Path) -> dict[str, str]:
    """One of each bad kind; by name, what its failure must mention."""
    folder.mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n")
    whole = good.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    sound_only(folder / "sound.mp4")
    hole = folder / "hole"
    bad_picture = folder / "bad_picture"
    for frames in (hole, bad_picture):
        frames.mkdir()
        for number in range(1, 20):
            Image.fromarray(np.full((120, 160, 3), number, np.uint8)).save(frames / f"image_{number:05}.jpg")
    (hole / "image_00007.jpg").unlink()
    picture = bad_picture / "image_00007.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    os.mkfifo(folder / "pipe.mp4")
    return {
        "empty": "is empty",
        "text": "cannot be read as a video",
        "cut": "cut short",
        "sound": "no video stream",
        "hole": "image_00007.jpg",
        "bad_picture": "image_00007.jpg",
        "pipe": "not a regular file",
        "absent": "there is no file",
    }


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode()])


def test_bad_videos_fail_with_a_sentence_and_the_others_finish(
    few_videos: Path, null_model: Path, tmp_path: Path
) -> None:
    good = sorted(few_videos.iterdir())
    bad = bad_inputs(tmp_path / "bad", good[0])
    write_short_videos(tmp_path / "one", 1, frames=1, size=(96, 64))
    inputs = [tmp_path / "bad" / name for name in ("hole", "bad_picture", "absent.mp4")]
    inputs += sorted((tmp_path / "bad").glob("*.mp4"))
    (one,) = (tmp_path / "one").iterdir()
    one = one.rename(tmp_path / "one" / "one_frame.mp4")
    run = tmp_path / "run"
    done = clipmux("run", *inputs, one, *good, *null(null_model, run))
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr + (run / "run.log").read_text()
    failures = lines(run / "failures.jsonl")
    assert set(failures) == set(bad)
    for name, mention in bad.items():
        line = failures[name]
        assert mention in line["message"], line
        assert line["path"] in line["message"]
        assert "\n" not in line["message"]
        assert line["stage"] in ("open", "decode")
    assert set(results(run)) == {"one_frame", *(path.stem for path in good)}
    assert lines(run / "results.jsonl")["one_frame"]["clips"] == 1


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(
    short_videos: Path, null_model: Path, tmp_path: Path
) -> None:
    inputs = sorted(short_videos.iterdir())[:300]
    run = tmp_path / "run"
    options = null(null_model, run, "--null-delay", "0+5")
    process = started("run", *inputs, *options)
    wait_for(lambda: journal_lines(run) >= 40)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - asked < 5
    assert process.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said
    kept = lines(run / "results.jsonl")
    assert 40 <= len(kept) < 300
    done = clipmux("run", *inputs, *options)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    done = clipmux("run", *inputs, *options, "--resume")
    assert done.returncode == 0, done.stderr
    assert set(lines(run / "results.jsonl")) == {path.stem for path in inputs}
    assert list(results(run)) == [path.stem for path in inputs]
    assert summary(run)["resumed"] == len(kept)


def test_resume_refuses_another_configuration(few_videos: Path, null_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert clipmux("run", few_videos, *null(null_model, run)).returncode == 0
    done = clipmux("run", few_videos, *null(null_model, run, "--resume", "--stride", 8))
    assert done.returncode == 2
    assert "stride 16" in done.stderr
    assert "8" in done.stderr


USAGE: list[tuple[list[Any], str]] = [
    (["--model", "absent", "--output", "OUT"], "no model folder at 'absent'"),
    (["--output", "OUT"], "--model"),
    (["--model", "MODEL"], "--output"),
    (["--model", "MODEL", "--output", "OUT", "--backend", "abacus"], "'abacus'"),
    (["--model", "MODEL", "--output", "OUT", "--device", "abacus:0"], "'abacus:0'"),
    (["--model", "MODEL", "--output", "OUT", "--stride", "0"], "--stride is 0"),
    (["--model", "MODEL", "--output", "OUT", "--max-batch", "65"], "--max-batch is 65"),
    (["--model", "MODEL", "--output", "OUT", "--null-delay", "fast"], "'fast'"),
    (["--model", "MODEL", "--output", "FILE/run"], "cannot be written"),
    (["--model", "MODEL", "--output", "FULL"], "not empty"),
    (["--model", "NOLABELS", "--output", "OUT"], "labels"),
    (["--model", "WRONGCOUNT", "--output", "OUT"], "10 classes"),
    (["--model", "MODEL", "--output", "OUT"], "OpenVINO cannot read"),
]


@pytest.mark.parametrize(("options", "mention"), USAGE, ids=[mention for _, mention in USAGE])
def test_wrong_usage_stops_with_one_sentence(
    options: list[str], mention: str, few_videos: Path, null_model: Path, tmp_path: Path
) -> None:
    places = {"MODEL": null_model, "OUT": tmp_path / "run", "FULL": few_videos}
    places["FILE/run"] = sorted(few_videos.iterdir())[0] / "run"  # below a file: unwritable for root too
    for name, change in (("NOLABELS", {"labels": []}), ("WRONGCOUNT", {"labels": ["only", "two"]})):
        places[name] = Path(shutil.copytree(null_model, tmp_path / name))
        content = json.loads((null_model / "model.json").read_text())
        (places[name] / "model.json").write_text(json.dumps({**content, **change}))
    done = clipmux("run", few_videos, *(places.get(option, option) for option in options))
    assert done.returncode == 2, done.stderr
    assert mention in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_whose_name_is_no_utf8_changes_no_sentence(few_videos: Path, null_model: Path, tmp_path: Path) -> None:
    """The network cannot be read: what OpenVINO says of it quotes the folder, and so does the child that says so."""
    model = tmp_path / os.fsdecode(b"m\xe9")
    shutil.copytree(null_model, model)
    done = clipmux("run", few_videos, "--model", model, "--output", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert "OpenVINO cannot read" in done.stderr
    assert r"m\udce9/model.onnx' (Unable to read the model: " in done.stderr
    assert ": export the model again" in done.stderr
    assert "the log has more" not in done.stderr


def test_two_videos_of_one_name_are_refused_unless_named_by_path(
    few_videos: Path, null_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(few_videos, other)
    done = clipmux("run", few_videos, other, *null(null_model, tmp_path / "run"))
    assert done.returncode == 2
    assert "--names path" in done.stderr
    assert not (tmp_path / "run").exists()


def test_settings_come_from_a_file_the_environment_and_the_command_line(
    few_videos: Path, null_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "clipmux.toml"
    file.write_text(f'model = "{null_model}"\nbackend = "null"\nstride = 8\ntop-k = 2\nworkers = 1\n')
    run = tmp_path / "run"
    done = clipmux("run", few_videos, "--config", file, "--output", run, "--top-k", 3, CLIPMUX_RUN_STRIDE="4")
    assert done.returncode == 0, done.stderr
    asked = json.loads((run / "run.json").read_text())
    assert (asked["stride"], asked["top_k"]) == (4, 3)
    file.write_text("strides = 8\n")
    done = clipmux("run", few_videos, "--config", file, "--output", tmp_path / "run2")
    assert done.returncode == 2
    assert "'strides'" in done.stderr


def test_plain_progress_lines_when_not_a_terminal(short_videos: Path, null_model: Path, tmp_path: Path) -> None:
    inputs = sorted(short_videos.iterdir())[:100]
    done = clipmux("run", *inputs, *null(null_model, tmp_path / "run", "--null-delay", "0+40"))
    assert done.returncode == 0, done.stderr
    assert "/100 videos" in done.stderr
    assert "clips/s" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (["--help"], "Start with: clipmux demo"),
        (["--version"], "clipmux 0."),
        (["run", "--help"], "clipmux run videos/ --model model"),
        (["eval", "-h"], "-k 1 -k 5"),
    ],
)
def test_help_shows_an_example_and_loads_nothing_heavy(command: list[str], example: str) -> None:
    done = clipmux(*command, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert example in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "clipmux.engine.cli" in loaded
    assert not loaded & {"numpy", "av", "zmq", "msgpack", "PIL", "openvino", "torch"}


def test_no_process_ever_loads_openvinos_telemetry() -> None:
    """It would fork, and send a usage event over the network."""
    script = (
        "import sys, clipmux.engine.backends.openvino, openvino.tools.ovc; print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def journal_lines(run: Path) -> int:
    journal = run / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(condition: Any, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
