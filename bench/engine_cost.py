"""What the engine itself takes of the processor, role by role: generated clips through it, to a device that takes none.

Videos of many clips and videos of one are sent through, so that what a clip costs and what a video costs besides can be
told apart: with n clips in each, a role spends ``per clip · n + per video``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipmux.engine.children import COLLECTOR, DECODER, INFERENCE
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError
from clipmux.engine.model import read_model
from clipmux.engine.supervisor import Supervisor
from clipmux.workers.results import RunFolder

from .generator import generated
from .watch import SUPERVISOR, spent_by_role

CLIPS = 4_000
"""Of each of the two runs."""

LONG = 18
"""Clips of a video of ten seconds at 30 frames per second."""


@dataclass(frozen=True)
class EngineCosts:
    """CPU seconds; see ``costs.Costs``."""

    send_s: float
    end_s: float
    take_s: float
    collect_s: float
    write_s: float
    hand_out_s: float


def engine_costs(config: EngineConfig, *, batch: int, clips: int = CLIPS) -> EngineCosts:
    """Measure what each role takes for a clip and for a video.

    Args:
        config: of the run that it is for.
        batch: clips in one of its full batches.
        clips: of each of two runs.

    Raises:
        ClipmuxError: a run failed.
    """
    to_null = dataclasses.replace(
        config, backend="null", device="cpu", workers=1, max_batch=batch, null_delay_ms=(0.0, 0.0), stride=16
    )
    videos = max(1, clips // LONG)
    long = cpu_by_role(to_null, videos=videos, clips_of_each=LONG)
    short = cpu_by_role(to_null, videos=clips, clips_of_each=1)
    clip, video = {}, {}
    for role in (DECODER, INFERENCE, COLLECTOR, SUPERVISOR):
        clip[role], video[role] = told_apart(long[role] / videos, short[role] / clips, LONG)
    return EngineCosts(
        send_s=clip[DECODER],
        end_s=video[DECODER],
        take_s=clip[INFERENCE],
        collect_s=clip[COLLECTOR],
        write_s=video[COLLECTOR],
        hand_out_s=video[SUPERVISOR],
    )


def told_apart(long_s: float, short_s: float, clips: int) -> tuple[float, float]:
    """Seconds per clip and per video besides, from those of a video of ``clips`` clips and those of one of one.

    >>> told_apart(18 * 2.0 + 5.0, 2.0 + 5.0, 18)
    (2.0, 5.0)
    """
    per_clip = max(0.0, (long_s - short_s) / (clips - 1))
    return per_clip, max(0.0, short_s - per_clip)


def cpu_by_role(config: EngineConfig, *, videos: int, clips_of_each: int) -> Mapping[str, float]:
    """CPU seconds of each role, from the first hand-out to the last result, which the collector writes to a run folder.

    Raises:
        ClipmuxError: the run failed, or not every clip was scored.
    """
    model = read_model(config.model)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as scratch:
        folder = RunFolder(Path(scratch) / "run", decides={}, resume=False)
        supervisor = Supervisor(
            config, model, run_folder=folder.path, log_file=folder.log, decoder="clipmux.bench.generator"
        )
        scored = 0
        try:
            supervisor.start(wait_for_decoders=True)
            before = spent_by_role(supervisor)
            for prediction in supervisor.outcomes(generated(model, clips_of_each, number) for number in range(videos)):
                scored += prediction.clips
            spent = spent_by_role(supervisor)
            supervisor.stop()
        except BaseException:
            supervisor.kill()  # nothing of it is kept
            raise
    if scored != videos * clips_of_each:
        raise ClipmuxError(f"{scored} of the {videos * clips_of_each} clips that were sent were scored")
    return {role: spent[role] - before[role] for role in spent}
