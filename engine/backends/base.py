"""What the engine asks of a device: open a model, and answer batches from one or more runners.

A backend is asked from one thread to open ``runners`` runners; each is then used from a thread of its own, one batch at
a time, so a backend needs no locks. A runner blocks while the device works and must release the GIL meanwhile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

TOLERANCE: dict[str, float] = {
    "float32": 1e-5,
    "force_float32": 1e-5,
    "bfloat16": 2e-2,
    "float16": 2e-2,
    "force_float16": 2e-2,
}
"""How far a clip score (0…1) may be from the reference's, by precision; quantised ones are held to an agreement."""

HALF_AGREEMENT = 0.99
"""Share of clips, at least, whose best label at half precision is that of float32."""

QUANTISED_AGREEMENT = 0.97
"""Likewise for the quantised precisions."""


BATCH_ON_CPU = 8
"""Clips per call that suit a CPU with a stream per core."""


@dataclass(frozen=True)
class Phases:
    """Seconds of one call's steps, each waited for before the next began."""

    host_to_device: float
    compute: float
    device_to_host: float


class Runner(ABC):
    """One batch at a time through the device."""

    @abstractmethod
    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits, float32 ``[N, classes]``, for uint8 clips ``[N, T, H, W, C]``, 1 ≤ N ≤ the backend's ``max_batch``.

        Normalisation is the device's work. ``clips`` is only valid until the call returns.
        """

    def phases(self, clips: npt.NDArray[np.uint8]) -> Phases | None:  # noqa: ARG002
        """The steps of one call of ``infer``, for measuring; None where the device has no copies to tell apart."""
        return None

    def close(self) -> None:  # noqa: B027  (most have nothing to release)
        """Release what the runner holds."""


class Backend(ABC):
    """A model on a device.

    Attributes:
        max_batch: clips in one call at most.
        preferred_batch: clips per call that suit the device best.
        runners: batches that the device works on at the same time.
        ahead: further batches to hold ready so that the device never waits for one.
        chosen: what was chosen and why, for the log.
    """

    name: ClassVar[str]
    device: str
    max_batch: int
    preferred_batch: int
    runners: int
    ahead: int = 1
    chosen: str = ""

    @abstractmethod
    def open_runner(self) -> Runner:
        """A new runner; called ``runners`` times."""

    def staging(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Memory for batches, uint8 of ``shape``: of the kind that the device reads with the least work.

        It is filled, so that it is taken now and not bit by bit as batches first grow.
        """
        return np.full(shape, 128, np.uint8)

    def close(self) -> None:  # noqa: B027
        """Release the device, after all runners are closed."""
