"""Cambricon's own benchmark, ``mm_run``, on a compiled model: called, and what it prints read.

It comes with MagicMind and is on no registry. What is known of it is what public scripts show: they give it
``--magicmind_model``, ``--batch_size``, ``--iterations`` and ``--devices``, and look for ``Throughput (qps):``. Two
forms of its report are in use, and both are read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import ModelFolder

from .measure import Figure, Measurement

NAME = "mm_run"

FOLDER = "MM_RUN_PATH"
"""Environment variable with the folder of mm_run, as public scripts have it."""

ITERATIONS = 1000
"""Calls unless told otherwise, as in Cambricon's samples."""

PATIENCE_S = 600.0

KEPT = 1 << 20
"""Bytes of what it prints that are kept: the last ones, where the report is."""

NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"

THROUGHPUT = re.compile(rf"Throughput \(qps\):\s*{NUMBER}")
TOTAL = re.compile(rf"with total batch sizes:\s*{NUMBER}\s+and\s+{NUMBER}\s+iterations/second")
VALUE = re.compile(rf"\b(min|max|mean|median)\b\s*:\s*{NUMBER}", re.IGNORECASE)
PERCENTILE = re.compile(rf"\(?\b([0-9]{{1,2}})%\)?\s*:?\s*{NUMBER}")

BLOCKS = (
    ("total", re.compile(r"Total Latency Summary", re.IGNORECASE)),
    ("host_to_device", re.compile(r"H2D Summary", re.IGNORECASE)),
    ("device_to_host", re.compile(r"D2H Summary", re.IGNORECASE)),
    ("compute", re.compile(r"MLU Compute Latency", re.IGNORECASE)),
    ("host_clock", re.compile(r"Latency\s*\(host clock", re.IGNORECASE)),
)
"""Blocks of a report by our names; "total" first, whose heading names the others too."""

OTHER_HEADING = re.compile(r"\b(Summary|Latency|Throughput)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Report:
    """What mm_run measured.

    Args:
        qps: clips per second: total batch ÷ wall time.
        total_clips: in all calls together; None where it does not say.
        iterations_per_s: calls per second; None where it does not say.
        latencies_ms: by block (``host_clock``, ``compute``, ``host_to_device``, ``device_to_host``, ``total``), what it
            says of it: ``min``, ``max``, ``mean``, ``median``, ``p90``, ``p95``, ``p99``.
    """

    qps: float
    total_clips: int | None = None
    iterations_per_s: float | None = None
    latencies_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def parse_report(text: str) -> Report:
    """Read what mm_run printed, in either of its forms. Pure.

    Raises:
        ClipmuxError: it states no throughput.
    """
    throughputs = THROUGHPUT.findall(text)
    if not throughputs:
        raise ClipmuxError(f"mm_run printed no 'Throughput (qps)', but at last {_last_line(text)!r}: run it by hand")
    latencies: dict[str, dict[str, float]] = {}
    block: str | None = None
    for line in text.splitlines():
        heading = next((name for name, pattern in BLOCKS if pattern.search(line)), None)
        if heading is not None:
            block = heading
        elif OTHER_HEADING.search(line):
            block = None
        if block is None:
            continue
        found = latencies.setdefault(block, {})
        for name, value in VALUE.findall(line):
            found.setdefault(name.lower(), float(value))
        for percent, value in PERCENTILE.findall(line):
            found.setdefault(f"p{percent}", float(value))
    total = TOTAL.search(text)
    return Report(
        qps=float(throughputs[-1]),
        total_clips=int(float(total[1])) if total else None,
        iterations_per_s=float(total[2]) if total else None,
        latencies_ms={name: values for name, values in latencies.items() if values},
    )


def add_figures(measurement: Measurement, reports: Sequence[Report], ours: Figure, at: Mapping[str, Any]) -> None:
    """Add what mm_run measured beside our own figures, and our throughput over its own.

    Args:
        measurement: where to.
        reports: one per run.
        ours: our throughput, of runs made side by side with them.
        at: the point that ours belongs to.
    """
    there = {**at, "backend": NAME}
    theirs = measurement.figure("qps", "1/s", [report.qps for report in reports], **there)
    measurement.ratio("over_mm_run", ours, theirs, called=NAME, **at)
    latency = next((block for block in ("host_clock", "total", "compute") if _all_have(reports, block)), None)
    named = [("latency_mean", "mean"), ("latency_p50", "median")]
    named += [(f"latency_p{percent}", f"p{percent}") for percent in (90, 95, 99)]
    wanted = [(name, latency, key) for name, key in named if latency is not None]
    wanted += [(block, block, "mean") for block in ("host_to_device", "compute", "device_to_host")]
    for name, block, key in wanted:
        values = [report.latencies_ms.get(block, {}).get(key) for report in reports]
        told = [value for value in values if value is not None]
        if len(told) == len(reports):
            measurement.figure(name, "ms", told, **there)


def _all_have(reports: Sequence[Report], block: str) -> bool:
    return all(block in report.latencies_ms for report in reports)


def find_mm_run(given: str) -> Path:
    """The program: a path, or a name to look up in ``PATH`` and in the folder that ``MM_RUN_PATH`` names.

    Raises:
        UsageError: there is no such program.
    """
    places = os.environ.get("PATH", os.defpath)
    if folder := os.environ.get(FOLDER):
        places = f"{folder}{os.pathsep}{places}"
    found = shutil.which(given, path=places)
    if found is None:
        raise UsageError(
            f"there is no program '{given}': mm_run comes with MagicMind, give --mm-run its path or set {FOLDER} to "
            "its folder"
        )
    return Path(found).resolve()


def check_mm_run(model: ModelFolder, device: str) -> None:
    """See whether mm_run can run a model on a device.

    Raises:
        UsageError: it cannot.
    """
    if model.target != "magicmind":
        raise UsageError(
            f"mm_run runs models compiled for magicmind, '{model.path}' is for {model.target}: leave --mm-run out"
        )
    if not re.fullmatch(r"mlu:\d+", device):
        raise UsageError(f"mm_run runs on an MLU, --device is '{device}': give mlu:0, or leave --mm-run out")


def run_mm_run(program: Path, model: ModelFolder, *, device: str, batch: int, iterations: int = ITERATIONS) -> Report:
    """Measure a compiled model with mm_run.

    Args:
        program: as ``find_mm_run`` gives it.
        model: a folder compiled for MagicMind.
        device: ``mlu:0`` …
        batch: clips in each call.
        iterations: calls.

    Raises:
        ClipmuxError: it failed, took longer than ten minutes, or printed no report.
    """
    command = [
        str(program),
        "--magicmind_model",
        str(model.network_path.resolve()),
        "--batch_size",
        str(batch),
        "--iterations",
        str(iterations),
        "--devices",
        device.partition(":")[2],
    ]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it and all it starts can be ended together
        )
    except OSError as error:
        raise ClipmuxError(f"'{program}' cannot be started ({error.strerror}): check --mm-run") from None
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(PATIENCE_S, end)
    timer.start()
    try:
        assert process.stdout is not None  # noqa: S101  (a pipe was asked for)
        with process.stdout as printed:
            text = _tail(printed).decode(errors="replace")
        status = process.wait()
    finally:
        timer.cancel()
        _kill(process)
    if late.is_set():
        raise ClipmuxError(f"'{program}' took longer than {PATIENCE_S:.0f} s: give fewer --iterations")
    if status != 0:
        raise ClipmuxError(f"'{program}' failed with exit status {status}: {_last_line(text)}")
    return parse_report(text)


def _tail(printed: IO[bytes]) -> bytes:
    """The last ``KEPT`` bytes, however many come."""
    kept = b""
    while chunk := printed.read(1 << 16):
        kept = (kept + chunk)[-KEPT:]
    return kept


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing"
