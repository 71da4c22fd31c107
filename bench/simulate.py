"""An engine on one machine, simulated event by event: decoders → slots → batcher → runners → collector. Pure.

What decides is the engine's own code where it is pure: windows say after which frames a clip is complete, and
``engine/batcher.py`` itself, with the simulated clock, says which clips form a batch and when. Work is CPU seconds that
all processes share the cores for; slots, places and orders are those of engine/clips.py, device.py and inference.py.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from clipmux.engine.batcher import Batcher, Waiting
from clipmux.engine.histogram import Histogram
from clipmux.workers.windows import windows

from .clock import Clock, Cores, CoresByProcess, Do, Process
from .costs import Costs, Pace

JITTER = 0.2
"""Decoding a clip's frames takes up to this share more or less than the mean: pictures differ. An assumption."""


@dataclass(frozen=True)
class Setup:
    """An engine on one machine.

    Args:
        costs: of the stages but inference.
        pace: of the device.
        cores: that all processes share; a fraction where others use the machine too.
        decoders: processes.
        slots: clips of one decoder that may wait for a place in a batch.
        max_delay_s: how long a clip may wait for its batch to fill while the device is idle.
        length: frames of a clip.
        stride: frames from one clip's start to the next's.
        by_process: processes share the cores evenly, not threads; see clock.py.
    """

    costs: Costs
    pace: Pace
    cores: float
    decoders: int
    slots: int
    max_delay_s: float = 0.25
    length: int = 16
    stride: int = 16
    by_process: bool = False

    def __post_init__(self) -> None:
        if not self.cores > 0 or min(self.decoders, self.slots, self.length, self.stride) < 1:
            raise ValueError(f"{self}: at least one of everything belongs there")


@dataclass(slots=True)
class Clip:
    """One clip on its way.

    Args:
        video: its number.
        sender: whose slot it takes.
        decoded_at: when its last frame was decoded.
    """

    video: int
    sender: Sender
    decoded_at: float


class Sender:
    """The slots of one decoder: a clip takes one until it is in a batch."""

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._waiting: Do | None = None

    def place(self, do: Do) -> None:
        """Take a slot and call ``do``, now or as soon as there is one; one may wait at a time."""
        if self.free:
            self.free -= 1
            do()
        else:
            self._waiting = do

    def release(self) -> None:
        """A clip is in its batch."""
        if self._waiting is None:
            self.free += 1
        else:
            do, self._waiting = self._waiting, None
            do()


class Present:
    """How many there are at a time: clips between two points, batches on a device."""

    def __init__(self, clock: Clock) -> None:
        self.count = 0
        self.most = 0
        self._clock = clock
        self._area = 0.0
        self._since = 0.0

    @property
    def area(self) -> float:
        """Their number, integrated over the time so far."""
        return self._area + self.count * (self._clock.now - self._since)

    def add(self, change: int) -> None:
        self._area, self._since = self.area, self._clock.now
        self.count += change
        self.most = max(self.most, self.count)


class Inference:
    """The inference process and its device: one thread that receives, batches and copies, and runners beside it.

    Args:
        clock: of the simulation.
        cores: where the process works.
        batcher: which clips form a batch.
        pace: of the device.
        take_s: CPU seconds of the thread for each clip.
        scored: called with each batch, once its scores are there.
        dropped: called with each clip that the batcher gives up, as it does with those of streams.
    """

    def __init__(
        self,
        clock: Clock,
        cores: Cores | Process,
        batcher: Waiting[Clip],
        pace: Pace,
        *,
        take_s: float,
        scored: Callable[[list[Clip]], None],
        dropped: Callable[[Clip], None] = lambda _: None,
    ) -> None:
        self.more = True
        self.running = Present(clock)
        self.batches: Counter[int] = Counter()
        self.latencies = Histogram()
        self.latency_s = 0.0
        self._clock = clock
        self._cores = cores
        self._batcher = batcher
        self._pace = pace
        self._take_s = take_s
        self._scored = scored
        self._dropped = dropped
        self._arrived: deque[Clip] = deque()
        self._alarm = math.inf
        self._copying = False
        self._jobs: deque[list[Clip]] = deque()
        self._in_flight = 0
        self._finished: list[tuple[float, list[Clip]]] = []

    def arrive(self, clip: Clip) -> None:
        """A clip is in the socket."""
        self._arrived.append(clip)
        self.wake()

    def wake(self) -> None:
        """Look at everything there is to do, unless the thread is at work."""
        if not self._copying:
            self._turn()

    def _turn(self) -> None:
        self._send_scores()
        while self._arrived and self._batcher.room > 0:
            self._batcher.add(self._arrived.popleft(), self._clock.now)
        for clip in self._batcher.dropped(self._clock.now):
            clip.sender.release()
            self._dropped(clip)
        if self._in_flight == self._pace.runners + self._pace.ahead:
            return
        idle = self._in_flight < self._pace.runners
        more = self.more or bool(self._arrived) or self._batcher.room <= 0
        clips = self._batcher.take(self._clock.now, idle=idle, more=more)
        if clips:
            self._copying = True
            self._cores.work(self._take_s * len(clips), lambda: self._submit(clips))
        elif idle and (due := self._batcher.due(self._clock.now)) is not None:
            self._wake_at(self._clock.now + math.ceil(1000 * due) / 1000)  # as the loop's own wait is rounded

    def _wake_at(self, time: float) -> None:
        """Look again then, unless that is to happen earlier anyhow."""
        if time >= self._alarm:
            return
        self._alarm = time

        def ring() -> None:
            if self._alarm == time:
                self._alarm = math.inf
            self.wake()

        self._clock.at(time, ring)

    def _submit(self, clips: list[Clip]) -> None:
        self._copying = False
        self._in_flight += 1
        self._jobs.append(clips)
        self._start()
        for clip in clips:
            clip.sender.release()
        self.wake()

    def _start(self) -> None:
        if not self._jobs or self.running.count == self._pace.runners:
            return
        self.running.add(1)
        began, clips = self._clock.now, self._jobs.popleft()
        work = self._cores.work if self._pace.on_cores else self._clock.after
        work(self._pace.seconds(len(clips)), lambda: self._finish(began, clips))

    def _finish(self, began: float, clips: list[Clip]) -> None:
        self.running.add(-1)
        self._finished.append((self._clock.now - began, clips))
        self._start()
        self.wake()

    def _send_scores(self) -> None:
        finished, self._finished = self._finished, []
        for seconds, clips in finished:
            self._in_flight -= 1
            self._batcher.took(len(clips), seconds)
            self.batches[len(clips)] += 1
            for clip in clips:
                self.latencies.add(self._clock.now - clip.decoded_at)
                self.latency_s += self._clock.now - clip.decoded_at
            self._scored(clips)


@dataclass(frozen=True)
class Simulated:
    """What a simulated run came to, in the words of a real one's summary.

    Args:
        clips: scored.
        videos: written.
        wall_s: from the first hand-out to the last video written.
        batches: how many of each size.
        batch_fill: mean batch ÷ the full one.
        latency_p50_s: from decoded to scored, of half of the clips at most.
        latency_p99_s: likewise of 99 in 100.
        latency_mean_s: likewise on average.
        device_busy: share of the time that a runner has a batch, 0…1.
        cores_busy: share of the cores that were at work, 0…1.
        cpu_s: of all processes.
        mean_on_way: clips between decoded and scored, on average over the time.
        most_on_way: and at most.
    """

    clips: int
    videos: int
    wall_s: float
    batches: Counter[int]
    batch_fill: float
    latency_p50_s: float
    latency_p99_s: float
    latency_mean_s: float
    device_busy: float
    cores_busy: float
    cpu_s: float
    mean_on_way: float
    most_on_way: int

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.wall_s


def simulate(setup: Setup, videos: Sequence[int], *, seed: int = 0) -> Simulated:
    """Run videos through an engine, from the first hand-out to the last result.

    Args:
        setup: the engine and its machine.
        videos: frames of each, at least one, in the order they are handed out.
        seed: of how much the work on clips differs.
    """
    return _Run(setup, videos, seed).outcome()


def frames_of_clips(frames: int, *, length: int, stride: int) -> list[int]:
    """How many frames are decoded for each clip of a video since the one before, and at last after all of them.

    >>> frames_of_clips(40, length=16, stride=16)
    [16, 16, 8, 0]
    """
    decoded = 0

    def counted() -> Iterator[int]:
        nonlocal decoded
        while decoded < frames:
            decoded += 1
            yield decoded

    ends = [decoded for _ in windows(counted(), length=length, stride=stride, keep=lambda frame: frame)]
    steps = [0, *ends, frames]
    return [after - before for before, after in pairwise(steps)]


class Decoder:
    """Where a decoder works, and its slots."""

    def __init__(self, cores: Cores | Process, slots: int) -> None:
        self.cores = cores
        self.sender = Sender(slots)


class _Run:
    def __init__(self, setup: Setup, videos: Sequence[int], seed: int) -> None:
        self._setup = setup
        self._costs = setup.costs
        self._frames = list(videos)
        self._handed = 0
        self._random = random.Random(seed)  # noqa: S311  (nothing secret)
        self._clock = Clock()
        self._cores = (CoresByProcess if setup.by_process else Cores)(self._clock, setup.cores)
        self._supervisor, self._collector = self._cores.process(), self._cores.process()
        self._inference = Inference(
            self._clock,
            self._cores.process(),
            Batcher(
                size=setup.pace.batch,
                max_delay=setup.max_delay_s,
                video_of=lambda clip: clip.video,
                runners=setup.pace.runners,
            ),
            setup.pace,
            take_s=setup.costs.take_s,
            scored=self._scored,
        )
        self._reports: deque[tuple[float, Do]] = deque()
        self._collecting = False
        self._open: dict[int, int] = {}
        """What is missing yet of each video that was handed out: the scores of its clips, and its end."""
        self._decoding = setup.decoders
        self._ended_at = 0.0
        self._written = 0
        self._on_way = Present(self._clock)

    def outcome(self) -> Simulated:
        for _ in range(self._setup.decoders):
            self._next_video(Decoder(self._cores.process(), self._setup.slots))
        self._clock.run()
        inference, wall = self._inference, self._ended_at
        clips = sum(size * count for size, count in inference.batches.items())
        mean_batch = clips / inference.batches.total()
        cpu_s = self._cores.busy_s
        return Simulated(
            clips=clips,
            videos=self._written,
            wall_s=wall,
            batches=inference.batches,
            batch_fill=mean_batch / self._setup.pace.batch,
            latency_p50_s=inference.latencies.percentile(50) or 0.0,
            latency_p99_s=inference.latencies.percentile(99) or 0.0,
            latency_mean_s=inference.latency_s / clips,
            device_busy=inference.running.area / (wall * self._setup.pace.runners),
            cores_busy=cpu_s / (wall * self._setup.cores),
            cpu_s=cpu_s,
            mean_on_way=self._on_way.area / wall,
            most_on_way=self._on_way.most,
        )

    # -- a decoder -----------------------------------------------------------------------------------------------------

    def _next_video(self, decoder: Decoder) -> None:
        if self._handed == len(self._frames):
            self._decoding -= 1
            self._inference.more = self._decoding > 0
            self._inference.wake()
            return
        number, self._handed = self._handed, self._handed + 1
        steps = frames_of_clips(self._frames[number], length=self._setup.length, stride=self._setup.stride)
        self._open[number] = len(steps)
        self._supervisor.work(
            self._costs.hand_out_s,
            lambda: decoder.cores.work(self._costs.end_s, lambda: self._decode(decoder, number, deque(steps))),
        )

    def _decode(self, decoder: Decoder, number: int, steps: deque[int]) -> None:
        share = self._random.uniform(1 - JITTER, 1 + JITTER)
        work = steps.popleft() * self._costs.frame_s * share
        if steps:
            decoder.cores.work(work, lambda: self._decoded(decoder, number, steps))
        else:
            decoder.cores.work(work, lambda: self._ended(decoder, number))

    def _ended(self, decoder: Decoder, number: int) -> None:
        self._reports.append((0.0, lambda: self._one_less(number)))
        self._collect()
        self._next_video(decoder)

    def _decoded(self, decoder: Decoder, number: int, steps: deque[int]) -> None:
        clip = Clip(number, decoder.sender, self._clock.now)
        self._on_way.add(1)

        def sent() -> None:
            self._inference.arrive(clip)
            self._decode(decoder, number, steps)

        decoder.sender.place(lambda: decoder.cores.work(self._costs.send_s, sent))

    # -- the collector -------------------------------------------------------------------------------------------------

    def _scored(self, clips: list[Clip]) -> None:
        self._on_way.add(-len(clips))
        self._reports.append((self._costs.collect_s * len(clips), lambda: self._collected(clips)))
        self._collect()

    def _collect(self) -> None:
        """One report after another: the collector is one thread."""
        if self._collecting or not self._reports:
            return
        self._collecting = True
        work, done = self._reports.popleft()

        def collected() -> None:
            self._collecting = False
            done()
            self._collect()

        self._collector.work(work, collected)

    def _collected(self, clips: list[Clip]) -> None:
        for clip in clips:
            self._one_less(clip.video)

    def _one_less(self, video: int) -> None:
        self._open[video] -= 1
        if not self._open[video]:
            del self._open[video]
            self._reports.append((self._costs.write_s, self._write))

    def _write(self) -> None:
        self._written += 1
        self._ended_at = self._clock.now
