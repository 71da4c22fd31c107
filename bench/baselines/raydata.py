"""Ray Data: decoding as one ``map_batches``, inference as another in a pool of actors, streamed through its store.

As Ray's own examples of batch inference have it: decoding tasks for every core, an actor with a network of its own for
every core, batches of clips of different videos. Ray listens on the loopback only, tells nobody that it is used, and
keeps to a bounded store.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clipmux.engine.device import softmax
from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.model import read_model

from .clips import ClipReader
from .network import BATCH, check_target, compile_network
from .way import Clock, Scores, Task, Way

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a notice about GPUs

try:
    import ray
    import ray.data
except ImportError as error:
    raise UsageError(f"the baseline 'ray' needs Ray Data ({error}): pip install 'clipmux[ray]'") from None

STORE_BYTES = 512 << 20
"""Memory of Ray's object store."""

OPEN = "open"
"""Name of the file whose appearance lets decoding begin."""

Columns = dict[str, Any]
"""A batch of Ray Data: arrays of equal length by name."""


class RayWay(Way):
    """See above."""

    def __init__(self, task: Task) -> None:
        check_target(read_model(task.model), "ray")
        self._task = task
        self._folder = Path(task.scratch)
        ray.init(
            num_cpus=task.cores,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self._folder),
            _node_ip_address="127.0.0.1",
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False

    def scores(self, clock: Clock) -> Iterator[tuple[int, int, Scores]]:
        task = self._task
        numbers = ray.data.from_items(
            [{"video": number} for number in range(len(task.videos))], override_num_blocks=max(1, len(task.videos))
        )
        gate = str(self._folder)
        clips = numbers.map_batches(_Decode(task, gate), batch_size=1, num_cpus=1)
        scored = clips.map_batches(
            _Infer,
            fn_constructor_args=(task, gate),
            batch_size=BATCH,
            num_cpus=0,  # its thread shares the cores with decoding, as in every other way
            compute=ray.data.ActorPoolStrategy(size=task.cores),
        )
        # Ray starts its actors when the work does. So that starting does not count, decoding waits for them.
        threading.Thread(target=self._open_when_ready, args=(clock,), daemon=True).start()
        for batch in scored.iter_batches(batch_size=None, batch_format="numpy"):
            for number, place, scores in zip(batch["video"], batch["clip"], batch["scores"], strict=True):
                yield int(number), int(place), scores

    def _open_when_ready(self, clock: Clock) -> None:
        while len(list(self._folder.glob("ready-*"))) < self._task.cores:
            time.sleep(0.005)
        clock.start()
        (self._folder / OPEN).touch()

    def close(self) -> None:
        ray.shutdown()


class _Decode:
    """Video numbers to clips, in a task of Ray."""

    def __init__(self, task: Task, gate: str) -> None:
        self._task = task
        self._gate = Path(gate) / OPEN

    def __call__(self, batch: Columns) -> Columns:
        while not self._gate.exists():
            time.sleep(0.005)
        model = read_model(self._task.model)
        read = ClipReader(model, stride=self._task.stride, preprocess=self._task.preprocess)
        numbers: list[int] = []
        clips: list[Any] = []
        for number in batch["video"]:
            try:
                of_video = read(self._task.videos[number])
            except VideoError:
                continue
            numbers += [int(number)] * len(of_video)
            clips += of_video
        return {
            "video": np.array(numbers, np.int64),
            "clip": np.array([numbers[:place].count(number) for place, number in enumerate(numbers)], np.int64),
            "pixels": np.array(clips, np.uint8).reshape(-1, *model.clip_shape),
        }


class _Infer:
    """Clips to scores, in an actor of Ray."""

    def __init__(self, task: Task, gate: str) -> None:
        model = read_model(task.model)
        self._compiled = compile_network(model, hint="LATENCY", threads=1)
        self._infer(np.zeros((BATCH, *model.clip_shape), np.uint8))
        (Path(gate) / f"ready-{os.getpid()}").touch()

    def __call__(self, batch: Columns) -> Columns:
        return {"video": batch["video"], "clip": batch["clip"], "scores": self._infer(batch["pixels"])}

    def _infer(self, clips: Any) -> Any:
        return softmax(self._compiled(np.ascontiguousarray(clips))[0])
