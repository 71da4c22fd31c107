"""torch's DataLoader, a worker per core that decodes whole videos, feeding OpenVINO or, on a GPU, torch.

As good as this way gets: results come in any order, so that no slow video holds others up; clips of different videos
share a batch; several batches are in flight; the device normalises, so that what travels is uint8.
"""

from __future__ import annotations

import inspect
import select
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from clipmux.engine.backends import open_backend
from clipmux.engine.config import MAX_BATCH
from clipmux.engine.device import Device, Result, softmax
from clipmux.engine.errors import VideoError
from clipmux.engine.model import ModelFolder, read_model
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
        check_target(model, "dataloader", task.device)
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
        self._device = _OpenVino(model, task.cores) if task.device == "cpu" else _Gpu(model, task.device)

    def scores(self, clock: Clock) -> Iterator[tuple[int, int, Scores]]:
        clock.start()
        keys: list[Key] = []
        batch: list[Clip] = []
        for number, clips in self._loader:
            for place, clip in enumerate(clips):
                batch.append(clip.numpy())
                keys.append((number, place))
                if len(keys) == self._device.size:
                    self._device.start(keys, batch)
                    keys, batch = [], []
            yield from self._device.finished()
        if keys:
            self._device.start(keys, batch)
        self._device.wait()
        yield from self._device.finished()

    def close(self) -> None:
        # The workers are ended and waited for when the loader's iterator goes.
        del self._loader


class _OpenVino:
    """As many requests at a time as OpenVINO finds best."""

    size = BATCH
    """Clips in a batch."""

    def __init__(self, model: ModelFolder, cores: int) -> None:
        self._queue = ov.AsyncInferQueue(compile_network(model, hint="THROUGHPUT", threads=cores))
        self._queue.set_callback(self._keep)
        self._done: list[tuple[list[Key], Any]] = []
        self.start([], [np.zeros(model.clip_shape, np.uint8)] * BATCH)
        self.wait()
        self._done.clear()

    def start(self, keys: list[Key], clips: list[Clip]) -> None:
        """Queue a batch; waits while every request is in flight."""
        batch = np.stack(clips)
        self._queue.start_async({0: ov.Tensor(batch, shared_memory=True)}, (keys, batch))

    def wait(self) -> None:
        """For all batches."""
        self._queue.wait_all()

    def finished(self) -> Iterator[tuple[int, int, Scores]]:
        """Scores of the batches that are done."""
        while self._done:
            keys, logits = self._done.pop()
            for (number, place), scores in zip(keys, softmax(logits), strict=True):
                yield number, place, scores

    def _keep(self, request: Any, about: tuple[list[Key], Clip]) -> None:
        self._done.append((about[0], request.get_output_tensor().data.copy()))


class _Gpu:
    """A GPU by our own torch backend: large batches in pinned memory, as many at a time as it has runners."""

    def __init__(self, model: ModelFolder, device: str) -> None:
        backend = open_backend("torch", model, device=device, max_batch=MAX_BATCH, null_delay_ms=(0, 0))
        self.size = backend.preferred_batch
        self._device: Device[list[Key]] = Device(backend, model.clip_shape)
        self._done: list[Result[list[Key]]] = []
        self.start([], [np.zeros(model.clip_shape, np.uint8)])
        self.wait()
        self._done.clear()

    def start(self, keys: list[Key], clips: list[Clip]) -> None:
        """Queue a batch; waits while all places are taken."""
        while not self._device.free:
            self._look()
        self._device.submit(clips, keys)

    def wait(self) -> None:
        """For all batches."""
        while self._device.in_flight:
            self._look()

    def finished(self) -> Iterator[tuple[int, int, Scores]]:
        """Scores of the batches that are done."""
        self._done += self._device.finished()
        while self._done:
            result = self._done.pop()
            for (number, place), scores in zip(result.tag, result.scores, strict=True):
                yield number, place, scores

    def _look(self) -> None:
        select.select([self._device], [], [])
        self._done += self._device.finished()


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
