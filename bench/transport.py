"""What bringing clips to the device takes: the engine with generated clips and ``null``, beside a bare PUSH and PULL.

Generators (bench/generator.py) stand in for decoders and send as decoders do; supervisor, inference and collector are
those of a run. Rates count from the first clip that is sent to the last score that is collected, all processes being
ready; those of the bare loop (bench/bare.py) to the last clip that is in its batch.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clipmux.engine.children import DECODER, INFERENCE
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.sockets import make_addresses, remove_sockets
from clipmux.engine.supervisor import Supervisor
from clipmux.workers.sources import Video

from .baselines.way import cpu_seconds
from .generator import generated
from .measure import Measurement, alternate, figures_table, measuring, say_load
from .stages import do

BARE = "bare loop"
MODES = ("socket", "shared")
"""Ways from a decoder to inference: see engine/clips.py."""

CLIPS_OF_A_VIDEO = 18
"""Those of ten seconds at 30 frames per second, most of what Kinetics holds, at the default stride."""


@dataclass(frozen=True)
class Passage:
    """What bringing clips over came to.

    Args:
        clips: that arrived.
        wall_s: from the first that was sent to the last that arrived.
        cpu_s: of all processes.
        batch_fill: mean batch ÷ the full one.
        device_busy: share of the time in which the device had a batch.
    """

    clips: int
    wall_s: float
    cpu_s: float
    batch_fill: float = 0.0
    device_busy: float = 0.0


def transport(
    config: EngineConfig, *, clips: int, repeats: int, console: Console, modes: Sequence[str] = MODES
) -> Measurement:
    """Measure the bare loop and the engine in each mode, side by side, and print rates and ratios.

    With a delay, a device's pace decides: then how busy it is kept is measured in place of the ratio to the bare loop.

    Args:
        config: of the engine: ``null``, and as many workers as generators are wanted.
        clips: of each run.
        repeats: runs of everything.
        console: where to print.
        modes: ways from a generator to inference.

    Raises:
        UsageError: no clips, or a mode that this machine has not.
        ClipmuxError: a run failed.
    """
    if clips < 1:
        raise UsageError(f"--clips is {clips}: give how many clips each run sends, at least 1")
    model = read_model(config.model)
    measurement = Measurement("transport", model, {"backend": config.backend, "device": config.device})
    say_load(measurement, console)
    paced = any(config.null_delay_ms)
    ways: dict[str, Any] = {} if paced else {BARE: partial(bare_loop, config, clips)}
    for mode in modes:
        ways[mode] = partial(engine_run, dataclasses.replace(config, clip_memory=mode), model, clips)
    with measuring(console) as status:
        passages: dict[str, list[Passage]] = alternate(ways, repeats, say=status.update)
    rates = {}
    for way, runs in passages.items():
        at = {"generators": config.decoders, "null_delay": "{:g}+{:g}".format(*config.null_delay_ms), "way": way}
        measurement.figure("clips", "clips", [run.clips for run in runs], **at)
        rates[way] = measurement.figure("clips_per_s", "1/s", [run.clips / run.wall_s for run in runs], **at)
        measurement.figure("cpu_per_clip", "ms", [1000 * run.cpu_s / run.clips for run in runs], **at)
        if way == BARE:
            continue
        measurement.figure("batch_fill", "", [run.batch_fill for run in runs], **at)
        if paced:
            measurement.figure("device_busy", "", [run.device_busy for run in runs], **at)
        else:
            measurement.ratio("transport_efficiency", rates[way], rates[BARE], called=BARE, **at)
    against = "device_busy" if paced else "transport_efficiency"
    console.print(figures_table(measurement, "clips_per_s", against, "cpu_per_clip", "batch_fill"))
    return measurement


def engine_run(config: EngineConfig, model: ModelFolder, clips: int) -> Passage:
    """Send clips through the engine.

    Raises:
        UsageError: its mode is not on this machine.
        ClipmuxError: it failed, or not every clip was scored.
    """
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as scratch:
        log_file = Path(scratch) / "children.log"
        supervisor = Supervisor(config, model, run_folder=None, log_file=log_file, decoder="clipmux.bench.generator")
        last_at, scored = 0.0, 0
        try:
            supervisor.start(wait_for_decoders=True)
            cpu = cpu_seconds()
            for prediction in supervisor.outcomes(_videos(model, clips)):
                last_at = time.monotonic()
                scored += prediction.clips
            cpu = cpu_seconds() - cpu
            figures = supervisor.stop()
        except BaseException:
            supervisor.kill()  # nothing of it is kept
            raise
    if scored != clips:
        raise ClipmuxError(f"{scored} of the {clips} clips that were sent were scored")
    wall = last_at - min(told["first_at"] for role, told in figures if role == DECODER and told["first_at"])
    inference = next(told for role, told in figures if role == INFERENCE)
    return Passage(
        clips=inference["clips"],
        wall_s=wall,
        cpu_s=cpu,
        batch_fill=inference["clips"] / inference["batches"] / inference["preferred_batch"],
        device_busy=inference["busy_share"],
    )


def bare_loop(config: EngineConfig, clips: int) -> Passage:
    """Send clips from as many processes as there are generators to one other.

    Raises:
        ClipmuxError: a process failed.
    """
    addresses = make_addresses()
    shares = [len(range(number, clips, config.decoders)) for number in range(config.decoders)]
    asked = [("pull", clips), *(("push", share) for share in shares if share)]
    try:
        answers = do(
            config, [{"stage": stage, "address": addresses.clips[0], "clips": count} for stage, count in asked]
        )
    finally:
        remove_sockets(addresses)
    received, *sent = answers
    return Passage(
        clips=received["clips"],
        wall_s=received["last_at"] - min(answer["first_at"] for answer in sent),
        cpu_s=sum(answer["cpu_s"] for answer in answers),
    )


def _videos(model: ModelFolder, clips: int) -> list[Video]:
    sizes = [min(CLIPS_OF_A_VIDEO, clips - start) for start in range(0, clips, CLIPS_OF_A_VIDEO)]
    return [generated(model, size, number) for number, size in enumerate(sizes)]
