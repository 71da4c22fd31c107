"""Peak memory of all processes together, for a few videos and for many: it must not grow with the run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model
from clipmux.workers.sources import list_videos

from .end_to_end import one_run, point
from .measure import Measurement, alternate, measuring, points_table, say_load
from .videos import write_short_videos

EVERY_S = 0.1
"""A peak of a tenth of a second counts; the speed of these runs does not."""


def memory(
    config: EngineConfig,
    *,
    counts: Sequence[int] = (50, 1000),
    frames: int = 48,
    size: tuple[int, int] = (320, 240),
    repeats: int,
    console: Console,
) -> Measurement:
    """Run on short made videos, and print the peaks and their ratio.

    Args:
        config: of every run.
        counts: videos of a run, rising; ratios are to the first.
        frames: of each video.
        size: width and height of each video.
        repeats: runs of everything.
        console: where to print.

    Raises:
        UsageError: counts that cannot be compared.
        ClipmuxError: a run failed.
    """
    if len(counts) < 2 or sorted(set(counts)) != list(counts) or counts[0] < 1:
        raise UsageError(f"--videos is {','.join(map(str, counts))}: give two or more rising numbers, like 50,1000")
    model = read_model(config.model)
    backend = config.backend_for(model)
    measurement = Measurement("memory", model, {"backend": backend, "device": config.device})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        write_short_videos(Path(folder), counts[-1], frames=frames, size=size)
        videos = list_videos([folder], stdin=None).videos
        ways = {str(count): partial(one_run, config, videos[:count], memory_every_s=EVERY_S) for count in counts}
        runs = alternate(ways, repeats, say=status.update)
    peaks = []
    for count in counts:
        at = {**point(model, config), "videos": count}
        peaks.append(measurement.figure("peak_memory", "bytes", [run.memory_bytes for run in runs[str(count)]], **at))
        measurement.figure("clips", "clips", [run.clips for run in runs[str(count)]], **at)
        measurement.figure("wall", "s", [run.wall_s for run in runs[str(count)]], **at)
        if count != counts[0]:
            measurement.ratio("memory_growth", peaks[-1], peaks[0], called=f"{counts[0]} videos", **at)
    console.print(points_table(measurement, "peak_memory", "memory_growth", "clips", "wall"))
    kinds = {run.memory_kind for way in runs.values() for run in way}
    console.print(f"peak memory is the {' and '.join(sorted(kinds))} of all processes together", highlight=False)
    return measurement
