"""``Engine`` and ``Context`` [V]: None and ``Status`` on failure, outputs refilled in place [I, strong].

The model outlives its engines (deletion order: inputs, context, engine, model, queue, device [V]): what belongs to a
model that is gone fails [–]. A context keeps its engine, as public programs drop theirs. The calls of one context go to
one queue at a time: a context is not for several threads [V, in C++].
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import Code
from ..cc._pywrap_runtime.status import failure
from . import faults, machine
from .program import Array
from .queue import Job, Queue
from .tensor import Tensor

if TYPE_CHECKING:
    from .elsewhere import Elsewhere
    from .executable import Executable
    from .model import Model


class Engine:
    """Made by ``Model.create_i_engine`` only."""

    _model: weakref.ref[Model]
    _executable: Executable | Elsewhere
    _device: int

    def __init__(self) -> None:
        raise TypeError("Engine: no constructor defined, use Model.create_i_engine()")

    @classmethod
    def _of(cls, model: Model, executable: Executable | Elsewhere, device: int) -> Engine:
        engine = cls.__new__(cls)
        engine._model, engine._executable, engine._device = weakref.ref(model), executable, device
        return engine

    def create_i_context(self) -> Context | None:
        if faults.strikes("create_i_context"):
            return machine.complain("create_i_context", "a fault was asked for")
        reason = self._unusable()
        if reason is not None:
            return machine.complain("create_i_context", reason)
        return Context._of(self)

    def _unusable(self) -> str | None:
        """Why nothing can be done with the engine now, if so."""
        if self._model() is None:
            return "the model was deleted before its engine"
        if machine.current_device() != self._device:
            return f"device {self._device} is not active in this thread"
        return None


class Context:
    """Made by ``Engine.create_i_context`` only."""

    _engine: Engine
    _queue: Queue | None
    _running: int

    def __init__(self) -> None:
        raise TypeError("Context: no constructor defined, use Engine.create_i_context()")

    @classmethod
    def _of(cls, engine: Engine) -> Context:
        context = cls.__new__(cls)
        context._engine, context._queue, context._running = engine, None, 0
        return context

    def create_inputs(self) -> list[Tensor] | Status:
        if faults.strikes("create_inputs"):
            return failure("a fault was asked for")
        reason = self._engine._unusable()
        if reason is not None:
            return failure(reason)
        return [Tensor._of(port) for port in self._engine._executable.program.inputs]

    def create_outputs(self, inputs: list[Tensor]) -> list[Tensor] | Status:
        """Outputs of the shapes that follow from the inputs'."""
        _need_tensors("create_outputs", inputs)
        if faults.strikes("create_outputs"):
            return failure("a fault was asked for")
        status = self._check(inputs)
        if not status.ok():
            return status
        outputs: list[Tensor] = []
        return self._poison(inputs, outputs) or outputs

    def enqueue(self, inputs: list[Tensor], outputs: list[Tensor], queue: Queue) -> Status:
        """Start computing; ``outputs`` is filled if it is empty, else its tensors are overwritten. ``sync`` ends it."""
        _need_tensors("enqueue", inputs)
        _need_tensors("enqueue", outputs)
        need("enqueue", queue, Queue)
        if faults.strikes("enqueue"):
            return failure("a fault was asked for")
        status = self._check(inputs)
        if not status.ok():
            return status
        if queue._device != self._engine._device:
            return failure(f"the queue is on device {queue._device}, the engine on {self._engine._device}")
        if self._running and self._queue is not queue:
            return failure("the context is at work on another queue: give each its own context")
        empty = [tensor._port.name for tensor in inputs if tensor._array is None]
        if empty:
            return failure(f"'{empty[0]}' has no content: call from_numpy")
        status = self._poison(inputs, outputs) or Status.OK()
        if not status.ok():
            return status
        self._queue, self._running = queue, self._running + 1
        arrays = [tensor._lend() for tensor in inputs]
        readers, targets, executable = list(inputs), list(outputs), self._engine._executable

        def publish(results: list[Array]) -> None:
            for tensor, array in zip(targets, results):  # noqa: B905  (one for each output)
                tensor._set(array)

        def release() -> str | None:
            self._running -= 1
            return next(filter(None, [tensor._return() for tensor in readers]), None)

        queue._submit(Job(lambda: executable.run(arrays), publish, release))
        return Status.OK()

    def _check(self, inputs: list[Tensor]) -> Status:
        """Whether the inputs' shapes may be used, and the device."""
        reason = self._engine._unusable()
        if reason is not None:
            return failure(reason)
        ports = self._engine._executable.program.inputs
        if len(inputs) != len(ports):
            return failure(f"{len(inputs)} inputs, the model has {len(ports)}")
        for port, tensor in zip(ports, inputs):  # noqa: B905  (as many)
            if tensor._port is not port:
                return failure(f"a tensor of another model where '{port.name}' belongs")
            reason = port.refuse(tensor.shape)
            if reason is not None:
                return failure(reason, Code.OUT_OF_RANGE)
        return Status.OK()

    def _poison(self, inputs: list[Tensor], outputs: list[Tensor]) -> Status | None:
        """Fill an empty list with outputs, or take those that are there; a ``Status`` where that fails."""
        executable = self._engine._executable
        ports = executable.program.outputs
        if outputs and [tensor._port for tensor in outputs] != list(ports):
            return failure(f"{len(outputs)} outputs, which are not this model's {len(ports)}")
        try:
            shapes = executable.shapes(tuple(tensor.shape for tensor in inputs))
        except Exception as error:  # torch raises many kinds for shapes that do not fit
            return failure(f"the inputs' shapes do not fit the network ({error})")
        if not outputs:
            outputs.extend(Tensor._of(port) for port in ports)
        for tensor, shape in zip(outputs, shapes):  # noqa: B905  (one for each output)
            tensor._poison(shape)
        return None


def _need_tensors(call: str, tensors: list[Tensor]) -> None:
    need(call, tensors, list)
    for tensor in tensors:
        need(call, tensor, Tensor)
