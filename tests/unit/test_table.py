"""A run's outcomes as a table: the same rows in every format, also of a run that is going on."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import ClipmuxError, UsageError, VideoError
from clipmux.engine.messages import Segment
from clipmux.engine.prediction import ClipPrediction, LabelScore, Prediction
from clipmux.workers.results import FAILURES, RESULTS, Journal, RunFolder
from clipmux.workers.table import BATCH_ROWS, CLIP_COLUMNS, VIDEO_COLUMNS, Table, write_table

TOP = (LabelScore("archery", 0.75), LabelScore("跳水, \"quoted\"\nand 'more'", 0.1 + 0.2))
CLIPS = tuple(ClipPrediction(Segment(1 + 16 * i, 17 + 16 * i, (i / 2, i / 2 + 0.5)), TOP[: i + 1]) for i in range(2))


def result(video_id: str, **more: Any) -> dict[str, Any]:
    content = {"clips": 2, "frames": 32, "seconds": (0.04, 1.5), **more}
    return Prediction(video_id, f"/videos/{video_id}.mp4", TOP, **content).to_json()


def failure(video_id: str) -> dict[str, Any]:
    error = VideoError("decode", "Truncated", "'x' ends early")
    return Prediction(video_id, "/videos/x", attempt=2, error=error).to_json()


def run(path: Path, *lines: dict[str, Any], per_clip: bool = False) -> Path:
    RunFolder(path, decides={"per_clip": per_clip}, resume=False)
    journal = Journal(path)
    for line in lines:
        journal.write(line)
    journal.close()
    return path


def exported(folder: Path, form: str, **options: Any) -> list[dict[str, Any]]:
    """Rows as a reader of the format has them."""
    output = folder.parent / f"out.{form}"
    write_table(Table(folder, **options), form, output)
    assert not list(folder.parent.glob("*.part"))
    if form == "json":
        rows: list[dict[str, Any]] = json.loads(output.read_bytes())
        return rows
    if form == "jsonl":
        return [json.loads(line) for line in output.read_bytes().splitlines()]
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
        return table
    return list(csv.DictReader(io.StringIO(output.read_bytes().decode(), newline="")))


ROWS = [
    {
        "video_id": "b",
        "path": "/videos/b.mp4",
        "status": "classified",
        "attempt": 1,
        "frames": 32,
        "clips": 2,
        "start_s": 0.04,
        "end_s": 1.5,
        "label": "archery",
        "score": 0.75,
        "labels": [{"label": item.label, "score": item.score} for item in TOP],
        "stage": None,
        "error": None,
        "message": None,
    },
    {
        **dict.fromkeys(VIDEO_COLUMNS),
        "video_id": "c",
        "path": "/videos/x",
        "status": "failed",
        "attempt": 2,
        "labels": [],
        "stage": "decode",
        "error": "Truncated",
        "message": "'x' ends early",
    },
]


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_rows_are_the_same_in_every_nested_format(form: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", failure("c"), result("b"))
    rows = exported(folder, form)
    assert rows == ROWS
    assert list(rows[0]) == list(VIDEO_COLUMNS)


def test_csv_has_a_pair_of_columns_per_label_and_reads_back_exactly(tmp_path: Path) -> None:
    first, second = exported(run(tmp_path / "run", result("b"), failure("c")), "csv", verbatim=True)
    before = list(VIDEO_COLUMNS[: VIDEO_COLUMNS.index("labels")])
    assert list(first) == [*before, "label_2", "score_2", "stage", "error", "message"]
    assert (first["label_2"], float(first["score_2"])) == (TOP[1].label, TOP[1].score)
    assert (first["start_s"], first["stage"]) == ("0.04", "")
    assert (second["status"], second["label"], second["label_2"], second["message"]) == (
        "failed",
        "",
        "",
        "'x' ends early",
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-0abc", "@SUM(A1)", "\tx", "\rx", "'x", "''=x"])
def test_text_that_a_spreadsheet_would_run_is_marked_and_can_be_had_back(name: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", result(name))
    assert exported(folder, "csv")[0]["video_id"] == f"'{name}"
    assert exported(folder, "csv", verbatim=True)[0]["video_id"] == name
    assert exported(folder, "json")[0]["video_id"] == name


def test_numbers_and_harmless_text_are_not_marked(tmp_path: Path) -> None:
    (row,) = exported(run(tmp_path / "run", result("a-b=c", seconds=(-1.5, 2.0))), "csv")
    assert (row["video_id"], row["start_s"]) == ("a-b=c", "-1.5")


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet", "csv"])
def test_a_row_per_clip(form: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", result("b", per_clip=CLIPS), failure("c"), per_clip=True)
    rows = exported(folder, form, per_clip=True)
    assert [(row["video_id"], int(row["clip"])) for row in rows] == [("b", 0), ("b", 1)]
    assert [int(rows[1][name]) for name in ("start_frame", "stop_frame")] == [17, 33]
    assert [float(rows[1][name]) for name in ("start_s", "end_s", "score")] == [0.5, 1.0, 0.75]
    if form == "csv":
        assert [row["label_2"] for row in rows] == ["", TOP[1].label]
    else:
        assert list(rows[0]) == list(CLIP_COLUMNS)
        assert [len(row["labels"]) for row in rows] == [1, 2]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_a_run_without_a_result_yet(form: str, tmp_path: Path) -> None:
    assert exported(run(tmp_path / "run"), form) == []


@pytest.mark.parametrize("name", [RESULTS, FAILURES])
def test_a_line_that_is_being_written_is_left_out_at_every_length(name: str, tmp_path: Path) -> None:
    make = result if name == RESULTS else failure
    folder = run(tmp_path / "run", make("a"), make("b"))
    whole = (folder / name).read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        (folder / name).write_bytes(whole[:size])
        assert [row["video_id"] for row in Table(folder).rows()] == ["a"]
    assert (folder / name).read_bytes() == whole[:-1], "reading repairs nothing"


def test_the_last_line_of_a_video_counts_and_a_result_before_a_failure(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", failure("a"), result("a"), result("b"), result("a", frames=99))
    assert [(row["video_id"], row["frames"]) for row in Table(folder).rows()] == [("b", 32), ("a", 99)]


def test_rows_that_come_while_it_is_exported_do_not_break_the_table(tmp_path: Path) -> None:
    """The header was made when there was no label to count."""
    folder = run(tmp_path / "run")
    table = Table(folder)
    assert table.most_labels == 1
    journal = Journal(folder)
    journal.write(result("late"))
    journal.close()
    assert list(table.rows()) == []


def test_many_rows_are_written_in_groups(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = run(tmp_path / "run", *(result(str(number)) for number in range(2 * BATCH_ROWS + 1)))
    assert len(exported(folder, "parquet")) == 2 * BATCH_ROWS + 1
    assert parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 3


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        Table(tmp_path)
    folder = run(tmp_path / "run", result("a"))
    with pytest.raises(UsageError, match="made without --per-clip"):
        Table(folder, per_clip=True)
    with pytest.raises(UsageError, match="--format is 'xml'"):
        write_table(Table(folder), "xml", None)
    with pytest.raises(UsageError, match="goes into a file"):
        write_table(Table(folder), "parquet", None)
    with pytest.raises(ClipmuxError, match="cannot be written"):
        write_table(Table(folder), "csv", tmp_path / "no" / "out.csv")
    (folder / RESULTS).write_text('{"video_id": "a"}\n')
    (tmp_path / "kept.csv").write_text("before")
    with pytest.raises(ClipmuxError, match=r"line 1 of .* is not a result"):
        write_table(Table(folder), "csv", tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text() == "before"
    assert not (tmp_path / "kept.csv.part").exists()


@pytest.mark.parametrize(
    "name", ["results.jsonl", "failures.jsonl", "summary.json", "run.json", "../run/results.jsonl"]
)
def test_the_files_of_the_run_itself_are_refused(name: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", result("a"))
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder / name)
    for output in (folder / name, tmp_path / "link"):
        with pytest.raises(UsageError, match="is a file of the run itself"):
            write_table(Table(folder), "jsonl", output)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before


def test_what_is_there_and_no_file_stays_what_it_is(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", result("a"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_table(Table(folder), "jsonl", pipe)
    assert json.loads(os.read(reader, 1 << 16))["video_id"] == "a"
    os.close(reader)
    assert pipe.is_fifo()
    device, link, file = tmp_path / "device", tmp_path / "link", tmp_path / "file"
    device.symlink_to("/dev/null")
    link.symlink_to(file)
    file.touch()
    for output in (device, link):
        write_table(Table(folder), "jsonl", output)
        assert output.is_symlink()
    assert json.loads(file.read_bytes())["video_id"] == "a"


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("file/out.csv", "Not a directory"),
        (".", "Is a directory"),
        ("x" * 252, "File name too long"),
        ("x" * 300, "File name too long"),
        ("full", "No space left on device"),
    ],
    ids=["below a file", "folder", "long name", "longer name", "full"],
)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_output_that_cannot_be_written_is_said(
    form: str, output: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "run", result("a"))
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("full").symlink_to("/dev/full")
    with pytest.raises(ClipmuxError, match=rf"cannot be written \({why}\): give another --output"):
        write_table(Table(folder), form, Path(output))


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_a_full_standard_output_is_said_once(form: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", result("a"))
    program = f"from pathlib import Path; from clipmux.workers.table import *; run = Path({str(folder)!r})\n"
    program += f"try: write_table(Table(run), {form!r}, None)\nexcept ClipmuxError as error: sys.exit(str(error))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "standard output cannot be written (No space left on device): give --output\n"
    assert done.returncode == 1
