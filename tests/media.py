"""Small videos and frame folders, encoded on the fly; every file is made by the codecs bundled with PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image


def has_encoder(name: str) -> bool:
    """Whether this PyAV can encode with the codec ``name``; a test of a rare format skips without it."""
    try:
        return bool(av.Codec(name, "w").is_encoder)
    except ValueError:
        return False


def moving(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """``count`` RGB pictures, uint8 ``[height, width, 3]``, of a bright square that moves over a gradient."""
    base = np.zeros((height, width, 3), np.uint8)
    base[..., 0] = np.linspace(20, 200, width, dtype=np.uint8)
    base[..., 1] = np.linspace(20, 200, height, dtype=np.uint8)[:, None]
    pictures = []
    for index in range(count):
        picture = base.copy()
        left = (3 * index) % (width - 8)
        picture[8:16, left : left + 8] = (250, 240, 20 + index % 200)
        pictures.append(picture)
    return pictures


def noise(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """``count`` RGB pictures of noise: they compress badly, so each one takes a fair share of the file."""
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def patches(width: int = 64, height: int = 48) -> np.ndarray:
    """Four flat colours and a white corner, uint8 ``[height, width, 3]``: any turn or mirroring changes it."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (200, 60, 40)
    picture[: height // 2, width // 2 :] = (40, 180, 70)
    picture[height // 2 :, : width // 2] = (50, 70, 190)
    picture[height // 2 :, width // 2 :] = (120, 130, 110)
    picture[: height // 6, : width // 8] = 235
    return picture


BT601 = (0.299, 0.114)
BT709 = (0.2126, 0.0722)
BT2020 = (0.2627, 0.0593)
"""Kr and Kb (ITU-R BT.601, BT.709, BT.2020)."""


def to_yuv(
    rgb: np.ndarray, *, matrix: tuple[float, float] = BT601, full: bool = False, bits: int = 8
) -> list[np.ndarray]:
    """RGB of 0…255 to unrounded Y, Cb and Cr of ``bits`` bits, in float64, by the standards' own formulas."""
    kr, kb = matrix
    red, green, blue = (rgb[..., channel] / 255.0 for channel in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    scale = 2.0 ** (bits - 8)
    if full:
        top = 2.0**bits - 1
        return [luma * top, cb * top + 128 * scale, cr * top + 128 * scale]
    return [(16 + 219 * luma) * scale, (128 + 224 * cb) * scale, (128 + 224 * cr) * scale]


def to_rgb(planes: Sequence[np.ndarray], *, matrix: tuple[float, float] = BT601, full: bool = False) -> np.ndarray:
    """8-bit Y, Cb and Cr of one size to unrounded, clipped RGB of 0…255, in float64: the inverse of ``to_yuv``."""
    kr, kb = matrix
    y, cb, cr = (plane.astype(np.float64) for plane in planes)
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((chroma - 128) / (255 if full else 224) for chroma in (cb, cr))
    red, blue = luma + (2 - 2 * kr) * cr, luma + (2 - 2 * kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(255 * np.stack([red, green, blue], -1), 0, 255)


def yuv_frame(planes: Sequence[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    """A frame of planes that have their final sizes and values already (rounded here)."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    kind = "<u2" if pix_fmt.endswith("le") else "u1"
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((values.shape[0], plane.line_size // np.dtype(kind).itemsize), kind)
        rows[:, : values.shape[1]] = np.rint(values)
        plane.update(rows.tobytes())
    return frame


def halve(plane: np.ndarray, *, rows: bool = True) -> np.ndarray:
    """Chroma at half the columns (and rows), each value the mean of those it stands for; odd sizes round up."""
    plane = np.pad(plane, ((0, plane.shape[0] % 2 if rows else 0), (0, plane.shape[1] % 2)), "edge")
    plane = (plane[:, ::2] + plane[:, 1::2]) / 2
    return (plane[::2] + plane[1::2]) / 2 if rows else plane


def yuv_or_rgb(rgb: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    """RGB as a frame of ``pix_fmt``; YUV by the exact formulas (BT.601; full range if the format's name says so)."""
    if "yuv" not in pix_fmt:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=pix_fmt)
    y, cb, cr = to_yuv(rgb, full="yuvj" in pix_fmt, bits=10 if "10" in pix_fmt else 8)
    if "444" not in pix_fmt:
        cb, cr = (halve(chroma, rows="420" in pix_fmt) for chroma in (cb, cr))
    alpha = [np.full(y.shape, 90.0)] if "yuva" in pix_fmt else []
    return yuv_frame([y, cb, cr, *alpha], pix_fmt)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray | av.VideoFrame],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int | Fraction = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    audio: bool = False,
    cover: bool = False,
    colorspace: int | None = None,
    color_range: int | None = None,
    gop: int = 12,
) -> Path:
    """Encode pictures (uint8 RGB arrays, or frames that already have ``pix_fmt``) to ``path``.

    Args:
        pts: of each picture, in ``time_base`` (1/rate where that is not given); 0, 1, 2 … by default.
        audio: adds a quarter of a second of sound for every six pictures, as a second stream.
        cover: adds an attached picture (cover art; MP4 takes it).
        colorspace: AVColorSpace written into the stream (1: BT.709, 5: BT.601, 9: BT.2020).
        color_range: AVColorRange written into the stream (1: limited, 2: full).
    """
    frames = [_frame(picture, pix_fmt) for picture in pictures]
    with av.open(
        str(path), "w", format=container_format, options={"fflags": "+bitexact", **(container_options or {})}
    ) as output:
        if cover:
            art = output.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = 16, 16, "rgb24"
            # A plain number, since PyAV before 17.1 takes no other.
            art.disposition = av.stream.Disposition.attached_pic.value
        video: Any = output.add_stream(codec, rate=rate, options=options or {})
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        video.codec_context.thread_count = 1
        video.gop_size = gop
        if time_base is not None:
            video.codec_context.time_base = time_base
        if colorspace is not None:
            video.codec_context.colorspace = colorspace
        if color_range is not None:
            video.codec_context.color_range = color_range
        sound: Any = None
        if audio:
            sound = output.add_stream("aac", rate=8000)
            sound.layout = "mono"
        if cover:
            packets = art.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 255, np.uint8), "rgb24"))
            output.mux([*packets, *art.encode(None)])
        for index, frame in enumerate(frames):
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base or 1 / Fraction(rate)
            if colorspace is not None:
                frame.colorspace = colorspace
            if color_range is not None:
                frame.color_range = color_range
            output.mux(video.encode(frame))
            if sound is not None and index % 6 == 0:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 2000), np.float32), format="fltp", layout="mono")
                tone.sample_rate = 8000
                tone.pts = 2000 * (index // 6)
                output.mux(sound.encode(tone))
        output.mux(video.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    return path


def write_frames(folder: Path, pictures: Iterable[np.ndarray], *, first: int = 1, ending: str = ".jpg") -> Path:
    """A frame folder ``image_00001.jpg`` …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures, start=first):
        Image.fromarray(picture).save(folder / f"image_{number:05d}{ending}")
    return folder


def cut(path: Path, to: Path, share: float) -> Path:
    """A copy of ``path`` that ends after ``share`` of its bytes."""
    whole = path.read_bytes()
    to.write_bytes(whole[: int(len(whole) * share)])
    return to


def _frame(picture: np.ndarray | av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    if isinstance(picture, av.VideoFrame):
        return picture
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=pix_fmt)
