"""A long run at full load: what its processes hold must not grow with the time.

    python tests/soak.py --minutes 60

Videos never end; every few seconds memory (PSS without mapped files) and open descriptors of each process are looked
at. After a warm-up, a fifth of the time, there may not be more descriptors in the second half than in the first, and
the slope of a line through the memory of all processes must be within what the scatter of the looks explains, or below
1% of it over the whole time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from clipmux.bench.videos import write_short_videos
from clipmux.bench.watch import own_size, resident_size
from clipmux.engine.config import EngineConfig
from clipmux.engine.model import read_model
from clipmux.engine.supervisor import Progress, Supervisor
from clipmux.workers.results import RunFolder
from clipmux.workers.sources import Video, list_videos

LOOKS = 240
"""Over the whole time."""
WARM_UP = 0.2
"""The part of the time that does not count."""
SMALL = 0.01
"""Growth over the whole time, as a part of the memory, that is no leak."""


@dataclass
class Watch:
    """Looks at the processes of a run, now and then."""

    supervisor: Supervisor
    every_s: float
    times: list[float] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)
    descriptors: dict[str, list[int]] = field(default_factory=dict)

    def look(self, _: Progress) -> None:
        now = time.monotonic()
        if self.times and now - self.times[-1] < self.every_s:
            return
        self.times.append(now)
        pids = {"supervisor": os.getpid(), **{child.name: child.process.pid for child in self.supervisor.processes}}
        for name, pid in pids.items():
            self.memory.setdefault(name, []).append(own_size(pid) or resident_size(pid) or 0)
            self.descriptors.setdefault(name, []).append(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208


def endless(folder: Path, until: float) -> Iterator[Video]:
    """The videos again and again, under new names, while there is time."""
    listed = list_videos([str(folder)], stdin=None).videos
    for number in itertools.count():
        if time.monotonic() > until:
            return
        yield replace(listed[number % len(listed)], video_id=f"video {number}")


def slope(times: list[float], values: list[int]) -> tuple[float, float]:
    """Growth per second of a line through the values, and its standard error."""
    x = np.asarray(times) - np.mean(times)
    y = np.asarray(values, np.float64)
    growth = float((x * y).sum() / (x * x).sum())
    scatter = y - y.mean() - growth * x
    # Neighbouring looks are alike; batches of ten are nearly independent.
    batches = [part.mean() for part in np.array_split(scatter, max(3, len(y) // 10))]
    spread = np.std(batches, ddof=1) * np.sqrt(len(y) / len(batches))
    return growth, float(spread / np.sqrt((x * x).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--series", type=Path, help="File to write what was looked at to, as JSON.")
    asked = parser.parse_args()
    seconds = 60 * asked.minutes
    model = read_model(asked.model)
    config = EngineConfig(model=str(model.path.resolve()), workers=asked.workers)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        write_short_videos(Path(scratch) / "videos", 100, frames=48, size=(320, 240))
        folder = RunFolder(Path(scratch) / "run", decides={}, resume=False)
        supervisor = Supervisor(config, model, run_folder=folder.path, log_file=folder.log)
        watch = Watch(supervisor, every_s=seconds / LOOKS)
        try:
            supervisor.start(wait_for_decoders=True)
            began = time.monotonic()
            for _ in supervisor.outcomes(endless(Path(scratch) / "videos", began + seconds), on_tick=watch.look):
                pass
            took = time.monotonic() - began
        finally:
            supervisor.stop()
    progress = supervisor.progress
    print(
        f"{took / 60:.1f} minutes, {progress.done} videos, {progress.clips} clips, {progress.clips / took:.0f} clips/s"
    )
    print(f"{progress.failed} failed, {progress.restarts} restarts, {len(watch.times)} looks")
    if asked.series is not None:
        asked.series.write_text(json.dumps({"times": watch.times, "memory": watch.memory}))
    sys.exit(judge(watch) or progress.failed > 0 or progress.restarts > 0)


def judge(watch: Watch) -> bool:
    """Print what was seen; whether something grew."""
    first = int(len(watch.times) * WARM_UP)
    times = watch.times[first:]
    lasted = times[-1] - times[0]
    grew = False
    series = {name: values[first:] for name, values in watch.memory.items()}
    series["all together"] = [sum(values) for values in zip(*series.values(), strict=True)]
    for name, values in series.items():
        growth, error = (part * lasted / 2**20 for part in slope(times, values))
        mean = float(np.mean(values)) / 2**20
        leaks = name == "all together" and growth > 3 * error and growth > SMALL * mean
        grew = grew or leaks
        print(f"{name}: {mean:.1f} MiB, grew by {growth:+.2f} ± {error:.2f} MiB{' LEAK' if leaks else ''}")
    middle = (first + len(watch.times)) // 2
    for name, counts in watch.descriptors.items():
        before, after = (
            max(counts[first:middle]),
            max(counts[middle:]),
        )  # a decoder has its video open, or is between two
        grew = grew or after > before
        print(f"{name}: {before} descriptors at most, then {after}{' LEAK' if after > before else ''}")
    return grew


if __name__ == "__main__":
    main()
