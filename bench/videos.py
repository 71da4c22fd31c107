"""Videos to try and to measure with: encoded shapes whose motion is known, in the codecs and sizes that people have.

Needs nothing but PyAV and numpy. The same arguments give the same files, byte for byte, with the same build of PyAV.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from clipmux.build.shapes import HELD_OUT_SEED, LABELS, Scene
from clipmux.engine.errors import UsageError


@dataclass(frozen=True)
class Encoding:
    """A codec in a container, with options that put speed before size."""

    name: str
    codec: str
    suffix: str
    container: str
    pixels: str = "yuv420p"
    bits_per_pixel: float = 0.15
    options: dict[str, str] = field(default_factory=dict)


_X26X = {"preset": "ultrafast"}
_VPX = {"deadline": "realtime", "cpu-used": "8"}
ENCODINGS = (
    Encoding("h264-mp4", "libx264", ".mp4", "mp4", options=_X26X),
    Encoding("h264-mkv", "libx264", ".mkv", "matroska", options=_X26X),
    Encoding("mpeg4-avi", "mpeg4", ".avi", "avi", bits_per_pixel=0.25),
    Encoding("vp8-webm", "libvpx", ".webm", "webm", options=_VPX),
    Encoding("vp9-webm", "libvpx-vp9", ".webm", "webm", options=_VPX),
    Encoding("mjpeg-mov", "mjpeg", ".mov", "mov", pixels="yuvj420p", bits_per_pixel=1.0),
    Encoding("hevc-mp4", "libx265", ".mp4", "mp4", options={**_X26X, "x265-params": "log-level=none:pools=none"}),
    Encoding("mpeg2-ts", "mpeg2video", ".ts", "mpegts", bits_per_pixel=0.3),
)
"""Every encoding that is written; a build of PyAV may lack the encoders of some (see ``available_encodings``)."""

SIZES = ((160, 120), (320, 240), (340, 256), (256, 340), (426, 240), (640, 360))
"""Width and height."""

RATES = (Fraction(15), Fraction(20), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30))
"""Frames per second; 30000/1001 is what "29.97" stands for."""

# ISO/IEC 13818-2 has a table of the rates that MPEG-2 can say; 15 and 20 are not in it.
_MPEG2_RATES = tuple(rate for rate in RATES if rate >= 24)


@dataclass(frozen=True)
class ShapeVideo:
    """One written video and the truth about it; ``seed`` is its scene's, ``rate`` in frames per second."""

    path: Path
    label: str
    seed: int
    encoding: str
    width: int
    height: int
    rate: Fraction
    frames: int


def available_encodings() -> tuple[Encoding, ...]:
    """The encodings whose encoder this build of PyAV has."""
    available = []
    for encoding in ENCODINGS:
        try:
            av.Codec(encoding.codec, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        available.append(encoding)
    return tuple(available)


def write_shape_videos(
    folder: Path,
    *,
    count: int = 24,
    seed: int = 0,
    encodings: Sequence[Encoding] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    rates: Sequence[Fraction] = RATES,
    seconds: tuple[float, float] = (1.0, 5.0),
) -> list[ShapeVideo]:
    """Write ``count`` videos, ``<number>_<label>``, of every class and encoding in turn; the rest is drawn by lot.

    Args:
        folder: made if it is not there.
        count: how many.
        seed: from 0; different seeds share no scene, and none is a scene of the training clips.
        encodings: the available ones unless given.
        sizes: even widths and heights to draw from.
        rates: frames per second to draw from; MPEG-2 draws from 24 up.
        seconds: shortest and longest length.

    Raises:
        UsageError: a count, seed or length that cannot be.
    """
    _check(count, seed)
    if not 0 < seconds[0] <= seconds[1]:
        raise UsageError(f"lengths from {seconds[0]} to {seconds[1]} seconds: the shortest is above 0 and comes first")
    encodings = available_encodings() if encodings is None else encodings
    rng = np.random.default_rng((HELD_OUT_SEED, seed))
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(2, len(str(count - 1)))
    videos = []
    for number in range(count):
        if number % len(LABELS) == 0:
            order = rng.permutation(len(LABELS))
        label = LABELS[order[number % len(LABELS)]]
        encoding = encodings[number % len(encodings)]
        width, height = sizes[int(rng.integers(len(sizes)))]
        possible = [rate for rate in rates if rate in _MPEG2_RATES] if encoding.codec == "mpeg2video" else rates
        rate = possible[int(rng.integers(len(possible)))]
        frames = max(1, round(rng.uniform(*seconds) * float(rate)))
        path = folder / f"{number:0{digits}}_{label}{encoding.suffix}"
        scene = Scene(label, _scene_seed(seed, number), height, width, float(rate))
        videos.append(_write(path, scene, encoding, rate, frames))
    return videos


def write_short_videos(
    folder: Path,
    count: int,
    *,
    frames: int = 48,
    size: tuple[int, int] = (320, 240),
    rate: Fraction = Fraction(25),
    encoding: Encoding = ENCODINGS[0],
    distinct: int = 10,
    seed: int = 0,
) -> list[ShapeVideo]:
    """Write ``count`` videos of one kind, thousands in seconds: ``distinct`` are encoded, the others are copies.

    Args:
        folder: made if it is not there.
        count: how many.
        frames: of each.
        size: width and height, even.
        rate: frames per second.
        encoding: one of ``available_encodings()``.
        distinct: how many differ from each other.
        seed: from 0.

    Raises:
        UsageError: a count or seed that cannot be.
    """
    _check(count, seed)
    width, height = size
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(2, len(str(count - 1)))
    videos: list[ShapeVideo] = []
    for number in range(count):
        label = LABELS[number % distinct % len(LABELS)]
        path = folder / f"{number:0{digits}}_{label}{encoding.suffix}"
        if number < distinct:
            scene = Scene(label, _scene_seed(seed, number), height, width, float(rate))
            videos.append(_write(path, scene, encoding, rate, frames))
        else:
            shutil.copyfile(videos[number % distinct].path, path)
            videos.append(replace(videos[number % distinct], path=path))
    return videos


def _check(count: int, seed: int) -> None:
    if not 0 < count <= _SEEDS_EACH:
        raise UsageError(f"{count} videos: a number from 1 to {_SEEDS_EACH} belongs there")
    if seed < 0:
        raise UsageError(f"seed {seed}: a number from 0 belongs there")


_SEEDS_EACH = 1_000_000


def _scene_seed(seed: int, number: int) -> int:
    return HELD_OUT_SEED + seed * _SEEDS_EACH + number


def _write(path: Path, scene: Scene, encoding: Encoding, rate: Fraction, frames: int) -> ShapeVideo:
    with av.open(str(path), "w", format=encoding.container, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(encoding.codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, encoding.pixels
        stream.bit_rate = int(encoding.bits_per_pixel * scene.width * scene.height * rate)
        stream.options = {"flags": "+bitexact", **encoding.options}
        stream.codec_context.thread_count = 1  # one thread: the same bytes on every machine
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.frame(index), format="rgb24")))
        container.mux(stream.encode(None))
    return ShapeVideo(path, scene.label, scene.seed, encoding.name, scene.width, scene.height, rate, frames)
