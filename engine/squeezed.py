"""Clips as JPEG, for links that cannot carry them as they are: ``--wire jpeg``.

The frames of a clip, one below the other, are one picture. It loses a little: what that does to scores is measured in
docs/hosts.md. Pillow is needed at both ends.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MessageError, UsageError

QUALITY = 95
"""Of 100, with colours as fine as brightness: below it, what is lost begins to show in scores."""


def squeeze(pixels: npt.NDArray[np.uint8]) -> bytes | None:
    """A clip, uint8 ``[T, H, W, C]``, as JPEG; None where that is no smaller."""
    frames, height, width, channels = pixels.shape
    buffer = io.BytesIO()
    picture = _pillow().fromarray(pixels.reshape(frames * height, width, channels))
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue() if buffer.tell() < pixels.nbytes else None


def unsqueeze(jpeg: Any, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """The clip again.

    Raises:
        MessageError: these bytes are no JPEG of a clip of this shape.
    """
    frames, height, width, _ = shape
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            if picture.size != (width, frames * height) or picture.mode != "RGB":
                raise MessageError(f"a JPEG is {picture.size} {picture.mode}, a clip is {(width, frames * height)} RGB")
            return np.asarray(picture).reshape(shape)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:  # what Pillow says of others
        raise MessageError(f"a clip is no JPEG ({error})") from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("--wire jpeg needs Pillow where inference is, too: pip install pillow") from None
    return Image
