"""Short runs over a grid of worker counts, batch sizes and models (one per precision)."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import UsageError
from clipmux.engine.logs import printable
from clipmux.engine.model import read_model

from .end_to_end import add_runs, one_run, points, run_videos_of
from .measure import Measurement, alternate, figures_table, measuring, say_load
from .natural import Kind


def sweep(
    inputs: Sequence[str],
    configs: Sequence[EngineConfig],
    *,
    workers: Sequence[int],
    batches: Sequence[int],
    count: int = 0,
    kind: Kind,
    frames: int,
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure a run at every point of the grid, and print clips per second.

    Args:
        inputs: videos as ``clipmux run`` takes them; none for made ones.
        configs: one per model.
        workers: decoder processes.
        batches: clips in one device call at most.
        count: how many videos a run has; 0 for each given one once (48 made ones).
        kind: of made videos.
        frames: of each made video.
        repeats: runs of everything.
        console: where to print.

    Raises:
        UsageError: an input, a model or a point that cannot be.
        ClipmuxError: a run failed.
    """
    if min(workers) < 1:
        raise UsageError(f"--workers has {min(workers)}: a sweep names how many, 1 or more each")
    models = [read_model(config.model) for config in configs]
    grid = {}
    for (config, model, at), processes, batch in itertools.product(
        zip(configs, models, points(models, configs), strict=True), dict.fromkeys(workers), dict.fromkeys(batches)
    ):
        there = dataclasses.replace(config, workers=processes, max_batch=batch)
        grid[f"{model.path}: {processes} workers, batch {batch}"] = (at, there)
    backend = configs[0].backend_for(models[0])
    measurement = Measurement("sweep", models[0], {"backend": backend, "device": configs[0].device})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        videos = run_videos_of(inputs, Path(folder), count=count, kind=kind, frames=frames)
        ways = {name: partial(one_run, config, videos) for name, (_, config) in grid.items()}
        runs = alternate(ways, repeats, say=status.update)
    for name, (at, config) in grid.items():
        add_runs(measurement, runs[name], {**at, "workers": config.workers, "batch": config.max_batch})
    console.print(figures_table(measurement, "clips_per_s", "batch_fill", "device_busy", "latency_p50", "peak_memory"))
    best = max((figure for figure in measurement.figures if figure.name == "clips_per_s"), key=lambda each: each.median)
    several = len({figure.at["model"] for figure in measurement.figures}) > 1
    which = f"{printable(best.at['model'])} {best.at['precision']}" if several else best.at["precision"]
    console.print(
        f"fastest: {which}, {best.at['workers']} workers, batches of up to {best.at['batch']}, "
        f"{best.median:.1f} clips/s",
        highlight=False,
    )
    return measurement
