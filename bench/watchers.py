"""What being looked at and being guarded cost: the same run with every watcher and the jail, and with none.

With all on, decoders are jailed, ``/metrics`` and ``/healthz`` are asked for every second, every stage of every process
goes into a trace, and logs are JSON. Both kinds of run are held against the ideal of their round (see stages.py), which
is measured once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from clipmux.engine import jail
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.logs import JSON
from clipmux.engine.model import read_model
from clipmux.engine.watching import Watching, watched
from clipmux.workers.sources import Video

from .end_to_end import Run, one_run, point, run_videos_of
from .measure import Measurement, alternate, cores, measuring, points_table, say_load
from .natural import Kind
from .stages import decode_cost, ideal, inference_cost

SCRAPE_EVERY_S = 1.0
"""Far more often than Prometheus does it (15 s)."""

ON, OFF = "on", "off"


def watchers(
    inputs: Sequence[str],
    config: EngineConfig,
    *,
    count: int = 0,
    kind: Kind,
    frames: int,
    alone_s: float,
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure runs with and without watchers and jail, and print rates, efficiencies, and their ratio.

    Args:
        inputs: videos as ``clipmux run`` takes them; none for made ones.
        config: of every run.
        count: see ``end_to_end``.
        kind: of made videos.
        frames: of each made video.
        alone_s: seconds of inference alone.
        repeats: rounds.
        console: where to print.

    Raises:
        UsageError: an input or model that cannot be.
        ClipmuxError: a run failed.
    """
    if not alone_s > 0:
        raise UsageError(f"--alone is {alone_s:g}: give seconds above 0")
    model = read_model(config.model)
    backend = config.backend_for(model)
    measurement = Measurement("watchers", model, {"backend": backend, "device": config.device})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        videos = run_videos_of(inputs, Path(folder), count=count, kind=kind, frames=frames)
        ways: dict[str, Any] = {
            "ideal": partial(_ideal, config, videos, alone_s),
            OFF: partial(one_run, dataclasses.replace(config, jail=jail.OFF), videos),
            ON: partial(_watched_run, dataclasses.replace(config, jail=jail.ON), videos),
        }
        outcomes = alternate(ways, repeats, say=status.update)
    rates, efficiencies, cpu = {}, {}, {}
    for way in (OFF, ON):
        runs: list[Run] = [outcome[0] if way == ON else outcome for outcome in outcomes[way]]
        at = {**point(model, config), "watchers": way}
        rates[way] = measurement.figure("clips_per_s", "1/s", [run.clips_per_s for run in runs], **at)
        cpu[way] = measurement.figure("cpu_per_clip", "s", [run.cpu_s / run.clips for run in runs], **at)
        best = measurement.figure("ideal_clips_per_s", "1/s", outcomes["ideal"], **at)
        efficiencies[way] = measurement.ratio("pipeline_efficiency", rates[way], best, **at)
    at = {**point(model, config), "watchers": ON}
    measurement.ratio("share_of_speed", rates[ON], rates[OFF], called="clips/s without", **at)
    measurement.ratio("share_of_cpu", cpu[ON], cpu[OFF], called="CPU per clip without", **at)
    measurement.figure("scrapes", "", [scrapes for _, scrapes, _ in outcomes[ON]], **at)
    measurement.figure("trace", "bytes", [size for _, _, size in outcomes[ON]], **at)
    console.print(points_table(measurement, *SHOWN))
    return measurement


SHOWN = (
    "clips_per_s",
    "ideal_clips_per_s",
    "pipeline_efficiency",
    "cpu_per_clip",
    "share_of_speed",
    "share_of_cpu",
    "scrapes",
    "trace",
)


def _ideal(config: EngineConfig, videos: Sequence[Video], alone_s: float) -> float:
    decode = decode_cost(config, videos, processes=cores())
    return ideal(decode, inference_cost(config, seconds=alone_s), cores=cores())


def _watched_run(config: EngineConfig, videos: Sequence[Video]) -> tuple[Run, int, int]:
    """A run with everything on, how often it was asked, and the size of its trace in bytes.

    Raises:
        ClipmuxError: it failed, or nobody answered.
    """
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder:
        trace = Path(folder) / "trace.json"
        watching = Watching(metrics="127.0.0.1:0", log_format=JSON, trace=trace)
        with watched(watching) as observer, _scraped(observer.shown_at) as scrapes:
            run = one_run(config, videos, observer=observer)
        if not scrapes:
            raise ClipmuxError("the run ended before it was asked for its metrics once: give more --videos")
        return run, len(scrapes), trace.stat().st_size


@contextlib.contextmanager
def _scraped(url: str) -> Iterator[list[int]]:
    """Ask for both pages again and again while inside; the sizes of the metrics pages so far."""
    ended = threading.Event()
    sizes: list[int] = []

    def scrape() -> None:
        while not ended.wait(SCRAPE_EVERY_S):
            _get(url, "/healthz")
            sizes.append(len(_get(url, "/metrics")))

    thread = threading.Thread(target=scrape, name="scraper", daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def _get(url: str, page: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", page)
        return connection.getresponse().read()
    finally:
        connection.close()
