"""The same videos on one device and on several: what an inference process for each costs, side by side."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model

from .end_to_end import one_run, run_videos_of
from .measure import Measurement, alternate, measuring, points_table, say_load
from .natural import Kind

SHOWN = ("clips_per_s", "share_of_speed", "cpu_per_clip", "batch_fill", "device_busy")


def devices(
    inputs: Sequence[str],
    config: EngineConfig,
    choices: Sequence[str],
    *,
    count: int,
    kind: Kind,
    frames: int,
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure runs on each choice of devices in turn, and print their rates and ratios to the first's.

    Args:
        inputs: videos as ``clipmux run`` takes them; none for made ones.
        config: of every run, but for the device.
        choices: devices of a run each, as ``--device`` of ``clipmux run`` has them.
        count: see ``end_to_end``.
        kind: of made videos.
        frames: of each made video.
        repeats: rounds.
        console: where to print.

    Raises:
        UsageError: an input, a model or a device that cannot be.
        ClipmuxError: a run failed.
    """
    if len(set(choices)) < 2:
        raise UsageError("give --device twice at least: what is compared with what")
    model = read_model(config.model)
    configs = {choice: dataclasses.replace(config, device=choice) for choice in choices}
    measurement = Measurement("devices", model, {"backend": configs[choices[0]].backend_for(model)})
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder, measuring(console) as status:
        videos = run_videos_of(inputs, Path(folder), count=count, kind=kind, frames=frames)
        ways: dict[str, Any] = {choice: partial(one_run, made, videos) for choice, made in configs.items()}
        outcomes = alternate(ways, repeats, say=status.update)
    rates = {}
    for choice, runs in outcomes.items():
        at = {"model": model.name, "precision": model.precision, "device": choice}
        rates[choice] = measurement.figure("clips_per_s", "1/s", [run.clips_per_s for run in runs], **at)
        measurement.figure("cpu_per_clip", "s", [run.cpu_s / run.clips for run in runs], **at)
        measurement.figure("batch_fill", "", [run.summary["batch_fill"] for run in runs], **at)
        measurement.figure("device_busy", "", [run.summary["busy_share"] for run in runs], **at)
        if choice != choices[0]:
            called = f"clips/s of {choices[0]}"
            measurement.ratio("share_of_speed", rates[choice], rates[choices[0]], called=called, **at)
    console.print(points_table(measurement, *SHOWN))
    return measurement
