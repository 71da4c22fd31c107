"""What a run's processes are at while it goes on: memory of all together, CPU by role, and how their counts grow.

Counts come with the children's own beats, twice a second each; between beats they are taken to grow evenly.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.children import DECODER, INFERENCE
from clipmux.engine.supervisor import Supervisor

from .baselines.way import cpu_seconds_each

if TYPE_CHECKING:
    from typing_extensions import Self

SUPERVISOR = "supervisor"
"""The role of this process."""

STEP_S = 0.5
"""Between the points of a series: as often as children tell."""

STAGES = ((DECODER, "decode"), (DECODER, "preprocess"), (DECODER, "send"), (INFERENCE, "copy"), (INFERENCE, "infer"))
"""Stages whose busy time makes a curve; a decoder ``send``s for as long as a full queue holds it back."""

NAMES = {"send": "wait", "copy": "batch"}
"""What the summary of a run calls them."""


class Memory:
    """The most memory that this process and a run's children took together, looked at from a thread.

    The sizes are PSS, in which a page that several processes share counts once, where the kernel tells it, else RSS,
    in which it counts for each of them.

    Args:
        supervisor: of the run.
        every_s: how often to look; a look takes a few milliseconds.
    """

    def __init__(self, supervisor: Supervisor, *, every_s: float) -> None:
        self.most = 0
        self.kind = "PSS" if proportional_size(os.getpid()) is not None else "RSS"
        self._supervisor = supervisor
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Take the sizes now."""
        size = proportional_size if self.kind == "PSS" else resident_size
        pids = [os.getpid(), *(child.pid for child in self._supervisor.processes)]
        self.most = max(self.most, sum(size(pid) or 0 for pid in pids))

    def _look(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()


def spent_by_role(supervisor: Supervisor) -> dict[str, float]:
    """CPU seconds that the living processes of each role have taken so far, and this one."""
    children = list(supervisor.processes)
    spent = {SUPERVISOR: time.process_time()}
    for child, seconds in zip(children, cpu_seconds_each([child.pid for child in children]), strict=True):
        spent[child.role] = spent.get(child.role, 0.0) + seconds
    return spent


def proportional_size(pid: int) -> int | None:
    """PSS of a process in bytes; None if it has ended or the kernel does not say."""
    return _rollup(pid).get("Pss:")


def own_size(pid: int) -> int | None:
    """PSS of a process without mapped files, in bytes; None if it has ended or the kernel (before 5.9) does not say.

    Of a library, each process has a share that becomes larger when a stranger that uses it too ends.
    """
    sizes = _rollup(pid)
    return sizes["Pss:"] - sizes["Pss_File:"] if "Pss_File:" in sizes else None


def _rollup(pid: int) -> dict[str, int]:
    """``/proc/PID/smaps_rollup`` in bytes; nothing where that cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    lines = [line.split() for line in text.splitlines()[1:]]
    return {words[0]: int(words[1]) << 10 for words in lines if len(words) == 3}


def resident_size(pid: int) -> int | None:
    """RSS of a process in bytes; None if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """How the counts of a run's children grew; pure, the clock is passed in."""

    def __init__(self) -> None:
        self._beats: dict[tuple[str, str], list[tuple[float, dict[str, float]]]] = {}

    def note(self, role: str, name: str, at: float, counts: dict[str, Any]) -> None:
        """A child's latest counts, told ``at`` seconds; the same ones again change nothing."""
        flat = {key: float(value) for key, value in counts.items() if isinstance(value, int | float)}
        flat |= {f"busy {stage}": float(seconds) for stage, seconds in counts.get("busy_s", {}).items()}
        beats = self._beats.setdefault((role, name), [])
        if flat and (not beats or beats[-1][1] != flat):
            beats.append((at, flat))

    def series(self, start: float) -> dict[str, Any]:
        """Curves from ``start`` to the last beat of inference; empty if that is too soon to draw one.

        Returns:
            ``time_s`` from the start, ``clips_per_s`` scored, ``queue_depth`` in clips that were sent and are not
            scored, and ``busy`` with, per stage, how many processes (for ``infer``: runners) were at it.
        """
        end = max(
            (beats[-1][0] for (role, _), beats in self._beats.items() if role == INFERENCE and beats), default=start
        )
        grid = np.asarray(start + STEP_S * np.arange(int((end - start) / STEP_S) + 1), np.float64)
        if len(grid) < 3:
            return {}
        scored = self._total(INFERENCE, "clips", grid, start)
        sent = self._total(DECODER, "clips", grid, start)
        busy = {
            NAMES.get(stage, stage): _rounded(np.diff(self._total(role, f"busy {stage}", grid, start)) / STEP_S)
            for role, stage in STAGES
        }
        return {
            "time_s": _rounded(grid[1:] - start),
            "clips_per_s": _rounded(np.diff(scored) / STEP_S),
            "queue_depth": _rounded(np.maximum(0, sent - scored)[1:]),
            "busy": busy,
        }

    def _total(self, role: str, key: str, grid: npt.NDArray[Any], start: float) -> npt.NDArray[np.float64]:
        """A count of all children of a role, at every point of the grid."""
        total = np.zeros(len(grid))
        for (of, _), beats in self._beats.items():
            if of == role and beats:
                times = [start, *(at for at, _ in beats)]
                values = [0.0, *(counts.get(key, 0.0) for _, counts in beats)]
                total += np.interp(grid, times, values)
        return total


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [round(float(value), 3) for value in values]
