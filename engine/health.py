"""Whether every stage of an engine makes progress, or has nothing to do. Pure: the clock is passed in.

A stage is all processes of a role. It is stuck when it has work and none of its processes has shown progress for so
many seconds, and dead when it has work and no process. One slow decoder among others is no stuck stage: it is listed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .observer import Look

SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class StageHealth:
    """One stage.

    Args:
        state: ``ok``, ``idle``, ``stuck`` or ``dead``.
        processes: how many it has.
        silent: names of those that have work and show no progress.
        silent_s: seconds since any of those at work showed progress; 0 where there is nothing to do.
    """

    state: str
    processes: int
    silent: tuple[str, ...] = ()
    silent_s: float = 0.0

    @property
    def good(self) -> bool:
        return self.state in ("ok", "idle")


@dataclass(frozen=True)
class Health:
    """An engine's stages by role, the supervisor among them."""

    stages: dict[str, StageHealth]

    @property
    def good(self) -> bool:
        return all(stage.good for stage in self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """For people and programs: ``status``, the ``stuck`` stages by name, and every stage."""
        return {
            "status": "ok" if self.good else "stuck",
            "stuck": [role for role, stage in self.stages.items() if not stage.good],
            "stages": {role: asdict(stage) for role, stage in self.stages.items()},
        }


def judge(look: Look, now: float, *, stuck_after: float) -> Health:
    """The health of an engine.

    Args:
        look: the last look that its supervisor left.
        now: seconds, of the same clock as the look's.
        stuck_after: seconds without progress that make a stage with work a stuck one.
    """
    age = max(0.0, now - look.at)
    stages = {SUPERVISOR: StageHealth("stuck" if age > stuck_after else "ok", 1, silent_s=round(age, 1))}
    stages |= {role: _stage(look, role, now, stuck_after) for role in look.roles if role not in look.apart}
    return Health(stages)


def _stage(look: Look, role: str, now: float, stuck_after: float) -> StageHealth:
    processes = [process for process in look.processes if process.role == role]
    if not processes:
        return StageHealth("dead" if look.unfinished else "idle", 0)
    working = [process for process in processes if process.at_work]
    if not working:
        return StageHealth("idle", len(processes))
    silent = [process for process in working if now - process.progress_at > stuck_after]
    return StageHealth(
        state="stuck" if len(silent) == len(working) else "ok",
        processes=len(processes),
        silent=tuple(process.name for process in silent),
        silent_s=round(max(0.0, now - max(process.progress_at for process in working)), 1),
    )
