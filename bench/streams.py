"""How many camera streams a machine sustains, beside what their stages cost alone.

Streams are files that are played at their own pace, over and over; made ones have 30 frames a second. A number of them
is *sustained* if for so many seconds no clip is dropped, no file falls behind its pace, and 99% of clips have their
scores in time, counted from when their last frame was due. The largest such number is found by bisection.

The ideal is cores ÷ (CPU seconds per second of one stream: of decoding and preprocessing at that pace, in a process
that does nothing else, + of inference, full batches that are there already).
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.engine.children import INFERENCE
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.histogram import middle
from clipmux.engine.live import LiveSupervisor
from clipmux.engine.messages import LIVE
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.streams import LiveConfig, StreamConfig
from clipmux.workers.decode import open_container, video_stream

from .measure import Measurement, cores, figures_table, measuring, say_load
from .stages import do, inference_cost
from .videos import write_short_videos
from .watch import proportional_size, resident_size

FPS = 30
SIZE = (340, 256)
MADE = 8
"""Made videos that differ; streams take them in turn."""
MADE_FRAMES = 300
IN_TIME = 0.99
AT_PACE = 0.97
"""Of the frames that were due: a count is up to a beat old."""
SETTLE_S = 8.0
"""From when every camera is live until it counts: processes that start cost what they never cost again."""
QUICK = 4
"""The search takes so many times shorter trials than the proof."""
WEIGHTS = (1.0, 2.0, 4.0)
"""Of the streams in turn, in an overload."""
FEW = 4
"""Streams whose latency is measured too."""


@dataclass(frozen=True)
class Trial:
    """What so many streams came to.

    Args:
        streams: how many.
        seconds: that counted.
        p50_s: latency from when a clip's last frame was due to its scores.
        p99_s: the same, of all but 1% of clips.
        scored: clips.
        dropped: clips, by inference and by cameras.
        at_pace: frames that were decoded ÷ frames that were due, each file by its own rate.
        device_busy: share of the time in which runners had a batch.
        memory: bytes of all processes at the beginning, and at the end.
        by_stream: ``(weight, offered, scored)`` clips of each.
    """

    streams: int
    seconds: float
    p50_s: float
    p99_s: float
    scored: int
    dropped: int
    at_pace: float
    device_busy: float
    memory: tuple[int, int]
    by_stream: tuple[tuple[float, int, int], ...] = dataclasses.field(repr=False)

    def sustained(self, bound_s: float) -> bool:
        return self.dropped == 0 and self.at_pace >= AT_PACE and self.p99_s <= bound_s

    @property
    def unfair(self) -> float:
        """The largest difference of what streams of one weight got from what they should have got, as a share of it."""
        groups: dict[float, list[tuple[int, int]]] = {}
        for weight, offered, scored in self.by_stream:
            groups.setdefault(weight, []).append((offered, scored))
        got = {weight: sum(scored for _, scored in group) for weight, group in groups.items()}
        offers = {weight: sum(offered for offered, _ in group) for weight, group in groups.items()}
        due = fair_shares(
            {weight: (weight * len(groups[weight]), offers[weight]) for weight in groups}, sum(got.values())
        )
        return max((abs(got[weight] - share) / share for weight, share in due.items() if share), default=0.0)


def fair_shares(wants: dict[Any, tuple[float, float]], total: float) -> dict[Any, float]:
    """Share out ``total`` by weight, nobody getting more than it offers; what is left over goes to the others.

    Args:
        wants: ``(weight, offer)`` of each.
        total: what there is.
    """
    shares = dict.fromkeys(wants, 0.0)
    open_ones = dict(wants)
    left = total
    while open_ones and left > 1e-9:
        unit = left / sum(weight for weight, _ in open_ones.values())
        full = {name for name, (weight, offer) in open_ones.items() if offer - shares[name] <= unit * weight}
        for name in full or set(open_ones):
            weight, offer = open_ones[name]
            more = min(unit * weight, offer - shares[name])
            shares[name] += more
            left -= more
        open_ones = {name: want for name, want in open_ones.items() if name not in full} if full else {}
    return shares


def streams(
    videos: Sequence[Path],
    config: EngineConfig,
    *,
    count: int,
    seconds: float,
    bound_s: float,
    overload: float,
    max_latency_s: float,
    alone_s: float,
    console: Console,
) -> Measurement:
    """Find how many streams are sustained, and print that and its ratio to the ideal.

    Args:
        videos: to play; none for made ones.
        config: of the engine.
        count: of streams, in place of a search; 0 searches.
        seconds: of the proof.
        bound_s: what 99% of latencies keep within.
        overload: also try so many times the number that is sustained, with weights; 0 does not.
        max_latency_s: of the live engine.
        alone_s: seconds of each stage alone.
        console: where to print.

    Raises:
        UsageError: an option that cannot be.
        ClipmuxError: it failed, or not one stream is sustained.
    """
    if count < 0 or not seconds > 0 or not bound_s > 0 or overload < 0 or not alone_s > 0:
        raise UsageError("--streams and --overload are at least 0, --seconds, --bound-ms and --alone are above 0")
    model = read_model(config.model)
    backend = config.backend_for(model)
    measurement = Measurement("streams", model, {"backend": backend, "device": config.device})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        files = list(videos) or made(Path(folder))
        rates = [frame_rate(file) for file in files]
        live = LiveConfig(config.model, max_latency_s=max_latency_s, loop=True).of_model(model)
        status.update("what stages cost alone")
        ideal = ideal_streams(config, live, files[0], measurement, alone_s)

        def attempt(number: int, for_s: float, *, weights: Sequence[float] = (1.0,)) -> Trial:
            status.update(f"{number} streams for {for_s:g} s")
            trial = try_streams(config, live, model, files, rates, number, seconds=for_s, weights=weights)
            console.print(f"  {described(trial, bound_s)}", highlight=False)
            return trial

        best = attempt(count, seconds) if count else search(attempt, ideal, seconds, bound_s)
        tell(measurement, best)
        figure = measurement.figure("sustained_streams", "", [best.streams if best.sustained(bound_s) else 0])
        measurement.ratio("stream_efficiency", figure, measurement.figures[0])
        if best.streams != FEW and not count:
            tell(measurement, attempt(FEW, seconds))
        if overload:
            over = attempt(math.ceil(best.streams * overload), seconds, weights=WEIGHTS)
            tell(measurement, over)
            measurement.figure("unfairness", "", [over.unfair], streams=over.streams)
    console.print(figures_table(measurement, "ideal_streams", "sustained_streams", "stream_efficiency"))
    console.print(
        figures_table(
            measurement,
            "latency_p50",
            "latency_p99",
            "dropped",
            "device_busy",
            "memory_begin",
            "memory_end",
            "unfairness",
        )
    )
    return measurement


def search(attempt: Any, ideal: float, seconds: float, bound_s: float) -> Trial:
    """Bisection over quick trials, then the proof: for the whole time, of one stream less as long as that fails.

    Raises:
        ClipmuxError: not one stream is sustained.
    """
    low, high = 0, max(2, math.ceil(1.1 * ideal))
    failed = False
    number = max(1, round(0.85 * ideal))
    while high - low > 1:
        if attempt(number, seconds / QUICK).sustained(bound_s):
            low = number
        else:
            high, failed = number, True
        if high - low <= 1 and not failed:  # more than the ideal that was measured
            high *= 2
        number = (low + high) // 2
    for number in range(low, 0, -1):
        if (trial := attempt(number, seconds)).sustained(bound_s):
            return trial  # type: ignore[no-any-return]
    raise ClipmuxError("not even one stream is sustained: see with 'clipmux live' why")


def try_streams(
    config: EngineConfig,
    live: LiveConfig,
    model: ModelFolder,
    files: Sequence[Path],
    rates: Sequence[float],
    number: int,
    *,
    seconds: float,
    weights: Sequence[float] = (1.0,),
    settle_s: float = SETTLE_S,
) -> Trial:
    """Play so many streams, and see what comes of them once all are at it.

    Args:
        config: of the engine.
        live: likewise.
        model: to run.
        files: to play; streams take them in turn.
        rates: frames per second of each file.
        number: of streams.
        seconds: that count.
        weights: of the streams in turn.
        settle_s: seconds before that do not.

    Raises:
        ClipmuxError: it failed.
    """
    configs = [
        StreamConfig(f"stream {at}", str(files[at % len(files)]), weight=weights[at % len(weights)])
        for at in range(number)
    ]
    live = dataclasses.replace(live, max_streams=number)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder:
        supervisor = LiveSupervisor(config, live, model, configs, log_file=Path(folder) / "log")
        marks: list[_Mark] = []
        try:
            supervisor.start()
            began = time.monotonic()

            def tick() -> None:
                passed = time.monotonic() - began
                if not marks and all(one.state != LIVE for one in supervisor.streams.values()):
                    return
                if len(marks) == 0 and passed >= settle_s:
                    marks.append(_Mark(supervisor))
                elif len(marks) == 1 and time.monotonic() - marks[0].at >= seconds:
                    marks.append(_Mark(supervisor))
                    supervisor.interrupt()

            for _ in supervisor.watch(on_tick=tick):
                pass
            supervisor.stop()
        except BaseException:
            supervisor.kill()
            raise
    if len(marks) < 2:
        raise ClipmuxError("the streams ended before they were measured: give videos that can be played")
    due_per_s = sum(rates[at % len(rates)] for at in range(number))
    return _between(marks[0], marks[1], supervisor.about["runners"], number, due_per_s)


class _Mark:
    """All counts at one time."""

    def __init__(self, supervisor: LiveSupervisor) -> None:
        self.at = time.monotonic()
        children = supervisor.processes
        devices = [child.counts for child in children if child.role == INFERENCE]
        self.clips: int = sum(counts.get("clips", 0) for counts in devices)
        self.latency = _sums(counts.get("latency", {}) for counts in devices)
        self.drops = _sums(counts.get("drops", {}) for counts in devices)
        self.busy: float = sum(counts.get("busy_s", {}).get("infer", 0.0) for counts in devices)
        self.streams = {
            stream.number: (stream.total("frames"), stream.total("clips"), stream.total("dropped"))
            for stream in supervisor.streams.values()
        }
        self.weights = {stream.number: stream.config.weight for stream in supervisor.streams.values()}
        self.memory = sum(_size(child.pid) for child in children) + _size(os.getpid())


def _sums(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter())


def _between(first: _Mark, last: _Mark, runners: int, number: int, due_per_s: float) -> Trial:
    seconds = last.at - first.at
    latency = {int(key): count - first.latency.get(key, 0) for key, count in last.latency.items()}
    by_stream = []
    frames = lost = 0
    for key, (frames_then, sent_then, lost_then) in first.streams.items():
        frames_now, sent_now, lost_now = last.streams[key]
        late = last.drops.get(str(key), 0) - first.drops.get(str(key), 0)
        frames += frames_now - frames_then
        lost += lost_now - lost_then
        sent = sent_now - sent_then
        by_stream.append((first.weights[key], sent + lost_now - lost_then, max(0, sent - late)))
    late = sum(last.drops.values()) - sum(first.drops.values())
    return Trial(
        streams=number,
        seconds=seconds,
        p50_s=_percentile(latency, 50),
        p99_s=_percentile(latency, 100 * IN_TIME),
        scored=last.clips - first.clips,
        dropped=lost + late,
        at_pace=frames / (due_per_s * seconds),
        device_busy=(last.busy - first.busy) / seconds / runners,
        memory=(first.memory, last.memory),
        by_stream=tuple(by_stream),
    )


def _percentile(buckets: dict[int, int], percent: float) -> float:
    rank = math.ceil(sum(buckets.values()) * percent / 100)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0 and buckets[bucket]:
            return middle(bucket)
    return math.inf


def _size(pid: int) -> int:
    return proportional_size(pid) or resident_size(pid) or 0


def ideal_streams(
    config: EngineConfig, live: LiveConfig, file: Path, measurement: Measurement, alone_s: float
) -> float:
    """How many streams the stages' costs allow, if nothing else cost anything.

    Raises:
        ClipmuxError: a stage failed.
    """
    stream = StreamConfig("alone", str(file))
    asked = {"stage": "watch", "live": live.to_json(), "stream": stream.to_json(), "seconds": alone_s}
    answers = do(config, [asked] * (2 * cores()))
    cpu = sum(answer["cpu_s"] for answer in answers) / sum(answer["wall_s"] for answer in answers)
    frames = sum(answer["frames"] for answer in answers) / sum(answer["wall_s"] for answer in answers)
    inference = inference_cost(config, seconds=alone_s)
    clips = 1 / live.stride_s
    shared = cores() / (cpu + clips * inference.cpu_per_clip)
    if inference.device == "cpu":
        found: float = shared
    else:
        found = min(shared if inference.on_cpu else cores() / cpu, inference.clips_per_s / clips)
    measurement.figure("ideal_streams", "", [found])
    measurement.figure("camera_alone_cpu_per_frame", "ms", [1000 * cpu / frames])
    measurement.figure("inference_alone_cpu_per_clip", "ms", [1000 * inference.cpu_per_clip])
    return found


def frame_rate(file: Path) -> float:
    """Frames per second of a file, on average.

    Raises:
        UsageError: the file does not tell.
        VideoError: it cannot be opened.
    """
    with open_container(file) as container:
        rate = video_stream(container, str(file)).average_rate
    if not rate:
        raise UsageError(
            f"'{file}' does not say how many frames it has per second, so that none is known to be due: give others"
        )
    return float(rate)


def made(folder: Path) -> list[Path]:
    """Videos of ten seconds at 30 frames a second."""
    videos = write_short_videos(folder, MADE, frames=MADE_FRAMES, size=SIZE, rate=Fraction(FPS), distinct=MADE)
    return [video.path for video in videos]


def tell(measurement: Measurement, trial: Trial) -> None:
    """Add a trial's figures."""
    at = {"streams": trial.streams}
    if trial.scored:
        measurement.figure("latency_p50", "ms", [1000 * trial.p50_s], **at)
        measurement.figure("latency_p99", "ms", [1000 * trial.p99_s], **at)
    measurement.figure("scored", "clips", [trial.scored], **at)
    measurement.figure("dropped", "clips", [trial.dropped], **at)
    measurement.figure("at_pace", "", [trial.at_pace], **at)
    measurement.figure("device_busy", "", [trial.device_busy], **at)
    measurement.figure("memory_begin", "bytes", [trial.memory[0]], **at)
    measurement.figure("memory_end", "bytes", [trial.memory[1]], **at)


def described(trial: Trial, bound_s: float) -> str:
    """A trial in a line."""
    return (
        f"{trial.streams} streams for {trial.seconds:.0f} s: "
        f"{'sustained' if trial.sustained(bound_s) else 'not sustained'}, p50 {1000 * trial.p50_s:.0f} ms, "
        f"p99 {1000 * trial.p99_s:.0f} ms, {trial.scored} scored, {trial.dropped} dropped, "
        f"{trial.at_pace:.0%} of frames, device {trial.device_busy:.0%} busy"
    )
