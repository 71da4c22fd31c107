"""What Prometheus is told of an engine, from the last ``Look`` that its supervisor left.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows. Every family is an entry of a table;
whoever runs an engine of another kind adds entries, whose figures come with its children's beats.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .children import CAMERA, COLLECTOR, DECODER, INFERENCE
from .histogram import middle
from .observer import Look

Sample = tuple[tuple[str, ...], float]
"""Values of a family's labels, and the figure."""

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 48, 64)
LATENCY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)


@dataclass(frozen=True)
class Counter:
    """Something that only grows; ``name`` is without its ``_total``."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Look], Iterable[Sample]]

    def metric(self, look: Look) -> Metric:
        """As the client library has it."""
        metric = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.samples(look):
            metric.add_metric(labels, value)
        return metric


@dataclass(frozen=True)
class Gauge:
    """Something that is as it is now."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Look], Iterable[Sample]]

    def metric(self, look: Look) -> Metric:
        """As the client library has it."""
        metric = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in self.samples(look):
            metric.add_metric(labels, value)
        return metric


@dataclass(frozen=True)
class Distribution:
    """How many values are at most each bound.

    Args:
        name: of the family.
        help: what is counted.
        bounds: rising, in base units.
        counts: how often each value came; values and bounds have the same unit.
        total: the sum of all values.
    """

    name: str
    help: str
    bounds: Sequence[float]
    counts: Callable[[Look], Mapping[float, float]]
    total: Callable[[Look], float]

    def metric(self, look: Look) -> Metric:
        """As the client library has it."""
        counts = self.counts(look)
        buckets = [
            (f"{bound:g}", sum(count for value, count in counts.items() if value <= bound)) for bound in self.bounds
        ]
        metric = HistogramMetricFamily(self.name, self.help)
        metric.add_metric([], [*buckets, ("+Inf", sum(counts.values()))], self.total(look))
        return metric


Family = Counter | Gauge | Distribution


def _by(counts: Mapping[str, float]) -> Iterator[Sample]:
    return (((name,), value) for name, value in counts.items())


def _busy(look: Look) -> Iterator[Sample]:
    for role in look.roles:
        for stage, seconds in look.parts(role, "busy_s").items():
            yield (role, stage), seconds


def _sent(look: Look, name: str) -> float:
    return look.total(DECODER, name) + look.total(CAMERA, name)


def _refused(look: Look) -> Iterator[Sample]:
    return (((role,), look.total(role, "refused")) for role in (INFERENCE, COLLECTOR))


def _waiting(look: Look) -> Iterator[Sample]:
    for place in ("batcher", "device"):
        clips = [process.now[f"in_{place}"] for process in look.processes if f"in_{place}" in process.now]
        yield (place,), sum(clips)


def _memory(look: Look) -> Iterator[Sample]:
    own = (("supervisor", os.getpid()),)
    for name, pid in (*own, *((process.name, process.pid) for process in look.processes)):
        for kind, size in resident(pid).items():
            yield (name, kind), size


@functools.cache
def _version() -> str:
    return metadata.version("clipmux")


def _info(look: Look) -> Iterator[Sample]:
    about = look.about
    yield (_version(), str(about.get("backend", "")), str(about.get("device", ""))), 1.0


def _batches(look: Look) -> dict[float, float]:
    return {float(size): count for size, count in look.parts(INFERENCE, "batch_sizes").items()}


def _latencies(look: Look) -> dict[float, float]:
    return {middle(int(bucket)): count for bucket, count in look.parts(INFERENCE, "latency").items()}


FAMILIES: tuple[Family, ...] = (
    Gauge("clipmux_info", "1; what runs here.", ("version", "backend", "device"), _info),
    Counter("clipmux_videos", "Videos with an outcome.", ("outcome",), lambda look: _by(look.videos)),
    Counter("clipmux_video_failures", "Failed videos, by where.", ("stage",), lambda look: _by(look.failures)),
    Gauge(
        "clipmux_videos_in_progress",
        "Videos handed to a decoder and without an outcome.",
        (),
        lambda look: [((), look.in_progress)],
    ),
    Counter("clipmux_frames_decoded", "Frames out of decoders.", (), lambda look: [((), _sent(look, "frames"))]),
    Counter("clipmux_clips_sent", "Clips that decoders sent.", (), lambda look: [((), _sent(look, "clips"))]),
    Counter("clipmux_clips_scored", "Clips with scores.", (), lambda look: [((), look.total(INFERENCE, "clips"))]),
    Counter(
        "clipmux_stage_busy_seconds",
        "Seconds that processes were in a stage; a decoder sends for as long as a full queue holds it back.",
        ("role", "stage"),
        _busy,
    ),
    Gauge("clipmux_queue_clips", "Clips in inference, waiting for the device or in it.", ("place",), _waiting),
    Distribution(
        "clipmux_batch_clips",
        "Clips in a batch.",
        BATCH_BOUNDS,
        _batches,
        lambda look: look.total(INFERENCE, "clips"),
    ),
    Distribution(
        "clipmux_clip_latency_seconds",
        "From a clip's last frame decoded to its scores.",
        LATENCY_BOUNDS_S,
        _latencies,
        lambda look: look.total(INFERENCE, "latency_s"),
    ),
    Counter(
        "clipmux_process_deaths",
        "Processes that ended other than by an order to stop; each is replaced, or the run ends.",
        ("role",),
        lambda look: _by({role: look.deaths.get(role, 0) for role in look.roles}),
    ),
    Counter("clipmux_messages_refused", "Messages that did not follow the wire format.", ("role",), _refused),
    Gauge(
        "clipmux_process_memory_bytes",
        "Resident memory: private, and shared with files and other processes, which others count too.",
        ("process", "kind"),
        _memory,
    ),
)
"""What is told of a run."""


def _of_streams(name: str) -> Callable[[Look], Iterator[Sample]]:
    return lambda look: (((stream,), known[name]) for stream, known in look.streams.items())


def _states(look: Look) -> Iterator[Sample]:
    return (((stream, known["state"]), 1.0) for stream, known in look.streams.items())


def _dropped(look: Look) -> Iterator[Sample]:
    late = look.parts(INFERENCE, "drops")
    for stream, known in look.streams.items():
        yield (stream, "camera"), known["dropped"]
        yield (stream, "inference"), late.get(str(known["number"]), 0.0)


LIVE_FAMILIES: tuple[Family, ...] = (
    *(family for family in FAMILIES if not family.name.startswith("clipmux_video")),
    Gauge("clipmux_stream_state", "1 for the state that a stream is in.", ("stream", "state"), _states),
    Counter("clipmux_stream_frames", "Frames of a stream.", ("stream",), _of_streams("frames")),
    Counter("clipmux_stream_clips", "Clips of a stream that its camera sent.", ("stream",), _of_streams("clips")),
    Counter(
        "clipmux_stream_dropped_clips",
        "Clips of a stream that were dropped: by the camera without room for them, by inference too late.",
        ("stream", "place"),
        _dropped,
    ),
)
"""What is told of live streams."""


class Metrics:
    """The page for Prometheus.

    Args:
        families: what is on it.
    """

    def __init__(self, families: Sequence[Family] = FAMILIES) -> None:
        self._families = families

    def page(self, look: Look) -> bytes:
        """Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Collected([family.metric(look) for family in self._families]))
        return generate_latest(registry)


class _Collected(Collector):
    """Families as a registry wants them."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def resident(pid: int) -> dict[str, int]:
    """Resident bytes of a process, ``private`` and ``shared``; empty if it has ended or the system does not say.

    The kernel keeps these numbers anyway: unlike proportional sizes, they cost the process that is asked about nothing.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return {}
    size = os.sysconf("SC_PAGE_SIZE")
    return {"private": (int(pages[1]) - int(pages[2])) * size, "shared": int(pages[2]) * size}
