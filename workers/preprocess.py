"""A decoded frame to pixels: which way, and what is said of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from clipmux.engine.config import FAST

from .decode import Frame
from .exact import Exact
from .fast import Fast


class Preprocess(Protocol):
    """Frames to uint8 ``[height, width, 3]``, RGB, C-contiguous; one object serves any number of videos.

    The picture is made upright and scaled to cover ``height`` × ``width`` with its proportions kept (bilinear,
    antialiased; the other side is rounded down), then its centre is cut out. Where both are 112, a picture of 340 × 256
    becomes 148 × 112 and loses 18 columns on either side. Pixels count as square, as in the reference.

    Attributes:
        chosen: what does it, for the log and the summary.
    """

    chosen: str

    def __call__(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Pixels of one frame.

        Raises:
            VideoError: the frame's pixel format cannot be converted, or its shape is absurd.
        """
        ...


def open_preprocess(name: str, height: int, width: int) -> Preprocess:
    """The preprocessing called ``name`` in ``EngineConfig``, ``exact`` or ``fast``, for clips of one size."""
    return Fast(height, width) if name == FAST else Exact(height, width)
