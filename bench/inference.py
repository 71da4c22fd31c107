"""The device alone, as ``mm_run`` measures it: batches that are there already, no decoding, no sockets, no batcher.

Two phases for each batch size. *In parallel*: all of the backend's runners, each on a thread with its next batch at
hand, which is how a run keeps the device busy; the throughput comes from it. *One at a time*: one runner and nothing
else on the device, which is what a call takes by itself; the latencies come from it. ``mm_run`` overlaps copies and
computing on queues of its own and reports the latency of each call, so the two phases are its two numbers.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from clipmux.engine.backends import Backend, Runner, choose, cores_of, keep_to_cores, open_backend
from clipmux.engine.backends.base import Phases
from clipmux.engine.config import MAX_BATCH
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder, read_model
from clipmux.engine.progress import say

from .measure import Figure, Measurement, alternate, figures_table, percentile, say_load
from .mm_run import ITERATIONS, Report, check_mm_run, find_mm_run, run_mm_run
from .mm_run import add_figures as add_mm_run

PERCENTS = (50, 90, 95, 99)
SEED = 0

EAGER = "torch-eager"
"""A name besides the backends': the network as a plain PyTorch program has it, to compare with (see eager.py)."""

PHASES = {"host_to_device": "H2D", "compute": "Compute", "device_to_host": "D2H"}
"""Steps of a call that some backends can tell apart, and mm_run's words for them."""


@dataclass(frozen=True)
class Until:
    """How long a phase lasts: a number of calls altogether, or seconds; every runner makes at least one call.

    Args:
        calls: 0 to go by time.
        seconds: 0 to go by calls.
        warmup: calls of each runner before, which do not count.
    """

    calls: int = 0
    seconds: float = 2.0
    warmup: int = 1

    def __post_init__(self) -> None:
        if self.calls < 0 or (self.calls == 0 and self.seconds <= 0):
            raise UsageError(
                f"--iterations is {self.calls} and --duration {self.seconds:g}: give a number above 0 to one of them"
            )
        if self.warmup < 0:
            raise UsageError(f"--warmup is {self.warmup}: give 0 or more calls")


@dataclass(frozen=True)
class Calls:
    """What a phase came to.

    Args:
        batch: clips in each call.
        latencies_s: of every call, in seconds.
        wall_s: from the first call's start to the last one's end.
        cpu_s: of all threads of this process, meanwhile.
    """

    batch: int
    latencies_s: tuple[float, ...]
    wall_s: float
    cpu_s: float

    @property
    def clips(self) -> int:
        return self.batch * len(self.latencies_s)

    @property
    def qps(self) -> float:
        """Clips per second: mm_run's ``qps``, total batch ÷ wall time."""
        return self.clips / self.wall_s


@dataclass(frozen=True)
class Way:
    """A model on a backend, open.

    Args:
        at: what tells it from the others: model, precision, backend.
        model: the folder.
        backend: closed with ``close``.
        runners: as many as the backend wants, open.
    """

    at: dict[str, str]
    model: ModelFolder
    backend: Backend
    runners: tuple[Runner, ...]

    @property
    def name(self) -> str:
        return " ".join(self.at.values())

    def close(self) -> None:
        for runner in self.runners:
            runner.close()
        self.backend.close()


def inference(
    models: Sequence[str],
    *,
    backends: Sequence[str] = ("auto",),
    device: str = "cpu",
    batches: Sequence[int] = (1, 8, 32, 64),
    until: Until,
    repeats: int,
    console: Console,
    mm_run: str = "",
) -> Measurement:
    """Measure every model on every backend that can run it, in turn, and print throughput and latencies.

    Args:
        models: model folders, or ``demo``; ratios are to the first of them on the first backend.
        backends: names, ``auto`` too.
        device: for all of them.
        batches: clips in a call; 0 for what the backend prefers.
        until: how long each phase lasts.
        repeats: runs of everything.
        console: where to print.
        mm_run: path or name of Cambricon's mm_run, to have it measure the same side by side.

    Raises:
        UsageError: a model, backend, device or batch that cannot be.
    """
    check_batches(batches)
    pairs = pair(models, backends, device)
    program = find_mm_run(mm_run) if mm_run else None
    for model, _ in pairs if program is not None else ():
        check_mm_run(model, device)
    measurement = Measurement("inference", pairs[0][0])
    say_load(measurement, console)
    most = MAX_BATCH if 0 in batches else max(batches)  # what the backend prefers is not bound by the other numbers
    ways: list[Way] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(on_cores_of(device))
        for model, name in pairs:
            way = open_way(model, name, device=device, max_batch=most)
            stack.callback(way.close)
            if any(way.at == other.at for other in ways):  # two networks of one name: their folders tell them apart
                way = replace(way, at={**way.at, "model": str(model.path)})
            ways.append(way)
            say(console, f"{ways[-1].name}: {ways[-1].backend.chosen}")
        assert measurement.model is not None  # noqa: S101  (said again for the type checker)
        measurement.model.update(backend=ways[0].backend.name, device=device, chosen=ways[0].backend.chosen)
        for batch in batches:
            _measure_batch(measurement, ways, batch, until, repeats, console, program)
    console.print(
        figures_table(measurement, "qps", "latency_p50", "latency_p99", "cpu_per_clip", "speed_up", "over_mm_run")
    )
    return measurement


def pair(models: Sequence[str], backends: Sequence[str], device: str) -> list[tuple[ModelFolder, str]]:
    """Every model with every backend that can run it; a compiled model goes with the backend it was compiled for.

    Raises:
        UsageError: a model that no given backend can run, or a name that is none.
    """
    pairs: dict[tuple[Path, str], ModelFolder] = {}
    for folder in models:
        model = read_model(folder)
        fitting = [name for name in backends if model.target in (ANY_TARGET, name) or name in ("auto", "null")]
        for name in fitting or backends:  # with none that fits, choosing one says why not
            pairs[model.path, name if name == EAGER else choose(name, device, model.target)] = model
    return [(model, name) for (_, name), model in pairs.items()]


def check_batches(batches: Sequence[int]) -> None:
    """
    Raises:
        UsageError: none, or one that no call may have.
    """
    for batch in batches:
        if not 0 <= batch <= MAX_BATCH:
            raise UsageError(f"--batch has {batch}: give 1 to {MAX_BATCH}, or 0 for what the backend prefers")
    if not batches:
        raise UsageError("--batch is empty: give numbers of clips with commas between, for example 1,8,32,64")


def open_way(model: ModelFolder, backend: str, *, device: str, max_batch: int) -> Way:
    """Open a model on a backend, with all runners; see ``on_cores_of``."""
    opened: Backend
    if backend == EAGER:
        from .eager import EagerBackend

        opened = EagerBackend(model, device=device, max_batch=max_batch)
    else:
        opened = open_backend(backend, model, device=device, max_batch=max_batch, null_delay_ms=(0.0, 0.0))
    try:
        runners = tuple(opened.open_runner() for _ in range(opened.runners))
    except ClipmuxError:
        opened.close()
        raise
    at = {"model": model.name, "precision": model.precision, "backend": backend}
    return Way(at, model, opened, runners)


@contextlib.contextmanager
def on_cores_of(device: str) -> Iterator[None]:
    """Be on the cores that ``device`` is meanwhile, as an inference process of a run is, and then where one was before.

    A backend takes the cores that it finds when it is opened.

    Raises:
        UsageError: they are not all there.
    """
    before = os.sched_getaffinity(0) if cores_of(device) is not None and hasattr(os, "sched_getaffinity") else None
    keep_to_cores(device)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def noise_batch(model: ModelFolder, count: int) -> npt.NDArray[np.uint8]:
    """``count`` clips of noise, uint8 ``[N, T, H, W, C]``; networks take the same time for any pixels."""
    clips: npt.NDArray[np.uint8] = np.random.default_rng(SEED).integers(0, 256, (count, *model.clip_shape), np.uint8)
    return clips


def staged_noise(backend: Backend, model: ModelFolder, count: int) -> npt.NDArray[np.uint8]:
    """The same in memory that the backend's runners take batches from, as a run has them."""
    clips = backend.staging((count, *model.clip_shape))
    clips[...] = noise_batch(model, count)
    return clips


def in_parallel(runners: Sequence[Runner], clips: npt.NDArray[np.uint8], until: Until) -> Calls:
    """Call all runners at once, each from a thread of its own, again and again with the same batch.

    Args:
        runners: of one backend.
        clips: the batch, uint8 ``[N, T, H, W, C]``.
        until: when to stop; calls are shared among the runners as each is done.

    Raises:
        ClipmuxError: the device failed.
    """
    latencies: list[list[float]] = [[] for _ in runners]
    failures: list[Exception] = []
    left = iter(range(max(until.calls, len(runners)))) if until.calls else None
    lock = threading.Lock()
    stopped = threading.Event()
    begin = threading.Barrier(len(runners) + 1)
    starts: list[float] = []

    def another(made: int) -> bool:
        if left is None:
            return made == 0 or time.perf_counter() < starts[0] + until.seconds
        with lock:
            return next(left, None) is not None

    def work(runner: Runner, calls: list[float], ended: threading.Event) -> None:
        try:
            call(runner, calls)
        finally:
            ended.set()

    def call(runner: Runner, calls: list[float]) -> None:
        try:
            for _ in range(until.warmup):
                if not stopped.is_set():
                    runner.infer(clips)
        except Exception as error:
            failures.append(error)
        try:
            begin.wait()  # warm; then the clock is read, and the second wait lets all go at once
            begin.wait()
        except threading.BrokenBarrierError:
            return
        try:
            while not failures and not stopped.is_set() and another(len(calls)):
                start = time.perf_counter()
                runner.infer(clips)
                calls.append(time.perf_counter() - start)
        except Exception as error:
            failures.append(error)

    # Not joined while they may be interrupted: a join that a signal breaks takes its thread for ended (Python 3.11).
    ends = [threading.Event() for _ in runners]
    threads = [
        threading.Thread(target=work, args=(runner, calls, ended), daemon=True)
        for runner, calls, ended in zip(runners, latencies, ends, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        begin.wait()
        cpu = time.process_time()
        starts.append(time.perf_counter())
        begin.wait()
        for ended in ends:
            ended.wait()
    except BaseException:  # a thread that is still in native code when the interpreter ends aborts the process
        stopped.set()
        begin.abort()
        for thread, ended in zip(threads, ends, strict=True):
            if thread.ident is not None:
                ended.wait()
                thread.join()
        raise
    wall, cpu = time.perf_counter() - starts[0], time.process_time() - cpu
    if failures:
        raise ClipmuxError(f"the device failed: {failures[0]}") from failures[0]
    return Calls(len(clips), tuple(latency for calls in latencies for latency in calls), wall, cpu)


@dataclass(frozen=True)
class Outcome:
    """One run of a way at a batch size: the two phases, and a call's steps where the backend can tell them."""

    parallel: Calls
    alone: Calls
    phases: Phases | None


def _measure_batch(
    measurement: Measurement,
    ways: Sequence[Way],
    batch: int,
    until: Until,
    repeats: int,
    console: Console,
    program: Path | None,
) -> None:
    def way_run(way: Way) -> Outcome:
        count = batch or way.backend.preferred_batch
        if count > way.backend.max_batch:
            raise UsageError(f"--batch has {count}: {way.name} takes {way.backend.max_batch} at most")
        clips = staged_noise(way.backend, way.model, count)
        parallel = in_parallel(way.runners, clips, until)
        alone = in_parallel(way.runners[:1], clips, until) if len(way.runners) > 1 else parallel
        return Outcome(parallel, alone, way.runners[0].phases(clips))

    numbers = {str(number): way for number, way in enumerate(ways)}
    calls: dict[str, Callable[[], Outcome | Report]] = {n: partial(way_run, way) for n, way in numbers.items()}
    if program is not None:
        calls |= {f"mm_run {n}": partial(_mm_run, program, way, batch, until) for n, way in numbers.items()}
    outcomes = alternate(calls, repeats)
    throughputs: list[Figure] = []
    for number, way in numbers.items():
        runs = [run for run in outcomes[number] if isinstance(run, Outcome)]
        at = {**way.at, "batch": runs[0].parallel.batch}
        throughputs.append(_add_figures(measurement, runs, at))
        if len(ways) > 1:
            measurement.ratio("speed_up", throughputs[-1], throughputs[0], called=ways[0].name, **at)
        _print_as_mm_run(way, runs, console)
        reports = [run for run in outcomes.get(f"mm_run {number}", ()) if isinstance(run, Report)]
        if reports:
            add_mm_run(measurement, reports, throughputs[-1], at)
            said = f"  mm_run itself: {statistics.median(report.qps for report in reports):.6g} qps"
            say(console, said)


def _mm_run(program: Path, way: Way, batch: int, until: Until) -> Report:
    count = batch or way.backend.preferred_batch
    return run_mm_run(program, way.model, device=way.backend.device, batch=count, iterations=until.calls or ITERATIONS)


def _add_figures(measurement: Measurement, runs: Sequence[Outcome], at: dict[str, Any]) -> Figure:
    throughput = measurement.figure("qps", "1/s", [run.parallel.qps for run in runs], **at)
    measurement.figure("total_clips", "clips", [run.parallel.clips for run in runs], **at)
    measurement.figure("wall_s", "s", [run.parallel.wall_s for run in runs], **at)
    measurement.figure("cpu_per_clip", "s", [run.parallel.cpu_s / run.parallel.clips for run in runs], **at)
    measurement.figure("latency_mean", "ms", [1000 * statistics.fmean(run.alone.latencies_s) for run in runs], **at)
    for percent in PERCENTS:
        alone = [1000 * percentile(run.alone.latencies_s, percent) for run in runs]
        loaded = [1000 * percentile(run.parallel.latencies_s, percent) for run in runs]
        measurement.figure(f"latency_p{percent}", "ms", alone, **at)
        measurement.figure(f"parallel_latency_p{percent}", "ms", loaded, **at)
    for name in PHASES:
        told = [1000 * getattr(run.phases, name) for run in runs if run.phases is not None]
        if told:
            measurement.figure(name, "ms", told, **at)
    return throughput


def _print_as_mm_run(way: Way, runs: Sequence[Outcome], console: Console) -> None:
    """The median run in mm_run's words."""
    run = sorted(runs, key=lambda run: run.parallel.qps)[len(runs) // 2]
    calls = run.parallel
    per_second = len(calls.latencies_s) / calls.wall_s
    throughput = f"{calls.qps:.6g} with total batch sizes: {calls.clips} and {per_second:.6g} iterations/second"
    lines = [
        f"{way.name}, batch {calls.batch}",
        f"  Throughput (qps):             {throughput}",
        f"  Latency(host clock, ms): {_spread(run.alone.latencies_s)}",
    ]
    if run.phases is None:
        lines.append(f"  H2D, Compute, D2H: {way.backend.name} on {way.backend.device} cannot tell them apart")
    else:
        lines += [f"  {word} Summary (ms): {1000 * getattr(run.phases, name):.6g}" for name, word in PHASES.items()]
    for line in lines:
        say(console, line)


def _spread(latencies_s: Sequence[float]) -> str:
    values = [1000 * latency for latency in latencies_s]
    percents = " ".join(f"({percent}%) {percentile(values, percent):.6g}" for percent in PERCENTS[1:])
    return (
        f"min: {min(values):.6g} max: {max(values):.6g} mean: {statistics.fmean(values):.6g} "
        f"median: {statistics.median(values):.6g} percentile: {percents}"
    )
