"""LoadGen-style scenarios: queries of one clip each, through the engine's own batcher and device, in this process.

*Offline*: all queries are there at once; the figure is clips per second. *Server*: they come at random (Poisson), and
the figure is the largest rate at which the 99th percentile of latency, from a query's scheduled arrival to its scores,
keeps within a bound. *Single-stream*: the next comes when the last is answered; the figure is the 90th percentile of
latency. The words are those of MLPerf's LoadGen; its rules (least numbers of queries, accuracy runs) are not followed.
"""

from __future__ import annotations

import contextlib
import math
import select
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console

from clipmux.engine.backends import choose, open_backend
from clipmux.engine.batcher import Batcher
from clipmux.engine.config import MAX_BATCH
from clipmux.engine.device import Device
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.progress import say

from .arrivals import largest_rate, poisson_arrivals
from .inference import noise_batch, on_cores_of
from .measure import Measurement, figures_table, percentile, say_load

SCENARIOS = ("offline", "server", "single-stream")
PERCENTS = (50, 90, 99)
DISTINCT = 64
"""Clips that differ; queries go through them in turn."""

STEP, LEAST = 0.9, 0.05
"""By how much a rate is lowered that was found and then did not hold, and the share of the device's pace to end at."""

WARMUP = 2
"""Batches before anything counts."""


@dataclass(frozen=True)
class Load:
    """What is asked of the device.

    Args:
        scenario: one of ``SCENARIOS``.
        seconds: how long each run lasts, about.
        qps: server: queries per second; 0 to search for the largest rate.
        bound_ms: server: what the 99th percentile of latency may be.
        seed: of the arrivals.
    """

    scenario: str
    seconds: float = 10.0
    qps: float = 0.0
    bound_ms: float = 500.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise UsageError(f"--scenario is '{self.scenario}': give one of {', '.join(SCENARIOS)}")
        for option, value in (("--duration", self.seconds), ("--latency-bound-ms", self.bound_ms)):
            if not 0 < value < math.inf:
                raise UsageError(f"{option} is {value:g}: give a number above 0")
        if not 0 <= self.qps < math.inf:
            raise UsageError(f"--qps is {self.qps:g}: give a rate above 0, or 0 to search for the largest")


@dataclass(frozen=True)
class Answers:
    """What became of a run's queries.

    Args:
        latencies_s: of each query, from its arrival to its scores.
        wall_s: from the start to the last answer.
        batches: clips in each call, in order.
    """

    latencies_s: tuple[float, ...]
    wall_s: float
    batches: tuple[int, ...]

    @property
    def qps(self) -> float:
        return len(self.latencies_s) / self.wall_s

    def percentile_ms(self, percent: float) -> float:
        return 1000 * percentile(self.latencies_s, percent)


class Desk:
    """The engine's batcher and device, and queries that come to them by a schedule.

    Args:
        model: what to run; its clips are noise.
        backend: a name that ``choose`` gave.
        device: where.
        max_batch: clips in one call at most.
        max_delay_s: how long a query may wait for its batch to fill while the device is idle.
    """

    def __init__(self, model: ModelFolder, backend: str, *, device: str, max_batch: int, max_delay_s: float) -> None:
        self.backend = open_backend(backend, model, device=device, max_batch=max_batch, null_delay_ms=(0.0, 0.0))
        self._device: Device[list[int]] = Device(self.backend, model.clip_shape)
        self._clips = noise_batch(model, DISTINCT)
        self._max_delay_s = max_delay_s

    @property
    def batch(self) -> int:
        """Clips in a full batch."""
        return self.backend.preferred_batch

    def answer(self, arrivals: npt.NDArray[np.float64]) -> Answers:
        """Answer queries that arrive at these seconds from now; returns when all are answered.

        Raises:
            ClipmuxError: the device failed.
        """
        batcher: Batcher[int] = Batcher(size=self.batch, max_delay=self._max_delay_s, video_of=int)
        latencies: npt.NDArray[np.float64] = np.zeros(len(arrivals))
        batches: list[int] = []
        came = answered = 0
        start = time.monotonic()
        while answered < len(arrivals):
            now = time.monotonic() - start
            while came < len(arrivals) and arrivals[came] <= now and batcher.room > 0:
                batcher.add(came, float(arrivals[came]))
                came += 1
            while self._device.free:
                queries = batcher.take(now, idle=self._device.idle, more=came < len(arrivals))
                if not queries:
                    break
                self._device.submit([self._clips[query % DISTINCT] for query in queries], queries)
            for result in self._device.finished():
                latencies[result.tag] = time.monotonic() - start - arrivals[result.tag]
                batches.append(len(result.tag))
                answered += len(result.tag)
            if answered < len(arrivals):
                self._wait(batcher, arrivals[came] if came < len(arrivals) else None, start)
        return Answers(tuple(map(float, latencies)), time.monotonic() - start, tuple(batches))

    def _wait(self, batcher: Batcher[int], arrival: float | None, start: float) -> None:
        """Until a result, the next arrival, or the time that a partial batch is due."""
        now = time.monotonic() - start
        ends = [1.0]
        if arrival is not None and batcher.room > 0:
            ends.append(arrival - now)
        due = batcher.due(now)
        if due is not None and self._device.idle:
            ends.append(due if arrival is not None else 0.0)
        if self._device.free and len(batcher) >= batcher.size:
            ends.append(0.0)
        if (timeout := min(ends)) > 0:
            select.select([self._device.fileno()], [], [], timeout)

    def warm_up(self) -> float:
        """Run a few full batches on every runner; returns clips per second, roughly."""
        for _ in range(WARMUP):
            answers = self.answer(np.zeros(2 * self._device.places * self.batch))
        return answers.qps

    def close(self) -> None:
        self._device.close()


def scenario(
    models: Sequence[str],
    load: Load,
    *,
    backend: str,
    device: str,
    max_batch: int,
    max_delay_s: float,
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure one scenario with every model in turn and print it.

    Raises:
        UsageError: a model, backend, device or batch that cannot be.
    """
    if not 1 <= max_batch <= MAX_BATCH:
        raise UsageError(f"--max-batch is {max_batch}: give 1 to {MAX_BATCH}")
    if not 0 <= max_delay_s < math.inf:
        raise UsageError(f"--max-delay is {max_delay_s:g}: give seconds, at least 0")
    folders = [read_model(model) for model in models]
    names = [choose(backend, device, folder.target) for folder in folders]
    measurement = Measurement("inference", folders[0], {"backend": names[0], "device": device})
    say_load(measurement, console)
    for folder, name in zip(folders, names, strict=True):
        with (
            on_cores_of(device),
            contextlib.closing(Desk(folder, name, device=device, max_batch=max_batch, max_delay_s=max_delay_s)) as desk,
        ):
            at = {
                "scenario": load.scenario,
                "model": folder.name,
                "precision": folder.precision,
                "backend": name,
                "batch": desk.batch,
            }
            say(console, f"{folder.name} {folder.precision} {name}: {desk.backend.chosen}")
            RUNS[load.scenario](measurement, desk, load, repeats, at)
    console.print(figures_table(measurement))
    return measurement


def _offline(measurement: Measurement, desk: Desk, load: Load, repeats: int, at: dict[str, object]) -> None:
    rate = desk.warm_up()
    arrivals = np.zeros(max(desk.batch, round(rate * load.seconds)))
    _add(measurement, [desk.answer(arrivals) for _ in range(repeats)], at)


def _server(measurement: Measurement, desk: Desk, load: Load, repeats: int, at: dict[str, object]) -> None:
    most = desk.warm_up()

    def runs_at(rate: float) -> list[Answers]:
        # Every run has arrivals of its own: a lucky draw must not be repeated.
        seeds = range(load.seed + 1, load.seed + 1 + repeats)
        return [desk.answer(poisson_arrivals(rate, load.seconds, seed=seed)) for seed in seeds]

    def holds(rate: float) -> bool:
        answers = desk.answer(poisson_arrivals(rate, load.seconds, seed=load.seed))
        return answers.percentile_ms(99) <= load.bound_ms

    rate = load.qps or largest_rate(holds, most)
    if not rate:
        measurement.figure("largest_qps", "1/s", [0.0], **at)
        return
    runs = runs_at(rate)
    if not load.qps:
        # The search tried each rate once; what it found must hold for most of further runs too.
        while statistics.median(run.percentile_ms(99) for run in runs) > load.bound_ms and rate > LEAST * most:
            rate *= STEP
            runs = runs_at(rate)
        measurement.figure("largest_qps", "1/s", [rate], **at)
    measurement.figure("scheduled_qps", "1/s", [rate], **at)
    _add(measurement, runs, at)
    kept = [sum(1000 * latency <= load.bound_ms for latency in run.latencies_s) / len(run.latencies_s) for run in runs]
    measurement.figure("within_bound", "", kept, **at)


def _single_stream(measurement: Measurement, desk: Desk, load: Load, repeats: int, at: dict[str, object]) -> None:
    desk.warm_up()
    runs = []
    for _ in range(repeats):
        start = time.monotonic()
        latencies: list[float] = []
        while not latencies or time.monotonic() < start + load.seconds:
            latencies += desk.answer(np.zeros(1)).latencies_s
        runs.append(Answers(tuple(latencies), time.monotonic() - start, (1,) * len(latencies)))
    _add(measurement, runs, at)


RUNS = dict(zip(SCENARIOS, (_offline, _server, _single_stream), strict=True))


def _add(measurement: Measurement, runs: Sequence[Answers], at: dict[str, object]) -> None:
    measurement.figure("qps", "1/s", [run.qps for run in runs], **at)
    for percent in PERCENTS:
        measurement.figure(f"latency_p{percent}", "ms", [run.percentile_ms(percent) for run in runs], **at)
    measurement.figure("mean_batch", "clips", [float(np.mean(run.batches)) for run in runs], **at)
