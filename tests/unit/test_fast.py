"""The fast way to pixels: near the exact one everywhere, and the same with and without the compiled part."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import media
import numpy as np
import pytest

from clipmux.engine.errors import VideoError
from clipmux.workers import planes
from clipmux.workers.decode import Frame, decode
from clipmux.workers.exact import Exact
from clipmux.workers.fast import KR_KB, Fast, _colour, compiled
from clipmux.workers.sources import video_at
from clipmux.workers.taps import bilinear, fixed_point

FORMATS = (
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuv440p",
    "yuv444p",
    "yuva420p",
    "yuv420p10le",
    "yuv422p12le",
    "yuv444p14le",
)
SIZES = ((340, 256), (256, 340), (178, 146), (114, 112), (112, 112), (16, 16), (30, 70), (902, 698))
TURNS = {
    None: None,
    "quarter": (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30),
    "half": (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30),
    "mirrored": (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
    "three quarters": (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30),
}
OTHER_KERNELS: list[Any] = [planes]
if compiled is not None:  # what it does on processors that lack AVX2
    PLAN, PIXELS = compiled.plan, compiled.pixels
    OTHER_KERNELS.append(SimpleNamespace(plan=lambda *given: PLAN(*given, True), pixels=PIXELS))


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if compiled is None and os.environ.get("CI"):
        pytest.fail("the compiled part is not there: install a C compiler and Python's headers, then clipmux again")


def picture(pixels: str, width: int, height: int, *, noise: int = 40, seed: int = 0) -> av.VideoFrame:
    """Waves and noise; colours outside RGB's gamut among them, but no sample outside what BT.601 allows.

    (Beyond that, libswscale's sums overflow: the brightest luma with the most blue comes out without any blue.)
    """
    generator = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, pixels)
    bits = frame.format.components[0].bits
    for number, plane in enumerate(frame.planes):
        dtype = np.uint8 if bits == 8 else np.dtype("<u2")
        lines = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
        y, x = np.mgrid[: plane.height, : plane.width]
        wave = np.sin(x / (9 + 4 * number)) + np.cos(y / (13 - 3 * number))
        values = (128 + 50 * wave + generator.normal(0, noise, wave.shape)) * 2 ** (bits - 8)
        lines[:] = np.clip(values, 16 * 2 ** (bits - 8), 235 * 2 ** (bits - 8))
    return frame


def assert_near(found: np.ndarray, exact: np.ndarray, most: int = 255) -> None:
    apart = found.astype(int) - exact
    assert np.abs(apart).max() <= most
    assert np.abs(apart).mean() <= 0.4
    assert np.abs(apart.mean(axis=(0, 1))).max() <= 0.15
    assert np.percentile(np.abs(apart), 99.9) <= 12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pixels", FORMATS)
def test_it_is_near_exact_and_equal_in_numpy(pixels: str, size: tuple[int, int]) -> None:
    # Four pixels of strong noise are not one pixel: pictures that are shrunk a lot are tried with what cameras show.
    frame = Frame(picture(pixels, *size, noise=40 if min(size) < 600 else 2), 0.0, 0.04)
    found = Fast(112, 112)(frame)
    assert_near(found, Exact(112, 112)(frame), most=3)
    for kernel in OTHER_KERNELS:
        np.testing.assert_array_equal(found, Fast(112, 112, kernel)(frame))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(340, 256), (212, 124), (1000, 700)])
def test_turned_and_interlaced_pictures(
    tmp_path: Path, size: tuple[int, int], interlaced: bool, turn: str | None
) -> None:
    content = picture("yuv420p", *size, noise=40 if size[0] < 600 else 2)
    options = {"qp": "0", "preset": "ultrafast", "x264-params": f"tff={int(interlaced)}"}
    path = media.write_video(tmp_path / "a.mkv", [content], options=options)
    (decoded,) = decode(video_at(path))
    assert isinstance(decoded.picture, av.VideoFrame)
    assert decoded.picture.interlaced_frame == interlaced
    frame = Frame(decoded.picture, 0.0, 0.04, TURNS[turn])
    found = Fast(112, 96)(frame)
    assert_near(found, Exact(112, 96)(frame))
    for kernel in OTHER_KERNELS:
        np.testing.assert_array_equal(found, Fast(112, 96, kernel)(frame))
    assert found.flags.c_contiguous


def test_sizes_of_clips_that_are_no_multiples_of_anything() -> None:
    frame = Frame(picture("yuv420p", 340, 256, noise=2), 0.0, 0.04)
    for height, width in ((112, 112), (224, 224), (37, 53), (1, 1), (182, 240)):
        found = Fast(height, width)(frame)
        if height > 1:
            assert_near(found, Exact(height, width)(frame))
        for kernel in OTHER_KERNELS:
            np.testing.assert_array_equal(found, Fast(height, width, kernel)(frame))


def test_real_videos_are_near_exact(shared_data: Path) -> None:
    """The bar of docs/benchmarks.md."""
    seen = 0
    for path in sorted((shared_data / "mini_kinetics" / "videos").glob("*/*.mp4")):
        exact, fast, numpy = Exact(112, 112), Fast(112, 112), Fast(112, 112, planes)
        frames = list(islice(decode(video_at(path)), 0, None, 8))
        expected, found = (np.stack([way(frame) for frame in frames]) for way in (exact, fast))
        apart = found.astype(int) - expected
        assert np.abs(apart).mean() <= 0.4
        assert np.abs(apart.mean(axis=(0, 1, 2))).max() <= 0.15
        assert np.percentile(np.abs(apart), 99.9) <= 12
        np.testing.assert_array_equal(found[0], numpy(frames[0]))
        seen += 1
    assert seen == 6


@pytest.mark.parametrize(("width", "height"), [(177, 144), (176, 145), (15, 15)])
def test_odd_sizes_go_the_exact_way(width: int, height: int) -> None:
    frame = Frame(picture("yuv420p", width, height), 0.0, 0.04)
    np.testing.assert_array_equal(Fast(112, 112)(frame), Exact(112, 112)(frame))


@pytest.mark.parametrize("pixels", ["rgb24", "gbrp", "nv12", "gray", "yuv411p", "yuyv422", "yuv420p10be", "yuv410p"])
def test_other_formats_go_the_exact_way(pixels: str) -> None:
    frame = Frame(picture("yuv420p", 160, 120).reformat(format=pixels), 0.0, 0.04)
    np.testing.assert_array_equal(Fast(112, 112)(frame), Exact(112, 112)(frame))


def any_plan(generator: np.random.Generator) -> tuple[tuple[Any, ...], tuple[int, int], list[np.ndarray]]:
    """What ``plan`` may be given, the size of the result, and planes of any words, tight to their last byte."""
    bits = int(generator.choice([8, 8, 9, 10, 12, 14]))
    halved = int(generator.random() < 0.25)
    across, down = (1, 1) if halved else generator.integers(1, 3, 2).tolist()
    height, width = (generator.integers(4, 70, 2) * (down, across)).tolist()
    result = height_of_result, width_of_result = tuple(generator.integers(1, 40, 2).tolist())
    scale = max(height_of_result / height, width_of_result / width)
    scaled = max(height_of_result, int(height * scale)), max(width_of_result, int(width * scale))
    flips = generator.choice([1, -1], 2)
    rows = bilinear(height, scaled[0], height_of_result)[:, :: flips[0]]
    columns = bilinear(width, scaled[1], width_of_result)[:, :: flips[1]]
    black, white = ((0, 255), (16, 219))[int(generator.integers(2))]
    shares = list(KR_KB.values())[int(generator.integers(len(KR_KB)))]
    colour = ((black << 6) - int(generator.integers(33)), white, *_colour(*shares, full=white == 255))
    taps = fixed_point(rows, gain=255 / white), fixed_point(columns)
    given = (bits, across, down, halved, height // down, width // across, *taps, colour)
    dtype, chroma = np.uint8 if bits == 8 else np.uint16, (height // down, width // across)
    most = int(np.iinfo(dtype).max)
    filled = [
        generator.integers(0, most, size, dtype, endpoint=True)
        if generator.random() < 0.5
        else generator.choice([0, (1 << bits) - 1, most], size).astype(dtype)
        for size in ((height << halved, width << halved), chroma, chroma)
    ]
    return given, result, filled


@pytest.mark.parametrize("seed", range(150))
def test_any_planes_give_the_same_in_numpy(seed: int) -> None:
    given, result, filled = any_plan(np.random.default_rng(seed))
    buffers = [part for plane in filled for part in (plane.tobytes(), plane.strides[0])]
    found = []
    for kernel in (*OTHER_KERNELS, compiled):
        if kernel is not None:
            plan, out = kernel.plan(*given), np.empty((*result, 3), np.uint8)
            for _ in range(2):  # a plan serves many pictures
                kernel.pixels(plan, out, *buffers)
            found.append(out)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_planes_that_are_too_small_are_refused() -> None:
    """Foreign sizes must never make the compiled part read outside a plane."""
    fast = Fast(112, 112)
    content = picture("yuv420p", 340, 256)
    fast(Frame(content, 0.0, 0.04))
    (prepared,) = fast._prepared.values()
    assert prepared is not None
    y, u, v = (bytes(plane) for plane in content.planes)
    line, half = content.planes[0].line_size, content.planes[1].line_size
    out = np.empty((112, 112, 3), np.uint8)
    kernels = [planes] if compiled is None else [planes, compiled]
    for kernel in kernels:
        plan = Fast(112, 112, kernel)
        plan(Frame(content, 0.0, 0.04))
        (ready,) = plan._prepared.values()
        assert ready is not None
        kernel.pixels(ready.plan, out, y, line, u, half, v, half)
        for wrong in (
            (y[: len(y) // 2], line, u, half, v, half),
            (y, line // 2, u, half, v, half),
            (y, -line, u, half, v, half),
            (y, line, u[:-half], half, v, half),
            (y, line, u, half, v, 1),
            (b"", 0, b"", 0, b"", 0),
            (y, 1 << 62, u, half, v, half),
        ):
            with pytest.raises((ValueError, OverflowError)):
                kernel.pixels(ready.plan, out, *wrong)
    if compiled is not None:
        with pytest.raises(ValueError, match="not what was planned"):
            compiled.pixels(prepared.plan, np.empty((1, 1, 3), np.uint8), y, line, u, half, v, half)


@pytest.mark.skipif(compiled is None, reason="numpy's numbers are long enough")
def test_a_side_that_is_too_long_for_the_kernel_goes_the_exact_way() -> None:
    frame = Frame(av.VideoFrame(66_000, 66, "yuv420p"), 0.0, 0.04)
    np.testing.assert_array_equal(Fast(16, 16)(frame), Exact(16, 16)(frame))


def test_absurd_shapes_are_refused_as_exact_does() -> None:
    frame = Frame(av.VideoFrame(16, 16 * 1001, "yuv420p"), 0.0, 0.04)
    with pytest.raises(VideoError, match="times as long as wide"):
        Fast(112, 112)(frame)


def test_it_says_what_does_the_work() -> None:
    assert Fast(112, 112).chosen == ("fast, compiled" if compiled else "fast, in numpy: no C compiler was there")
    assert Fast(112, 112, planes).chosen == "fast, in numpy: no C compiler was there"
