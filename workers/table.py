"""A run's outcomes as one table, from its journal: JSON, JSON lines, CSV or Parquet. The columns: docs/results.md.

The journal is read twice, a line at a time: once to see which line counts for each video, once to write. So memory
holds the names of the videos and one line, and a run that is going on can be read: a last line that is still being
written is left out.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from clipmux.engine.documents import read_json
from clipmux.engine.errors import ClipmuxError, UsageError

from .results import FAILURES, OWN, RESULTS, read_lines

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

CLASSIFIED, FAILED = "classified", "failed"
VIDEO_COLUMNS = (
    "video_id",
    "path",
    "status",
    "attempt",
    "frames",
    "clips",
    "start_s",
    "end_s",
    "label",
    "score",
    "labels",
    "stage",
    "error",
    "message",
)
CLIP_COLUMNS = (
    "video_id",
    "path",
    "attempt",
    "clip",
    "start_frame",
    "stop_frame",
    "start_s",
    "end_s",
    "label",
    "score",
    "labels",
)

BATCH_ROWS, BATCH_LABELS = 1000, 50_000
"""What a Parquet row group holds at most, but for a last row."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""First characters of text that spreadsheets take for a formula, and our own mark against that."""


@dataclass(frozen=True)
class Table:
    """What is to be written.

    Args:
        run: the run folder.
        per_clip: a row per clip and not per video.
        verbatim: in CSV, write text as it is even where a spreadsheet would take it for a formula.

    Raises:
        UsageError: it is no run folder, or has no results per clip.
    """

    run: Path
    per_clip: bool = False
    verbatim: bool = False

    def __post_init__(self) -> None:
        try:
            asked = read_json(self.run / "run.json")
            has_clips = asked["per_clip"]
        except (OSError, ValueError, TypeError, KeyError):
            raise UsageError(
                f"'{self.run}' is not a run folder (no run.json to read): give what was --output of a run"
            ) from None
        if self.per_clip and not has_clips:
            raise UsageError(f"the run in '{self.run}' has no results per clip: it was made without --per-clip")

    @property
    def columns(self) -> tuple[str, ...]:
        return CLIP_COLUMNS if self.per_clip else VIDEO_COLUMNS

    @property
    def most_labels(self) -> int:
        """Labels of the row that has most."""
        return self._index[1]

    def rows(self) -> Iterator[Row]:
        """Videos in the order in which they finished, then those that failed; clips in the order of their video.

        Raises:
            ClipmuxError: a line of the journal is not one that we wrote.
        """
        last, _ = self._index
        for name, offset, line in self._lines(RESULTS, FAILURES):
            if last.get(line["video_id"]) != (name, offset):
                continue
            try:
                rows = list(_clip_rows(line)) if self.per_clip else [_video_row(line)]
            except (KeyError, TypeError, ValueError, IndexError):
                raise ClipmuxError(
                    f"the line of '{line['video_id']}' in '{self.run / name}' is not one that a run has written: "
                    "remove it"
                ) from None
            yield from rows

    @functools.cached_property
    def _index(self) -> tuple[dict[str, tuple[str, int]], int]:
        """Which line counts for each video (the last; a result before a failure), and ``most_labels``."""
        last: dict[str, tuple[str, int]] = {}
        most = 1
        for name, offset, line in self._lines(FAILURES, RESULTS):
            last[line["video_id"]] = (name, offset)
            most = max(most, len(line.get("result", ())))
        return last, most

    def _lines(self, *names: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
        for name in names:
            for offset, line in read_lines(self.run / name, going_on=True):
                yield name, offset, line


def _video_row(line: dict[str, Any]) -> Row:
    row: Row = dict.fromkeys(VIDEO_COLUMNS)
    row |= {"video_id": line["video_id"], "path": line["path"], "attempt": line.get("attempt", 1), "labels": []}
    if "error" in line:
        return row | {"status": FAILED, **{name: line[name] for name in ("stage", "error", "message")}}
    return row | {"status": CLASSIFIED, "frames": line["frames"], "clips": line["clips"], **_scored(line)}


def _clip_rows(line: dict[str, Any]) -> Iterator[Row]:
    for number, clip in enumerate(line.get("per_clip", ())):
        start, stop = clip["segment"]
        video = {"video_id": line["video_id"], "path": line["path"], "attempt": line["attempt"]}
        yield {**video, "clip": number, "start_frame": start, "stop_frame": stop, **_scored(clip)}


def _scored(found: dict[str, Any]) -> Row:
    start, end = found["seconds"] or (None, None)
    labels = found["result"]
    return {
        "start_s": start,
        "end_s": end,
        "label": labels[0]["label"],
        "score": labels[0]["score"],
        "labels": labels,
    }


# -- formats -----------------------------------------------------------------------------------------------------------


def _write_jsonl(table: Table, out: BinaryIO) -> None:
    for row in table.rows():
        out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_json(table: Table, out: BinaryIO) -> None:
    before = b"[\n"
    for row in table.rows():
        out.write(before + json.dumps(row, ensure_ascii=False).encode())
        before = b",\n"
    out.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _write_csv(table: Table, out: BinaryIO) -> None:
    """As RFC 4180 has it; the labels after the best are columns of their own."""
    more = [f"{name}_{rank}" for rank in range(2, table.most_labels + 1) for name in ("label", "score")]
    place = table.columns.index("labels")
    before, after = table.columns[:place], table.columns[place + 1 :]
    with _text(out) as text:
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow([*before, *more, *after])
        for row in table.rows():
            rest = [item[name] for item in row["labels"][1:] for name in ("label", "score")]
            rest += [None] * (len(more) - len(rest))
            cells = [*(row[name] for name in before), *rest, *(row[name] for name in after)]
            writer.writerow(cells if table.verbatim else map(_guarded, cells))


def _guarded(cell: object) -> object:
    """Text that a spreadsheet would take for a formula begins with ``'``, and so does what begins with that mark."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


@contextlib.contextmanager
def _text(out: BinaryIO) -> Iterator[TextIO]:
    """UTF-8 text into a file that stays open."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()


def _write_parquet(table: Table, out: BinaryIO) -> None:
    try:
        from pyarrow import RecordBatch, parquet
    except ImportError:
        raise UsageError("--format parquet needs pyarrow: pip install 'clipmux[parquet]'") from None
    schema = _schema(table.columns)
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _batches(table.rows()):
            writer.write_batch(RecordBatch.from_pylist(rows, schema=schema))


def _schema(columns: Sequence[str]) -> pyarrow.Schema:
    import pyarrow as pa

    whole = {"attempt", "frames", "clips", "clip", "start_frame", "stop_frame"}
    real = {"start_s", "end_s", "score"}
    labels = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
    kinds = {name: pa.int64() for name in whole} | {name: pa.float64() for name in real} | {"labels": labels}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    labels = 0
    for row in rows:
        batch.append(row)
        labels += len(row["labels"])
        if len(batch) >= BATCH_ROWS or labels >= BATCH_LABELS:
            yield batch
            batch, labels = [], 0
    if batch:
        yield batch


WRITERS: dict[str, Callable[[Table, BinaryIO], None]] = {
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def write_table(table: Table, form: str, output: Path | None) -> None:
    """Write a run's outcomes; a file appears whole, in place of one that was there. What is there and is no file, like
    a pipe or a device, is written to as it is.

    Args:
        table: what.
        form: a key of ``WRITERS``.
        output: the file; None for standard output.

    Raises:
        UsageError: an unknown format, Parquet without a file or without pyarrow, or a file of the run itself.
        ClipmuxError: the file cannot be written, or the journal cannot be read.
    """
    if form not in WRITERS:
        raise UsageError(f"--format is '{form}': give one of {', '.join(WRITERS)}")
    if output is None:
        if form == "parquet":
            raise UsageError("--format parquet goes into a file: give --output")
        _write_stdout(table, form)
        return
    file = Path(os.path.realpath(output))  # a link stays one
    if file in [Path(os.path.realpath(table.run / name)) for name in OWN]:
        raise UsageError(f"'{output}' is a file of the run itself, which would be lost: give another --output")
    try:
        if output.exists() and not output.is_file():
            with output.open("wb") as out:
                WRITERS[form](table, out)
        else:
            _write_file(table, form, file)
    except OSError as error:
        raise ClipmuxError(f"'{output}' cannot be written ({error.strerror or error}): give another --output") from None


def _write_file(table: Table, form: str, file: Path) -> None:
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as out:
            WRITERS[form](table, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _write_stdout(table: Table, form: str) -> None:
    try:
        WRITERS[form](table, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would fail once more, with a traceback, when Python ends.
        with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise  # whoever read it has read enough
        raise ClipmuxError(f"standard output cannot be written ({error.strerror}): give --output") from None
