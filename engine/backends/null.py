"""A device that does nothing: fixed scores after a fixed time, for measuring everything else."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from clipmux.engine.model import ModelFolder

from .base import Backend, Runner


class NullBackend(Backend):
    """Answers a batch of N clips after ``a + b·N`` milliseconds with the same logits for every clip.

    One device that works on one batch at a time, with the next one held ready, as an accelerator has it.
    """

    name = "null"

    def __init__(self, model: ModelFolder, *, max_batch: int, delay_ms: tuple[float, float]) -> None:
        self.device = "null"
        self.max_batch = self.preferred_batch = max_batch
        self.runners = 1
        self.chosen = f"fixed scores after {delay_ms[0]:g} + {delay_ms[1]:g}·N ms"
        self._logits = (-np.arange(len(model.labels)) / 8).astype(np.float32)
        self._delay = delay_ms

    def open_runner(self) -> Runner:
        return _NullRunner(self._logits, self._delay)


class _NullRunner(Runner):
    def __init__(self, logits: npt.NDArray[np.float32], delay_ms: tuple[float, float]) -> None:
        self._logits = logits
        self._delay = delay_ms
        self._free_at = 0.0
        self._never = threading.Event()

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # A sleep ends late; counting from when the last batch *should* have ended keeps the device's pace exact.
        now = time.monotonic()
        start = self._free_at if now - self._free_at < 0.002 else now
        self._free_at = start + (self._delay[0] + self._delay[1] * len(clips)) / 1000
        if self._free_at > now:
            self._never.wait(self._free_at - now)
        return np.repeat(self._logits[None], len(clips), axis=0)
