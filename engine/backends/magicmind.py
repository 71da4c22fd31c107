"""Cambricon MLUs through MagicMind: models compiled with ``clipmux build compile --target magicmind``.

Two runners share one model and one engine; each has its own context, queue and inputs, so that one copies its batch
while the other computes. The calls themselves, and what is only inferred of them, are in magicmind_api.py.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ClipmuxError, ModelError, UsageError
from clipmux.engine.model import LAYOUTS, ModelFolder

from .base import Backend, Phases, Runner
from .magicmind_api import MagicMind, Port, saying

RUNNERS = 2

MOST = 64
"""Clips that one call may have: the 3D-ResNet sample forbids more, and what more would do is not public."""

FORMS = ("uint8 NDHWC", *(f"float32 {layout}" for layout in LAYOUTS))
"""Inputs that a compiled network may have: pixels, which the device normalises, or what the host normalised."""


@dataclass(frozen=True)
class Built:
    """What ``model.json`` keeps under ``compiled`` of how a network was built.

    Args:
        max_batch: clips in one call at most.
        fixed_batch: clips in every call; None where the batch may vary.
        form: one of ``FORMS``.
        archs: what it was built for, in the words of MagicMind's configuration.
    """

    max_batch: int
    fixed_batch: int | None
    form: str
    archs: list[Any]

    @classmethod
    def of(cls, model: ModelFolder) -> Built:
        """
        Raises:
            ModelError: the folder holds no MagicMind model, or ``compiled`` is not what ``build compile`` writes.
        """
        if model.target != "magicmind":
            raise ModelError(
                f"'{model.path}' is not compiled for MagicMind: make a folder that is with "
                "'clipmux build compile FOLDER --target magicmind'"
            )
        said = model.compiled
        most: Any = said.get("max_batch")
        form: Any = said.get("input")
        fixed, archs = said.get("fixed_batch"), said.get("archs", [])
        good = type(most) is int and 1 <= most <= MOST and fixed in (None, most) and form in FORMS
        if not good or not isinstance(archs, list):
            raise ModelError(
                f"'{model.path / 'model.json'}' has compiled with max_batch {most!r}, fixed_batch {fixed!r} and input "
                f"{form!r}, which do not go together: compile the model again"
            )
        return cls(most, fixed, form, archs)

    @property
    def layout(self) -> str:
        return self.form.partition(" ")[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.form.partition(" ")[0])


class Normalisation:
    """From pixels to a network's float32 input, in the reference's steps: / 255, - mean, / std, each in float32."""

    def __init__(self, model: ModelFolder, layout: str) -> None:
        levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
        values = (levels - np.asarray(model.mean, np.float32)) / np.asarray(model.std, np.float32)
        self._tables = np.ascontiguousarray(values.T)
        self._layout = layout

    def __call__(self, clips: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
        """uint8 ``[N, T, H, W, C]`` into float32 ``[N, C, T, H, W]``, or ``[N, T, H, W, C]`` for layout NDHWC."""
        for channel in range(3):
            target = out[:, channel] if self._layout == "NCDHW" else out[..., channel]
            target[...] = self._tables[channel].take(clips[..., channel])


class MagicMindBackend(Backend):
    """A compiled model on one MLU.

    Raises:
        UsageError: MagicMind is not installed, or there is no such device.
        ModelError: the model was not compiled for MagicMind, will not load, does not run on this device, or does not
            fit ``model.json``.
        ClipmuxError: the device does not answer.
    """

    name = "magicmind"

    def __init__(self, model: ModelFolder, *, device: str, max_batch: int) -> None:
        number = re.fullmatch(r"mlu:(\d+)", device)
        if number is None:
            raise UsageError(f"the magicmind backend has no device '{device}': use --device mlu:0 (or another number)")
        built = Built.of(model)
        self.device = device
        self.max_batch = self.preferred_batch = min(max_batch, built.max_batch)
        self.runners = RUNNERS
        self.chosen = _chosen(model, built, self.preferred_batch)
        self._model_folder, self._built = model, built
        self._api = MagicMind()
        self._queues: list[Any] = []
        with contextlib.ExitStack() as stack:
            self._open(int(number[1]), stack)
            self._system = stack.pop_all()

    def _open(self, number: int, stack: contextlib.ExitStack) -> None:
        path = self._model_folder.network_path
        count = stack.enter_context(self._api.system())
        if number >= count:
            there = f"it has {count}, from mlu:0 on" if count else "cnmon lists those that are there"
            raise UsageError(f"this machine has no device '{self.device}': {there}")
        with saying(ModelError, f"'{path}' does not load", "compile it again with the MagicMind of this machine"):
            self._model = self._api.load(path)
            inputs, outputs = self._api.ports(self._model)
        check_interface(self._model_folder, self._built, inputs, outputs)
        with self._device_failing():
            self._mlu = self._api.device(number)
        archs = ", ".join(map(str, self._built.archs)) or "no architecture by name"
        with saying(
            ModelError,
            f"'{path}' does not run on '{self.device}'",
            f"it was built for {archs}, compile it with this device's --arch and --cluster",
        ):
            self._engine = self._api.engine(self._model)

    def open_runner(self) -> Runner:
        with self._device_failing():
            self._api.activate(self._mlu)
            queue = self._api.queue(self._mlu)
            self._queues.append(queue)
            context = self._api.context(self._engine)
            return _MagicMindRunner(
                self._model_folder,
                self._built,
                self._api,
                most=self.max_batch,
                mlu=self._mlu,
                queue=queue,
                context=context,
                inputs=self._api.inputs(context),
            )

    def close(self) -> None:
        # The order in which public programs delete things: inputs, context (both the runners'), engine, model, queue,
        # device.
        self._engine = self._model = None
        self._queues.clear()
        self._mlu = None
        self._system.close()

    def _device_failing(self) -> contextlib.AbstractContextManager[None]:
        remedy = "see with cnmon whether it is well and has memory left"
        return saying(ClipmuxError, f"'{self.device}' cannot be used", remedy)


class _MagicMindRunner(Runner):
    def __init__(
        self,
        model: ModelFolder,
        built: Built,
        api: MagicMind,
        *,
        most: int,
        mlu: Any,
        queue: Any,
        context: Any,
        inputs: Any,
    ) -> None:
        self._api, self._mlu, self._queue, self._context, self._inputs = api, mlu, queue, context, inputs
        self._most, self._fixed = most, built.fixed_batch
        self._classes = len(model.labels)
        shape = input_shape(model, built.layout)
        self._normalise = Normalisation(model, built.layout) if built.dtype == np.float32 else None
        # Where the host normalises or pads, a batch of one's own is filled; pixels of a varying batch go as they come.
        held = self._fixed or (most if self._normalise else 0)
        self._batch: npt.NDArray[Any] = np.zeros((held, *shape), built.dtype)

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self._infer(clips, after=lambda _: None)

    def phases(self, clips: npt.NDArray[np.uint8]) -> Phases:
        ends = {"begin": time.perf_counter()}
        self._infer(clips, after=lambda step: ends.update({step: time.perf_counter()}))
        ends["device_to_host"] = time.perf_counter()
        return Phases(*(end - begin for begin, end in itertools.pairwise(ends.values())))

    def _infer(self, clips: npt.NDArray[np.uint8], *, after: Callable[[str], None]) -> npt.NDArray[np.float32]:
        count = len(clips)
        if not 1 <= count <= self._most:
            raise ClipmuxError(f"a batch of {count} clips for a model that takes 1 to {self._most}: give fewer")
        logits = self._api.infer(
            self._filled(clips),
            device=self._mlu,
            context=self._context,
            inputs=self._inputs,
            queue=self._queue,
            after=after,
        )
        if logits.shape != (self._fixed or count, self._classes):
            raise ClipmuxError(f"it gave {list(logits.shape)} where {[self._fixed or count, self._classes]} was due")
        return logits[:count]

    def _filled(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The clips as the network takes them; a fixed batch is filled up with zeros."""
        count = len(clips)
        if len(self._batch) == 0 or (self._normalise is None and count == self._fixed):
            return np.ascontiguousarray(clips)
        if self._normalise is None:
            self._batch[:count] = clips
        else:
            self._normalise(clips, self._batch[:count])
        if self._fixed is None:
            return self._batch[:count]
        self._batch[count:] = 0
        return self._batch

    def close(self) -> None:
        self._inputs = None
        self._context = None
        self._queue = self._mlu = None  # the backend still has them, and lets go of them last


def input_shape(model: ModelFolder, layout: str) -> tuple[int, ...]:
    """One clip as a network of that layout takes it."""
    frames, height, width, channels = model.clip_shape
    return (channels, frames, height, width) if layout == "NCDHW" else model.clip_shape


def check_interface(model: ModelFolder, built: Built, inputs: list[Port], outputs: list[Port]) -> None:
    """Compare a built network's ends with what is said of them; a length of -1 may be any.

    Raises:
        ModelError: they differ.
    """
    batch = built.fixed_batch or -1
    wanted = (
        Port(built.dtype, (batch, *input_shape(model, built.layout))),
        Port(np.dtype(np.float32), (batch, len(model.labels))),
    )
    for name, got, due in (("takes", inputs, wanted[0]), ("gives", outputs, wanted[1])):
        fits = (
            len(got) == 1
            and (got[0].dtype == due.dtype or (name == "gives" and got[0].dtype == np.float16))
            and len(got[0].dims) == len(due.dims)
            and all(a == b or -1 in (a, b) for a, b in zip(got[0].dims, due.dims))  # noqa: B905
        )
        if not fits:
            there = " and ".join(map(str, got)) or "nothing"
            raise ModelError(
                f"'{model.network_path}' {name} {there} where its model.json describes {due}: compile the model again"
            )


def _chosen(model: ModelFolder, built: Built, preferred: int) -> str:
    where = "on the host" if built.dtype == np.float32 else "on the device"
    batches = f"batches of {built.fixed_batch}" if built.fixed_batch else f"batches of up to {preferred}"
    return f"{model.precision}, {RUNNERS} runners, {batches}, normalised {where}"
