"""Options that several benchmarks have, and what every one of them does with its result.

What measures is imported when it is wanted: ``clipmux --help`` must not wait for numpy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from clipmux.engine.errors import UsageError

if TYPE_CHECKING:
    from .measure import Measurement

Json = Annotated[Path | None, typer.Option("--json", help="File to write every figure to.")]
Html = Annotated[Path | None, typer.Option("--html", help="File to write a report with charts to.")]
Repeats = Annotated[int, typer.Option(help="Runs of everything; figures are medians.")]
Backend = Annotated[str, typer.Option(help="auto, openvino, magicmind, torch or null.")]
Device = Annotated[
    str, typer.Option(help="cpu, cores like cpu:0-7, mlu:0 or cuda:0; of runs also several, with commas.")
]
NullDelay = Annotated[str, typer.Option(help="null answers N clips after A+B·N ms.", metavar="A+B")]
Preprocess = Annotated[str, typer.Option(help="Way to pixels; a run's own default unless given.")]
Inputs = Annotated[
    list[str] | None, typer.Argument(metavar="[VIDEOS…]", help="As 'clipmux run' takes them; else made ones.")
]
RunVideos = Annotated[int, typer.Option(help="Videos of a run; given ones are taken again. 0: each once.")]
MadeKind = Annotated[str, typer.Option(help="Made videos: encoding and size.")]
MadeFrames = Annotated[int, typer.Option(help="Frames of each made video.")]
Stride = Annotated[int, typer.Option(help="Frames from one clip's start to the next's.")]
Workers = Annotated[str, typer.Option(help="Decoder processes: a number, or auto as in a run.")]
MaxBatch = Annotated[int, typer.Option(help="Clips in one device call at most.")]
REPEATED = 5
"""Runs of everything unless told otherwise; odd, so that the median is one of them."""

WIDE = 160
"""Columns of a table that goes into a file or a pipe."""


def wide_console() -> Console:
    """A console whose tables are not cut where no terminal says how wide it is, and which takes no name for markup."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def check_outputs(repeats: int, json: Path | None, html: Path | None) -> None:
    """See before measuring whether its result can be kept.

    Raises:
        UsageError: it cannot, or there is nothing to measure.
    """
    from .measure import check_json, check_repeats
    from .report import check_html

    check_repeats(repeats)
    check_json(json)
    check_html(html)


def keep(measurement: Measurement, json: Path | None, html: Path | None) -> None:
    """Write the result where it was asked for."""
    from .report import write_report

    if json is not None:
        measurement.write(json)
    if html is not None:
        write_report(measurement.to_json(), html)


def numbers(text: str, option: str) -> list[int]:
    """``1,8,32`` as numbers.

    Raises:
        UsageError: something else.
    """
    return _listed(text, option, int, "whole numbers with commas between, for example 1,8,32")


def words(text: str) -> list[str]:
    """``exact,fast`` as words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _listed(text: str, option: str, kind: Callable[[str], int], wanted: str) -> list[int]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} is '{text}': give {wanted}") from None
