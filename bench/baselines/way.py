"""What every baseline is told, and what it gives back while the clock runs."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.workers.sources import Video

Scores = npt.NDArray[np.float32]
"""Softmax over the classes of one clip, float32 ``[classes]``."""


@dataclass(frozen=True)
class Task:
    """What is to be classified, and how.

    Args:
        videos: in the order they are handed out.
        model: folder of the network.
        stride: frames from one clip's start to the next's.
        cores: how many cores to use.
        preprocess: ``exact`` or ``fast``, as ``clipmux run`` has them; the reference's way is always exact.
        device: ``cpu`` or ``cuda:0``.
        scratch: a folder for what must lie in one, with a short path; whoever gives the task removes it.
    """

    videos: tuple[Video, ...]
    model: str
    stride: int
    cores: int
    preprocess: str
    device: str = "cpu"
    scratch: str = ""

    def to_json(self) -> dict[str, Any]:
        videos = [video.to_dict() for video in self.videos]
        return {**self.__dict__, "videos": videos}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Task:
        return cls(**{**content, "videos": tuple(map(Video.from_dict, content["videos"]))})


class Clock:
    """Wall and CPU seconds of this process and all below it, from the first video's hand-out on."""

    def __init__(self) -> None:
        self.began: float | None = None
        self._cpu = 0.0

    def start(self) -> None:
        """Everything is loaded: the first video is handed out now."""
        self._cpu = cpu_seconds()
        self.began = time.monotonic()

    def stop(self) -> tuple[float, float]:
        """Wall and CPU seconds since ``start``.

        Raises:
            RuntimeError: it was never started.
        """
        if self.began is None:
            raise RuntimeError("the clock was never started")
        return time.monotonic() - self.began, cpu_seconds() - self._cpu


class Way(ABC):
    """One way to classify videos. What it does when made, loading the model above all, counts as start-up."""

    @abstractmethod
    def __init__(self, task: Task) -> None: ...

    @abstractmethod
    def scores(self, clock: Clock) -> Iterator[tuple[int, int, Scores]]:
        """Start the clock, and give every clip's scores with the number of its video and its own within it.

        A video that cannot be read gives none.
        """

    def close(self) -> None:  # noqa: B027  (some have nothing to release)
        """End what was started."""


def cpu_seconds(root: int | None = None) -> float:
    """CPU seconds of a process (this one) and all its descendants, dead ones that were waited for included."""
    (seconds,) = cpu_seconds_each([root or os.getpid()])
    return seconds


def cpu_seconds_each(roots: Sequence[int]) -> list[float]:
    """``cpu_seconds`` of several processes, from one look at all that there are."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            # The name, in parentheses, may hold anything; proc(5) counts the fields after it from 3 on.
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(entry.name)
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = sum(map(int, fields[11:15]))
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    return [tick_s * sum(ticks.get(pid, 0) for pid in _tree(root, children)) for root in roots]


def _tree(root: int, children: Mapping[int, Sequence[int]]) -> Iterator[int]:
    yield root
    for child in children.get(root, ()):
        yield from _tree(child, children)
