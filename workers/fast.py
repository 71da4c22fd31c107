"""A decoded frame to pixels in the decoder's own planes: only the crop is scaled, only the result becomes RGB.

The exact way makes RGB of a whole picture, then scales it, then cuts, a pass over memory each, and costs far more than
decoding. Here the same is done a line at a time, and only where the crop is. What differs is rounding, by
three steps of 255 at most; where pictures are shrunk a lot, a little more.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from . import planes as in_numpy
from .decode import Frame
from .exact import MATRICES, Exact, check_shape, covering, turns
from .planes import CHROMA_SHIFT, FRACTION_BITS, LUMA_BITS
from .taps import bilinear, fixed_point, of_pairs

compiled: ModuleType | None
try:
    from . import _planes as compiled
except ImportError:  # installed without a C compiler; ``Fast.chosen`` says so
    compiled = None

KR_KB = {
    1: (0.2126, 0.0722),  # BT.709
    2: (0.299, 0.114),  # not tagged: as BT.601, as in FFmpeg
    4: (0.30, 0.11),  # FCC, 47 CFR 73.682
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}
"""The shares of red and blue in luma, by colour matrix (AVColorSpace; ITU-T H.273, table 4)."""

FULL_RANGE = 2
"""AVColorRange: luma and chroma use all values, as in JPEG; else black is 16, white 235, of 255."""

MATRIX_BITS = 14

SMALLEST = 16
"""Pictures with a side below so many pixels go the exact way."""

HALVED_FROM = 6.0
"""From so many pixels for one of the result on (in each direction), four pixels that share a sample of chroma are taken
as one: a quarter of the work, within a mean of 0.3 of 255 of the exact way on real videos."""

KINDS = 16
"""Kinds of picture that are planned for at a time; a video has one, rarely two."""


@dataclass(frozen=True)
class Sampling:
    """How the planes of a pixel format are sampled.

    Args:
        bits: of a sample.
        across: columns of pixels for one sample of chroma.
        down: rows of pixels for one sample of chroma.
        full: luma and chroma use all values whatever the tags say (the old JPEG formats).
    """

    bits: int
    across: int
    down: int
    full: bool


@dataclass(frozen=True, eq=False)
class Prepared:
    """A kernel's plan for pictures of one kind; ``swap`` if the result is to be transposed."""

    plan: object
    rows: int
    columns: int
    swap: bool


class Fast:
    """Frames to uint8 ``[height, width, 3]``, as ``Exact`` has them to within a mean of 0.4 of 255.

    It is made for planar YUV of 8 to 14 bits, which is what nearly all codecs give. All else, interlaced
    pictures, odd sizes with halved chroma, sides of tens of thousands of pixels, and folders of frames go the exact
    way.

    Args:
        height: rows of the result.
        width: columns of the result.
        kernel: the module that does the arithmetic; the compiled one, if it was built, unless given.
    """

    def __init__(self, height: int, width: int, kernel: ModuleType | None = None) -> None:
        self._height = height
        self._width = width
        self._exact = Exact(height, width)
        self._kernel: Any = kernel or compiled or in_numpy
        self._prepared: OrderedDict[tuple[object, ...], Prepared | None] = OrderedDict()  # None: the exact way
        self.chosen = "fast, " + ("in numpy: no C compiler was there" if self._kernel is in_numpy else "compiled")

    def __call__(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Pixels of one frame; raises what ``Exact`` raises."""
        picture = frame.picture
        if not isinstance(picture, av.VideoFrame):
            return self._exact(frame)
        kind = (
            picture.format.name,
            picture.width,
            picture.height,
            int(picture.colorspace),
            int(picture.color_range),
            picture.interlaced_frame,
            frame.display,
        )
        if kind not in self._prepared:
            self._prepared[kind] = self._prepare(picture, frame.display)
            if len(self._prepared) > KINDS:
                self._prepared.popitem(last=False)
        prepared = self._prepared[kind]
        if prepared is None:
            return self._exact(frame)
        y, u, v, *_ = picture.planes
        pixels = np.empty((prepared.rows, prepared.columns, 3), np.uint8)
        try:
            self._kernel.pixels(prepared.plan, pixels, y, y.line_size, u, u.line_size, v, v.line_size)
        except ValueError:  # lines from the bottom up, or without room for whole pairs of pixels
            return self._exact(frame)
        return np.ascontiguousarray(pixels.transpose(1, 0, 2)) if prepared.swap else pixels

    def _prepare(self, picture: av.VideoFrame, display: tuple[int, ...] | None) -> Prepared | None:
        check_shape(picture.width, picture.height)
        sampling = _sampling(picture.format)
        matrix = int(picture.colorspace)
        shares = KR_KB.get(MATRICES.get(matrix, matrix))
        if sampling is None or shares is None or min(picture.width, picture.height) < SMALLEST:
            return None
        if picture.width % sampling.across or picture.height % sampling.down:
            return None  # libswscale, our yardstick, stretches such planes a little
        if picture.interlaced_frame and sampling.down > 1:
            return None  # the chroma of a line is that of its own field
        swap, flip_x, flip_y = turns(display)
        # The axes of the upright picture, and then which of the planes' axes each of them is.
        sizes = (picture.height, picture.width) if swap else (picture.width, picture.height)
        scaled = covering(*sizes, self._width, self._height)
        horizontal = bilinear(sizes[0], scaled[0], self._width)[:, :: -1 if flip_x else 1]
        vertical = bilinear(sizes[1], scaled[1], self._height)[:, :: -1 if flip_y else 1]
        rows, columns = (horizontal, vertical) if swap else (vertical, horizontal)
        full = sampling.full or int(picture.color_range) == FULL_RANGE
        black, white = (0, 255) if full else (16, 235 - 16)
        across, down = sampling.across, sampling.down
        shrinks = min(picture.width, picture.height) / min(self._width, self._height)
        halved = across == down == 2 and shrinks >= HALVED_FROM
        if halved:
            rows, columns = of_pairs(rows), of_pairs(columns)
            across = down = 1
        # Colours come in units of at least 1/64 of a step: of two whole ones the nearest, halves not all upwards.
        of_luma = 1 << LUMA_BITS - sampling.bits >> 2 * halved
        of_chroma = 1 << CHROMA_SHIFT >> 2 * (across - 1) >> 2 * (down - 1)
        rounding = (1 << FRACTION_BITS - 1) - min(of_luma, of_chroma) // 2
        try:
            plan = self._kernel.plan(
                sampling.bits,
                across,
                down,
                int(halved),
                picture.height // sampling.down,
                picture.width // sampling.across,
                fixed_point(rows, gain=255 / white),
                fixed_point(columns),
                ((black << FRACTION_BITS) - rounding, white, *_colour(*shares, full=full)),
            )
        except ValueError:  # a side is too long for the kernel
            return None
        return Prepared(plan, len(rows), len(columns), swap)


def _sampling(pixels: av.VideoFormat) -> Sampling | None:
    """How a format is sampled; None if it is not planar YUV of 8 to 14 bits."""
    parts = pixels.components
    if pixels.is_rgb or len(parts) < 3 or [part.plane for part in parts[:3]] != [0, 1, 2]:
        return None
    bits = parts[0].bits
    if not 8 <= bits <= 14 or "msb" in pixels.name or (bits > 8 and pixels.is_big_endian):
        return None
    across, down = 64 // pixels.chroma_width(64), 64 // pixels.chroma_height(64)
    if across > 2 or down > 2:
        return None
    return Sampling(bits, across, down, full=pixels.name.startswith("yuvj"))


def _colour(kr: float, kb: float, *, full: bool) -> tuple[int, ...]:
    """The factors that ``planes.plan`` needs: YUV to RGB by ITU-T H.273, 8.3, equations 11 to 13 and 38 to 40."""
    kg = 1 - kr - kb
    chroma = 1.0 if full else 219 / 224
    red_v, blue_u = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    factors = (red_v, blue_u * kb / kg, red_v * kr / kg, blue_u)
    return tuple(round(factor * (1 << MATRIX_BITS)) for factor in factors)
