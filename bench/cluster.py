"""A cluster that there is not, simulated: decoder hosts, links, inference hosts with devices, one collector. Pure.

Decoder hosts serve one inference host today. This says what a topology of many of both would need and where it would
saturate, were the parts as they are now: each inference process with its batcher is bench/simulate.py's, and the
decoders' slots are too. Every host has a link of its own in each direction; the network between them is taken to have
room for all. Scores travel to one collector, one thread, which no link holds up: they are a hundredth of what clips
are.

Videos: every decoder always has another one, and what is measured is a stretch of a run that goes on. Streams: each has
its own phase; a clip is dropped and counted where its stream still works on the one before or has no slot, and where
engine/fair.py gives it up because it is late.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from clipmux.engine.batcher import Batcher, Waiting
from clipmux.engine.clips import LEAST
from clipmux.engine.config import AHEAD
from clipmux.engine.fair import FairBatcher
from clipmux.engine.histogram import Histogram

from .clock import Clock, Cores, Line
from .costs import Costs, Pace
from .simulate import JITTER, Clip, Inference, Sender, frames_of_clips


@dataclass(frozen=True)
class Topology:
    """Hosts, what is in them, and what lies between.

    Args:
        hosts: decoder hosts.
        cores: of each.
        inference_hosts: that all of them share.
        devices: of each of those; each has an inference process with a core of its own.
        link_clips_per_s: that a host's link carries, in each direction.
        pace: of a device.
        costs: of the stages but inference.
    """

    hosts: int
    cores: int
    inference_hosts: int
    devices: int
    link_clips_per_s: float
    pace: Pace
    costs: Costs

    def __post_init__(self) -> None:
        if min(self.hosts, self.cores, self.inference_hosts, self.devices) < 1 or not self.link_clips_per_s > 0:
            raise ValueError(f"{self}: at least one of everything belongs there")

    @property
    def send_s(self) -> float:
        """Of a decoder, for a clip: all of them travel through sockets."""
        return self.costs.send_s + self.costs.link_send_s

    @property
    def take_s(self) -> float:
        """Of an inference process, for a clip."""
        return self.costs.take_s + self.costs.link_take_s

    @property
    def processes(self) -> int:
        """Inference processes: one per device."""
        return self.inference_hosts * self.devices


@dataclass(frozen=True)
class Videos:
    """Videos without an end, each of so many frames; a clip waits ``max_delay_s`` for its batch to fill at most."""

    frames: int
    max_delay_s: float
    length: int = 16
    stride: int = 16

    @property
    def steps(self) -> list[int]:
        """Frames to decode for each clip, and after the last one."""
        return frames_of_clips(self.frames, length=self.length, stride=self.stride)


@dataclass(frozen=True)
class Streams:
    """So many streams, each with a clip of ``frames`` decoded frames every ``every_s`` seconds; a clip that cannot be
    scored within ``max_latency_s`` is given up."""

    count: int
    frames: float
    every_s: float
    max_delay_s: float
    max_latency_s: float = 1.0

    @property
    def slots(self) -> int:
        """Of a stream, as engine/streams.py has it: clips that can still be in time, and three besides."""
        return math.ceil(self.max_latency_s / self.every_s) + 3


@dataclass(frozen=True)
class Stretch:
    """What a stretch of a simulated cluster's time came to.

    Args:
        offered_per_s: clips that streams came to have; 0 for videos, which offer as many as are taken.
        clips_per_s: collected.
        dropped_per_s: clips of streams that were given up.
        use: share of each resource in use, 0…1, of the busiest of its kind.
        latency_p50_s: from decoded to scored, of half of the clips at most.
        latency_p99_s: likewise of 99 in 100.
        batch_fill: mean batch ÷ the full one.
    """

    offered_per_s: float
    clips_per_s: float
    dropped_per_s: float
    use: dict[str, float]
    latency_p50_s: float
    latency_p99_s: float
    batch_fill: float

    @property
    def waiting_per_s(self) -> float:
        """By how many clips of streams more wait every second: a load that is too much, and has not filled all slots
        yet."""
        return max(0.0, self.offered_per_s - self.clips_per_s - self.dropped_per_s)


def capacities(topology: Topology, load: Videos | Streams) -> dict[str, float]:
    """Clips per second that each resource carries by itself, by the formulas of plan.py; those that cost nothing are
    left out."""
    costs = topology.costs
    if isinstance(load, Videos):
        clips = len(load.steps) - 1
        frames_per_clip, videos_per_clip = load.frames / clips, 1 / clips
    else:
        frames_per_clip, videos_per_clip = load.frames, 0.0
    seconds = {
        "decoder cores": (frames_per_clip * costs.frame_s + topology.send_s + videos_per_clip * costs.end_s)
        / (topology.hosts * topology.cores),
        "decoder links": 1 / (topology.link_clips_per_s * topology.hosts),
        "inference links": 1 / (topology.link_clips_per_s * topology.inference_hosts),
        "inference processes": topology.take_s / topology.processes,
        "devices": 1 / (topology.pace.clips_per_s * topology.processes),
        "collector": costs.collect_s + costs.write_s * videos_per_clip,
        "supervisor": costs.hand_out_s * videos_per_clip,
    }
    return {name: 1 / each for name, each in seconds.items() if each}


def run_cluster(topology: Topology, load: Videos | Streams, *, seconds: float, warm_up_s: float, seed: int) -> Stretch:
    """Simulate, and tell of the ``seconds`` after the warm-up.

    Args:
        topology: the cluster.
        load: what it works on.
        seconds: simulated, that count.
        warm_up_s: simulated before, that do not.
        seed: of phases, and of how much the work on clips differs.
    """
    cluster = _Cluster(topology, load, random.Random(seed))  # noqa: S311  (nothing secret)
    if isinstance(load, Streams):
        cluster.play(load)
    else:
        cluster.decode(load)
    cluster.clock.run(warm_up_s)
    before = cluster.begin()
    cluster.clock.run(warm_up_s + seconds)
    return cluster.end(before, seconds)


@dataclass
class _Counts:
    busy: dict[str, list[float]]
    offered: int
    dropped: int
    collected: int


class _Cluster:
    def __init__(self, topology: Topology, load: Videos | Streams, rng: random.Random) -> None:
        self.clock = clock = Clock()
        self._topology = topology
        self._costs = topology.costs
        self._random = rng
        self._hosts = [Cores(clock, topology.cores) for _ in range(topology.hosts)]
        self._out = [Line(clock) for _ in range(topology.hosts)]
        self._in = [Line(clock) for _ in range(topology.inference_hosts)]
        self._threads = [Cores(clock, 1) for _ in range(topology.processes)]
        self._inferences = [
            Inference(
                clock,
                thread,
                _batcher(topology, load),
                topology.pace,
                take_s=topology.take_s,
                scored=self._scored,
                dropped=self._gave_up,
            )
            for thread in self._threads
        ]
        self._collector = Line(clock)
        self._supervisor = Line(clock)
        self._latencies, self._batches = Histogram(), Counter[int]()
        self._offered = self._dropped = self._collected = 0

    # -- load ----------------------------------------------------------------------------------------------------------

    def decode(self, videos: Videos) -> None:
        """A decoder on every core, each with one video after another."""
        steps = videos.steps
        total = self._topology.hosts * self._topology.cores
        for number in range(total):
            sender = Sender(self._slots(total))
            place = self._random.randrange(len(steps) - 1)  # they are not all at their video's beginning
            self._decode(number, sender, steps, place)

    def play(self, streams: Streams) -> None:
        """Every stream on a host of its own turn, from a random moment of its first clip on."""
        for number in range(streams.count):
            sender = Sender(streams.slots)
            first = self._random.random() * streams.every_s
            self.clock.at(first, partial(self._frame, number, sender, streams, _Busy()))

    def _slots(self, seats: int) -> int:
        of_a_device = -(-seats // len(self._inferences))
        return max(LEAST, -(-AHEAD * self._topology.pace.batch // of_a_device))

    # -- decoders ------------------------------------------------------------------------------------------------------

    def _decode(self, number: int, sender: Sender, steps: Sequence[int], place: int) -> None:
        cores = self._hosts[number % len(self._hosts)]
        work = steps[place] * self._costs.frame_s * self._random.uniform(1 - JITTER, 1 + JITTER)
        if place == len(steps) - 1:
            work += self._costs.end_s

            def ended() -> None:
                self._collector.serve(self._costs.write_s, _nothing)
                self._supervisor.serve(self._costs.hand_out_s, lambda: self._decode(number, sender, steps, 0))

            cores.work(work, ended)
            return

        def decoded() -> None:
            clip = Clip(number, sender, self.clock.now)

            def sent() -> None:
                self._send(number, clip)
                self._decode(number, sender, steps, place + 1)

            sender.place(lambda: cores.work(self._topology.send_s, sent))

        cores.work(work, decoded)

    def _frame(self, number: int, sender: Sender, streams: Streams, busy: _Busy) -> None:
        """The last frame of a stream's clip has come."""
        self.clock.after(streams.every_s, partial(self._frame, number, sender, streams, busy))
        self._offered += 1
        if busy.busy or not sender.free:
            self._dropped += 1
            return
        busy.busy = True
        work = streams.frames * self._costs.frame_s * self._random.uniform(1 - JITTER, 1 + JITTER)

        def decoded() -> None:
            busy.busy = False
            clip = Clip(number, sender, self.clock.now)
            sender.place(lambda: self._send(number, clip))

        self._hosts[number % len(self._hosts)].work(work + self._topology.send_s, decoded)

    def _send(self, number: int, clip: Clip) -> None:
        """Over the link of its host and that of the device's, each a clip at a time."""
        device = number % len(self._inferences)
        out = self._out[number % len(self._hosts)]
        into = self._in[device // self._topology.devices]
        seconds = 1 / self._topology.link_clips_per_s
        out.serve(seconds, lambda: into.serve(seconds, lambda: self._inferences[device].arrive(clip)))

    def _gave_up(self, _: Clip) -> None:
        self._dropped += 1

    # -- the collector -------------------------------------------------------------------------------------------------

    def _scored(self, clips: list[Clip]) -> None:
        def collected() -> None:
            self._collected += len(clips)

        self._collector.serve(self._costs.collect_s * len(clips), collected)

    # -- what it came to -----------------------------------------------------------------------------------------------

    def begin(self) -> _Counts:
        """The warm-up is over: what came before does not count."""
        self._latencies, self._batches = Histogram(), Counter()
        for inference in self._inferences:  # all of them count together
            inference.latencies, inference.batches = self._latencies, self._batches
        return self._counts()

    def end(self, before: _Counts, seconds: float) -> Stretch:
        """What it came to since, so many seconds long."""
        after = self._counts()
        latencies, batches = self._latencies, self._batches
        scored = sum(size * count for size, count in batches.items())
        return Stretch(
            offered_per_s=(after.offered - before.offered) / seconds,
            clips_per_s=(after.collected - before.collected) / seconds,
            dropped_per_s=(after.dropped - before.dropped) / seconds,
            use={
                name: max(late - early for early, late in zip(before.busy[name], busy, strict=True)) / seconds
                for name, busy in after.busy.items()
            },
            latency_p50_s=latencies.percentile(50) or 0.0,
            latency_p99_s=latencies.percentile(99) or 0.0,
            batch_fill=scored / batches.total() / self._topology.pace.batch if scored else 0.0,
        )

    def _counts(self) -> _Counts:
        topology = self._topology
        busy = {
            "decoder cores": [host.busy_s / topology.cores for host in self._hosts],
            "decoder links": [line.busy_s for line in self._out],
            "inference links": [line.busy_s for line in self._in],
            "inference processes": [thread.busy_s for thread in self._threads],
            "devices": [inference.running.area / topology.pace.runners for inference in self._inferences],
            "collector": [self._collector.busy_s],
            "supervisor": [self._supervisor.busy_s],
        }
        return _Counts(busy, self._offered, self._dropped, self._collected)


def _batcher(topology: Topology, load: Videos | Streams) -> Waiting[Clip]:
    """As engine/inference.py has it for either."""
    size = topology.pace.batch
    if isinstance(load, Videos):
        return Batcher(  # which of a decoder's videos a clip is of is not told here: none is the first
            size=size, max_delay=load.max_delay_s, video_of=lambda _: 0, runners=topology.pace.runners
        )
    return FairBatcher(
        size=size,
        max_delay=load.max_delay_s,
        max_latency=load.max_latency_s,
        capacity=max(size, -(-load.count // topology.processes) * load.slots),
        stream_of=lambda clip: clip.video,
        decoded_at=lambda clip: clip.decoded_at,
        runners=topology.pace.runners,
    )


@dataclass
class _Busy:
    busy: bool = False


def _nothing() -> None:
    """For a line that nobody waits for."""
