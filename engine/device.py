"""The device with its runners, as the inference process sees it: batches in, scores out, without waiting.

Clips are copied once, into a staging batch, while the device works on the one before. Each runner has a thread of its
own.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .backends import Backend, Runner
from .errors import ClipmuxError
from .gather import gather

Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Result(Generic[Tag]):
    """A batch's clip scores, float32 ``[N, classes]``; how long the device took, from when on, and which runner.

    A clip may have scores that are no numbers: what that means for its video, the collector says.
    """

    tag: Tag
    scores: npt.NDArray[np.float32]
    seconds: float
    began: float
    runner: int


class Device(Generic[Tag]):
    """A backend's runners, each on a thread, and the staging batches they work from.

    Args:
        backend: an open backend; closed with the device.
        clip_shape: ``[T, H, W, C]`` of a clip.
    """

    def __init__(self, backend: Backend, clip_shape: tuple[int, int, int, int]) -> None:
        self._backend = backend
        self.places = backend.runners + backend.ahead
        shape = (backend.preferred_batch, *clip_shape)
        self._staging = [backend.staging(shape) for _ in range(self.places)]
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._proved = False
        """A batch has come back whose scores are all numbers."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._runners = [backend.open_runner() for _ in range(backend.runners)]
        self._calls = [0.0] * backend.runners
        """When each runner began the call that it is in; 0 if it is in none."""
        self._threads = [
            threading.Thread(target=self._work, args=(number, runner), name=f"runner-{number}", daemon=True)
            for number, runner in enumerate(self._runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def in_flight(self) -> int:
        """Batches submitted and not yet fetched by ``finished``."""
        return self.places - len(self._staging)

    @property
    def idle(self) -> bool:
        """Some runner has nothing to do."""
        return self.in_flight < self._backend.runners

    @property
    def free(self) -> bool:
        """A batch can be submitted now."""
        return bool(self._staging)

    def longest_call_s(self) -> float:
        """For how long the runner that has been at it longest has been in its call; 0 if none is in one."""
        now = time.monotonic()
        return max((now - began for began in self._calls if began), default=0.0)

    def fileno(self) -> int:
        """A descriptor that becomes readable when ``finished`` has something."""
        return self._wake_read

    def submit(self, clips: Sequence[npt.NDArray[np.uint8]], tag: Tag) -> None:
        """Copy clips into a staging batch and queue it; only when ``free``."""
        staging = self._staging.pop()
        gather(staging, clips)
        self._jobs.put((staging, len(clips), tag))

    def finished(self) -> list[Result[Tag]]:
        """The batches that are done, without waiting.

        Raises:
            ClipmuxError: the device failed, or the first batch has scores that are no numbers.
        """
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return []
        results = []
        while not self._results.empty():
            staging, outcome = self._results.get()
            self._staging.append(staging)
            if isinstance(outcome, Exception):
                raise self._failure(outcome) from outcome
            if not self._proved:  # later, one clip must not end what all others are in
                if not np.isfinite(outcome.scores).all():
                    raise self._failure("it gave scores that are no numbers, check the model's weights")
                self._proved = True
            results.append(outcome)
        return results

    def close(self) -> None:
        """End the threads after what they are at, and release the device."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        for runner in self._runners:
            runner.close()
        self._backend.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _failure(self, why: object) -> ClipmuxError:
        return ClipmuxError(f"the {self._backend.name} backend failed on '{self._backend.device}': {why}")

    def _work(self, number: int, runner: Runner) -> None:
        while (job := self._jobs.get()) is not None:
            staging, count, tag = job
            start = self._calls[number] = time.monotonic()
            outcome: Result[Tag] | Exception
            try:
                scores = softmax(runner.infer(staging[:count]))
                outcome = Result(tag, scores, time.monotonic() - start, start, number)
                if len(scores) != count:
                    outcome = RuntimeError(f"it gave {len(scores)} results for {count} clips")
            except Exception as error:
                outcome = error
            self._calls[number] = 0.0
            self._results.put((staging, outcome))
            os.write(self._wake_write, b"\0")


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Softmax over the last axis, float32 ``[N, classes]``, computed in float64.

    A row with NaN or plus infinity in it, or of nothing but minus infinity, becomes all NaN; other rows are as ever.
    """
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, as said
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares
