"""The simulation beside the real engine: the same videos, and the costs that were measured in the same round.

What others take of the machine meanwhile is measured too, and the simulated machine has only what they left.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model
from clipmux.workers.sources import Video

from .baselines.way import cpu_seconds
from .costs import Costs, Pace
from .decoding import common_size
from .end_to_end import Run, one_run, points, run_videos_of
from .engine_cost import EngineCosts, engine_costs
from .measure import Measurement, alternate, cores, measuring, points_table, say_load
from .natural import Kind
from .simulate import Setup, Simulated, simulate
from .stages import decode_cost, inference_cost

COMPARED = ("clips_per_s", "batch_fill", "latency_p50")
"""What the simulation has to agree in."""

MEASURED = ("frame_s", *(field.name for field in dataclasses.fields(EngineCosts)))
"""Costs that are measured in each round, besides inference."""


@dataclass(frozen=True)
class Pair:
    """A run, and the same one simulated.

    Args:
        run: the real one.
        simulated: likewise, on paper.
        costs: that it was simulated with.
        pace: of the device, likewise.
        others: cores that other programs used during the real run.
    """

    run: Run
    simulated: Simulated
    costs: Costs
    pace: Pace
    others: float


def agreement(
    inputs: Sequence[str],
    configs: Sequence[EngineConfig],
    *,
    workers: Sequence[int],
    count: int,
    kind: Kind,
    frames: int,
    alone_s: float,
    repeats: int,
    console: Console,
) -> Measurement:
    """Run every model with every number of decoders, really and simulated, and print both and their ratios.

    Args:
        inputs: videos as ``clipmux run`` takes them; none for made ones.
        configs: one per model.
        workers: decoder processes.
        count: how many videos a run has; 0 for each given one once (48 made ones).
        kind: of made videos.
        frames: of each made video.
        alone_s: seconds of inference alone.
        repeats: rounds.
        console: where to print.

    Raises:
        UsageError: an input, a model or a number that cannot be.
        ClipmuxError: a run failed.
    """
    if min(workers) < 1:
        raise UsageError(f"--workers has {min(workers)}: name how many, 1 or more each")
    if several := [config.device for config in configs if len(config.devices) > 1]:
        raise UsageError(f"--device is '{several[0]}': what is simulated has one device, name one")
    models = [read_model(config.model) for config in configs]
    measurement = Measurement("simulate", models[0])
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        videos = run_videos_of(inputs, Path(folder), count=count, kind=kind, frames=frames)
        measurement.videos = {"size": common_size(videos)}
        grid = {}
        for (config, model, at), decoders in itertools.product(
            zip(configs, models, points(models, configs), strict=True), workers
        ):
            there = dataclasses.replace(config, workers=decoders)
            grid[f"{model.path}: {decoders} decoders"] = (at, there)
        ways = {name: partial(side_by_side, config, videos, alone_s) for name, (_, config) in grid.items()}
        pairs = alternate(ways, repeats, say=status.update)
    for name, (at, config) in grid.items():
        _add(measurement, pairs[name], {**at, "workers": config.workers})
    _show(measurement, console)
    return measurement


def side_by_side(config: EngineConfig, videos: Sequence[Video], alone_s: float) -> Pair:
    """Run videos, measure what the stages cost, and simulate the run with that.

    Raises:
        ClipmuxError: a run failed.
    """
    model = read_model(config.model)
    machine, ours, began = _machine_cpu_s(), cpu_seconds(), time.monotonic()
    run = one_run(config, videos)
    wall, ours, machine = time.monotonic() - began, cpu_seconds() - ours, _machine_cpu_s() - machine
    others = min(max(0.0, (machine - ours) / wall), cores() - 0.1)
    batch: int = run.about["preferred_batch"]
    pace = _pace(config, run, alone_s)
    processes = cores() if pace.on_cores else min(config.decoders, cores())
    decode = decode_cost(config, videos, processes=processes)
    engine = engine_costs(config, batch=batch)
    costs = Costs(frame_s=decode.cpu_s / (run.frames or 1), **vars(engine))
    setup = Setup(
        costs=costs,
        pace=pace,
        cores=cores() - others,
        decoders=config.decoders,
        slots=run.about["room"] // config.decoders,
        max_delay_s=config.max_delay_s,
        length=model.frames,
        stride=config.stride,
        by_process=shared_by_process(),
    )
    return Pair(run, simulate(setup, run.lengths), costs, pace, others)


def _pace(config: EngineConfig, run: Run, alone_s: float) -> Pace:
    """How the device answers: as it was told to, or as it does alone."""
    runners: int = run.about["runners"]
    batch: int = run.about["preferred_batch"]
    ahead: int = run.about["places"] - runners
    if run.about["backend"] == "null":
        per_batch_ms, per_clip_ms = config.null_delay_ms
        return Pace(per_batch_ms / 1000, per_clip_ms / 1000, batch, runners, ahead)
    alone = inference_cost(config, seconds=alone_s)
    if alone.on_cpu:
        return Pace(0.0, alone.cpu_per_clip, batch, runners, ahead, on_cores=True)
    return Pace(0.0, runners / alone.clips_per_s, batch, runners, ahead)


def shared_by_process() -> bool:
    """Whether processes share this machine's cores evenly, or all threads do: see sched(7), the autogroup feature."""
    try:
        on = Path("/proc/sys/kernel/sched_autogroup_enabled").read_text(encoding="ascii").strip() == "1"
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    named = [line.split(":", 2) for line in groups]
    ours = [path for _, controllers, path in named if "cpu" in controllers.split(",")]
    ours = ours or [path for _, controllers, path in named if not controllers]
    return on and ours == ["/"]


def _machine_cpu_s() -> float:
    """CPU seconds of everybody on this machine, and what its host took away, since it started; 0 if it is not told."""
    try:
        with Path("/proc/stat").open("rb") as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _add(measurement: Measurement, pairs: Sequence[Pair], at: dict[str, Any]) -> None:
    runs = [pair.run for pair in pairs]
    found = [pair.simulated for pair in pairs]
    real: dict[str, tuple[str, list[float]]] = {
        "clips_per_s": ("1/s", [run.clips_per_s for run in runs]),
        "batch_fill": ("", [run.summary["batch_fill"] for run in runs]),
        "latency_p50": ("ms", [run.summary["latency_ms"]["p50"] for run in runs]),
        "latency_p99": ("ms", [run.summary["latency_ms"]["p99"] for run in runs]),
        "device_busy": ("", [run.device_busy for run in runs]),
        "cpu_per_clip": ("s", [run.cpu_s / run.clips for run in runs]),
        "clips": ("clips", [run.clips for run in runs]),
        "videos": ("", [run.videos for run in runs]),
    }
    simulated: dict[str, list[float]] = {
        "clips_per_s": [one.clips_per_s for one in found],
        "batch_fill": [one.batch_fill for one in found],
        "latency_p50": [1000 * one.latency_p50_s for one in found],
        "latency_p99": [1000 * one.latency_p99_s for one in found],
        "device_busy": [one.device_busy for one in found],
        "cpu_per_clip": [one.cpu_s / one.clips for one in found],
        "clips": [one.clips for one in found],
        "videos": [one.videos for one in found],
    }
    for name, (unit, values) in real.items():
        theirs = measurement.figure(name, unit, values, **at)
        ours = measurement.figure(f"simulated_{name}", unit, simulated[name], **at)
        if name in COMPARED:
            measurement.ratio(f"simulated_to_real_{name}", ours, theirs, **at)
    for name in MEASURED:
        measurement.figure(name, "s", [getattr(pair.costs, name) for pair in pairs], **at)
    measurement.figure("infer_s", "s", [pair.pace.seconds(pair.pace.batch) / pair.pace.batch for pair in pairs], **at)
    measurement.figure("others", "", [pair.others for pair in pairs], **at)


def _show(measurement: Measurement, console: Console) -> None:
    compared = [shown for name in COMPARED for shown in (name, f"simulated_{name}", f"simulated_to_real_{name}")]
    console.print(points_table(measurement, *compared, "device_busy", "simulated_device_busy", "others"))
    console.print(points_table(measurement, *MEASURED, "infer_s"))
