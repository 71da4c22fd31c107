"""A video's clips with our own decoding, windows and preprocessing, as every baseline has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipmux.engine.model import ModelFolder
from clipmux.workers.decode import decode
from clipmux.workers.preprocess import open_preprocess
from clipmux.workers.sources import Video
from clipmux.workers.windows import windows

Clip = npt.NDArray[np.uint8]
"""uint8 ``[T, H, W, C]``, RGB."""


class ClipReader:
    """Videos to lists of clips; the same object serves any number of videos."""

    def __init__(self, model: ModelFolder, *, stride: int, preprocess: str) -> None:
        self._length = model.frames
        self._stride = stride
        self._preprocess = open_preprocess(preprocess, model.height, model.width)

    def __call__(self, video: Video) -> list[Clip]:
        """All clips of one video, in memory at once.

        Raises:
            VideoError: it cannot be read to its end.
        """
        cut = windows(decode(video), length=self._length, stride=self._stride, keep=self._preprocess)
        return [np.stack(window.frames) for window in cut]
