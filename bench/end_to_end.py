"""A real run, measured, beside what its stages cost alone, and beside the baselines.

*Pipeline efficiency* is clips/s of the run ÷ the ideal (see stages.py): 1.0 means that the engine costs nothing. All
parts are measured round by round in one session. Starting processes and loading the model take the same time however
long a run is, so they are told apart: a run's rates count from the first hand-out to the last result, and those
``with_start`` over everything.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.engine.children import DECODER, INFERENCE
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.histogram import Histogram
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.observer import Observer
from clipmux.engine.stages import Stages
from clipmux.engine.summary import summarise
from clipmux.engine.supervisor import Progress, Supervisor
from clipmux.workers.results import RunFolder
from clipmux.workers.sources import Video, list_videos

from .baselines.start import Baseline, Labels, check_baselines, difference, float32_network, run_baseline
from .baselines.way import cpu_seconds
from .decoding import common_size, listed
from .measure import Figure, Measurement, alternate, cores, figures_table, measuring, points_table, say_load
from .natural import Kind, write_natural_videos
from .stages import Cost, around, first_prediction_s, ideal
from .watch import Growth, Memory, spent_by_role

MEMORY_EVERY_S = 15.0
"""A look takes 20 ms or more of a core: once a second, a run on two would be measured one percent slower."""

SHOWN = (
    "clips_per_s",
    "videos_per_s",
    "frames_per_s",
    "ideal_clips_per_s",
    "pipeline_efficiency",
    "clips_per_s_with_start",
    "pipeline_efficiency_with_start",
    "start",
    "wall",
    "decode_alone_cpu_per_clip",
    "inference_alone_cpu_per_clip",
    "cpu_per_clip",
    "decoders_cpu_per_clip",
    "inference_cpu_per_clip",
    "rest_cpu_per_clip",
    "cpu_efficiency",
    "batch_fill",
    "mean_batch",
    "device_busy",
    "latency_p50",
    "latency_p90",
    "latency_p99",
    "first_prediction",
    "first_prediction_alone",
    "time_to_first_prediction",
    "peak_memory",
)
"""Figures that are printed, in this order; all others are in the JSON."""

DISTINCT = 8
"""Made videos that differ; more of them are the same files again."""


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Args:
        videos: with an outcome.
        failed: those without a prediction.
        clips: scored.
        frames: decoded.
        start_s: from the first process's start to the first hand-out.
        steady_s: from the first hand-out to the last result.
        first_s: from the first process's start to the first prediction.
        wall_s: from the first process's start to the last one's end.
        cpu_s: of all processes, from the first hand-out to the last result.
        role_cpu_s: of the decoders, inference, and the rest (supervisor and collector), in the same time.
        memory_bytes: of all processes together, at most.
        memory_kind: ``PSS`` or ``RSS``.
        summary: as ``summary.json`` has it.
        about: what inference said of itself.
        buckets: latencies: upper bound in seconds, and how many clips.
        series: see ``Growth.series``.
        lengths: frames of each video, in the order they were handed out; failed ones are left out.
        predictions: by ``video_id``, the best labels and their scores.
    """

    videos: int
    failed: int
    clips: int
    frames: int
    start_s: float
    steady_s: float
    first_s: float
    wall_s: float
    cpu_s: float
    role_cpu_s: dict[str, float]
    memory_bytes: int
    memory_kind: str
    summary: dict[str, Any]
    about: dict[str, Any]
    buckets: list[Any]
    series: dict[str, Any] = field(repr=False)
    lengths: tuple[int, ...] = field(repr=False)
    predictions: dict[str, Labels] = field(repr=False)

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.steady_s

    @property
    def device_busy(self) -> float:
        """Share of the time from the first batch to the last score in which a runner has a batch, 0…1."""
        busy: float = self.summary["busy_share"]
        return busy


def one_run(
    config: EngineConfig,
    videos: Sequence[Video],
    *,
    memory_every_s: float = MEMORY_EVERY_S,
    observer: Observer | None = None,
) -> Run:
    """Classify videos into a run folder that is thrown away, as ``clipmux run`` does it, and measure.

    Raises:
        UsageError: it cannot run here.
        ClipmuxError: the run failed, or gave not one prediction.
    """
    model = read_model(config.model)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as scratch:
        output = Path(scratch) / "run"
        folder = RunFolder(output, decides={}, resume=False)
        supervisor = Supervisor(config, model, run_folder=output, log_file=folder.log, observer=observer)
        growth = Growth()

        def note(_: Progress) -> None:
            for child in supervisor.processes:
                growth.note(child.role, child.name, child.last_progress, child.counts)

        predictions: dict[str, Labels] = {}
        lengths: dict[str, int] = {}
        first = last = 0.0
        began = time.monotonic()
        try:
            with Memory(supervisor, every_s=memory_every_s) as memory:
                supervisor.start()
                before = spent_by_role(supervisor)
                handed = time.monotonic()
                cpu = cpu_seconds()
                for prediction in supervisor.outcomes(videos, on_tick=note):
                    last = time.monotonic()
                    if prediction.error is None:
                        first = first or last
                    lengths[prediction.video_id] = prediction.frames
                    predictions[prediction.video_id] = [(item.label, item.score) for item in prediction.labels]
                cpu = cpu_seconds() - cpu
                after = spent_by_role(supervisor)
                memory.look()
                figures = [*supervisor.stop(), ("supervisor", Stages().figures())]
        except BaseException:
            supervisor.kill()  # nothing of it is kept
            raise
        wall = time.monotonic() - began
        progress = supervisor.progress
        summary = summarise(
            figures,
            videos=progress.done,
            failed=progress.failed,
            skipped=0,
            resumed=0,
            restarts=progress.restarts,
            wall_s=wall,
        )
    if not summary["clips"] or not first:
        raise ClipmuxError("the run gave not one prediction: see with 'clipmux run' what is wrong with the videos")
    latency = Histogram.of(*(values.get("latency", {}) for role, values in figures if role == INFERENCE))
    return Run(
        videos=progress.done,
        failed=progress.failed,
        clips=summary["clips"],
        frames=summary["frames"],
        start_s=handed - began,
        steady_s=last - handed,
        first_s=first - began,
        wall_s=wall,
        cpu_s=cpu,
        role_cpu_s=_shares(before, after),
        memory_bytes=memory.most,
        memory_kind=memory.kind,
        summary=summary,
        about=supervisor.about,
        buckets=[list(pair) for pair in latency.buckets()],  # as JSON has them, which reports are made of
        series=growth.series(handed),
        lengths=tuple(length for video in videos if (length := lengths.get(video.video_id, 0))),
        predictions={video: labels for video, labels in predictions.items() if labels},
    )


def _shares(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds between two looks, under the names of the figures; of a process that has ended meanwhile, none."""
    shares = {"decoders": 0.0, "inference": 0.0, "rest": 0.0}
    for role, seconds in after.items():
        shares[{DECODER: "decoders", INFERENCE: "inference"}.get(role, "rest")] += seconds - before.get(role, 0.0)
    return {name: max(seconds, 0.0) for name, seconds in shares.items()}


@dataclass(frozen=True)
class Round:
    """What is measured side by side in each round of one model."""

    decode: Cost
    inference: Cost
    first_s: float
    run: Run
    ideal: float


def end_to_end(
    inputs: Sequence[str],
    configs: Sequence[EngineConfig],
    *,
    count: int = 0,
    kind: Kind,
    frames: int,
    alone_s: float,
    baselines: Sequence[str] = (),
    float32: str = "",
    baseline_preprocess: str = "",
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure runs of several models on the same videos, and print rates, the ideal, and their ratios.

    Args:
        inputs: videos as ``clipmux run`` takes them; none for made ones.
        configs: one per model.
        count: how many videos a run has: the given ones again and again; 0 for each of them once (48 made ones).
        kind: of made videos.
        frames: of each made video.
        alone_s: seconds of inference alone.
        baselines: names of baselines to run beside.
        float32: the folder that compiled models were compiled from, which the reference's way needs.
        baseline_preprocess: the other baselines' way to pixels; that of the run unless given.
        repeats: rounds.
        console: where to print.

    Raises:
        UsageError: an input, model or baseline that cannot be.
        ClipmuxError: a run failed.
    """
    if not alone_s > 0:
        raise UsageError(f"--alone is {alone_s:g}: give seconds above 0")
    models = [read_model(config.model) for config in configs]
    plain = read_model(float32) if float32 else None
    for config, model in zip(configs, models, strict=True):
        check_baselines(baselines, model, plain, device=config.device)
    backend = configs[0].backend_for(models[0])
    measurement = Measurement("end-to-end", models[0], {"backend": backend, "device": configs[0].device})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder:
        videos = run_videos_of(inputs, Path(folder), count=count, kind=kind, frames=frames)
        measurement.videos = {"size": common_size(videos)}
        ways: dict[str, Any] = {}
        for number, (config, model) in enumerate(zip(configs, models, strict=True)):
            ways[f"{number} run"] = partial(_round, config, videos, alone_s)
            theirs = dataclasses.replace(config, preprocess=baseline_preprocess or config.preprocess)
            for name in baselines:
                ways[f"{number} {name}"] = partial(_baseline, name, videos, model, plain, theirs)
        with measuring(console) as status:
            outcomes = alternate(ways, repeats, say=status.update)
    for number, at in enumerate(points(models, configs)):
        rounds: list[Round] = outcomes[f"{number} run"]
        clips = add_rounds(measurement, rounds, at)
        for name in baselines:
            found: list[Baseline] = outcomes[f"{number} {name}"]
            _add_baseline(measurement, found, clips, {**at, "baseline": name})
            _add_difference(measurement, [entry.run for entry in rounds], found, {**at, "baseline": name})
        if number == 0:
            keep_curves(measurement, [entry.run for entry in rounds])
    _show(measurement, console, bool(baselines))
    kinds = {entry.run.memory_kind for entries in outcomes.values() for entry in entries if isinstance(entry, Round)}
    console.print(f"peak memory is the {' and '.join(kinds)} of all processes together", highlight=False)
    return measurement


def point(model: ModelFolder, config: EngineConfig) -> dict[str, Any]:
    """What tells a run's figures from others'."""
    backend = config.backend_for(model)
    return {"model": model.name, "precision": model.precision, "backend": backend, "device": config.device}


def points(models: Sequence[ModelFolder], configs: Sequence[EngineConfig]) -> list[dict[str, Any]]:
    """What tells each model's figures from the others'; the folders of models that nothing else tells apart."""
    named = [point(model, config) for model, config in zip(models, configs, strict=True)]
    return [
        {**at, "model": str(model.path)} if named.count(at) > 1 else at for model, at in zip(models, named, strict=True)
    ]


def run_videos_of(inputs: Sequence[str], folder: Path, *, count: int, kind: Kind, frames: int) -> list[Video]:
    """The videos of a run, ``count`` of them, each under a name of its own.

    Raises:
        UsageError: an input cannot be used.
    """
    if count < 0:
        raise UsageError(f"--videos is {count}: give how many videos a run has, or 0 for each given one once")
    if inputs:
        there = listed(inputs)
        count = count or len(there)
    else:
        count = count or 48
        paths = write_natural_videos(folder, kind, min(count, DISTINCT), frames=frames)
        there = list_videos([str(path) for path in paths], stdin=None).videos
    return [
        dataclasses.replace(there[number % len(there)], video_id=f"{there[number % len(there)].video_id}-{number}")
        for number in range(count)
    ]


def _round(config: EngineConfig, videos: Sequence[Video], alone_s: float) -> Round:
    first = first_prediction_s(config, videos)
    run = partial(one_run, config, videos)
    decode, inference, ran = around(config, videos, run, seconds=alone_s, processes=cores())
    return Round(decode, inference, first, ran, ideal(decode, inference, cores=cores()))


def _baseline(
    name: str, videos: Sequence[Video], model: ModelFolder, plain: ModelFolder | None, config: EngineConfig
) -> Baseline:
    network = float32_network(model, plain) if name == "reference" else model
    return run_baseline(
        name,
        videos,
        network,
        stride=config.stride,
        cores=cores(),
        preprocess=config.preprocess,
        device=config.device,
    )


def add_rounds(measurement: Measurement, rounds: Sequence[Round], at: dict[str, Any]) -> Figure:
    """Everything that rounds measured; returns clips per second."""
    runs = [entry.run for entry in rounds]
    clips, with_start = add_runs(measurement, runs, at)

    def figure(name: str, unit: str, values: Sequence[float]) -> Figure:
        return measurement.figure(name, unit, values, **at)

    best = figure("ideal_clips_per_s", "1/s", [entry.ideal for entry in rounds])
    figure("decode_alone_cpu_per_clip", "s", [entry.decode.cpu_per_clip for entry in rounds])
    figure("inference_alone_cpu_per_clip", "s", [entry.inference.cpu_per_clip for entry in rounds])
    figure("inference_alone_clips_per_s", "1/s", [entry.inference.clips_per_s for entry in rounds])
    both = figure(
        "alone_cpu_per_clip", "s", [entry.decode.cpu_per_clip + entry.inference.cpu_per_clip for entry in rounds]
    )
    measurement.ratio("pipeline_efficiency", clips, best, **at)
    measurement.ratio("pipeline_efficiency_with_start", with_start, best, **at)
    spent = figure("cpu_per_clip", "s", [run.cpu_s / run.clips for run in runs])
    for part in runs[0].role_cpu_s:
        figure(f"{part}_cpu_per_clip", "s", [run.role_cpu_s[part] / run.clips for run in runs])
    if rounds[0].inference.on_cpu:
        measurement.ratio("cpu_efficiency", both, spent, **at)
    first = figure("first_prediction", "s", [run.first_s for run in runs])
    alone = figure("first_prediction_alone", "s", [entry.first_s for entry in rounds])
    measurement.ratio("time_to_first_prediction", first, alone, called="model load and one video", **at)
    return clips


def add_runs(measurement: Measurement, runs: Sequence[Run], at: dict[str, Any]) -> tuple[Figure, Figure]:
    """What runs by themselves tell; returns clips per second from the first hand-out on, and with the start."""

    def figure(name: str, unit: str, values: Sequence[float]) -> Figure:
        return measurement.figure(name, unit, values, **at)

    clips = figure("clips_per_s", "1/s", [run.clips_per_s for run in runs])
    with_start = figure("clips_per_s_with_start", "1/s", [run.clips / run.wall_s for run in runs])
    figure("videos_per_s", "1/s", [run.videos / run.steady_s for run in runs])
    figure("frames_per_s", "1/s", [run.frames / run.steady_s for run in runs])
    figure("clips", "clips", [run.clips for run in runs])
    figure("failed_videos", "", [run.failed for run in runs])
    figure("start", "s", [run.start_s for run in runs])
    figure("steady", "s", [run.steady_s for run in runs])
    figure("wall", "s", [run.wall_s for run in runs])
    figure("batch_fill", "", [run.summary["batch_fill"] for run in runs])
    figure("mean_batch", "clips", [run.summary["mean_batch"] for run in runs])
    figure("device_busy", "", [run.device_busy for run in runs])
    for name in ("p50", "p90", "p99"):
        figure(f"latency_{name}", "ms", [run.summary["latency_ms"][name] for run in runs])
    figure("peak_memory", "bytes", [run.memory_bytes for run in runs])
    return clips, with_start


def keep_curves(measurement: Measurement, runs: Sequence[Run]) -> None:
    """The series and histograms of the median run."""
    run = sorted(runs, key=lambda run: run.clips_per_s)[len(runs) // 2]
    measurement.series = run.series
    measurement.histograms = {"batch_size": run.summary["batch_sizes"], "latency_s": run.buckets}


def _add_baseline(measurement: Measurement, baselines: Sequence[Baseline], ours: Figure, at: dict[str, Any]) -> None:
    theirs = measurement.figure("baseline_clips_per_s", "1/s", [baseline.clips_per_s for baseline in baselines], **at)
    measurement.figure("baseline_cpu_per_clip", "s", [baseline.cpu_s / baseline.clips for baseline in baselines], **at)
    measurement.ratio("speed_up", ours, theirs, **at)


def _add_difference(
    measurement: Measurement, runs: Sequence[Run], baselines: Sequence[Baseline], at: dict[str, Any]
) -> None:
    """How far a baseline's predictions are from ours: a comparison of speed is one of the same work."""
    apart = [difference(run.predictions, theirs.predictions) for run, theirs in zip(runs, baselines, strict=True)]
    measurement.figure("other_labels", "", [entry.labels + entry.missing for entry in apart], **at)
    measurement.figure("score_difference", "", [entry.score for entry in apart], **at)


def _show(measurement: Measurement, console: Console, baselines: bool) -> None:
    console.print(points_table(measurement, *SHOWN))
    failed = max(figure.most for figure in measurement.figures if figure.name == "failed_videos")
    if failed:
        console.print(
            f"warning: {failed:g} videos failed; see with 'clipmux run' why, and leave them out", style="yellow"
        )
    if baselines:
        console.print(
            figures_table(
                measurement,
                "baseline_clips_per_s",
                "baseline_cpu_per_clip",
                "speed_up",
                "other_labels",
                "score_difference",
            )
        )
