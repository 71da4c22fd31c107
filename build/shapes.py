"""Moving shapes whose class is their motion: the demonstration task, rendered with numpy alone.

Three shapes lie on a textured background that drifts on its own. All three do the same thing, and what they do is the
class. A scene draws everything else (where the shapes are, which way they face, how large they are, how they are
coloured, what kind they are, where the background goes) from its seed *before* it looks at its label, so
``Scene(label, seed, …).frame(0)`` is the same picture for every label: one frame cannot give the class away.

The picture repeats with the period of its shorter side. What leaves the centred square on one side comes back on the
other, so motion never ends, however long the video is and however wide the frame around the square.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import UsageError

LABELS = (
    "left",
    "right",
    "up",
    "down",
    "clockwise",
    "counter-clockwise",
    "growing",
    "shrinking",
    "blinking",
    "still",
)
"""The classes, in the order of the demonstration model's outputs."""

HELD_OUT_SEED = 1_000_000_000
"""Seeds below it are for training, seeds from it on are for videos that test the model: the two can never meet."""

Floats = npt.NDArray[np.float32]

# Radii are fractions of the period. Three shapes a third of a period apart on a diagonal: with radii below 1/6 each
# edge of the centred square cuts at most one of them, so at least one is whole in every frame.
_RADIUS_MIN, _RADIUS_MAX = 0.07, 0.16
# Half a blink, in seconds. 16 frames span 15 intervals: 0.25 s at 60 fps, so at 60 fps or fewer every clip has a blink.
_HALF_BLINK_MIN, _HALF_BLINK_MAX = 0.15, 0.25
_DIRECTIONS = {"left": math.pi, "right": 0.0, "up": -math.pi / 2, "down": math.pi / 2}  # rows count downwards


class Scene:
    """One endless video of one class.

    Args:
        label: one of ``LABELS``.
        seed: decides everything that is not the class; below ``HELD_OUT_SEED`` for training.
        height: rows of a frame, at least 16.
        width: columns of a frame, at least 16.
        fps: frames per second; motion is laid down in seconds, so it only says how densely it is sampled.

    Raises:
        UsageError: the label is unknown, or a size or rate is out of range.
    """

    def __init__(self, label: str, seed: int, height: int = 112, width: int = 112, fps: float = 25.0) -> None:
        if label not in LABELS:
            raise UsageError(f"no motion class '{label}': one of {', '.join(LABELS)}")
        if min(height, width) < 16:
            raise UsageError(f"a frame of {width}x{height} is too small to draw in: at least 16 each way")
        if not 0 < fps < math.inf:
            raise UsageError(f"{fps!r} frames per second: a number above 0 belongs there")
        self.label = label
        self.seed = seed
        self.height = height
        self.width = width
        self.fps = fps
        self._period = min(height, width)
        rng = np.random.Generator(np.random.PCG64(seed))

        # Velocities below are per second; lengths are in periods, angles in radians.
        heading = rng.uniform(0, 2 * math.pi)
        self._drift = rng.uniform(0.03, 0.15) * np.array([math.sin(heading), math.cos(heading)])
        start = rng.uniform(0, 1, 2)
        slope = rng.choice([-1.0, 1.0])
        self._centres = start + np.outer(np.arange(3) / 3, [1.0, slope])  # [3, 2], row and column
        self._kinds = rng.choice(len(_KINDS), 3)
        self._angles = rng.uniform(0, 2 * math.pi, 3)
        self._growth = rng.uniform(0, 1, 3)  # how far each is between the smallest and the largest radius
        self._blinks = rng.uniform(0, 1, 3)  # lit in the first half of the cycle, dark in the second
        self._colours = np.stack([[_colour(rng, 0, 45), _colour(rng, 200, 245)] for _ in range(3)])  # [3, 2, 3]
        speed = rng.uniform(0.35, 0.8)
        bearing = rng.uniform(-0.17, 0.17)  # "left" is within 10 degrees of left
        turns = rng.uniform(0.35, 0.9, 3)
        growths = rng.uniform(0.6, 1.1, 3)
        half_blink = rng.uniform(_HALF_BLINK_MIN, _HALF_BLINK_MAX)
        self._background = _background(rng, height, width)  # last: only it depends on the size

        # Only here does the class enter: it sets one rate and leaves the others at nothing.
        still: npt.NDArray[np.float64] = np.zeros(3)
        self._velocity, self._spin, self._swell = still[:2], still, still
        self._blink_rate = 0.0
        if label in _DIRECTIONS:
            towards = _DIRECTIONS[label] + bearing
            self._velocity = speed * np.array([math.sin(towards), math.cos(towards)])
        elif label in ("clockwise", "counter-clockwise"):
            self._spin = 2 * math.pi * turns * (1 if label == "clockwise" else -1)
        elif label in ("growing", "shrinking"):
            self._swell = growths * (1 if label == "growing" else -1)
        elif label == "blinking":
            self._blink_rate = 0.5 / half_blink

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Frame ``index`` (from 0, without end): uint8 RGB ``[height, width, 3]``."""
        seconds = index / self.fps
        picture = _shifted(self._background, self._drift * seconds * self._period)
        for shape in range(3):
            growth = (self._growth[shape] + self._swell[shape] * seconds) % 1.0
            lit = int((self._blinks[shape] + self._blink_rate * seconds) % 1.0 < 0.5)
            self._draw(
                picture,
                kind=_KINDS[self._kinds[shape]],
                centre=(self._centres[shape] + self._velocity * seconds) % 1.0,
                radius=_RADIUS_MIN * (_RADIUS_MAX / _RADIUS_MIN) ** growth,
                angle=self._angles[shape] + self._spin[shape] * seconds,
                colour=self._colours[shape, lit],
            )
        return np.rint(np.clip(picture, 0, 255, out=picture), out=picture).astype(np.uint8)

    def clip(self, start: int = 0, frames: int = 16) -> npt.NDArray[np.uint8]:
        """``frames`` frames from ``start``: uint8 RGB ``[T, height, width, 3]``."""
        return np.stack([self.frame(index) for index in range(start, start + frames)])

    def _draw(
        self,
        picture: Floats,
        *,
        kind: Any,
        centre: npt.NDArray[np.float64],
        radius: float,
        angle: float,
        colour: Floats,
    ) -> None:
        """Paint one shape, and its repetitions, over ``picture``."""
        period, pixels = self._period, radius * self._period
        # The centred square is one period; further copies lie a period apart in the rest of the frame.
        row, column = centre * period + [(self.height - period) / 2, (self.width - period) / 2]
        for y in _copies(row, period, self.height, pixels):
            for x in _copies(column, period, self.width, pixels):
                top, bottom = max(0, math.floor(y - pixels)), min(self.height, math.ceil(y + pixels) + 1)
                left, right = max(0, math.floor(x - pixels)), min(self.width, math.ceil(x + pixels) + 1)
                down = ((np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - y)) / np.float32(pixels))[:, None]
                across = ((np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)) / np.float32(pixels))[None]
                cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
                u, v = across * cos + down * sin, down * cos - across * sin
                cover = np.clip(0.5 - kind(u, v) * np.float32(pixels), 0, 1)[..., None]  # edges a pixel soft
                under = picture[top:bottom, left:right]
                under += cover * (colour - under)


# Each kind is a distance in radii to its outline, below 0 inside, at points u, v of the shape's own axes. All fit in
# the unit circle, and none looks the same after any part of a turn, so that turning always shows.


def _pie(u: Floats, v: Floats) -> Floats:
    mouth = (u * np.float32(math.tan(0.7)) - np.abs(v)) * np.float32(math.cos(0.7))
    return _both(_disc(u, v, 1.0), mouth)


def _half_disc(u: Floats, v: Floats) -> Floats:
    return _both(_disc(u, v, 1.0), u)


def _crescent(u: Floats, v: Floats) -> Floats:
    return _both(_disc(u, v, 1.0), -_disc(u - np.float32(0.6), v, 0.85))


def _drop(u: Floats, v: Floats) -> Floats:
    # A disc and the cone that touches it: sin = 0.55 / 1.45, the disc's radius over the tip's distance from its centre.
    sin = 0.55 / 1.45
    cone = np.abs(v) * np.float32(math.sqrt(1 - sin * sin)) - (1 - u) * np.float32(sin)
    return _either(_disc(u + np.float32(0.45), v, 0.55), _both(cone, np.float32(0.55 * sin - 0.45) - u))


def _arrow(u: Floats, v: Floats) -> Floats:
    head = _both(np.abs(v) * np.float32(0.8) - (1 - u) * np.float32(0.6), -u)
    return _either(head, _box(u, v, (-0.95, 0.05), (-0.25, 0.25)))


def _angle(u: Floats, v: Floats) -> Floats:
    return _either(_box(u, v, (-0.6, -0.1), (-0.75, 0.75)), _box(u, v, (-0.6, 0.75), (0.25, 0.65)))


def _wedge(u: Floats, v: Floats) -> Floats:
    return _both(np.abs(v) * np.float32(0.95) - (1 - u) * np.float32(0.31), np.float32(-0.8) - u)


_KINDS = (_pie, _half_disc, _crescent, _drop, _arrow, _angle, _wedge)


def _both(a: Floats, b: Floats) -> Floats:
    return np.maximum(a, b)


def _either(a: Floats, b: Floats) -> Floats:
    return np.minimum(a, b)


def _disc(u: Floats, v: Floats, radius: float) -> Floats:
    return np.hypot(u, v) - np.float32(radius)


def _box(u: Floats, v: Floats, along: tuple[float, float], across: tuple[float, float]) -> Floats:
    ends = np.maximum(np.float32(along[0]) - u, u - np.float32(along[1]))
    return _both(ends, np.maximum(np.float32(across[0]) - v, v - np.float32(across[1])))


def _copies(position: float, period: int, size: int, reach: float) -> list[float]:
    """Where the copies of a point lie, ``period`` apart, that touch ``0 … size`` with a radius of ``reach``."""
    first = math.ceil((-reach - position) / period)
    last = math.floor((size + reach - position) / period)
    return [position + period * n for n in range(first, last + 1)]


def _colour(rng: np.random.Generator, darkest: float, brightest: float) -> Floats:
    """A random hue at a random brightness (ITU-R BT.601 luma) between the two, as float32 RGB of 0…255."""
    hue = rng.uniform(0, 1, 3)
    luma = float(hue @ [0.299, 0.587, 0.114])
    wanted = rng.uniform(darkest, brightest) / 255
    mixed = hue * (wanted / luma) if wanted < luma else 1 - (1 - hue) * ((1 - wanted) / (1 - luma))
    return (mixed * 255).astype(np.float32)


def _background(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A texture that wraps, float32 ``[2 height, 2 width, 3]``: four times the same tile.

    Its luma stays above 46 and below 199, between those of dark and lit shapes: 1.8, the sum of the weights, times the
    contrast is at most 48.6.
    """
    base = _colour(rng, 95, 150)
    contrast = rng.uniform(14, 27)
    sharpness = rng.choice([1.0, 1.0, 4.0])  # one in three is blotchy
    texture = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 0.8), (7, 0.6), (17, 0.4)):
        tint = rng.uniform(0.5, 1.0, 3) * rng.choice([-1.0, 1.0], 3, p=[0.2, 0.8])
        rows = max(1, round(cells * height / min(height, width)))
        columns = max(1, round(cells * width / min(height, width)))
        knots = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        waves = np.tanh(_spread(height, rows) @ knots @ _spread(width, columns).T * np.float32(sharpness))
        texture += waves[..., None] * (weight * tint).astype(np.float32)
    return np.tile(base + np.float32(contrast) * texture, (2, 2, 1))


def _spread(size: int, knots: int) -> Floats:
    """Weights ``[size, knots]`` that spread evenly spaced knots smoothly over ``size`` pixels, wrapping at the end."""
    place = np.arange(size) * (knots / size)
    before = place.astype(np.int64)
    part = place - before
    smooth = part * part * (3 - 2 * part)
    weights = np.zeros((size, knots), np.float32)
    rows = np.arange(size)
    weights[rows, before % knots] += (1 - smooth).astype(np.float32)
    weights[rows, (before + 1) % knots] += smooth.astype(np.float32)
    return weights


def _shifted(texture: Floats, by: npt.NDArray[np.float64]) -> Floats:
    """One tile of a twice repeated texture, moved ``by`` (rows, columns) and wrapped; between pixels linearly."""
    height, width = texture.shape[0] // 2, texture.shape[1] // 2
    # What comes to lie at pixel 0 was at -by: at a whole pixel, and a part of the way to the next.
    top, left = math.floor(-by[0]), math.floor(-by[1])
    down, across = np.float32(-by[0] - top), np.float32(-by[1] - left)
    top, left = top % height, left % width
    tile = texture[top : top + height + 1, left : left + width + 1]
    tile = tile[:-1] + down * (tile[1:] - tile[:-1])
    return tile[:, :-1] + across * (tile[:, 1:] - tile[:, :-1])
