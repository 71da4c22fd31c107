"""torch's DataLoader, a worker per core that decodes whole videos, feeding OpenVINO with asynchronous requests.

As good as this way gets: results come in any order, so that no slow video holds others up; clips of different videos
share a batch; several requests are in flight; the network normalises, so that what travels is uint8.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from clipmux.engine.device import softmax
from clipmux.engine.errors import VideoError
from clipmux.engine.model import read_model
from clipmux.engine.without_telemetry import ov

from .clips import Clip, ClipReader
from .network import BATCH, check_target, compile_network
from .way import Clock, Scores, Task, Way

NOTHING = -1
"""Stands for no video: what workers are woken with."""

Key = tuple[int, int]
"""Numbers of a video, and of a clip within it."""


class DataLoaderWay(Way):
    """See above."""

    def __init__(self, task: Task) -> None:
        model = read_model(task.model)
        check_target(model, "dataloader")
        self._videos = len(task.videos)
        self._order = _Order([NOTHING] * task.cores)
        any_order = {"in_order": False} if "in_order" in inspect.signature(DataLoader).parameters else {}  # torch 2.6
        self._loader: Any = DataLoader(
            _Videos(task),
            batch_size=None,
            sampler=self._order,
            num_workers=task.cores,
            persistent_workers=True,
            multiprocessing_context="spawn",  # a fork would copy OpenVINO's threads, held locks and all
            **any_order,
        )
        for _ in self._loader:  # each worker has started once it has answered
            pass
        self._order.numbers = list(range(self._videos))
        self._shape = model.clip_shape
        self._queue = ov.AsyncInferQueue(compile_network(model, hint="THROUGHPUT", threads=task.cores))
        self._queue.set_callback(self._keep)
        self._done: list[tuple[list[Key], Any]] = []
        self._start([], np.zeros((BATCH, *self._shape), np.uint8))
        self._queue.wait_all()
        self._done.clear()

    def scores(self, clock: Clock) -> Iterator[tuple[int, int, Scores]]:
        clock.start()
        keys: list[Key] = []
        batch = np.empty((BATCH, *self._shape), np.uint8)
        for number, clips in self._loader:
            for place, clip in enumerate(clips):
                batch[len(keys)] = clip
                keys.append((number, place))
                if len(keys) == BATCH:
                    self._start(keys, batch)
                    keys, batch = [], np.empty((BATCH, *self._shape), np.uint8)
            yield from self._finished()
        if keys:
            self._start(keys, batch[: len(keys)])
        self._queue.wait_all()
        yield from self._finished()

    def _start(self, keys: list[Key], batch: Clip) -> None:
        """Queue a batch; waits while every request is in flight."""
        self._queue.start_async({0: ov.Tensor(batch, shared_memory=True)}, (keys, batch))

    def _keep(self, request: Any, about: tuple[list[Key], Clip]) -> None:
        self._done.append((about[0], request.get_output_tensor().data.copy()))

    def _finished(self) -> Iterator[tuple[int, int, Scores]]:
        while self._done:
            keys, logits = self._done.pop()
            for (number, place), scores in zip(keys, softmax(logits), strict=True):
                yield number, place, scores

    def close(self) -> None:
        # The workers are ended and waited for when the loader's iterator goes.
        del self._loader


class _Videos:
    """A dataset: the number of a video to its clips."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._read: ClipReader | None = None

    def __getitem__(self, number: int) -> tuple[int, list[torch.Tensor]]:
        if self._read is None:  # in the worker, which decoders are opened in
            self._read = ClipReader(
                read_model(self._task.model), stride=self._task.stride, preprocess=self._task.preprocess
            )
        if number == NOTHING:
            return number, []
        try:
            return number, [torch.from_numpy(clip) for clip in self._read(self._task.videos[number])]
        except VideoError:
            return number, []


class _Order:
    """A sampler: the numbers to hand out next."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)
