"""Measured figures: repeated, with their spread, beside the machine, the versions and the command that gave them.

Every sub-command fills a ``Measurement``; the tables, ``--json`` and the HTML report show nothing else. A figure is the
median of its runs, and a ratio is the median of the ratios of runs that were made side by side: on a machine whose
speed drifts, two medians taken one after the other say less than pairs do.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from clipmux.engine.doctor_machine import FEATURES
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.logs import printable
from clipmux.engine.model import ModelFolder

FORMAT = 1
"""The version of the JSON form."""

PACKAGES = ("openvino", "av", "numpy", "pillow", "pyzmq", "torch", "nncf", "ray")
"""Packages whose version is recorded where they are installed."""

BUSY = 0.2
"""Load per core from which a machine does not count as idle."""

Outcome = TypeVar("Outcome")


class Spread:
    """Median and extremes of several runs."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(statistics.median(self.runs))

    @property
    def least(self) -> float:
        return min(self.runs)

    @property
    def most(self) -> float:
        return max(self.runs)


@dataclass(frozen=True)
class Figure(Spread):
    """One number that was measured, once per run.

    Args:
        name: what, in words joined by ``_``: ``clips_per_s``.
        unit: ``1/s``, ``s``, ``ms``, ``bytes``, ``clips``, or ``""`` for a share or a count.
        runs: one value per run, at least one.
        at: the point of a grid it belongs to: ``{"precision": "int8", "batch": 8}``.
    """

    name: str
    unit: str
    runs: tuple[float, ...]
    at: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs or not all(math.isfinite(value) for value in self.runs):
            raise ValueError(f"{self.name} has the runs {self.runs}: at least one finite number belongs there")

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "unit": self.unit, "at": dict(self.at), **_spread(self)}


@dataclass(frozen=True)
class Ratio(Spread):
    """One figure over another, of runs made side by side.

    Args:
        name: what the ratio means: ``pipeline_efficiency``, ``speed_up``.
        of: name of the figure above the line.
        over: name of the figure below it, or what else says which runs those were.
        runs: one ratio per pair of runs.
        at: the point of a grid it belongs to.
    """

    name: str
    of: str
    over: str
    runs: tuple[float, ...]
    at: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "at": dict(self.at), "of": self.of, "over": self.over, **_spread(self)}


class Measurement:
    """What one sub-command measured.

    Args:
        benchmark: the sub-command.
        model: the model folder, where there is one.
        device: what else is to be said of it: backend, device, what the backend chose.
    """

    def __init__(self, benchmark: str, model: ModelFolder | None = None, device: Mapping[str, Any] | None = None):
        self.benchmark = benchmark
        self.started = datetime.now(timezone.utc)
        self.machine = machine()
        self.command = command_line()
        self.model = None if model is None else {**model_record(model), **(device or {})}
        self.figures: list[Figure] = []
        self.ratios: list[Ratio] = []
        self.videos: dict[str, str] = {}
        """What is to be said of the videos, where it matters: their size."""
        self.series: dict[str, Any] = {}
        self.histograms: dict[str, Any] = {}

    def figure(self, name: str, unit: str, runs: Sequence[float], **at: Any) -> Figure:
        """Add a figure."""
        figure = Figure(name, unit, tuple(map(float, runs)), at)
        self.figures.append(figure)
        return figure

    def ratio(self, name: str, of: Figure, over: Figure, *, called: str = "", **at: Any) -> Ratio:
        """Add the ratio of two figures, run by run.

        Args:
            name: what the ratio means.
            of: above the line.
            over: below it; as many runs, made side by side with the others.
            called: what to call the figure below the line, where its name is the same.
            at: the point of a grid it belongs to.
        """
        pairs = zip(of.runs, over.runs, strict=True)
        ratio = Ratio(name, of.name, called or over.name, tuple(a / b if b else 0.0 for a, b in pairs), at)
        self.ratios.append(ratio)
        return ratio

    def to_json(self) -> dict[str, Any]:
        content = {
            "format": FORMAT,
            "benchmark": self.benchmark,
            "command": self.command,
            "started": self.started.isoformat(timespec="seconds"),
            "machine": self.machine,
            "versions": versions(),
            "model": self.model,
            "videos": self.videos,
            "figures": [figure.to_json() for figure in self.figures],
            "ratios": [ratio.to_json() for ratio in self.ratios],
            "series": self.series,
            "histograms": self.histograms,
        }
        if self.model is None:
            del content["model"]
        if not self.videos:
            del content["videos"]
        return content

    def write(self, path: Path) -> None:
        """Write ``--json FILE``.

        Raises:
            ClipmuxError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ClipmuxError(f"'{path}' cannot be written ({error.strerror}): give another --json") from None


def check_repeats(repeats: int) -> int:
    """How often to run everything.

    Raises:
        UsageError: it is less than once.
    """
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}: give at least 1, and an odd number for a median that was measured")
    return repeats


def check_json(path: Path | None) -> None:
    """See before measuring whether the result can be written.

    Raises:
        UsageError: it cannot.
    """
    check_output(path, "--json")


def check_output(path: Path | None, option: str) -> None:
    """See before measuring whether a file can be written, and leave it as it is: absent, if it is.

    Raises:
        UsageError: it cannot.
    """
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"{option} is '{path}': give a file in a folder that exists")
    there = path.exists()
    if there and not path.is_file():  # a pipe: who reads it would take this for the end
        return
    try:
        path.open("ab").close()
        if not there:
            path.resolve().unlink()  # of a link that led nowhere, not the link
    except OSError as error:
        raise UsageError(f"{option} is '{path}', which cannot be written ({error.strerror}): give another") from None


def measuring(console: Console) -> Status:
    """What a terminal shows meanwhile; drawn once a second, since that takes time of what is measured."""
    return console.status("measuring", refresh_per_second=1)


def alternate(
    ways: Mapping[str, Callable[[], Outcome]], repeats: int, *, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[Outcome]]:
    """Run every way once, then all again, ``repeats`` times, so that each round has a run of every way side by side.

    Every other round goes backwards: no way is always the one that runs on a warmer or a cooler machine.

    Returns:
        By way, one outcome per round.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    for number in range(repeats):
        names = list(ways)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            say(escape(f"{name or 'run'}, {number + 1} of {repeats}"))
            outcomes[name].append(ways[name]())
    return outcomes


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def machine() -> dict[str, Any]:
    """The processor, its cores and features, memory, kernel and load of the machine this runs on."""
    said: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    flags = set(said.get("flags", "").split())
    return {
        "cpu": said.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "features": [name for names in FEATURES.values() for name in names if name in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def cores() -> int:
    """Cores that may be used."""
    from clipmux.engine.config import usable_cores

    return usable_cores()


def versions() -> dict[str, str]:
    """Of clipmux, Python, and what of ``PACKAGES`` is installed."""
    found = {"clipmux": metadata.version("clipmux"), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def model_record(model: ModelFolder) -> dict[str, Any]:
    """What identifies a model."""
    return {"name": model.name, "precision": model.precision, "target": model.target, "sha256": model.sha256}


def command_line(argv: Sequence[str] | None = None) -> list[str]:
    """How this program was called, for whoever wants to do it again."""
    name, *arguments = sys.argv if argv is None else argv
    path = Path(name)
    if path.name == "__main__.py":
        return ["python", "-m", "clipmux.bench", *arguments]
    return [path.name, *arguments]


def load_warning(load: Sequence[float], cores: int) -> str:
    """A sentence if the machine is busy with something else, else nothing."""
    if load[0] <= BUSY * cores:
        return ""
    return (
        f"the machine is busy (load {load[0]:.1f} on {cores} cores): figures will be lower and spread wider than on "
        "an idle one"
    )


def say_load(measurement: Measurement, console: Console) -> None:
    """Warn if the machine was busy when the measuring began."""
    if warning := load_warning(measurement.machine["load"], measurement.machine["cores"]):
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)


def figures_table(measurement: Measurement, *names: str, title: str = "") -> Table:
    """A row per point (``at``) and a column per figure or ratio; all of them, unless some are named.

    What is the same at all points goes into the title.
    """
    every: list[Figure | Ratio] = [*measurement.figures, *measurement.ratios]
    entries = [entry for entry in every if not names or entry.name in names]
    wanted = list(names) or list(dict.fromkeys(entry.name for entry in entries))
    columns = [name for name in wanted if any(entry.name == name for entry in entries)]
    axes, same = _axes(entries)
    table = Table(title=" · ".join(filter(None, (title, same))) or None, title_justify="left")
    for axis in axes:
        table.add_column(axis.replace("_", " "))
    units = {entry.name: getattr(entry, "unit", "") for entry in entries}
    for name in columns:
        table.add_column(_heading(name, units[name]), justify="right")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for entry in entries:
        point = tuple(_word(entry, axis) for axis in axes)
        rows.setdefault(point, {})[entry.name] = shown(entry)
    for point, cells in rows.items():
        table.add_row(*point, *(cells.get(name, "") for name in columns))
    return table


def points_table(measurement: Measurement, *names: str) -> Table:
    """A row per figure or ratio, in the order they are named, and a column per point; what all share is the title."""
    every: list[Figure | Ratio] = [*measurement.figures, *measurement.ratios]
    entries = [entry for entry in every if entry.name in names]
    axes, same = _axes(entries)
    points = list(dict.fromkeys(tuple(_word(entry, axis) for axis in axes) for entry in entries))
    table = Table("", title=same or None, title_justify="left", show_header=len(points) > 1)
    for point in points:
        table.add_column(" ".join(point), justify="right")
    cells = {(entry.name, tuple(_word(entry, axis) for axis in axes)): entry for entry in entries}
    for name in names:
        row = [cells.get((name, point)) for point in points]
        if there := [entry for entry in row if entry is not None]:
            heading = _heading(name, getattr(there[0], "unit", ""))
            table.add_row(heading, *("" if entry is None else shown(entry) for entry in row))
    return table


def _axes(entries: Sequence[Figure | Ratio]) -> tuple[list[str], str]:
    """The axes along which entries differ, and words for what is the same for all."""
    values: dict[str, set[str]] = {axis: set() for entry in entries for axis in entry.at}
    for entry in entries:
        for axis, found in values.items():
            found.add(_word(entry, axis))
    axes = [axis for axis, found in values.items() if len(found) > 1]
    return axes, ", ".join(f"{axis} {min(found)}" for axis, found in values.items() if len(found) == 1)


def _word(entry: Figure | Ratio, axis: str) -> str:
    """Where it is on an axis; a name that somebody gave does nothing to a terminal."""
    return printable(str(entry.at.get(axis, "")))


def shown(entry: Figure | Ratio) -> str:
    """``12.3 (11.9…12.8)``: the median and, of more than one run, the spread."""
    scale = _scale(getattr(entry, "unit", ""))
    middle = digits(entry.median / scale)
    if len(entry.runs) == 1:
        return middle
    return f"{middle} ({digits(entry.least / scale)}…{digits(entry.most / scale)})"


def _heading(name: str, unit: str) -> str:
    words = name.replace("_per_s", "/s").replace("_", " ")
    shown_unit = {"1/s": "", "bytes": "MiB"}.get(unit, unit)
    return words if shown_unit in ("", *words.split()) else f"{words}, {shown_unit}"


def _scale(unit: str) -> float:
    return 2.0**20 if unit == "bytes" else 1.0


def digits(value: float) -> str:
    """Three digits at least, and never an exponent."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _spread(entry: Spread) -> dict[str, Any]:
    return {"median": entry.median, "min": entry.least, "max": entry.most, "runs": list(entry.runs)}
