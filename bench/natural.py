"""Videos that cost a decoder what filmed ones do: textured moving pictures, encoded as people's videos are.

Flat shapes decode unrealistically fast: most of their blocks are skipped. Here a texture whose detail falls off with
its fineness as in photographs (amplitude 1/f) passes by, a second one moves over it, and each frame has grain of its
own. At CRF 23 that gives about the bits per pixel that filmed videos of Kinetics have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import UsageError

from .videos import ENCODINGS

Pixels = npt.NDArray[np.uint8]

_BITS_PER_PIXEL = 0.3
"""Of the codecs that have no CRF here."""

_QUALITY: dict[str, dict[str, str]] = {
    "libx264": {"crf": "23", "preset": "medium"},
    "libx265": {"crf": "28", "preset": "medium", "x265-params": "log-level=none:pools=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "4"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6"},
}
"""What people encode with; B-frames are x264's and x265's own default."""


@dataclass(frozen=True)
class Kind:
    """A codec in a container at one size; ``name`` is one of ``videos.ENCODINGS``."""

    name: str
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.name} {self.width}x{self.height}"


H264_KINDS = (Kind("h264-mp4", 340, 256), Kind("h264-mp4", 1280, 720), Kind("h264-mp4", 1920, 1080))
OTHER_KINDS = tuple(
    Kind(name, 340, 256) for name in ("hevc-mp4", "vp8-webm", "vp9-webm", "mpeg4-avi", "mjpeg-mov", "mpeg2-ts")
)


class Footage:
    """An endless moving picture.

    Args:
        width: columns, at least 16.
        height: rows, at least 16.
        seed: decides everything.
    """

    def __init__(self, width: int, height: int, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._size = (height, width)
        self._ground = _texture(rng, height, width)
        self._thing = _texture(rng, height, width)
        self._mask = _blob(height, width)
        # Columns and rows per frame, of the ground and of what moves over it.
        self._drift = rng.uniform(0.5, 2.5, (2, 2)) * rng.choice([-1, 1], (2, 2)) * (height / 256)
        self._grain = rng.normal(0, 3.0, (4, height, width, 1)).astype(np.float32)

    def frame(self, index: int) -> Pixels:
        """Frame ``index``: uint8 ``[height, width, 3]``, RGB."""
        row, column = np.round(self._drift[0] * index).astype(int)
        picture = np.roll(self._ground, (row, column), (0, 1))
        row, column = np.round(self._drift[1] * index).astype(int)
        mask = np.roll(self._mask, (row, column), (0, 1))
        picture = picture + mask * (self._thing - picture) + self._grain[index % len(self._grain)]
        pixels: Pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        return pixels


def _texture(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """A picture whose amplitudes fall with frequency as in photographs; float32 ``[height, width, 3]``, about 0…255.

    Colour is coarser than brightness, as it is there too.
    """
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    planes = []
    for power in (1.0, 1.7, 1.7):
        phases = np.exp(2j * np.pi * rng.uniform(size=frequency.shape))
        plane = np.fft.irfft2(phases / frequency**power, s=(height, width))
        planes.append(plane / plane.std())
    light, red, blue = planes
    channels = (118 + 45 * light + 18 * red, 112 + 45 * light - 6 * red - 6 * blue, 105 + 45 * light + 18 * blue)
    picture: npt.NDArray[np.float32] = np.stack(channels, axis=-1).astype(np.float32)
    return picture


def _blob(height: int, width: int) -> npt.NDArray[np.float32]:
    """A soft-edged ellipse in the middle: float32 ``[height, width, 1]``, 0…1."""
    rows = (np.arange(height)[:, None] - height / 2) / (height / 4)
    columns = (np.arange(width)[None] - width / 2) / (width / 5)
    mask: npt.NDArray[np.float32] = np.clip(6 * (1 - np.hypot(rows, columns)), 0, 1).astype(np.float32)[..., None]
    return mask


def write_natural_videos(
    folder: Path, kind: Kind, count: int, *, frames: int = 96, seed: int = 0, rate: Fraction = Fraction(30000, 1001)
) -> list[Path]:
    """Write ``count`` videos of one kind.

    Args:
        folder: made if it is not there.
        kind: codec and size.
        count: how many, all different.
        frames: of each.
        seed: of the first; the next have the next.
        rate: frames per second.

    Raises:
        UsageError: this build of PyAV cannot encode it, or a count that cannot be.
    """
    if count < 1 or frames < 1:
        raise UsageError(f"{count} videos of {frames} frames: give at least one of each")
    encoding = {encoding.name: encoding for encoding in ENCODINGS}.get(kind.name)
    if encoding is None:
        raise UsageError(
            f"there is no encoding '{kind.name}': one of {', '.join(encoding.name for encoding in ENCODINGS)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{kind.name}-{kind.width}x{kind.height}-{number:04}{encoding.suffix}"
        footage = Footage(kind.width, kind.height, seed=seed + number)
        with av.open(str(path), "w", format=encoding.container) as container:
            stream: Any = container.add_stream(encoding.codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, encoding.pixels
            if "crf" not in (quality := _QUALITY.get(encoding.codec, {})):
                bits = 1.0 if encoding.codec == "mjpeg" else _BITS_PER_PIXEL
                stream.bit_rate = int(bits * kind.width * kind.height * rate)
            stream.options = dict(quality)
            for index in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(footage.frame(index), format="rgb24")))
            container.mux(stream.encode(None))
        paths.append(path)
    return paths


def parse_kinds(text: str) -> Sequence[Kind]:
    """``h264-mp4:340x256,hevc-mp4:1280x720`` as kinds; ``h264`` and ``all`` stand for those that are usual.

    Raises:
        UsageError: something else.
    """
    if text in ("h264", "all"):
        return H264_KINDS if text == "h264" else (*H264_KINDS, *OTHER_KINDS)
    kinds = []
    for part in text.split(","):
        name, _, size = part.partition(":")
        width, _, height = size.partition("x")
        if not (width.isdecimal() and height.isdecimal() and 16 <= min(int(width), int(height)) <= 8192):
            raise UsageError(f"--kinds has '{part}': give h264, all, or the like of h264-mp4:340x256,vp9-webm:640x360")
        kinds.append(Kind(name, int(width) // 2 * 2, int(height) // 2 * 2))
    return kinds
