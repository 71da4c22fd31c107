"""The table of accuracies: real builds, real runs, kept rows, and what is refused before anything starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clipmux.bench.precisions import (
    Row,
    Task,
    accuracy_table,
    annotated_task,
    demo_task,
    losses,
    markdown_table,
    notes,
    sorted_task,
    text_table,
)
from clipmux.bench.videos import write_shape_videos
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model

ROWS = [
    Row("resnet-50", "force_float32", 64, 33966, 0, {"1": 0.5184, "5": 0.7544}),
    Row("resnet-50", "qint8_mixed_float16", 64, 33966, 2, {"1": 0.5096, "5": 0.7457}),
]


def table(task: Task, output: Path, *precisions: str, **options: Any) -> tuple[list[Row], str]:
    console = Console(width=120, record=True, quiet=False)
    settings: dict[str, Any] = {"target": "openvino", "workers": 2, "clips": 16, **options}
    rows = accuracy_table("demo", task, precisions=precisions, output=output, console=console, **settings)
    return rows, console.export_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's videos, ten of them."""
    folder = tmp_path_factory.mktemp("made")
    demo_task(folder, 10, calibrate=10)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "table")
    return tmp_path / "table"


def test_table_is_made_and_kept(folder: Path) -> None:
    task = demo_task(folder, 10)  # which finds its videos
    rows, said = table(task, folder, "bfloat16", "float32")
    assert [(row.model, row.precision, row.batch, row.videos, row.failed) for row in rows] == [
        ("resnet-10", "float32", 64, 10, 0),
        ("resnet-10", "bfloat16", 64, 10, 0),
    ]
    assert min(row.accuracy["1"] for row in rows) >= 0.9
    assert {row.accuracy["5"] for row in rows} == {1.0}
    for precision in ("float32", "bfloat16"):
        compiled = read_model(folder / "models" / precision)
        assert (compiled.target, compiled.precision) == ("openvino", precision)
        ran = json.loads((folder / "runs" / precision / "run.json").read_text())
        assert (ran["precision"], ran["backend"], ran["model_sha256"]) == (precision, "openvino", compiled.sha256)
    assert text_table(rows) in said
    for row in rows:  # CPUs without bfloat16 take float32, and the table says so
        assert row.precision in row.ran
        assert f"{row.precision} ran as {row.ran}" in said
        assert f"{row.precision} ran as {row.ran}" in (folder / "accuracy.txt").read_text()
    assert text_table(rows) in (folder / "accuracy.txt").read_text()
    assert (folder / "accuracy.md").read_text() == markdown_table(rows) + "\n"
    assert [entry["precision"] for entry in json.loads((folder / "accuracy.json").read_text())["rows"]] == [
        "float32",
        "bfloat16",
    ]
    # A finished row is kept: its run folder is not needed again, and a further precision joins the table.
    shutil.rmtree(folder / "runs")
    rows, said = table(task, folder, "float32", "float16")
    assert "float32 is done" in said
    assert [row.precision for row in rows] == ["float32", "float16"]
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["float16"]
    kept = json.loads((folder / "accuracy.json").read_text())["rows"]
    assert [entry["precision"] for entry in kept] == ["float32", "float16", "bfloat16"]


def test_interrupted_row_goes_on(folder: Path) -> None:
    """A run that has some of its videos is resumed, a model that is built is not built again."""
    task = demo_task(folder, 10)
    table(task, folder, "float32")
    run, network = folder / "runs" / "float32", folder / "models" / "float32" / "model.onnx"
    content = json.loads((folder / "accuracy.json").read_text())
    (folder / "accuracy.json").write_text(json.dumps({**content, "rows": []}))
    lines = (run / "results.jsonl").read_text().splitlines(keepends=True)
    (run / "results.jsonl").write_text("".join(lines[:6]))
    (run / "results.json").unlink()
    built = network.stat().st_mtime_ns
    rows, said = table(task, folder, "float32")
    assert network.stat().st_mtime_ns == built
    assert "6 of 10 videos are done" in said
    assert sorted((run / "results.jsonl").read_text().splitlines(keepends=True)[:6]) == sorted(lines[:6])
    assert json.loads((run / "summary.json").read_text())["videos"] == 4
    assert rows[0].accuracy["1"] >= 0.9


def test_quantised_row_is_calibrated_with_other_videos(folder: Path) -> None:
    pytest.importorskip("nncf")
    task = demo_task(folder, 10)
    (_, row), said = table(task, folder, "int8", "float32", options={"preset": "mixed"})  # float32 has no preset
    assert row.precision == "int8"
    assert row.accuracy["1"] >= 0.8
    assert losses([row]) == []
    assert "int8 is " in said
    drawn = read_model(folder / "models" / "int8").provenance["calibration"]
    assert len(drawn) == 16
    assert len({entry["video"] for entry in drawn}) == 10
    shown = {path.name for path in (folder / "calibration").iterdir()}
    assert {entry["video"] for entry in drawn} <= shown


def test_failed_videos_count_as_wrong(folder: Path, tmp_path: Path) -> None:
    for path in sorted((folder / "videos").iterdir())[:5]:
        path.write_bytes(b"no video")
    task = demo_task(folder, 10)
    (row,), _ = table(task, folder, "float32")
    assert row.failed == 5
    assert row.accuracy["1"] <= 0.5
    other = tmp_path / "other"
    (row,), _ = table(task, other, "float32", ignore=True)
    assert row.failed == 5
    assert row.accuracy["1"] >= 0.8


def test_videos_in_folders_named_like_labels(tmp_path: Path) -> None:
    made = write_shape_videos(tmp_path / "made", count=6, seconds=(0.7, 1.0))
    for video in made:
        place = tmp_path / "videos" / video.label / video.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        video.path.rename(place)
    output = tmp_path / "table"
    task = sorted_task([str(tmp_path / "videos")], "demo", output)
    (row,), _ = table(task, output, "float32")
    assert (row.videos, row.failed) == (6, 0)
    assert row.accuracy["5"] >= 0.8
    (tmp_path / "videos" / "juggling").mkdir()
    next((tmp_path / "videos" / made[0].label).iterdir()).rename(tmp_path / "videos" / "juggling" / "one.mp4")
    with pytest.raises(UsageError, match="folder 'juggling', which is no label"):
        sorted_task([str(tmp_path / "videos")], "demo", output)


def test_annotated_videos(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    labels = json.loads((folder / "annotations.json").read_text())["database"]
    for path in sorted((folder / "videos").iterdir()):
        place = root / labels[path.stem]["annotations"]["label"] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    task = annotated_task(folder / "annotations.json", root, calibrate=["some"])
    assert len(task.listing.videos) == 10
    assert task.calibrate == ("some",)


@pytest.mark.parametrize(
    ("precisions", "options", "said"),
    [
        (("float32", "float8"), {}, "no precision 'float8'"),
        (("float32",), {"target": "tpu"}, "no target 'tpu'"),
        ((), {}, "no precision was given"),
        (("float32",), {"device": "mlu:0"}, "has no device 'mlu:0'"),
        (("float32",), {"batch": 65}, "--max-batch is 65"),
    ],
)
def test_what_cannot_be_is_refused_first(
    precisions: tuple[str, ...], options: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        table(demo_task(folder, 10), tmp_path / "none", *precisions, **options)
    assert not (tmp_path / "none").exists()


def test_quantised_without_calibration_is_refused_first(folder: Path, tmp_path: Path) -> None:
    task = demo_task(folder, 10)
    with pytest.raises(UsageError, match="int8 needs real videos"):
        table(Task(task.listing, task.annotations), tmp_path / "none", "float32", "int8")
    assert not (tmp_path / "none").exists()


def test_table_of_something_else_is_left_alone(folder: Path) -> None:
    task = demo_task(folder, 10)
    with pytest.raises(UsageError, match="has 10 videos, not 12"):
        demo_task(folder, 12)
    table(task, folder, "float32")
    with pytest.raises(UsageError, match="has batch 64, this one 8"):
        table(task, folder, "float32", batch=8)
    (folder / "accuracy.json").write_text("[1]")
    with pytest.raises(UsageError, match="not a table of accuracies"):
        table(task, folder, "float32")


def test_tables_read_as_the_references() -> None:
    assert text_table(ROWS) == (
        "model      precision            batch size  top-1 (%)  top-5 (%)\n"
        "----------------------------------------------------------------\n"
        "resnet-50  force_float32                64      51.84      75.44\n"
        "resnet-50  qint8_mixed_float16          64      50.96      74.57"
    )
    assert markdown_table(ROWS) == (
        "| model | precision | batch size | top-1 (%) | top-5 (%) |\n"
        "|---|---|---:|---:|---:|\n"
        "| resnet-50 | force_float32 | 64 | 51.84 | 75.44 |\n"
        "| resnet-50 | qint8_mixed_float16 | 64 | 50.96 | 74.57 |"
    )
    assert losses(ROWS) == ["qint8_mixed_float16 is 0.88 points of top-1 below force_float32"]
    assert losses(ROWS[1:]) == []
    assert notes(ROWS)[-1] == "2 of 33966 videos failed in qint8_mixed_float16"
