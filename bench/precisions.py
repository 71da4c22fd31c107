"""What each precision costs in accuracy: build, run, evaluate, a row per precision, as in the reference's table.

Everything goes through the same code as ``clipmux build compile``, ``clipmux run`` and ``clipmux eval``. The output
folder holds it all, and a table that was interrupted goes on where it was: a finished row is kept, a run is resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.build.calibration import CalibrationSet, draw_clips
from clipmux.build.compile import check_precision, compile_model, needs_calibration
from clipmux.build.shapes import LABELS
from clipmux.engine.config import EngineConfig
from clipmux.engine.documents import read_json
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder, file_sha256, read_model
from clipmux.engine.progress import say
from clipmux.engine.run import run_videos
from clipmux.workers.results import FAILURES, read_lines, write_json
from clipmux.workers.sources import Listing, list_annotated, list_videos

from .accuracy import evaluate
from .videos import write_shape_videos

FORMAT = 1
FULL = ("float32", "force_float32")
"""The precisions that the others are held against; one of them is the first row."""

DEVICES = {"openvino": "cpu", "torch": "cpu", "magicmind": "mlu:0"}
CALIBRATION_SEED = 1
"""Of the made videos that are calibrated with; those that are evaluated have seed 0."""

QUANTISED_ONLY = ("activation_algorithm", "calibration_algorithm", "preset", "remote", "weight_granularity")
"""Options for compiling that say how to quantise, and are left out where nothing is."""

TABLE = "accuracy"
"""Name of the table's files, before ``.json``, ``.md`` and ``.txt``."""


@dataclass(frozen=True)
class Task:
    """Videos, and the truth about them.

    Args:
        listing: the videos.
        annotations: the reference's JSON, with the true label of each ``video_id``.
        subset: which of the annotated videos.
        calibrate: videos to calibrate with that are not evaluated; inputs as ``clipmux run`` takes them.
    """

    listing: Listing
    annotations: Path
    subset: str = "validation"
    calibrate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One precision.

    Args:
        model: the network's name.
        precision: in the target's own words.
        batch: clips in one call at most.
        videos: how many videos the truth is known of.
        failed: how many of them could not be classified; they count as wrong, unless failures are left out.
        accuracy: by k, as text as JSON has it: the share of videos whose label is among the first k, 0…1.
        ran: what the backend chose, which is another precision where the device lacks the one asked for.
    """

    model: str
    precision: str
    batch: int
    videos: int
    failed: int
    accuracy: dict[str, float] = field(default_factory=dict)
    ran: str = ""


def annotated_task(annotations: Path, root: Path, *, subset: str = "validation", calibrate: Sequence[str] = ()) -> Task:
    """The videos of an annotation file that are under ``root``.

    Raises:
        UsageError: the file or the folder cannot be used.
    """
    return Task(list_annotated(annotations, root, subset=subset), annotations, subset, tuple(calibrate))


def sorted_task(inputs: Sequence[str], model: str, output: Path, *, calibrate: Sequence[str] = ()) -> Task:
    """Videos in folders named like their labels (``videos/archery/a.mp4``); the truth is written to ``output``.

    Raises:
        UsageError: an input cannot be used, or a folder is called like no label.
    """
    labels = read_model(model).labels
    listing = list_videos(inputs, stdin=None)
    truth = {}
    for video in listing.videos:
        label = video.path.resolve().parent.name
        if label not in labels:
            raise UsageError(
                f"'{video.path}' is in a folder '{label}', which is no label of the model: "
                "put videos into folders named like their labels, or give --annotations"
            )
        truth[video.video_id] = label
    return Task(listing, _write_truth(output, labels, truth), calibrate=tuple(calibrate))


def demo_task(output: Path, count: int, *, calibrate: int = 32) -> Task:
    """The demonstration's task: ``count`` made videos that the bundled model has not seen.

    They are written to ``output`` once, and ``calibrate`` others to calibrate with; later calls find them there.

    Raises:
        UsageError: ``count`` is out of range, or another number of videos is there.
    """
    videos, calibration = output / "videos", output / "calibration"
    annotations = output / "annotations.json"
    if not annotations.is_file():  # it is written last
        write_shape_videos(calibration, count=calibrate, seed=CALIBRATION_SEED)
        made = write_shape_videos(videos, count=count)
        _write_truth(output, LABELS, {video.path.stem: video.label for video in made})
    listing = list_videos([str(videos)], stdin=None)
    if len(listing.videos) != count:
        raise UsageError(f"'{videos}' has {len(listing.videos)} videos, not {count}: say so, or give another --output")
    return Task(listing, annotations, calibrate=(str(calibration),))


def accuracy_table(
    model: str,
    task: Task,
    *,
    target: str,
    precisions: Sequence[str],
    output: Path,
    console: Console,
    batch: int = 64,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    clips: int = 128,
    seed: int = 0,
    workers: int = 0,
    ks: Sequence[int] = (1, 5),
    ignore: bool = False,
) -> list[Row]:
    """Build, run and evaluate every precision, and write ``accuracy.json``, ``accuracy.md`` and ``accuracy.txt``.

    Args:
        model: the model folder to compile, or ``demo``.
        task: what to run on, and the truth.
        target: ``openvino``, ``torch`` or ``magicmind``.
        precisions: of the target; full precision comes first, whatever the order here.
        output: folder for the models (``models/``), the run folders (``runs/``) and the table.
        console: where progress and the table go.
        batch: clips in one device call at most.
        device: the target's first unless given.
        options: for compiling, as the target understands them; what is about quantising goes to quantised precisions.
        clips: how many to calibrate with.
        seed: of the draw of clips.
        workers: decoder processes; 0 is one per core.
        ks: how many labels count.
        ignore: leave videos without a result out; else they count as wrong.

    Raises:
        UsageError: an argument cannot be used, or ``output`` holds a table of something else.
        Interrupted: SIGINT or SIGTERM came; the same call goes on.
        ClipmuxError: a run failed.
    """
    ordered = _in_order(precisions)
    for precision in ordered:
        check_precision(target, precision, calibrated=bool(task.calibrate))
    source = read_model(model)
    config = EngineConfig(
        model=str(source.path),
        device=device or DEVICES[target],
        backend=target,
        max_batch=batch,
        workers=workers,
        top_k=max(5, *ks),
    )
    about = {
        "format": FORMAT,
        "model": source.name,
        "model_sha256": source.sha256,
        "target": target,
        "device": config.device,
        "batch": batch,
        "options": {key: str(value) for key, value in (options or {}).items()},
        "annotations_sha256": file_sha256(task.annotations),
        "subset": task.subset,
        "calibration": {"clips": clips, "seed": seed},
        "k": list(ks),
        "ignore": ignore,
    }
    rows = _finished_rows(output, about)
    draw = _drawing_once(task.calibrate, source, clips, seed)
    for precision in ordered:
        if precision in rows:
            say(console, f"{precision} is done in '{output}' already")
            continue
        say(console, f"{source.name}, {target}, {precision}")
        compiled = output / "models" / precision
        if not _is_built(compiled, source, precision):
            compile_model(
                source.path,
                compiled,
                target=target,
                precision=precision,
                calibration=draw() if needs_calibration(precision) else None,
                options=_options_for(precision, options or {}),
                force=True,
            )
        run = output / "runs" / precision
        chosen = EngineConfig.from_json({**config.to_json(), "model": str(compiled.resolve())})
        run_videos(task.listing, chosen, output=run, resume=True, console=console)
        rows[precision] = _row_of(run, task, source.name, precision, batch, ks, ignore=ignore)
        _write(output, about, _sorted(rows, ordered))
    found = [rows[precision] for precision in ordered]
    _print(found, ks, output, console)
    return found


def _row_of(run: Path, task: Task, model: str, precision: str, batch: int, ks: Sequence[int], *, ignore: bool) -> Row:
    """What a run that has ended came to, held against the truth."""
    accuracies = evaluate(task.annotations, run, ks=ks, subset=task.subset, ignore=ignore, say=lambda _line: None)
    return Row(
        model=model,
        precision=precision,
        batch=batch,
        videos=len(task.listing.videos),
        failed=sum(1 for _ in read_lines(run / FAILURES)),
        accuracy={str(k): accuracy for k, accuracy in accuracies.items()},
        ran=_chosen(run),
    )


def _print(rows: Sequence[Row], ks: Sequence[int], output: Path, console: Console) -> None:
    """The table and what belongs under it; soft-wrapped, since a terminal's width is not the table's."""
    for text in (text_table(rows, ks) + "\n", *notes(rows), f"the table is in {output / TABLE}.json, .md and .txt"):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def text_table(rows: Sequence[Row], ks: Sequence[int] = (1, 5)) -> str:
    """The table in columns of equal width, accuracies in %, as the reference has it."""
    cells = _cells(rows, ks)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join([*left, *right]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(rows: Sequence[Row], ks: Sequence[int] = (1, 5)) -> str:
    """The same in Markdown."""
    header, *lines = (f"| {' | '.join(line)} |" for line in _cells(rows, ks))
    rule = "|".join(["", "---", "---", "---:", *["---:"] * len(ks), ""])
    return "\n".join([header, rule, *lines])


def notes(rows: Sequence[Row]) -> list[str]:
    """What belongs under the table: losses, how each row really ran, and how many videos failed."""
    ran = [f"{row.precision} ran as {row.ran}" for row in rows if row.ran]
    failed = [f"{row.failed} of {row.videos} videos failed in {row.precision}" for row in rows if row.failed]
    return [*losses(rows), *ran, *failed]


def losses(rows: Sequence[Row]) -> list[str]:
    """For each row after one of full precision, how much of top-1 it loses, in points."""
    full = next((row for row in rows if row.precision in FULL and "1" in row.accuracy), None)
    if full is None:
        return []
    said = []
    for row in rows:
        if row is full or "1" not in row.accuracy:
            continue
        points = 100 * (full.accuracy["1"] - row.accuracy["1"])
        what = f"{abs(points):.2f} points of top-1 {'below' if points > 0 else 'above'}" if points else "as good as"
        said.append(f"{row.precision} is {what} {full.precision}")
    return said


def _cells(rows: Sequence[Row], ks: Sequence[int]) -> list[list[str]]:
    header = ["model", "precision", "batch size", *(f"top-{k} (%)" for k in ks)]
    return [header] + [
        [row.model, row.precision, str(row.batch), *(f"{100 * row.accuracy.get(str(k), math.nan):.2f}" for k in ks)]
        for row in rows
    ]


def _in_order(precisions: Sequence[str]) -> list[str]:
    """Each once, full precision first."""
    different = list(dict.fromkeys(precisions))
    if not different:
        raise UsageError("no precision was given: give --precisions, for example float32,int8")
    return sorted(different, key=lambda precision: precision not in FULL)


def _finished_rows(output: Path, about: dict[str, Any]) -> dict[str, Row]:
    """The rows that are there already, by precision; the folder must be new, or hold a table of the same."""
    path = output / f"{TABLE}.json"
    try:
        content = read_json(path)
        rows = {entry["precision"]: Row(**entry) for entry in content["rows"]}
    except FileNotFoundError:
        output.mkdir(parents=True, exist_ok=True)
        _write(output, about, [])  # so that what the models and runs in this folder are of is known from now on
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"'{path}' is not a table of accuracies ({error}): give another --output") from None
    for key, value in about.items():
        if content.get(key) != value:
            raise UsageError(
                f"the table in '{output}' has {key} {content.get(key)!r}, this one {value!r}: "
                "go on with the same, or give another --output"
            )
    return rows


def _options_for(precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    quantised = needs_calibration(precision)
    return {name: value for name, value in options.items() if quantised or name not in QUANTISED_ONLY}


def _chosen(run: Path) -> str:
    content = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return str(content["inference"].get("chosen", ""))


def _is_built(folder: Path, source: ModelFolder, precision: str) -> bool:
    if not (folder / "model.json").is_file():
        return False
    built = read_model(folder)
    return built.precision == precision and built.provenance.get("compiled_from_sha256") == source.sha256


def _drawing_once(inputs: Sequence[str], model: ModelFolder, clips: int, seed: int) -> Callable[[], CalibrationSet]:
    """Clips are drawn when the first precision needs them, and kept for the others."""
    drawn: list[CalibrationSet] = []

    def draw() -> CalibrationSet:
        if not drawn:
            drawn.append(draw_clips(inputs, model, clips=clips, seed=seed))
        return drawn[0]

    return draw


def _sorted(rows: Mapping[str, Row], ordered: Sequence[str]) -> list[Row]:
    """Those asked for now first, in their order; then those of earlier calls."""
    names = [*(name for name in ordered if name in rows), *(name for name in rows if name not in ordered)]
    return [rows[name] for name in sorted(names, key=lambda name: name not in FULL)]


def _write(output: Path, about: dict[str, Any], rows: Sequence[Row]) -> None:
    ks = about["k"]
    write_json(output / f"{TABLE}.json", {**about, "rows": [asdict(row) for row in rows]})
    (output / f"{TABLE}.md").write_text(markdown_table(rows, ks) + "\n", encoding="utf-8")
    said = "\n".join([text_table(rows, ks), "", *notes(rows)])
    (output / f"{TABLE}.txt").write_text(said + "\n", encoding="utf-8")


def _write_truth(output: Path, labels: Sequence[str], truth: Mapping[str, str]) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    database = {video: {"subset": "validation", "annotations": {"label": label}} for video, label in truth.items()}
    path = output / "annotations.json"
    write_json(path, {"labels": list(labels), "database": database})
    return path
