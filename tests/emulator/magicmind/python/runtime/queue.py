"""``Queue`` [V]: work runs in order on a thread of the queue's own; results count once ``sync`` has returned.

A failure of the work is reported by ``sync`` [–].
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.status import failure
from . import faults


@dataclass
class Job:
    """One enqueue: ``compute`` runs on the queue's thread, ``publish`` in ``sync``, with what ``compute`` gave.

    ``release`` runs in ``sync`` whatever happened, and says what spoilt the job meanwhile, if anything did.
    """

    compute: Callable[[], Any]
    publish: Callable[[Any], None]
    release: Callable[[], str | None]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: str | None = None

    def run(self) -> None:
        try:
            if faults.strikes("compute"):
                raise RuntimeError("a fault of the device was asked for")
            self.result = self.compute()
        except Exception as error:  # whatever it is, sync has to report it, and the thread to go on
            self.error = next(iter(str(error).splitlines()), type(error).__name__)
        finally:
            self.done.set()


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # while waiting for the next, nothing of the last is kept


class Queue:
    """Made by ``Device.create_queue`` only."""

    _device: int
    _jobs: SimpleQueue[Job | None]
    _running: list[Job]

    def __init__(self) -> None:
        raise TypeError("Queue: no constructor defined, use Device.create_queue()")

    @classmethod
    def _on(cls, device: int) -> Queue:
        queue = cls.__new__(cls)
        queue._device = device
        queue._jobs = SimpleQueue()
        queue._running = []
        threading.Thread(target=_work, args=(queue._jobs,), name="magicmind-queue", daemon=True).start()
        weakref.finalize(queue, queue._jobs.put, None)  # the thread ends after the work that was left
        return queue

    def _submit(self, job: Job) -> None:
        self._running.append(job)
        self._jobs.put(job)

    def sync(self) -> Status:
        """Wait for everything enqueued so far."""
        if faults.strikes("sync"):
            return failure("the device was lost")
        running, self._running = self._running, []
        errors = []
        for job in running:
            job.done.wait()
            error = job.release() or job.error
            if error is None:
                job.publish(job.result)
            else:
                errors.append(error)
        return failure(errors[0]) if errors else Status.OK()
