"""Pixels of decoded frames: right in colour, in orientation, in scale, and equal to the reference's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import media
import numpy as np
import pytest
from PIL import Image

from clipmux.engine.errors import VideoError
from clipmux.workers.decode import Frame, decode
from clipmux.workers.exact import Exact
from clipmux.workers.fast import Fast
from clipmux.workers.sources import Video, list_annotated

H264_EXACT = {"qp": "0", "preset": "ultrafast"}


def pixels(path: Path, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """As ``Exact`` has them; ``Fast`` must be near wherever these tests look."""
    exact, fast = Exact(height, width), Fast(height, width)
    found = []
    for frame in decode(Video(path.stem, path, "file")):
        found.append(exact(frame))
        assert np.abs(fast(frame).astype(int) - found[-1]).max() <= 2
    return found


def assert_patches(found: np.ndarray, within: int = 2) -> None:
    """Colours in the middle of each patch, away from edges that chroma subsampling softens."""
    expected = media.patches(found.shape[1], found.shape[0])
    height, width = found.shape[:2]
    for y in (height // 12, height // 3, height * 3 // 4):
        for x in (width // 16, width // 4, width * 3 // 4):
            area = (slice(y - 1, y + 2), slice(x - 1, x + 2))
            difference = np.abs(found[area].astype(int) - expected[area].astype(int)).max()
            assert difference <= within, f"at {x}, {y}: {found[y, x]} instead of {expected[y, x]}"


# --- geometry --------------------------------------------------------------------------------------------------------


def test_pixels_equal_the_reference_exactly(shared_data: Path) -> None:
    golden = shared_data / "mini_kinetics"
    listing = list_annotated(golden / "kinetics.json", golden / "jpg")
    assert len(listing.videos) == 6
    exact = Exact(112, 112)
    with np.load(golden / "expected" / "clips.npz") as expected:
        for video in listing.videos:
            frames = list(decode(video))
            last = range(16 * ((len(frames) - 1) // 16), len(frames))
            window = [last[index % len(last)] for index in range(16)]  # the last window repeats itself to 16 frames
            clip = np.stack([exact(frames[index]) for index in window])
            np.testing.assert_array_equal(clip, expected[f"{video.video_id}/last_clip_uint8"])


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((340, 256), (148, 112)),
        ((256, 340), (112, 148)),
        ((426, 240), (198, 112)),
        ((176, 144), (136, 112)),
        ((113, 112), (113, 112)),  # half a pixel too many: it is cut off on the right
        ((115, 112), (115, 112)),  # one and a half: round half to even, two on the left and one on the right
        ((112, 112), (112, 112)),
        ((64, 48), (149, 112)),
        ((1, 1), (112, 112)),
    ],
)
def test_the_shorter_side_becomes_112_and_the_centre_is_cut_out(size: tuple[int, int], crop: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    left, top = int(round((crop[0] - 112) / 2.0)), int(round((crop[1] - 112) / 2.0))  # noqa: RUF046  (the reference's words)
    expected = image.resize(crop, Image.Resampling.BILINEAR).crop((left, top, left + 112, top + 112))

    found = Exact(112, 112)(Frame(image, None, None))

    assert found.shape == (112, 112, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_other_shapes_are_covered_and_cut() -> None:
    image = Image.fromarray(media.patches(128, 96))
    assert_patches(Exact(48, 64)(Frame(image, None, None)))
    for height, width in ((10, 200), (200, 10), (31, 17)):
        assert Exact(height, width)(Frame(image, None, None)).shape == (height, width, 3)


def test_pictures_in_other_modes_become_rgb() -> None:
    grey = Image.fromarray(np.full((48, 64), 77, np.uint8))
    assert (Exact(48, 64)(Frame(grey, None, None)) == 77).all()


# --- colour ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "tag"), [(media.BT601, 5), (media.BT601, 6), (media.BT709, 1), (media.BT2020, 9)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_matrix_range_and_depth_follow_the_tags(
    tmp_path: Path, pix_fmt: str, matrix: tuple[float, float], tag: int, full: bool
) -> None:
    bits = 10 if "10" in pix_fmt else 8
    y, cb, cr = media.to_yuv(media.patches(), matrix=matrix, full=full, bits=bits)
    if "444" not in pix_fmt:
        cb, cr = (media.halve(chroma, rows="420" in pix_fmt) for chroma in (cb, cr))
    path = media.write_video(
        tmp_path / "a.mkv",
        [media.yuv_frame([y, cb, cr], pix_fmt)],
        codec="ffv1",
        pix_fmt=pix_fmt,
        colorspace=tag,
        color_range=2 if full else 1,
    )
    assert_patches(pixels(path)[0])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", H264_EXACT),  # untagged: BT.601
        ("a.mkv", "libx264", "yuv444p", H264_EXACT),
        ("a.mkv", "libx264", "yuv420p10le", H264_EXACT),
        ("a.mkv", "libx264rgb", "rgb24", H264_EXACT),
        ("a.avi", "mjpeg", "yuvj420p", {"q": "1", "qmin": "1"}),
        ("a.mov", "mjpeg", "yuvj444p", {"q": "1", "qmin": "1"}),
        ("a.mov", "prores_ks", "yuv422p10le", {"profile": "hq"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {"lossless": "1", "cpu-used": "8"}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"lossless": "1", "cpu-used": "8"}),
        ("a.ts", "libx265", "yuv420p10le", {"x265-params": "log-level=none:lossless=1"}),
        ("a.mkv", "ffv1", "gbrp10le", {}),
        ("a.mkv", "ffv1", "bgra", {}),
        ("a.mkv", "ffv1", "yuva420p", {}),
        ("a.mov", "png", "rgb24", {}),
        ("a.mov", "png", "rgba", {}),
        ("a.mov", "qtrle", "rgb24", {}),
        ("a.mov", "qtrle", "argb", {}),
        ("a.avi", "huffyuv", "yuv422p", {}),
        ("a.avi", "rawvideo", "bgr24", {}),
        ("a.ts", "mpeg2video", "yuv420p", {"qmin": "1", "qmax": "1", "qscale": "1"}),
    ],
)
def test_codecs_and_pixel_formats(tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]) -> None:
    if not media.has_encoder(codec):
        pytest.skip(f"this PyAV has no encoder {codec}")
    path = media.write_video(
        tmp_path / name, [media.yuv_or_rgb(media.patches(), pix_fmt)], codec=codec, pix_fmt=pix_fmt, options=options
    )
    assert_patches(pixels(path)[0])


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey(tmp_path: Path, pix_fmt: str) -> None:
    luma = np.add.outer(np.arange(48), 3 * np.arange(64)).astype(np.float64)
    scale = 4 if pix_fmt == "gray10le" else 1
    frame = media.yuv_frame([luma * scale], pix_fmt)
    found = pixels(media.write_video(tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt=pix_fmt))[0]
    assert np.abs(found - luma[..., None]).max() <= 2


def test_a_palette(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 20:] = (255, 0, 0)
    picture[30:] = (0, 0, 255)
    path = tmp_path / "a.gif"
    Image.fromarray(picture).quantize(4).save(path)
    np.testing.assert_array_equal(pixels(path)[0], picture)


@pytest.mark.parametrize(("matrix", "tag"), [(media.BT601, 6), (media.BT709, 1)])
def test_no_bias_against_float64(tmp_path: Path, matrix: tuple[float, float], tag: int) -> None:
    generator = np.random.default_rng(1)
    rgb = generator.integers(0, 256, (24, 32, 3)).repeat(8, 0).repeat(8, 1)
    y, cb, cr = (np.rint(plane) for plane in media.to_yuv(rgb, matrix=matrix))
    frame = media.yuv_frame([y, cb[::2, ::2], cr[::2, ::2]], "yuv420p")
    path = media.write_video(
        tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt="yuv420p", colorspace=tag, color_range=1
    )
    middle = (slice(4, None, 8), slice(4, None, 8))  # flat squares of 8: chroma there is what it was, unmixed
    expected = media.to_rgb([y, cb, cr], matrix=matrix)[middle]
    difference = pixels(path, 192, 256)[0][middle] - expected
    assert np.abs(difference).max() <= 1.5
    assert np.abs(difference.mean((0, 1))).max() <= 0.25


def test_the_conversion_follows_a_change_of_tags(tmp_path: Path) -> None:
    exact = Exact(48, 64)
    for matrix, tag in ((media.BT601, 6), (media.BT709, 1), (media.BT601, 6)):
        y, cb, cr = media.to_yuv(media.patches(), matrix=matrix)
        frame = media.yuv_frame([y, media.halve(cb), media.halve(cr)], "yuv420p")
        frame.colorspace = tag
        assert_patches(exact(Frame(frame, 0.0, 0.04)))


def test_odd_sizes_and_padded_lines() -> None:
    for width, height in ((65, 49), (33, 27), (31, 17)):
        y, cb, cr = media.to_yuv(media.patches(width, height))
        frame = media.yuv_frame([y, media.halve(cb), media.halve(cr)], "yuv420p")
        found = Exact(height, width)(Frame(frame, 0.0, 0.04))
        assert found.shape == (height, width, 3)
        np.testing.assert_allclose(found[height * 3 // 4, width // 4], (50, 70, 190), atol=2)
        np.testing.assert_allclose(found[height * 3 // 4, width - 2], (120, 130, 110), atol=2)


def test_interlaced_chroma_stays_in_its_field(tmp_path: Path) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[::2] = (200, 60, 40)
    rgb[1::2] = (50, 70, 190)
    y, cb, cr = media.to_yuv(rgb)
    # Rows of chroma alternate between the fields, as the rows of luma do.
    cb, cr = (
        np.repeat(chroma[:2], 12, axis=0).reshape(2, 12, 64).swapaxes(0, 1).reshape(24, 64) for chroma in (cb, cr)
    )
    frame = media.yuv_frame([y, cb[:, ::2], cr[:, ::2]], "yuv420p")
    path = media.write_video(
        tmp_path / "a.mkv",
        [frame],
        options={**H264_EXACT, "x264-params": "tff=1"},
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    found = pixels(path)[0]
    assert np.abs(found[4:-4].astype(int) - rgb[4:-4]).max() <= 2


def test_tags_that_libswscale_refuses_have_stand_ins() -> None:
    for tag, matrix in ((3, media.BT601), (10, media.BT2020)):  # reserved; BT.2020 with constant luminance
        y, cb, cr = media.to_yuv(media.patches(), matrix=matrix)
        frame = media.yuv_frame([y, media.halve(cb), media.halve(cr)], "yuv420p")
        frame.colorspace = tag
        assert_patches(Exact(48, 64)(Frame(frame, 0.0, 0.04)))


def test_a_format_without_conversion_is_an_error_of_its_video() -> None:
    exact = Exact(48, 64)
    with pytest.raises(VideoError, match=r"64 × 48 in the format 'rgbaf32le' .* cannot be converted to RGB") as caught:
        exact(Frame(av.VideoFrame(64, 48, "rgbaf32le"), 0.0, 0.04))
    assert caught.value.kind == "PixelFormat"
    assert_patches(exact(Frame(media.yuv_or_rgb(media.patches(), "yuv420p"), 0.0, 0.04)))  # the next video is not


def test_an_absurd_shape_is_an_error_of_its_video() -> None:
    assert Exact(112, 112)(Frame(Image.new("RGB", (1, 1000)), None, None)).shape == (112, 112, 3)
    with pytest.raises(VideoError, match="1 × 1001 is more than 1,000 times as long as wide") as caught:
        Exact(112, 112)(Frame(Image.new("RGB", (1, 1001)), None, None))
    assert caught.value.kind == "PictureShape"


# --- orientation -----------------------------------------------------------------------------------------------------

ONE = 1 << 16
TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "as it is": ((ONE, 0, 0, ONE), lambda p: p),
    "a quarter clockwise": ((0, ONE, -ONE, 0), lambda p: np.rot90(p, -1)),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda p: np.rot90(p, 2)),
    "a quarter counterclockwise": ((0, -ONE, ONE, 0), lambda p: np.rot90(p, 1)),
    "left and right swapped": ((-ONE, 0, 0, ONE), lambda p: p[:, ::-1]),
    "top and bottom swapped": ((ONE, 0, 0, -ONE), lambda p: p[::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -ONE, -ONE, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


def turn(path: Path, abcd: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the track header (tkhd, ISO/IEC 14496-12, 8.3.2) of an MP4 file."""
    content = bytearray(path.read_bytes())
    identity = np.array([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], ">i4").tobytes()
    at = content.index(identity, content.index(b"tkhd"))
    a, b, c, d = abcd
    content[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("name", TURNS)
def test_turned_and_mirrored_videos_come_upright(tmp_path: Path, name: str) -> None:
    abcd, shown = TURNS[name]
    stored = media.patches()
    path = media.write_video(tmp_path / "a.mp4", [media.yuv_or_rgb(stored, "yuv420p")] * 3, options=H264_EXACT)
    turn(path, abcd)
    expected = shown(stored)
    found = pixels(path, *expected.shape[:2])
    assert len(found) == 3
    for picture in found:
        close = np.abs(picture.astype(int) - expected).max(-1) <= 2
        assert close.mean() > 0.8  # all but the edges between patches


def test_matrices_agree_with_the_rotation_that_libav_reads(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.moving(1))
    turn(path, TURNS["a quarter clockwise"][0])
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # counterclockwise in PyAV's words


# --- real videos against the reference's frames ----------------------------------------------------------------------


def test_no_bias_against_the_reference_on_real_videos(shared_data: Path) -> None:
    """The reference's frames are JPEGs scaled to 240 rows, where the videos had more; only colour is compared here."""
    golden = shared_data / "mini_kinetics"
    exact = Exact(112, 112)
    for video in list_annotated(golden / "kinetics.json", golden / "jpg").videos:
        path = golden / "videos" / str(video.label) / f"{video.video_id}.mp4"
        differences = []
        for ours, theirs in zip(decode(Video(path.stem, path, "file")), decode(video), strict=False):
            differences.append((exact(ours).astype(int) - exact(theirs)).mean((0, 1)))
            if len(differences) == 24:
                break
        bias = np.mean(differences, axis=0)
        print(video.video_id, np.round(bias, 3))
        assert np.abs(bias).max() <= 0.5, f"{video.video_id}: {bias}"
